"""Runs inside the sandbox: takes one cell after the other from stdin, executes it, answers with its outputs on stdout.

Standard library only: it is mounted into the sandbox with crossing.py beside it. It replaces a Jupyter kernel because it
starts in the time of `import numpy`, where a kernel needs 0.6 s more, and because no IPython means none of its hooks for
rewriting later cells. Whoever drives it (grading.py) sends a cell only after the answer to the one before, so a test
is not in this process before its turn, and checks and caps all that comes back: student code runs in this process and
could say anything in its name.

First it writes an empty line. A message is a line: a token, a space, JSON. In: {"name": label, "source": text}; out: {"outputs":
[nbformat 4 outputs]}. Between cells come messages of crossing.py, by which tests outside use what the cells have made; their
answers carry what was printed meanwhile. An answer has its question's token, so that none can be written in advance.
"""

import ast
import base64
import builtins
import contextlib
import io
import json
import linecache
import os
import random
import re
import sys
import traceback
import types
import warnings

try:
    import crossing  # in the sandbox: the file beside this one
except ImportError:
    from autograder.exam import crossing

STREAM_CHARS = 200_000                  # of one cell, stdout and stderr together
REPR_CHARS = 20_000
TRACEBACK_CHARS = 20_000
FIGURES, FIGURE_BYTES = 8, 2**20        # of one cell
CUT = "\n... output cut here ...\n"


class Recorder:
    """The outputs of the running cell, in order, within its caps."""

    def __init__(self, describe):
        self.outputs, self.room, self.figures, self.describe = [], STREAM_CHARS, 0, describe

    def stream(self, name, text):
        if self.room < 0:
            return
        self.room -= len(text)
        if self.room < 0:
            text = text[:self.room] + CUT
        last = self.outputs[-1] if self.outputs else {}
        if last.get("output_type") == "stream" and last["name"] == name:
            last["text"].append(text)
        else:
            self.outputs.append({"output_type": "stream", "name": name, "text": [text]})

    def result(self, value, kind):
        data = {"text/plain": shorten(repr(value), REPR_CHARS)}
        picture = getattr(value, "_repr_png_", None)
        if callable(picture) and isinstance(png := picture(), bytes):
            self.figure(png, data)
            return
        extra = {"execution_count": None} if kind == "execute_result" else {}
        self.outputs.append({"output_type": kind, "data": data, "metadata": {}, **extra})

    def figure(self, png, data):
        self.figures += 1
        if self.figures <= FIGURES and len(png) <= FIGURE_BYTES:
            data = {**data, "image/png": base64.b64encode(png).decode()}
        self.outputs.append({"output_type": "display_data", "data": data, "metadata": {}})

    def error(self, error):
        text = str(error) if not isinstance(error, KeyError) else repr(error)
        self.outputs.append({"output_type": "error", "ename": type(error).__name__, "evalue": shorten(text, 5000),
                             "traceback": shorten(self.describe(error), TRACEBACK_CHARS).split("\n")})

    def taken(self):
        for output in self.outputs:
            if output["output_type"] == "stream":
                output["text"] = "".join(output["text"])             # of the parts, or of the text when it was taken before
        return self.outputs


class Stream(io.TextIOBase):
    """sys.stdout or sys.stderr of the cells."""

    encoding = "utf-8"

    def __init__(self, runner, name):
        self.runner, self.stream_name = runner, name

    def writable(self):
        return True

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.runner.recorder.stream(self.stream_name, text)
        return len(text)


class Runner:
    """Executes cells one after the other in one namespace."""

    def __init__(self, describe):
        self.describe, self.recorder, self.own = describe, Recorder(describe), sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")                    # the cells', without our names
        self.names = vars(sys.modules["__main__"])
        self.names.update(display=self.display, __builtins__=builtins)

    def display(self, *values, **_):
        """Show values among the outputs of the cell, as `display` does in a notebook."""
        for value in values:
            self.recorder.result(value, "display_data")

    def record(self):
        """From here on, what is printed belongs to a new cell."""
        self.recorder = Recorder(self.describe)
        sys.stdout, sys.stderr = Stream(self, "stdout"), Stream(self, "stderr")

    def run(self, text, label):
        self.record()
        filename = f"<cell {label}>"
        try:
            body, last = self.compiled(text, filename)
            linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
            exec(body, self.names)
            if last is not None:
                value = eval(last, self.names)
                if value is not None and not text.rstrip().endswith(";"):
                    self.names["_"] = value
                    self.recorder.result(value, "execute_result")
        except BaseException as error:                                            # SystemExit is a failed cell too
            with contextlib.suppress(BaseException):
                self.recorder.error(error)
            if not any(output["output_type"] == "error" for output in self.recorder.outputs):
                self.recorder.outputs.append({"output_type": "error", "ename": "Error", "evalue": "", "traceback": [
                    "an error that cannot be shown"]})
        with contextlib.suppress(Exception):
            self.show_figures()
        return self.recorder.taken()

    def compiled(self, text, filename):
        """The cell's statements, and the expression at its end if there is one."""
        return compiled(parse(text, filename, self.recorder), filename)

    def printed(self):
        """[stream, text] of what was printed since the last time."""
        streams = [[output["name"], output["text"]] for output in self.recorder.taken() if output["output_type"] == "stream"]
        self.record()
        return streams

    def show_figures(self):
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is None:
            return
        for number in pyplot.get_fignums():
            figure, png = pyplot.figure(number), io.BytesIO()
            figure.savefig(png, format="png", dpi=80, bbox_inches="tight", metadata={"Software": None})
            self.recorder.figure(png.getvalue(), {"text/plain": "<Figure>"})
            pyplot.close(figure)


def parse(text, filename, recorder):
    """The cell's syntax tree. Lines of IPython (%magic, !command) are left out, with a word, instead of failing the cell."""
    try:
        return ast.parse(text, filename)
    except SyntaxError:
        lines = [re.sub(r"^(\s*)[%!].*$", r"\1pass", line) for line in text.split("\n")]
        if "\n".join(lines) == text:
            raise
        tree = ast.parse("\n".join(lines), filename)
        recorder.stream("stdout", "lines that start with % or ! are not run while grading\n")
        return tree


def compiled(tree, filename):
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    return compile(tree, filename, "exec"), last and compile(ast.Expression(last.value), filename, "eval")


def describe(error):
    """The traceback without the frames of this runner."""
    whole = traceback.TracebackException.from_exception(error, limit=-30)
    for part in chain(whole):
        first = next((at for at, frame in enumerate(part.stack) if frame.filename.startswith("<cell ")), len(part.stack))
        del part.stack[:first]
    return "".join(whole.format()).rstrip("\n")


def chain(part):
    seen = []
    while part is not None and part not in seen:
        seen.append(part)
        part = part.__cause__ or part.__context__
    return seen


def shorten(text, limit):
    return text if len(text) <= limit else text[:limit // 2] + CUT + text[-limit // 2:]


def seed(number):
    random.seed(number)
    with contextlib.suppress(ImportError):
        import numpy
        numpy.random.seed(number)


def main():
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)                                              # input() meets the end of file
    os.dup2(2, 1)                                                                 # what C code and child processes print
    sys.path[:] = [path for path in sys.path if path not in ("", os.path.dirname(__file__))]
    sys.path.append(os.getcwd())                 # the student's own files, last: they must not stand in for a library
    sys.argv[:] = [""]
    warnings.filterwarnings("ignore", message=".*non-interactive.*cannot be shown.*")        # plt.show() is welcome
    seed(int(os.environ.get("JOB_SEED", "0")))
    runner, dump, load, own_pid, token = Runner(describe), json.dumps, json.loads, os.getpid(), b""

    def hear():
        nonlocal token
        line = incoming.readline()
        if not line:
            os._exit(0)                                                           # threads that live on do not keep us
        token, _, text = line.partition(b" ")
        return load(text)

    def say(message):
        if os.getpid() != own_pid:
            os._exit(0)                                                           # a child that the cell forked
        outgoing.write(token + b" " + dump(message).encode() + b"\n")
        outgoing.flush()

    def ask(message):
        say({**message, "printed": runner.printed()})
        return hear()

    far = crossing.Far(ask, runner.names)
    outgoing.write(b"\n")                                                         # ready
    outgoing.flush()
    while True:
        message = hear()
        if "source" in message:
            say({"outputs": runner.run(message["source"], message["name"])})
        else:
            runner.record()
            answer = far.served(far.unpacked(message))
            say({**answer, "printed": runner.printed()})


if __name__ == "__main__":
    main()
