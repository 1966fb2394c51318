"""Pictures in a terminal: a learning curve of blocks, digits of shades. ASCII where the terminal has no blocks."""

import numpy as np

from course.tito import show

BLOCKS, SHADES = " ▁▂▃▄▅▆▇█", " ░▒▓█"
PLAIN_BLOCKS, PLAIN_SHADES = " ....:::#", " .:*#"
HEIGHT = 8


def curve(values: list[float], top: float, columns: int) -> str:
    """Values 0..top as columns of eighths of a line, with an axis."""
    blocks = BLOCKS if show.unicode_output() else PLAIN_BLOCKS
    eighths = [round(value / top * HEIGHT * 8) for value in values]
    lines = []
    for row in reversed(range(HEIGHT)):
        cells = "".join(blocks[int(np.clip(height - row * 8, 0, 8))] for height in eighths)
        label = {HEIGHT - 1: f"{top:.1f}", HEIGHT // 2 - 1: f"{top / 2:.1f}", 0: "0.0"}.get(row, "")
        lines.append(f"{label:>4} |{cells:<{columns}}")
    return "\n".join(lines)


def digits(images: np.ndarray, captions: list[str]) -> str:
    """8 x 8 images side by side, each with a caption below."""
    shades = SHADES if show.unicode_output() else PLAIN_SHADES
    level = np.minimum((images * len(shades)).astype(int), len(shades) - 1)
    rows = ["   ".join("".join(2 * shades[v] for v in image[row]) for image in level) for row in range(8)]
    return "\n".join([*(row.rstrip() for row in rows), "   ".join(f"{caption:<16}" for caption in captions).rstrip()])
