"""A class's nbgrader course, opened with the configuration that the class's server has: nbgrader's own API does the work."""

import logging
import os
import re
import warnings
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from course.tito.failure import Failed

HOW = ("On a hub: open the class's formgrader (Nbgrader > Courses) and use a terminal there. "
       "With a course of your own: set COURSE_ID and COURSE_ROOT, or go to the folder of its nbgrader_config.py")

GENERAL = ("There was an error processing assignment", "Please see the the above traceback")      # what says nothing by itself


@dataclass
class Classroom:
    api: Any                   # nbgrader.apps.api.NbGraderAPI
    course: str
    root: Path
    trouble: str               # why the exchange does not answer; "" when it does

    def need_exchange(self) -> None:
        if self.trouble:
            raise Failed(f"nothing was changed, the exchange cannot be used: {self.trouble}")


def enter() -> Classroom:
    """The class that this terminal belongs to; Failed with exit code 2 where it belongs to none."""
    warnings.filterwarnings("ignore", module="nbgrader")        # its database layer talks to its developers
    try:
        from nbgrader.apps.baseapp import NbGrader
    except ImportError:
        raise Failed(f"nbgrader is not installed here. {HOW}", exit_code=2) from None
    app = _configured(NbGrader)
    course, root = app.coursedir.course_id or os.environ.get("COURSE_ID", ""), Path(app.coursedir.root)
    configured = "root" in app.config.get("CourseDirectory", {}) or os.environ.get("COURSE_ROOT") \
        or (Path.cwd() / "nbgrader_config.py").is_file()
    if not course or course == "*" or not configured:
        missing = "no course id is set" if configured else "no folder of a course is set"
        raise Failed(f"this is not the terminal of a class: {missing}. {HOW}", exit_code=2)
    if not root.is_dir() or not os.access(root, os.W_OK):
        raise Failed(f"{root}, the folder of the course {course}, is {'not writable' if root.is_dir() else 'not there'}", exit_code=2)
    app.coursedir.course_id = course
    return _opened(app, course, root)


def _configured(application: Any) -> Any:
    """nbgrader's base application with the configuration files that apply here; what it logs is kept from the terminal."""
    application.clear_instance()
    app, said = application.instance(), StringIO()
    try:
        with redirect_stderr(said):
            app.initialize([], root=os.environ.get("COURSE_ROOT", ""))
    except SystemExit:
        raise Failed(f"nbgrader's configuration cannot be read: {_last_line(said.getvalue())}", exit_code=2) from None
    broken = [line for line in said.getvalue().splitlines() if "Exception while loading config file" in line]
    if broken:
        raise Failed(f"nbgrader's configuration cannot be read: {broken[0].split('] ')[-1]}: {_last_line(said.getvalue())}", exit_code=2)
    app.log.handlers = [logging.NullHandler()]
    app.log.propagate = False
    return app


def _opened(app: Any, course: str, root: Path) -> Classroom:
    from nbgrader.apps.api import NbGraderAPI
    from nbgrader.auth import Authenticator
    from nbgrader.exchange import ExchangeFactory
    from nbgrader.exchange.default import Exchange as Folders
    factory = ExchangeFactory(parent=app)
    if not issubclass(factory.exchange, Folders) and (trouble := _unreachable()):
        factory.list = _never(trouble)
    errors = _Errors()
    app.log.addHandler(errors)
    factory.list = _calm(factory.list)
    api = NbGraderAPI(coursedir=app.coursedir, authenticator=Authenticator(parent=app), exchange=factory, parent=app)
    app.log.removeHandler(errors)
    trouble = errors.lines[0] if errors.lines else "it cannot be listed" if api.exchange_missing else ""
    return Classroom(api, course, root, trouble)


def _unreachable() -> str:
    """Why the exchange's address does not answer within two seconds; "" when it does or is not named."""
    if not os.environ.get("NGSHARE_URL"):
        return ""
    from course.tito.doctor import exchange
    check = exchange()
    return "" if check.ok else check.found


def _never(trouble: str) -> type:
    """A list that does not ask the exchange: an exchange that does not answer would keep us waiting each time."""
    from nbgrader.exchange import ExchangeError
    from nbgrader.exchange.abc import ExchangeList

    class Unreachable(ExchangeList):
        def start(self):
            self.log.error(trouble)
            raise ExchangeError(trouble)
    return Unreachable


def _calm(lister: type) -> type:
    """nbgrader's API takes an ExchangeError as "no exchange"; other exceptions of a list say the same."""
    from nbgrader.exchange import ExchangeError

    class Calm(lister):
        def start(self):
            try:
                return super().start()
            except ExchangeError:
                raise
            except Exception as error:
                self.log.error(str(error))
                raise ExchangeError(str(error)) from None
    Calm.__name__ = lister.__name__                        # configuration is found by the class's name
    return Calm


class _Errors(logging.Handler):
    """Keeps the error lines of a log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(Exception):
            self.lines.append(record.getMessage().splitlines()[0])


def must(result: dict, what: str) -> str:
    """nbgrader's {"success", "error", "log"}: its log, or Failed with the reason. An error in the log is a failure, too."""
    reason = why_failed(result)
    if reason:
        raise Failed(f"{what} failed: {reason}")
    return result.get("log", "")


def why_failed(result: dict) -> str:
    """The reason in a sentence or two; "" for a success."""
    errors = _errors_of(result.get("log", ""))
    if result.get("success") and not errors:
        return ""
    traces = [text for text in errors if "Traceback (most recent call last)" in text]
    plain = [text for text in errors if text not in traces and not text.startswith(GENERAL)]
    said = _exception(traces[0]) if traces else plain[0] if plain else _exception(result.get("error", ""))
    return said[:600] or "nbgrader gives no reason"


def _errors_of(log: str) -> list[str]:
    """The messages that nbgrader logged as errors, each with all its lines."""
    parts = re.split(r"(?m)^\[(\w+)\] ", log)
    return [re.sub(r"(?m)^ {4}", "", text).strip()             # nbgrader indents all lines but the first
            for level, text in zip(parts[1::2], parts[2::2], strict=True) if level in ("ERROR", "CRITICAL")]


def _exception(trace: str) -> str:
    """What stands after the last line of a traceback: the exception's message."""
    lines = trace.strip().splitlines()
    last = max((n for n, line in enumerate(lines) if line.startswith("  ")), default=-1)
    message = "\n".join(lines[last + 1:]).strip()
    kind, colon, said = message.partition(": ")
    return said if colon and "." in kind and " " not in kind else message


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]
