"""Runs cells one after the other in one namespace; started by run.py in a process of its own, which may be killed.

Reads a job as JSON from stdin, writes one JSON line per event to the file descriptor that the job names. For each
wrong solution it forks before the solution's cell, so that what comes before runs only once.
"""

import contextlib
import faulthandler
import io
import json
import linecache
import os
import re
import signal
import sys
import time
import types
import warnings


def main() -> None:
    faulthandler.register(signal.SIGUSR1, all_threads=False)      # run.py asks where we are when the time is over
    job = json.load(sys.stdin)
    events = os.fdopen(job["events"], "w", buffering=1)
    sys.path.insert(0, os.getcwd())
    namespace = _namespace()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # inline figures of a notebook are shown by the notebook; here nobody looks
        warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")
        for index, cell in enumerate(job["cells"]):
            for number, wrong in enumerate(cell.get("wrong", [])):
                outcome = _try_wrong(wrong, job["cells"][index:], namespace, job["patience"])
                print(json.dumps({"cell": index, "wrong": number, **outcome}), file=events)
            print(json.dumps({"cell": index, "begins": True}), file=events)
            print(json.dumps({"cell": index, **_run(cell, namespace)}), file=events)
    events.flush()
    os._exit(0)     # threads and exit handlers of a notebook's code shall not keep us


def _namespace() -> dict:
    module = types.ModuleType("__main__")
    module.__dict__["display"] = lambda *_objects, **_options: None      # IPython's, given in every notebook
    sys.modules["__main__"] = module
    return module.__dict__


class Tail(io.TextIOBase):
    """Keeps the end of what is printed: a loop that prints for a minute must not fill the memory."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text = (self.text + text)[-2000:]
        return len(text)

    def writable(self) -> bool:
        return True


def _run(cell: dict, namespace: dict) -> dict:
    """Run one cell; what it printed, which warnings it gave and how it failed."""
    printed = Tail()
    began = time.perf_counter()
    with (warnings.catch_warnings(record=True) as caught,
          contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed)):
        error = _execute(cell["source"], f"<{cell['id']}>", namespace)
    _close_figures()
    said = [f"{w.category.__name__}: {w.message}" for w in caught[:5]]
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "printed": printed.text, "warnings": said, **error}


def _execute(source: str, filename: str, namespace: dict) -> dict:
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    try:
        exec(compile(without_magics(source), filename, "exec", dont_inherit=True), namespace)
    except KeyboardInterrupt:
        raise
    except BaseException as error:      # SystemExit too: one cell must not end the others
        return _describe(error, filename)
    return {"error": "", "message": "", "line": 0}


def _describe(error: BaseException, filename: str) -> dict:
    """Kind, text and place of a failure; the place is the innermost line that stands in a cell."""
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:
        text = "(its message cannot be shown)"
    line, inner = 0, filename
    if isinstance(error, SyntaxError) and error.filename == filename:
        line, text = error.lineno or 0, str(error.msg)
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name == filename:
            line = trace.tb_lineno
        if name.startswith("<") and name.endswith(">") and name in linecache.cache:
            inner, inner_line = name, trace.tb_lineno
        trace = trace.tb_next
    message = text if isinstance(error, AssertionError) and text else f"{kind}: {text}" if text else kind
    if inner != filename:
        message += f" (in cell {inner[1:-1]}, line {inner_line})" if not isinstance(error, AssertionError) else ""
    return {"error": kind, "message": message[:4000], "line": line}


def without_magics(source: str) -> str:
    """IPython's %, ! and ? lines do nothing here; only looked for where the cell is not Python as it stands."""
    try:
        compile(source, "<magics>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        magic, _, rest = source.lstrip().partition("\n")
        if magic.startswith("%%"):
            return "\n" + rest if magic.split()[0] in ("%%time", "%%capture", "%%timeit") else ""
        return re.sub(r"(?m)^(\s*)([%!?].*|.*\?)$", r"\1pass", source)
    return source


def _try_wrong(source: str, cells: list[dict], namespace: dict, patience: float) -> dict:
    """In a fork: the wrong solution, then the cells after it, up to the first test that fails."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            outcome = _first_failure([{**cells[0], "source": source}, *cells[1:]], namespace)
            os.write(writing, json.dumps(outcome).encode()[:60000])
        finally:
            os._exit(0)
    os.close(writing)
    answer = _wait_for(child, reading, patience)
    os.close(reading)
    return answer


def _first_failure(cells: list[dict], namespace: dict) -> dict:
    own = ""
    for index, cell in enumerate(cells):
        outcome = _run(cell, namespace)
        if index == 0 and outcome["error"]:
            own = outcome["message"]
        if cell["test"] and outcome["error"]:
            return {"killed_by": cell["id"], "message": outcome["message"][:8000], "line": outcome["line"], "own": own}
    return {"killed_by": "", "message": "", "line": 0, "own": own}


def _wait_for(child: int, reading: int, patience: float) -> dict:
    import select

    ready, _, _ = select.select([reading], [], [], patience)
    data = b""
    if ready:
        while part := os.read(reading, 65536):
            data += part
    else:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if data:
        return json.loads(data)
    message = "the interpreter crashed" if ready else f"ran longer than {patience:g} seconds"
    return {"killed_by": "", "message": message, "line": 0, "own": ""}


def _close_figures() -> None:
    """As a notebook does after each cell."""
    plotting = sys.modules.get("matplotlib.pyplot")
    if plotting is not None:
        plotting.close("all")


if __name__ == "__main__":
    main()
