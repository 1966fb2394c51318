"""nbgrader's exchange over ngshare, strict: a failed transfer is an error with a reason, never a logged line and "success".

ngshare-exchange 0.5.3 only logs what the exchange refuses, so nbgrader's pages then report success; its `release --force`
deletes every submission of the assignment; it submits fetched feedback along with the work; and where the disk is full it
leaves half of a folder. These classes take its place through `configure(c)` in nbgrader_config.py.
"""

import base64
import contextlib
import errno
import fnmatch
import json
import os
import shutil
import tempfile
from pathlib import Path

import ngshare_exchange as plain
import requests

TIMEOUT = 60             # seconds for one request; a 20 MB notebook needs a few
TOTAL_MB = 100           # of one submission or release
NOTHING = "so nothing was changed. Try again in a minute; if it stays like this, tell your instructor"
UNKNOWN = "so it is not known whether this was done. Try again in a minute; doing it twice does no harm"


class ExchangeTrouble(Exception):
    """The exchange refused or did not answer. Not an ExchangeError: for that nbgrader's list page shows a text of its own."""


def write(files, folder):
    """Write files as ngshare gives and takes them: dicts with path and base64 content."""
    for file in files:
        there = folder / file["path"]
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(base64.b64decode(file["content"]))


class Strict(plain.Exchange):
    """Requests that raise, and folders that are sent whole or not at all."""

    def start(self):
        try:
            return super().start()
        except requests.RequestException:        # nbgrader asks the hub in which classes somebody is
            self.trouble(f"the hub does not answer, {NOTHING}")

    def trouble(self, message):
        self.fail(message)

    def ngshare_api_request(self, method, url, data=None, params=None):
        try:
            response = requests.request(
                method, self.ngshare_url + self.encode_url(url), data=data, params=params, timeout=TIMEOUT,
                headers={"Authorization": f"token {os.environ.get('JUPYTERHUB_API_TOKEN', '')}"})
        except requests.RequestException as error:
            # a request that was sent may have been carried out: only one that found nobody to take it surely was not
            sure = method == "GET" or isinstance(error, requests.ConnectTimeout) or "refused" in str(error)
            self.trouble(f"the exchange cannot be reached, {NOTHING if sure else UNKNOWN}")
        try:
            answer = response.json()
        except ValueError:
            if response.status_code == 503:      # the proxy's own page: the exchange behind it is down, or went down in the middle
                self.trouble(f"the exchange is not running, {NOTHING if method == 'GET' else UNKNOWN}")
            self.trouble(f"the exchange answered {response.status_code} without a reason, {NOTHING if method == 'GET' else UNKNOWN}")
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
            self.trouble(f"{shown} is damaged: it is not a notebook{where}; nothing was sent. If it is open in a tab, save it there. "
                         "Otherwise rename its folder, refresh the list, fetch the assignment again and copy your work over")
        if not isinstance(cells, list):
            self.trouble(f"{shown} is damaged: it has no cells; nothing was sent")


    def decode_dir(self, src_dir, dest_dir, ignore=None, noclobber=False):
        """Write what came from the exchange: every file whole or not at all, and a new folder only when it is complete."""
        dest = Path(dest_dir)
        with self.room_beside(dest, "it was not saved here") as fresh:
            write(src_dir, fresh)
            if not dest.exists():
                fresh.rename(dest)
                return
            for file in src_dir:
                there = dest / file["path"]
                if not (noclobber and there.is_file()):
                    there.parent.mkdir(parents=True, exist_ok=True)
                    (fresh / file["path"]).replace(there)

    @contextlib.contextmanager
    def room_beside(self, dest, outcome):
        """A new folder next to `dest` that is gone afterwards unless it was moved; trouble where the disk is full."""
        outer = None
        try:
            dest.parent.mkdir(parents=True, exist_ok=True)
            outer = Path(tempfile.mkdtemp(prefix=".arriving-", dir=dest.parent))
            fresh = outer / "files"
            fresh.mkdir()
            yield fresh
        except OSError as error:
            reason = "there is no room left on the disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
            self.trouble(f"{reason}, so {outcome}. Remove files that you no longer need, then try again")
        finally:
            if outer is not None:
                shutil.rmtree(outer, ignore_errors=True)


class ExchangeSubmit(Strict, plain.ExchangeSubmit):
    """Sends the folder as it is on disk; a copy of what was sent is kept for the list of submissions."""

    def copy_files(self):
        """The copy comes first: where there is no room for it, nothing has been sent yet."""
        self.check_filename_diff()
        encoded = self.encode_dir(self.src_path)
        with self.room_beside(Path(self.cache_path, "copy"), "nothing was sent") as fresh:
            write(json.loads(encoded["files"]), fresh)
            stamp = fresh / "timestamp.txt"
            stamp.write_text(" " * 40)                  # the room that the real one needs
            url = f"/submission/{self.coursedir.course_id}/{self.coursedir.assignment_id}"
            self.timestamp = self.ngshare_api_post(url, encoded)["timestamp"]
            stamp.write_text(self.timestamp)
            fresh.rename(Path(self.cache_path, f"{self.username}+{self.coursedir.assignment_id}+{self.timestamp}"))
        self.log.info("Submitted as: %s %s %s", self.coursedir.course_id, self.coursedir.assignment_id, self.timestamp)


class ExchangeFetchAssignment(Strict, plain.ExchangeFetchAssignment):
    """Fetches a released assignment; files that are there already are never overwritten."""

    def copy_files(self):
        """With the reason of a failure, which ngshare-exchange replaces by a text of its own."""
        self.do_copy(self.ngshare_api_get(self.src_path)["files"])


class ExchangeFetchFeedback(Strict, plain.ExchangeFetchFeedback):
    """Fetches the feedback of every submission of this assignment that has one."""

    def copy_files(self):
        """Where one cannot be saved the student is told; ngshare-exchange only logs it."""
        for timestamp in self.timestamps:
            answer = self.ngshare_api_get(self.src_path, params={"timestamp": timestamp, "list_only": "false"})
            if answer["files"]:
                self.decode_dir(answer["files"], Path(self.dest_path, timestamp))

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

    def parse_assignments(self):
        """With the name of each fetched notebook, which the page shows; ngshare-exchange gives the whole path for it."""
        assignments = super().parse_assignments()
        for notebook in (n for a in assignments if a["status"] == "fetched" for n in a["notebooks"]):
            notebook["notebook_id"] = Path(notebook["path"]).stem
        return assignments


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
