"""The checkpoints as stops on a line: done, failed, next, open, or not in this course yet."""

from dataclasses import asdict, dataclass

from course.curriculum import checkpoints
from course.tito import show
from course.tito.progress import State
from course.tito.states import checkpoint_state, next_checkpoint

SIGNS = {"passed": "●", "next": "◉", "failed": "✗", "open": "○", "not in this course yet": "·"}
PLAIN_SIGNS = {"passed": "#", "next": "@", "failed": "x", "open": "o", "not in this course yet": "."}
WIDTH = 17                 # columns per stop of the horizontal drawing: the longest name fits
WIDEST = 120               # where the output is not a terminal, somebody may still read it


@dataclass(frozen=True)
class Stop:
    number: str
    name: str
    question: str
    state: str
    is_next: bool

    as_dict = asdict


def stops(state: State) -> list[Stop]:
    upcoming = next_checkpoint(state)
    return [Stop(c.number, c.name, c.question, checkpoint_state(c, state), c == upcoming) for c in checkpoints()]


def vertical(line: list[Stop]) -> None:
    """One stop per line, joined by a drawn rail."""
    from rich.text import Text
    console, signs = show.console(), _signs()
    rail, faint = ("│", "┊") if show.unicode_output() else ("|", ":")
    for index, stop in enumerate(line):
        if index:
            console.print(Text(f"  {rail if stop.state == 'passed' else faint}", style="dim"))
        word = f"{stop.state}, next" if stop.is_next and stop.state == "failed" else "next" if stop.is_next else stop.state
        console.print(_sign(stop, signs, "  "), f"{stop.number} {stop.name:<16}", show.styled(word), sep=" ")
        if stop.is_next:
            console.print(Text(f"  {faint}    {stop.question}   tito checkpoint test {stop.number}", style="dim"))
    _legend(signs)


def horizontal(line: list[Stop]) -> None:
    """Stops from left to right, as many as fit into a line, numbers above and names below."""
    from rich.text import Text
    console, signs = show.console(), _signs()
    dash, faint = ("─", "┄") if show.unicode_output() else ("-", ".")
    per_line = max(1, min(console.width, WIDEST) // WIDTH)
    for start in range(0, len(line), per_line):
        part = line[start:start + per_line]
        console.print(Text("".join(f"{stop.number:<{WIDTH}}" for stop in part).rstrip()))
        drawn = Text()
        for index, stop in enumerate(part):
            drawn.append_text(_sign(stop, signs))
            if start + index < len(line) - 1:
                drawn.append((dash if stop.state == "passed" else faint) * (WIDTH - 1), style="dim")
        console.print(drawn)
        console.print(Text("".join(f"{stop.name:<{WIDTH}}" for stop in part).rstrip(), style="dim"))
        console.print()
    _legend(signs)


def _signs() -> dict[str, str]:
    return SIGNS if show.unicode_output() else PLAIN_SIGNS


def _sign(stop: Stop, signs: dict[str, str], before: str = ""):
    from rich.text import Text
    word = "next" if stop.is_next and stop.state == "open" else stop.state
    return Text(before + signs[word], style=show.COLOURS.get(word, ""))


def _legend(signs: dict[str, str]) -> None:
    print("   ".join(f"{sign} {word}" for word, sign in signs.items()))
