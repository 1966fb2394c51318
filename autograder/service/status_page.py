"""The status page: whether jobs can run, how long the queue is, what runs, what came out. Numbers only: no names, no files, no script.

Whoever teaches a class of the site signs in at the hub and sees it.
"""

import html
import time
from collections.abc import Iterable, Sequence

from jupyterhub.services.auth import HubOAuthenticated
from tornado.web import HTTPError, RequestHandler, authenticated

from autograder.sandbox import choice
from autograder.sandbox.base import SandboxUnavailable
from autograder.service.database import Unavailable
from autograder.service.store import Store

STYLE = """body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1a1a1a;background:#fff}
table{border-collapse:collapse;margin:.5rem 0 2rem}th,td{text-align:left;padding:.25rem 1.5rem .25rem 0;border-bottom:1px solid #ddd}
.number{text-align:right;font-variant-numeric:tabular-nums}.bad{font-weight:bold;color:#a30000}"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'"


def page(store: Store, workers: int) -> str:
    now = time.time()
    waiting = store.ask("SELECT kind, class, count(*), ? - min(created) FROM jobs WHERE state = 'queued'"
                        " GROUP BY kind, class ORDER BY kind, class", now)
    running = store.ask("SELECT kind, class, count(*), ? - min(started) FROM jobs WHERE state = 'running' AND lease_until >= ?"
                        " GROUP BY kind, class ORDER BY kind, class", now, now)
    done = store.ask("SELECT kind, class, verdict, count FROM tally ORDER BY kind, class, verdict")
    busy = sum(row[2] for row in running)
    return "\n".join([
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=10>",
        f"<title>Autograder</title><style>{STYLE}</style><h1>Autograder</h1>",
        f"<p>{busy} of {workers} workers are busy. {time.strftime('%Y-%m-%d %H:%M:%S %Z', time.localtime(now))}</p>", isolation(),
        *_table("Waiting", ("kind", "class", "jobs", "oldest"), [(*row[:3], duration(row[3])) for row in waiting]),
        *_table("Running", ("kind", "class", "jobs", "longest"), [(*row[:3], duration(row[3])) for row in running]),
        *_table("Finished", ("kind", "class", "verdict", "jobs"), done), "</html>"])


def isolation() -> str:
    """Whether student code can be isolated here now; else all jobs wait, and who looks wants to know why."""
    try:
        sandbox = choice.sandbox()
        sandbox.check()
    except SandboxUnavailable as lacking:
        return f"<p class=bad>Jobs wait, because student code cannot be isolated: {html.escape(str(lacking))}</p>"
    return f"<p>Student code is isolated by the sandbox <em>{html.escape(sandbox.name)}</em>.</p>"


def duration(seconds: float) -> str:
    seconds = round(seconds)
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h {seconds % 3600 // 60} min"


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence]) -> list[str]:
    cells = ["".join(f"<td class=number>{value:.0f}" if isinstance(value, int | float) else f"<td>{html.escape(str(value or '-'))}"
                     for value in row) for row in rows]
    if not cells:
        return [f"<h2>{title}</h2><p>nothing</p>"]
    head = "".join(f"<th{' class=number' if column == 'jobs' else ''}>{html.escape(column)}" for column in columns)
    return [f"<h2>{title}</h2><table><tr>{head}", *(f"<tr>{one}" for one in cells), "</table>"]


class StatusPage(HubOAuthenticated, RequestHandler):
    """For a browser: signs in at the hub."""

    def initialize(self, store: Store, workers: int) -> None:
        self.store, self.workers = store, workers

    @authenticated
    def get(self) -> None:
        groups = (self.current_user or {}).get("groups", [])
        if not any(group.startswith("formgrade-") for group in groups):
            raise HTTPError(403, reason="the status page is for those who teach a class")
        self.set_header("Content-Security-Policy", POLICY)
        try:
            self.finish(page(self.store, self.workers))
        except Unavailable:
            raise HTTPError(503, reason="the jobs' database does not answer now: try again in a minute") from None
