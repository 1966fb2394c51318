"""nbgrader's exchange over ngshare, strict: a failed transfer is an error with a reason, never a logged line and "success".

ngshare-exchange 0.5.3 only logs what the exchange refuses, so nbgrader's pages then report success; its `release --force`
deletes every submission of the assignment; and it submits fetched feedback along with the work. These classes take its place through `configure(c)` in nbgrader_config.py.
"""

import base64
import fnmatch
import json
import os
from pathlib import Path

import ngshare_exchange as plain
import requests

TIMEOUT = 60             # seconds for one request; a 20 MB notebook needs a few
TOTAL_MB = 100           # of one submission or release


class ExchangeTrouble(Exception):
    """The exchange refused or did not answer. Not an ExchangeError: for that nbgrader's list page shows a text of its own."""


class Strict(plain.Exchange):
    """Requests that raise, and folders that are sent whole or not at all."""

    def trouble(self, message):
        self.fail(message)

    def ngshare_api_request(self, method, url, data=None, params=None):
        try:
            response = requests.request(
                method, self.ngshare_url + self.encode_url(url), data=data, params=params, timeout=TIMEOUT,
                headers={"Authorization": f"token {os.environ.get('JUPYTERHUB_API_TOKEN', '')}"})
        except requests.RequestException:
            self.trouble("the exchange cannot be reached, so nothing was changed. Try again in a minute; "
                         "if it stays like this, tell your instructor")
        try:
            answer = response.json()
        except ValueError:
            if response.status_code == 503:      # the proxy's own page: the exchange behind it is down
                self.trouble("the exchange is not running, so nothing was changed. Try again in a minute; "
                             "if it stays like this, tell your instructor")
            self.trouble(f"the exchange answered {response.status_code} without a reason; nothing was changed")
        if not answer.get("success"):
            return self.refused(response.status_code, answer.get("message", f"the exchange answered {response.status_code}"))
        return answer

    def refused(self, status, message):
        self.trouble(message)

    def encode_dir(self, src_dir, ignore=None):
        """The folder as ngshare takes it. Links and ignored names are left out; a damaged or oversized file stops it."""
        files, total, limit = [], 0, self.coursedir.max_file_size * 1000
        for folder, subfolders, names in os.walk(src_dir):
            subfolders[:] = sorted(name for name in subfolders if not self.ignored(name))
            for name in sorted(names):
                path = Path(folder, name)
                if self.ignored(name) or path.is_symlink() or not path.is_file():
                    continue
                size, shown = path.stat().st_size, path.relative_to(src_dir)
                if size > limit:
                    self.trouble(f"{shown} has {size / 1e6:.0f} MB and the limit is {limit // 1_000_000} MB; nothing was sent. "
                                 "Clear its outputs (Kernel menu) or remove the file, then try again")
                total += size
                if total > TOTAL_MB * 1_000_000:
                    self.trouble(f"this folder has more than {TOTAL_MB} MB; nothing was sent. Remove what does not belong to it")
                content = path.read_bytes()
                if path.suffix == ".ipynb":
                    self.check_notebook(shown, content)
                files.append({"path": str(shown), "content": base64.b64encode(content).decode()})
        return {"user": self.username, "files": json.dumps(files)}

    def ignored(self, name):
        return name.startswith(".") or any(fnmatch.fnmatch(name, pattern) for pattern in self.coursedir.ignore)

    def check_notebook(self, shown, content):
        try:
            cells = json.loads(content)["cells"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
            self.trouble(f"{shown} is damaged: it is not a notebook{where}; nothing was sent. Rename it, fetch the assignment "
                         "again and copy your work over, or go back to a checkpoint (File menu)")
        if not isinstance(cells, list):
            self.trouble(f"{shown} is damaged: it has no cells; nothing was sent")


class ExchangeSubmit(Strict, plain.ExchangeSubmit):
    """Sends the folder as it is on disk; the local copy of it is kept for the list of submissions."""


class ExchangeFetchAssignment(Strict, plain.ExchangeFetchAssignment):
    """Fetches a released assignment; files that are there already are never overwritten."""


class ExchangeFetchFeedback(Strict, plain.ExchangeFetchFeedback):
    """Fetches the feedback of every submission of this assignment that has one."""

    def refused(self, status, message):
        if status == 404:                # a submission that the exchange no longer knows has no feedback
            self.log.warning(message)
            return {"files": []}
        return super().refused(status, message)


class ExchangeCollect(Strict, plain.ExchangeCollect):
    """Collects the latest submission of everybody."""


class ExchangeReleaseFeedback(Strict, plain.ExchangeReleaseFeedback):
    """Gives the feedback of each submission to its student."""


class ExchangeReleaseAssignment(Strict, plain.ExchangeReleaseAssignment):
    """Releases; a second release replaces the files and keeps what was submitted."""

    replace = False

    def assignment_exists(self):
        response = self.ngshare_api_get(f"/assignments/{self.coursedir.course_id}")
        if self.coursedir.assignment_id in response["assignments"]:
            if not self.force:
                self.fail(f"{self.coursedir.assignment_id} is released already; --force replaces its files and keeps submissions")
            self.replace = True
        return False

    def ngshare_api_post(self, url, data, params=None):
        return super().ngshare_api_post(url, {**data, "replace": "true"} if self.replace else data, params)


class ExchangeList(Strict, plain.ExchangeList):
    """Lists what is released and submitted."""

    def trouble(self, message):
        raise ExchangeTrouble(message)

    def refused(self, status, message):
        if status == 404:                # one submission that is gone does not hide the others
            self.log.warning(message)
            return None
        return super().refused(status, message)


def configure(c, url):
    """Make nbgrader use these classes and the exchange at that address."""
    plain.Exchange._ngshare_url = url
    c.ExchangeFactory.exchange = plain.Exchange
    c.ExchangeFactory.fetch_assignment = ExchangeFetchAssignment
    c.ExchangeFactory.fetch_feedback = ExchangeFetchFeedback
    c.ExchangeFactory.release_assignment = ExchangeReleaseAssignment
    c.ExchangeFactory.release_feedback = ExchangeReleaseFeedback
    c.ExchangeFactory.list = ExchangeList
    c.ExchangeFactory.submit = ExchangeSubmit
    c.ExchangeFactory.collect = ExchangeCollect
