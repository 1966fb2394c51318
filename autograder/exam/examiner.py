"""Runs an instructor's test cells outside of the sandbox, against the objects of a student inside of it.

    python -m autograder.exam.examiner       started by examination.py with a socket as stdin; forks for each examination

What a test says decides points, so nothing of the student's runs here. A test's names are looked up when it uses them: what a
solution cell or an exported cell defines, and what comes from `tinytorch`, is the student's and stays in the sandbox (see
crossing.py); what any other locked cell defines (imports, helpers, data) is made here, statement by statement, as far as
tests need it.

Lines in: `t` and the id of a test as JSON, or `a` and the sandbox's answer. Out: `?` and a message for the sandbox, `!` and the
outputs of the test as JSON, or `x` when the answer was none.
With a seed, NumPy's generators start elsewhere for every student and run, so that remembered answers do not help.
"""

import ast
import builtins
import contextlib
import gc
import json
import os
import signal
import socket
import sys
import traceback
from typing import Any

from autograder.exam import crossing
from autograder.exam.run_notebook import TRACEBACK_CHARS, Runner, compiled, shorten
from autograder.exam.words import ANSWER, ASK, DONE, FORGED

WRITTEN = "the notebook's code wrote into an array that this test gave it, so its result cannot be compared: work on a copy"
ASSIGNMENTS = 4                                              # how many are kept compiled
OURS = ("tinytorch.data", "tinytorch.testing")            # what holds data, and what judges or measures


class Names(dict):
    """The globals of test cells: what is missing is fetched from the student or made from the instructor's statements."""

    def __init__(self, definitions, ask):
        super().__init__(__builtins__=builtins, __name__="__main__")
        self.ask, self.position, self.definitions = ask, 0, definitions
        self.made_at: dict[str, tuple[int, bool]] = {}       # name -> (position of the cell that defines it, whether it is the student's)

    def latest(self, name):
        return [d for d in self.definitions.get(name, ()) if d[0] < self.position][-1:]

    def begin(self, position):
        """Before the test at that position: forget what a later cell defined anew, and everything of the student."""
        self.position = position
        for name, (made, of_student) in list(self.made_at.items()):
            latest = self.latest(name)
            if of_student or (latest and latest[0][0] > made):
                del self.made_at[name]
                self.pop(name, None)

    def keep(self, names):
        """Names that the test cell itself has defined."""
        self.made_at.update((name, (self.position, False)) for name in names)

    def __missing__(self, name):
        for position, latest in self.latest(name):
            if latest is None:
                self[name] = self.of_student(name)
                self.made_at[name] = position, True
                return self[name]
            for at, statement in self.definitions[name]:
                if at == position and statement is not None:
                    self.carry_out(statement)
            if name in self:
                return self[name]
        raise KeyError(name)

    def get_if_known(self, name):
        """Python looks names up in a class body without asking for missing ones."""
        with contextlib.suppress(KeyError, NameError):
            self[name]

    def of_student(self, name):
        try:
            return self.ask.name(name)
        except KeyError:
            raise NameError(f"name {name!r} is not defined") from None

    def carry_out(self, statement):
        """Run a statement of a locked cell as if it stood before the test."""
        position = self.position
        for name in in_class_bodies(ast.unparse(statement)):
            self.get_if_known(name)
        exec(compile(ast.Module([statement], []), "<given>", "exec"), self)
        self.made_at.update((name, (position, False)) for name, _ in targets(statement))


def bound(cell):
    """(name, statement) for each name that a cell of the instructor binds; None instead of a statement: the object is the student's."""
    try:
        tree = ast.parse(cell["source"])
    except SyntaxError:
        return
    for statement in tree.body:
        for name, own in targets(statement):
            students = cell["kind"] == "student" and not isinstance(statement, ast.Import | ast.ImportFrom)
            yield name, None if students else own


def targets(statement):
    """What a statement binds at the top level of a cell; imports of the framework are the student's."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        for alias in statement.names:
            module = statement.module or "" if isinstance(statement, ast.ImportFrom) else alias.name
            students = module.partition(".")[0] == "tinytorch" and not module.startswith(OURS)
            yield alias.asname or alias.name.partition(".")[0], None if students else statement
    elif isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        yield statement.name, statement
    else:
        for name in stored(statement):
            yield name, statement


def stored(node):
    """Names assigned in a statement, those inside of functions and comprehensions left out."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
    found = [node.id] if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else []
    for child in ast.iter_child_nodes(node):
        found += stored(child)
    return list(dict.fromkeys(found))


def in_class_bodies(source):
    try:
        classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    except SyntaxError:
        return []
    return [node.id for each in classes for node in ast.walk(each) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]


class Cells:
    """The instructor's cells, read and compiled but not carried out: what all examinations of an assignment share."""

    def __init__(self, cells):
        self.of_id = {cell["id"]: (at, cell) for at, cell in enumerate(cells)}
        self.definitions: dict[str, list] = {}               # name -> [(position, statement, or None for the student's)]
        self.binds, self.in_classes, self.compiled = {}, {}, {}
        for position, cell in enumerate(cells):
            self.binds[cell["id"]] = list(bound(cell))
            for name, statement in self.binds[cell["id"]]:
                self.definitions.setdefault(name, []).append((position, statement))
            if cell["kind"] == "test":
                self.in_classes[cell["id"]] = in_class_bodies(cell["source"])
                filename = f"<cell {cell['name'] or cell['id']}>"
                with contextlib.suppress(SyntaxError, ValueError):
                    self.compiled[cell["source"], filename] = compiled(ast.parse(cell["source"], filename), filename)


class Examiner(Runner):
    """Runs test cells. `exchange` brings a message to the sandbox and returns the next one from there."""

    def __init__(self, cells, seed, exchange):
        super().__init__(describe)
        self.cells, self.seed = cells, seed
        self.near = crossing.Near(lambda message: self.heard(exchange(message)))
        self.spaces = {random: Names(cells.definitions, self.near) for random in (True, False)}
        for space in self.spaces.values():
            space["display"] = self.display
        self.generators = Generators()

    def heard(self, message):
        """What the student's code printed meanwhile belongs to this cell."""
        for name, text in message.pop("printed", [])[:100]:
            self.recorder.stream("stderr" if name == "stderr" else "stdout", str(text)[:200_000])
        return message

    def compiled(self, text, filename):
        return self.cells.compiled.get((text, filename)) or super().compiled(text, filename)

    def test(self, cell_id):
        position, cell = self.cells.of_id[cell_id]
        random = cell["where"] == "outside" and self.seed is not None
        self.names = self.spaces[random]
        self.names.begin(position)
        for name in self.cells.in_classes[cell_id]:
            self.names.get_if_known(name)
        self.generators.mix(self.seed if random else None)
        before, self.near.written = (sys.stdout, sys.stderr), False
        try:
            outputs = self.run(cell["source"], cell["name"] or cell_id)
            if self.near.written and cell["keeps"] and not any(output["output_type"] == "error" for output in outputs):
                outputs.append({"output_type": "error", "ename": "InputChanged", "evalue": WRITTEN, "traceback": [WRITTEN]})
            return outputs
        finally:
            sys.stdout, sys.stderr = before
            self.names.keep(name for name, _ in self.cells.binds[cell_id])


class Generators:
    """NumPy's ways to make a generator from a seed, with a second seed mixed in."""

    def __init__(self):
        import numpy
        self.random: Any = numpy.random
        self.default_rng, self.old_seed = numpy.random.default_rng, numpy.random.seed

    def mix(self, seed):
        if seed is None:
            self.random.default_rng, self.random.seed = self.default_rng, self.old_seed
            return
        self.random.default_rng = lambda given=None: self.default_rng([seed, given] if isinstance(given, int) else given)
        self.random.seed = lambda given=None: self.old_seed(None if given is None else (int(given) ^ seed) % 2**32)


def describe(error):
    """The traceback of a test: its own lines, and those of the student's code, but none of the channel's."""
    whole = traceback.TracebackException.from_exception(error, limit=-30)
    whole.stack[:] = [frame for frame in whole.stack if frame.filename.startswith("<")]
    whole.__context__ = whole.__cause__ = None
    trace = getattr(error, "student_trace", "")
    inside = f"\n\nIn the notebook's own code:\n{trace}" if isinstance(trace, str) and trace else ""
    return shorten("".join(whole.format()).rstrip("\n") + inside, TRACEBACK_CHARS)


def examine(cells, seed, incoming, outgoing):
    """One examination, until the other side hangs up."""
    def say(kind, message):
        outgoing.write(kind + json.dumps(message).encode() + b"\n")
        outgoing.flush()

    def exchange(message):
        say(ASK, message)
        line = incoming.readline()
        try:
            answer = json.loads(line[1:])
            if line[:1] == ANSWER and {"value", "raise", "do"} & answer.keys():
                return answer
        except (ValueError, AttributeError, RecursionError):
            pass
        say(FORGED, None)
        os._exit(0)                                              # no test may go on from there, whatever it catches

    examiner = Examiner(cells, seed, exchange)
    for line in incoming:
        say(DONE, examiner.test(json.loads(line[1:])))


def main():
    """Fork an examiner for each connection that comes in, with what all of them import already there."""
    import numpy.random  # noqa: F401
    control = socket.socket(fileno=os.dup(0))
    os.dup2(2, 1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)                # nobody waits for them
    known: dict[str, Cells] = {}
    gc.collect()
    gc.freeze()                                                  # a collection in a fork would copy every page
    while True:
        told, connections, *_ = socket.recv_fds(control, 1 << 16, 2)
        if not connections:                                      # who started this one is gone
            return
        connection, content = connections
        place = json.loads(told)
        with open(content, "rb") as file:                        # both ends have one position in it
            if place["cells"] not in known:
                file.seek(0)
                known[place["cells"]] = Cells(json.load(file))
                gc.freeze()
        while len(known) > ASSIGNMENTS:
            del known[next(iter(known))]
        pid = os.fork()
        if pid == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            sys.path[:0] = place["path"]
            os.chdir(place["folder"])
            with contextlib.suppress(BaseException), socket.socket(fileno=connection) as line:
                examine(known[place["cells"]], place["seed"], line.makefile("rb"), line.makefile("wb"))
            os._exit(0)
        os.close(connection)
        control.send(str(pid).encode())


if __name__ == "__main__":
    main()
