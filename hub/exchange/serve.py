"""The exchange: ngshare on loopback, made safe to trust with a class's work.

Runs in its own environment (SQLAlchemy 1.4: with 2.x ngshare 0.6.0 answers 200 and stores nothing) and adds what ngshare
lacks: it refuses to start where a release does not survive a round trip, takes its courses and rosters from the site's
one document, keeps a server of one class out of the others, closes assignments that are due, keeps every submission when
a release is replaced or withdrawn, and says every refusal in a sentence.

    python serve.py --port 8003 --folder .state/exchange --site .state/exchange/site.json
"""

import argparse
import asyncio
import base64
import binascii
import errno
import json
import logging
import os
import sys
import tempfile
import time
from collections import namedtuple
from datetime import UTC, datetime
from pathlib import Path

import measures
import requests
import sqlalchemy
from ngshare import dbutil, ngshare
from ngshare.database.database import Base, Course, InstructorAssociation, StudentAssociation, User
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.httputil import url_concat
from tornado.ioloop import PeriodicCallback
from tornado.netutil import bind_sockets
from tornado.web import Application

log = logging.getLogger("exchange")

MAX_FILE = 20_000_000                  # bytes of one file, as CourseDirectory.max_file_size in nbgrader_config.py
MAX_BODY = 200 * 1024 * 1024           # bytes of one request; more is cut off before it is read
IDENTITY_SECONDS = 20                  # how long an answer of the hub about a token is believed
HUB_TIMEOUT = 10                       # seconds


class Hub:
    """Asks the hub whose a token is and in which classes it may act (None: in all of its owner's)."""

    def __init__(self, api_url):
        self.url = api_url.rstrip("/") + "/user"
        self.known = {}

    def __call__(self, token):
        then, owner = self.known.get(token, (0.0, None))
        if owner is not None and time.monotonic() - then < IDENTITY_SECONDS:
            return owner
        with measures.HUB_ERRORS.count_exceptions(), measures.HUB_SECONDS.time():
            answer = requests.get(self.url, headers={"Authorization": f"token {token}"}, timeout=HUB_TIMEOUT)
            if answer.status_code >= 500:
                raise requests.RequestException(f"the hub answered {answer.status_code}")
        if not answer.ok:
            self.known.pop(token, None)
            return None
        owner = answer.json()
        owner["classes"] = classes_of(owner)
        if len(self.known) > 5000:
            self.known.clear()
        self.known[token] = (time.monotonic(), owner)
        return owner


def classes_of(owner):
    """A token of the server `alice/ml101` carries that server in its scopes: it may act in ml101 only."""
    marker = f"access:servers!server={owner.get('name')}/"
    servers = {scope[len(marker):] for scope in owner.get("scopes", []) if scope.startswith(marker)}
    return sorted(servers - {""}) or None


class Guards:
    """What every request passes before ngshare sees it, and what holds for all files that it stores."""

    owner = None
    stored = ()                        # paths of the files that this request made

    def filename_create(self, filename):
        name = super().filename_create(filename)
        self.stored = (*self.stored, Path(self.application.storage_path, name))
        return name

    def json_files_unpack(self, json_str, target):
        """On the disk before the database names them: a power cut leaves no submission without its content."""
        super().json_files_unpack(json_str, target)
        for path in (*self.stored, Path(self.application.storage_path)):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

    def on_finish(self):
        super().on_finish()
        measures.observe(self)
        if self.get_status() >= 400:   # what a request that failed has written, on a full disk for one, belongs to nothing
            for path in self.stored:
                path.unlink(missing_ok=True)

    def user_for_token(self, token):
        self.owner = self.application.identify(token)
        return self.owner

    def prepare(self):
        try:
            super().prepare()
        except requests.RequestException as error:
            log.error("the hub did not answer: %s", error)
            self.json_error(503, "the hub did not answer, so nobody can be identified; try again in a minute")
        kind, _, rest = self.request.path[len(self.application.prefix):].partition("/")
        course = rest.split("/")[0]
        if self.user is None and kind not in ("healthz", "oauth_callback", ""):
            self.json_error(401, "sign in first: the hub does not know this token")
        allowed = (self.owner or {}).get("classes")
        if allowed is not None and course and course not in allowed:
            self.json_error(403, f"this is the server of class {', '.join(allowed)}: open your server of class {course} for that")

    def json_error(self, code, msg, **extra):
        self.set_header("Content-Type", "application/json")
        if code == 404 and msg == "Assignment not found":
            msg = "there is no such assignment in this class; it may not be released yet, or no longer"
        super().json_error(code, msg, **extra)

    def json_success(self, msg=None, **extra):
        self.set_header("Content-Type", "application/json")
        super().json_success(msg, **extra)

    def write_error(self, status_code, **kwargs):
        error = (kwargs.get("exc_info") or (None, None, None))[1]
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if isinstance(error, sqlalchemy.exc.OperationalError):
            full = "full" in str(error.orig)
        self.set_status(507 if full else status_code)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"success": False, "message": (
            "the exchange's disk is full: tell your admin; nothing was stored" if full else
            f"the exchange could not do this (error {status_code}); nothing was stored")}))


class Withdrawn(Base):
    """An assignment that was released, has submissions, and is no longer given out."""

    __tablename__ = "withdrawn"
    assignment_id = sqlalchemy.Column(sqlalchemy.INTEGER, sqlalchemy.ForeignKey("assignments._id"), primary_key=True)


def is_withdrawn(handler, assignment):
    return handler.db.get(Withdrawn, assignment._id) is not None


class Release(ngshare.DownloadReleaseAssignment):
    """Releasing again replaces the files, withdrawing hides them; neither touches a submission."""

    def get(self, course_id, assignment_id):
        course = self.find_course(course_id)
        self.check_course_user(course)
        if is_withdrawn(self, self.find_assignment(course, assignment_id)):
            self.json_error(404, f"{assignment_id} is withdrawn for the moment; ask your instructor when it comes back")
        return super().get(course_id, assignment_id)

    def post(self, course_id, assignment_id):
        course = self.find_course(course_id)
        self.check_course_instructor(course)
        there = [assignment for assignment in course.assignments if assignment.id == assignment_id]
        if not there or not (is_withdrawn(self, there[0]) or self.get_argument("replace", "false") == "true"):
            return super().post(course_id, assignment_id)
        fresh = []
        self.json_files_unpack(self.get_argument("files", None), fresh)
        for file in list(there[0].files):
            there[0].files.remove(file)
            file.delete(self.db)
        there[0].files.extend(fresh)
        self.db.query(Withdrawn).filter_by(assignment_id=there[0]._id).delete()
        self.db.commit()
        return self.json_success()

    def delete(self, course_id, assignment_id):
        course = self.find_course(course_id)
        self.check_course_instructor(course)
        assignment = self.find_assignment(course, assignment_id)
        if not assignment.submissions:
            return super().delete(course_id, assignment_id)
        if not is_withdrawn(self, assignment):
            self.db.add(Withdrawn(assignment_id=assignment._id))
            self.db.commit()
        return self.json_success(msg=f"{assignment_id} is withdrawn; its {len(assignment.submissions)} submissions are kept")


class Listed(ngshare.ListAssignments):
    """What is released and not withdrawn."""

    def get(self, course_id):
        course = self.find_course(course_id)
        self.check_course_user(course)
        self.json_success(assignments=[each.id for each in course.assignments if not is_withdrawn(self, each)])


class Submit(ngshare.SubmitAssignment):
    """A submission is refused, with the reason, when it is closed, empty, too large, or its notebook is not one."""

    def post(self, course_id, assignment_id):
        closes = self.application.closing_time(course_id, assignment_id)
        if closes is not None and datetime.now(UTC) > closes:
            self.json_error(403, f"{assignment_id} closed on {closes:%Y-%m-%d at %H:%M %Z}; nothing was stored. "
                                 "Ask your instructor if you need more time")
        course = self.find_course(course_id)
        self.check_course_user(course)
        if is_withdrawn(self, self.find_assignment(course, assignment_id)):
            self.json_error(403, f"{assignment_id} is withdrawn for the moment, so nothing was stored; your work stays where it is")
        return super().post(course_id, assignment_id)

    def json_files_unpack(self, json_str, target):
        for name, content in self.files_of(json_str):
            if len(content) > MAX_FILE:
                self.json_error(413, f"{name} has {len(content) / 1e6:.0f} MB and the limit is {MAX_FILE // 1_000_000} MB; "
                                     "nothing was stored. Clear its outputs, then submit again")
            if name.endswith(".ipynb") and not is_notebook(content):
                self.json_error(400, f"{name} is damaged: its content is not that of a notebook; nothing was stored. "
                                     "Rename it, fetch the assignment again and copy your work over")
        super().json_files_unpack(json_str, target)

    def files_of(self, json_str):
        try:
            listed = [(str(file["path"]), base64.b64decode(file["content"])) for file in json.loads(json_str or "[]")]
        except (ValueError, TypeError, KeyError, binascii.Error):
            self.json_error(400, "the files of this submission are not in the form that the exchange takes")
        if not listed:
            self.json_error(400, "there is no file in this submission; nothing was stored")
        return listed


def is_notebook(content):
    """Whether the bytes are the JSON of a notebook with a list of cells."""
    try:
        return isinstance(json.loads(content)["cells"], list)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


class GuardedApplication(Application):
    """Puts the guards before every handler of ngshare, and our handlers in place of its release and submit."""

    ours = {ngshare.DownloadReleaseAssignment: Release, ngshare.SubmitAssignment: Submit, ngshare.ListAssignments: Listed}

    def __init__(self, handlers, **settings):
        def guarded(handler):
            handler = self.ours.get(handler, handler)
            if not issubclass(handler, ngshare.MyRequestHandler):
                return handler
            return type(handler.__name__, (Guards, handler), {})

        # ngshare's page that dumps or clears the whole database has no place here
        kept = [(path, guarded(handler)) for path, handler in handlers if handler is not ngshare.InitDatabase]
        super().__init__([(f"{self.prefix}metrics", measures.Metrics), *kept], **settings)


class Exchange(ngshare.MyApplication, GuardedApplication):
    """The guarded ngshare. `identify(token)` says whose a token is; `follow(document)` makes the rosters."""

    def __init__(self, prefix, folder, identify):
        self.prefix, self.identify, self.document = prefix, identify, {}
        (folder / "files").mkdir(parents=True, exist_ok=True)
        database = f"sqlite:///{folder / 'ngshare.db'}"
        dbutil.upgrade(database, cmd_opts=namedtuple("Options", ["x"])(["data=true", f"storage={folder / 'files'}"]))
        super().__init__(prefix, database, str(folder / "files"), admin=(), autoreload=False)

    def closing_time(self, course_id, assignment_id):
        """When the assignment stops taking submissions, or None: never."""
        closes = self.document.get(course_id, {}).get("closes", {}).get(assignment_id)
        return datetime.fromisoformat(closes) if closes else None

    def follow(self, document):
        """Make courses, instructors and students those of the document; what was submitted always stays."""
        session = self.db_session()
        try:
            for course_id, wanted in document.items():
                course = session.query(Course).filter(Course.id == course_id).one_or_none() or Course(course_id)
                session.add(course)
                session.flush()
                enrol(session, course, course.instructors, wanted["instructors"], InstructorAssociation)
                enrol(session, course, course.students, wanted["students"], StudentAssociation)
            session.commit()
        finally:
            session.close()
        self.document = document


def enrol(session, course, members, wanted, association):
    """Make the course's `members` exactly `wanted`: dicts with username, first_name, last_name, email."""
    names = {person["username"] for person in wanted}
    for user in [user for user in members if user.id not in names]:
        members.remove(user)
    for person in wanted:
        user = session.get(User, person["username"])
        if user is None:
            user = User(person["username"])
            session.add(user)
        if user not in members:
            members.append(user)
        session.flush()
        details = association.find(session, user, course)
        for field in ("first_name", "last_name", "email"):
            setattr(details, field, person[field])


async def round_trip():
    """Release and submit through the real handlers in a scratch exchange; SystemExit where anything is lost."""
    person = {"first_name": "", "last_name": "", "email": ""}
    notebook = base64.b64encode(b'{"cells": []}').decode()
    with tempfile.TemporaryDirectory() as folder:
        app = Exchange("/", Path(folder), identify=lambda token: {"name": token, "classes": None})
        app.follow({"course": {"instructors": [{"username": "teacher", **person}],
                               "students": [{"username": "student", **person}]}})
        sockets = bind_sockets(0, "127.0.0.1")
        server = HTTPServer(app)
        server.add_sockets(sockets)
        url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/"

        async def ask(who, method, path, **data):
            answer = await AsyncHTTPClient().fetch(
                url + path, method=method, headers={"Authorization": f"token {who}"}, raise_error=False,
                body=url_concat("", data)[1:] if method == "POST" else None)
            return json.loads(answer.body)

        files = json.dumps([{"path": "a.ipynb", "content": notebook}])
        await ask("teacher", "POST", "assignment/course/one", files=files)
        released = await ask("student", "GET", "assignment/course/one")
        await ask("student", "POST", "submission/course/one", files=files)
        collected = await ask("teacher", "GET", "submission/course/one/student")
        server.stop()
        for step, answer in (("released", released), ("submitted", collected)):
            kept = [file["content"].strip() for file in answer.get("files", [])]
            if kept != [notebook]:
                sys.exit(f"The exchange does not start: what was {step} in a trial came back as {answer}. "
                         "Its environment is not the pinned one: remake it with `make up`.")


def read(site):
    """The site's document for the exchange."""
    return json.loads(site.read_text())


async def serve(host, port, folder, site):
    """Serve; look every few seconds whether the rosters have changed."""
    await round_trip()
    app = Exchange(os.environ["JUPYTERHUB_SERVICE_PREFIX"], folder, Hub(os.environ["JUPYTERHUB_API_URL"]))
    seen = site.stat().st_mtime_ns
    app.follow(read(site))
    measures.registry.register(measures.Stored(folder))

    def again():
        nonlocal seen
        changed = site.stat().st_mtime_ns
        if changed != seen:
            app.follow(read(site))
            seen = changed
            log.info("rosters read again")

    PeriodicCallback(again, 2000).start()
    HTTPServer(app, max_body_size=MAX_BODY, max_buffer_size=MAX_BODY).listen(port, host)
    log.info("exchange ready on port %d", port)
    await asyncio.Event().wait()


def main():
    if int(sqlalchemy.__version__.split(".")[0]) >= 2:
        sys.exit(f"The exchange does not start: SQLAlchemy {sqlalchemy.__version__} makes ngshare lose releases; it needs 1.4. "
                 "Remake its environment with `make up`.")
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int)
    options.add_argument("--folder", type=Path, help="where database and files are kept")
    options.add_argument("--site", type=Path, help="courses, rosters and closing times, as JSON")
    options.add_argument("--try", dest="trial", action="store_true", help="only try the round trip")
    args = options.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if args.trial:
        for name in ("API_URL", "API_TOKEN", "CLIENT_ID", "SERVICE_PREFIX"):
            os.environ.setdefault(f"JUPYTERHUB_{name}", "/")
        asyncio.run(round_trip())
        print("a release and a submission came back as they were stored")
    else:
        asyncio.run(serve(args.host, args.port, args.folder.resolve(), args.site.resolve()))


if __name__ == "__main__":
    main()
