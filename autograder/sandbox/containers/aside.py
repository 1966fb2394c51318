"""What the first program of a container (holder.py) says to us in the stderr of the student's: each time behind a mark, taken out here.

While the program runs, it says what a long one can go on from, in lines that are written whole (shorter than PIPE_BUF): `f` and a path,
`d` and a piece of that file, `e` when all of them were said. At the end comes its last word, which nothing follows: JSON. The program
does not know the mark; should one find it out, it can say nothing about itself that it could not have brought about.
"""

import base64
import contextlib

LARGEST = 64 * 2**20                    # of a last word, and of what is kept at a time


class Aside:
    """Fed with the program's stderr as it comes, cut anywhere."""

    def __init__(self, mark: bytes) -> None:
        self.mark = mark
        self.doubtful = bytearray()             # of the program, or how the mark begins
        self.text, self.last = bytearray(), False               # the last word, and whether it has begun
        self.line: bytearray | None = None      # of what is said while the program runs
        self.said = 0                           # bytes of it, so that nobody says more than there can be
        self.kept: dict[str, bytes] = {}        # the last whole state
        self.coming: dict[str, bytearray] = {}
        self.path = ""

    @property
    def whole(self) -> bool:
        return self.text.endswith(b"\n") or len(self.text) > LARGEST

    def before(self, piece: bytes) -> bytes:
        """What of the next piece the program has written, and of earlier ones that could have been a mark."""
        written, rest = bytearray(), bytes(self.doubtful + piece)
        self.doubtful = bytearray()
        while rest:
            if self.last:
                self.text += rest
                break
            if self.line is not None:
                begun, end, rest = rest.partition(b"\n")
                self.line += begun
                self.said += len(begun)
                if end:
                    self._take(bytes(self.line))
                    self.line = None
                continue
            before, mark, after = rest.partition(self.mark)
            if mark and not after:              # which of the two it is comes with the next piece
                self.doubtful += mark
            elif not mark:
                begun_mark = next((n for n in range(len(self.mark) - 1, 0, -1) if before.endswith(self.mark[:n])), 0)
                self.doubtful += before[len(before) - begun_mark:]
                before = before[:len(before) - begun_mark]
            elif after[:1] in b"fde":
                self.line = bytearray()
            else:
                self.last = True
            written += before
            rest = after
        return bytes(written)

    def _take(self, line: bytes) -> None:
        kind, content = line[:1], line[1:]
        if kind == b"f":
            self.path = content.decode(errors="replace")
            self.coming[self.path] = bytearray()
        elif kind == b"d" and self.path in self.coming and sum(map(len, self.coming.values())) < LARGEST:
            with contextlib.suppress(ValueError):               # nonsense can be of the program's making only
                self.coming[self.path] += base64.b64decode(content)
        elif kind == b"e":
            self.kept, self.coming, self.path = {path: bytes(content) for path, content in self.coming.items()}, {}, ""
