"""Drives one notebook through sandboxes, cell by cell, and takes from them nothing but checked and capped outputs.

Tests run outside of the sandbox where they can (examiner.py): what they ask of the student's objects goes in as messages of
crossing.py, and the sandbox never sees them. A cell that ends the process (a limit, a crash, os._exit) costs itself only: a
new sandbox runs the earlier cells that define things once more, without the tests among them and without the culprit, and
goes on with the cells that remain.
"""

import base64
import binascii
import contextlib
import json
import os
import re
from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from autograder.exam.examination import Examination
from autograder.exam.words import ANSWER, ASK, FORGED, TEST
from autograder.jobs import Limits, Usage, Verdict, stopped
from autograder.sandbox.base import ForgedReply, Outcome, Talk

MAX_RESTARTS = 8
MAX_REPLY = 16 * 2**20                  # bytes of one answer
MAX_TEXT = 250_000                      # characters of one text in an output
MAX_PNG = 2 * 2**20                     # characters of one picture in base64
MAX_OUTPUTS = 200                       # of one cell
MAX_ALL = 8 * 2**20                     # characters of a whole notebook

LIMIT_ERRORS = {r"^\w*MemoryError": Verdict.memory, r"Errno 28\]|Errno 27\]": Verdict.disk,
                r"^BlockingIOError: \[Errno 11\]|can't start new thread": Verdict.pids}

Outputs = list[dict[str, Any]]


class Cell(BaseModel):
    """A code cell to run.

    `kind`: `given` is locked and its names are the instructor's, `student` defines what the student answers for, `test` defines
    nothing that later cells need, so it is never run twice. `instructors`: the instructor's text of a cell, which says what it
    defines. `where` a test runs: `outside` of the sandbox with generators seeded for this student, `fixed` outside with the seeds
    it names, `inside` because it cannot cross. `keeps`: a test outside fails if an array that it gave away comes back changed; who
    could write into the input could make a wrong result right.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    name: str = ""
    source: str
    kind: Literal["given", "student", "test"] = "given"
    instructors: str | None = None
    where: Literal["outside", "fixed", "inside"] = "inside"
    keeps: bool = True

    @property
    def test(self) -> bool:
        return self.kind == "test"


class Notebook(BaseModel):
    """The cells of a rebuilt submission. `seed`: what the random inputs of this student's tests start from; a secret of the class."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    cells: list[Cell]
    seed: int | None = None


def run(notebook: Notebook, limits: Limits, start: Callable[[Talk, Limits], Outcome], examine: Callable[[Notebook], Examination],
        ) -> tuple[Verdict, str, Usage, dict[str, Outputs]]:
    """Outputs of every cell by its id, with verdict and sentence of the first that had to be stopped.

    `start` runs run_notebook.py in a fresh sandbox under the given limits and lets it talk. `examine` starts an examiner.
    """
    cells = notebook.cells
    done: dict[str, Outputs] = {}
    fatal: set[str] = set()
    verdict, sentence, usage, left = Verdict.ok, "", Usage(), limits
    for _ in range(1 + MAX_RESTARTS):
        again = [cell for cell in cells if cell.id in done and not cell.test and cell.id not in fatal]
        fresh = [cell for cell in cells if cell.id not in done]
        outside = any(cell.test and cell.where != "inside" for cell in fresh)
        with examine(notebook) if outside else contextlib.nullcontext() as examination:
            conversation = Conversation(again, fresh, done, limits, examination)
            outcome = start(conversation.talk, left)
        usage = usage.plus(outcome.usage)
        if outcome.verdict is Verdict.cancelled:
            return Verdict.cancelled, "", usage, {}
        if conversation.current is None:
            if outcome.verdict is not Verdict.ok and len(done) < len(cells):
                return Verdict.infra, f"the notebook runner did not start: {outcome.sentence}", usage, {}
            break
        said = outcome.sentence if outcome.verdict is not Verdict.ok else "the process ended in the middle of the cell"
        culprit = conversation.current
        done[culprit.id] = [stopped_output(said)]
        fatal.add(culprit.id)
        if verdict is Verdict.ok:
            verdict = outcome.verdict if outcome.verdict is not Verdict.ok else Verdict.crashed
            sentence = f"cell {culprit.name or culprit.id}: {said}"
        if outcome.verdict is Verdict.infra:
            return Verdict.infra, sentence, usage, {}
        remaining = limits.minus(usage)
        if len(done) == len(cells) or remaining is None:
            break
        left = remaining
    for cell in cells:
        if cell.id not in done:
            done[cell.id] = [stopped_output(f"not run, because the notebook was stopped before, in {sentence}")]
    return verdict, sentence, usage, capped(done)


def stopped_output(sentence: str) -> dict[str, Any]:
    """An error output that tells the student which limit was hit and by how much."""
    return {"output_type": "error", "ename": "Stopped", "evalue": sentence, "traceback": [f"Stopped: {sentence}"]}


class Conversation:
    """One sandbox's share of the cells: `again` for what they define, then `fresh`, whose outputs go into `done`."""

    def __init__(self, again: list[Cell], fresh: list[Cell], done: dict[str, Outputs], limits: Limits,
                 examination: Examination | None = None) -> None:
        self.queue = [*again, *fresh]
        self.known, self.done = {cell.id for cell in again}, done
        self.current: Cell | None = None
        self.token, self.ready = b"", False
        self.limits, self.examination = limits, examination
        self.buffer = bytearray()

    def talk(self, chunk: bytes) -> bytes | None:
        """See sandbox.base.Talk: the runner's lines in (an empty one when it is ready), the next cell out. Raises ForgedReply."""
        self.buffer += chunk
        line, newline, rest = self.buffer.partition(b"\n")
        if not newline:
            if len(self.buffer) > MAX_REPLY:
                raise ForgedReply("answered with more than a cell may put out")
            return b""
        if rest or (self.ready and self.current is None):
            raise ForgedReply("answered more than it was asked")
        self.buffer.clear()
        if self.current is None:
            self.ready = True
        elif self.current.test and self.current.where != "inside":
            if (message := self.examined(ANSWER + answered(bytes(line), self.token))) is not None:
                return message
        else:
            outputs = [_with_limit(output, self.limits) for output in checked(answered(bytes(line), self.token))]
            if self.current.id not in self.known:
                self.done[self.current.id] = outputs
        while self.queue:
            self.current = self.queue.pop(0)
            if not (self.current.test and self.current.where != "inside"):
                return self.sent(json.dumps({"name": self.current.name or self.current.id, "source": self.current.source}).encode())
            if (message := self.examined(TEST + json.dumps(self.current.id).encode())) is not None:
                return message
        self.current = None
        return None

    def sent(self, message: bytes) -> bytes:
        """A message for the sandbox, with a token that its answer must carry."""
        self.token = os.urandom(8).hex().encode()
        return self.token + b" " + message + b"\n"

    def examined(self, message: bytes) -> bytes | None:
        """Go on with a test outside: what it asks the sandbox, or None when it is done and its outputs are kept.

        The two talk through here; what they say to each other is read by them alone (crossing.py).
        """
        assert self.current is not None
        assert self.examination is not None
        try:
            said = self.examination.step(message, self.limits.cell_seconds)
            if said[:1] == ASK:
                return self.sent(said[1:])
            if said[:1] == FORGED:
                raise ForgedReply("the answer is not one of the notebook runner")
            outputs = [_output(output) for output in json.loads(said[1:])]
        except TimeoutError:
            outputs = [stopped_output(f"the test itself ran for more than {self.limits.cell_seconds:g} s")]
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            outputs = [stopped_output(f"the test ended its examiner ({type(error).__name__})")]
        self.done[self.current.id] = [_with_limit(output, self.limits) for output in outputs]
        return None


def answered(line: bytes, expected: bytes) -> bytes:
    """An answer without its token. Raises ForgedReply when that is another; what it says is for others to doubt."""
    token, _, answer = line.partition(b" ")
    if not expected or token != expected:
        raise ForgedReply("the answer is not one of the notebook runner")
    return answer


def checked(answer: bytes) -> Outputs:
    """The outputs in one answer: known kinds only, each text and picture within its cap. Raises ForgedReply."""
    try:
        outputs = json.loads(answer)["outputs"]
        if not isinstance(outputs, list):
            raise ValueError
        return [_output(output) for output in outputs[:MAX_OUTPUTS]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError) as error:
        raise ForgedReply("the answer of the cell is not one of the notebook runner") from error


def _output(output: dict[str, Any]) -> dict[str, Any]:
    kind = output["output_type"]
    if kind == "stream" and output["name"] in ("stdout", "stderr"):
        return {"output_type": kind, "name": output["name"], "text": _text(output["text"])}
    if kind == "error":
        lines = [_text(line) for line in output["traceback"][:500]]
        return {"output_type": kind, "ename": _text(output["ename"]), "evalue": _text(output["evalue"]), "traceback": lines}
    if kind in ("display_data", "execute_result"):
        # Text and pictures only: HTML or SVG of a student would run in the instructor's browser.
        data = {"text/plain": _text(output["data"]["text/plain"])}
        if "image/png" in output["data"]:
            data["image/png"] = _png(output["data"]["image/png"])
        extra = {"execution_count": None} if kind == "execute_result" else {}
        return {"output_type": kind, "data": data, "metadata": {}, **extra}
    raise ValueError(kind)


def _with_limit(output: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """Say the limit where Python met one by itself and knows only that something failed."""
    if output["output_type"] == "error":
        for sign, verdict in LIMIT_ERRORS.items():
            if re.search(sign, f"{output['ename']}: {output['evalue']}"):
                said = stopped(verdict, limits, Usage())
                output["evalue"] = f"{output['evalue']} ({said})".strip()
                output["traceback"].append(said)
    return output


def _text(text: object) -> str:
    if not isinstance(text, str):
        raise ValueError("not a text")
    return text[:MAX_TEXT].encode(errors="replace").decode()


def _png(text: object) -> str:
    if not isinstance(text, str) or len(text) > MAX_PNG:
        raise ValueError("not a picture within the cap")
    try:
        if not base64.b64decode(text, validate=True).startswith(b"\x89PNG\r\n\x1a\n"):
            raise ValueError("not a PNG")
    except binascii.Error as error:
        raise ValueError("not base64") from error
    return text


def capped(done: dict[str, Outputs]) -> dict[str, Outputs]:
    """Drop what exceeds the cap for a whole notebook; errors always stay, they decide points."""
    room = MAX_ALL
    for outputs in done.values():
        for output in list(outputs):
            room -= len(json.dumps(output))
            if room < 0 and output["output_type"] != "error":
                outputs.remove(output)
    return done
