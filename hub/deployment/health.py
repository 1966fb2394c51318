"""Does a deployed site work? See that student code can be isolated, sign in as a check account, start its server, run a notebook in
it, remove it again.

    python -m hub.deployment.health isolates         in the hub's container: whether the autograder can isolate student code
    python -m hub.deployment.health account          in the hub's container: let the check account in, print how, as JSON
    … | python -m hub.deployment.health run URL      anywhere: do it, from the outside, as a browser does (--ca FILE: whom to trust)
    python -m hub.deployment.health forget           in the hub's container: let it in no longer

The account is in no roster, gradebook or exchange; outside of a check it has no password and no token, so nobody can use it.
"""

import argparse
import asyncio
import contextlib
import json
import secrets as random_source
import ssl
import sys
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import requests
from requests.cookies import get_cookie_header

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from hub.config.people import Person
    from hub.config.site import Site

NAME = "health-check"
MINUTES = 10                              # after which a check that was cut off leaves nothing that opens a door
CELLS = ["import numpy\nimport tinytorch", "print(int(numpy.eye(3).sum()), tinytorch.__name__)"]
ANSWER = "3 tinytorch\n"


class Failed(Exception):
    """Which step did not work, what was seen, and where to look."""


# --------------------------------------------------------------------------------------------- inside the hub's container
def person(site: "Site") -> "dict[str, Person]":
    """The check account as the hub knows it: a student of every class, in nobody's roster."""
    from hub.config.people import Person

    return {NAME: Person(NAME, student_of=[class_.id for class_ in site.classes])}


@contextlib.contextmanager
def database(site: "Site") -> "Iterator[Session]":
    from jupyterhub import orm

    from hub import database as where

    session = orm.new_session_factory(where.url(site))()
    try:
        yield session
        session.commit()
    finally:
        session.close()


def let_in(site: "Site") -> dict[str, Any]:
    """A password that holds until `forget`, or a token where people have no passwords here."""
    from jupyterhub import orm

    forget(site)
    said: dict[str, Any] = {"name": NAME, "classes": one_class_per_image(site)}
    with database(site) as session:
        if site.settings.sign_in == "native":
            import bcrypt
            from nativeauthenticator.orm import UserInfo

            said["password"] = random_source.token_urlsafe(24)
            hashed = bcrypt.hashpw(said["password"].encode(), bcrypt.gensalt(6))
            session.add(UserInfo(username=NAME, password=hashed, is_authorized=True))
        else:
            owner = session.query(orm.User).filter_by(name=NAME).one()
            said["token"] = orm.APIToken.new(user=owner, note="health check", expires_in=MINUTES * 60)
    return said


def forget(site: "Site") -> None:
    from jupyterhub import orm

    with database(site) as session:
        if site.settings.sign_in == "native":
            from nativeauthenticator.orm import UserInfo

            session.query(UserInfo).filter_by(username=NAME).delete()
        for owner in session.query(orm.User).filter_by(name=NAME):
            for token in list(owner.api_tokens):
                session.delete(token)


def isolates(url: str, seconds: float = 60) -> None:
    """Nothing is graded where the autograder at `url` cannot isolate student code; it says why not. It may still be starting."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer = requests.get(url, timeout=30)
            if answer.ok:
                return
            why = f"answers {answer.status_code}: {said(answer)}"
        except requests.RequestException as error:
            why = f"cannot be reached: {error}"
        if time.monotonic() > deadline:
            raise Failed(f"autograder: {url} {why}")
        time.sleep(1)


def one_class_per_image(site: "Site") -> list[str]:
    """Each image of students' servers is tried once."""
    return list({class_.image: class_.id for class_ in reversed(site.classes)}.values())


# --------------------------------------------------------------------------------------------- from outside
class Visitor:
    """Somebody with a browser: cookies, and XSRF tokens by their path."""

    def __init__(self, url: str, ca: str | None) -> None:
        self.url, self.ca, self.session = url, ca, requests.Session()
        self.headers: dict[str, str] = {}
        self.session.trust_env = False           # no proxy of this machine stands between
        self.session.verify = ca or True

    def ask(self, method: str, path: str, step: str, **options: Any) -> requests.Response:
        where = urljoin(self.url, path)
        token = next((each.removeprefix("_xsrf=") for each in self.cookies(where).split("; ") if each.startswith("_xsrf=")), "")
        headers = {"Referer": urljoin(where, "/"), **({"X-XSRFToken": token} if token else {}), **self.headers}
        try:
            answer = self.session.request(method, where, headers=headers, timeout=60, **options)
        except requests.RequestException as error:
            raise Failed(f"{step}: {where} cannot be reached: {error}") from None
        if answer.status_code >= 400:
            raise Failed(f"{step}: {where} answers {answer.status_code}: {said(answer)}")
        return answer

    def cookies(self, where: str) -> str:
        """What a browser sends there, the most specific path first: with `site.subdomains` everybody's servers have a host of their own."""
        return get_cookie_header(self.session.cookies, requests.Request("GET", where).prepare()) or ""

    def sign_in(self, name: str, account: dict[str, Any]) -> None:
        if "token" in account:
            self.headers = {"Authorization": f"token {account['token']}"}
            return
        page = self.ask("GET", "/hub/login", "sign-in page")
        cookie = next((c.value for c in self.session.cookies if c.name == "_xsrf"), "")
        answer = self.ask("POST", page.url, "sign-in", allow_redirects=False,
                          data={"username": name, "password": account["password"], "_xsrf": cookie})
        if answer.status_code != 302:
            raise Failed(f"sign-in: the hub did not let the check account in ({answer.status_code})")
        mine = [cookie for cookie in self.session.cookies if "jupyterhub" in cookie.name]
        if self.url.startswith("https:") and not all(cookie.secure for cookie in mine):
            raise Failed("sign-in: the hub's cookies are not marked as secure, so a browser might send them unencrypted")

    def start(self, name: str, server: str, seconds: float = 180) -> str:
        """Start the server and wait for it; returns where its home is."""
        if "Authorization" not in self.headers:
            self.ask("GET", "/hub/home", "home page")
        self.ask("POST", f"/hub/api/users/{name}/servers/{server}", "start of a server")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            model = self.ask("GET", f"/hub/api/users/{name}", "state of the server").json().get("servers", {}).get(server, {})
            if model.get("ready"):
                return str(model["url"])
            if not model.get("pending"):
                raise Failed(f"start of a server: it ended again. Look at: docker logs {name}'s container, and the hub's log")
            time.sleep(0.3)
        raise Failed(f"start of a server: it was not ready after {seconds:.0f} s. Look at the hub's log")

    def run_notebook(self, home: str) -> None:
        """Save a notebook, run its cells in a kernel of its own as Lab does, compare what they print."""
        if "Authorization" not in self.headers:
            self.ask("GET", f"{home}lab", "JupyterLab")
        path = "health-check.ipynb"
        cells: list[dict[str, Any]] = [
            {"cell_type": "code", "id": f"cell{i}", "metadata": {}, "outputs": [], "execution_count": None, "source": source}
            for i, source in enumerate(CELLS)]
        notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        self.ask("PUT", f"{home}api/contents/{path}", "saving a notebook", json={"type": "notebook", "format": "json", "content": notebook})
        saved = self.ask("GET", f"{home}api/contents/{path}", "reading a notebook").json()["content"]["cells"]
        session = self.ask("POST", f"{home}api/sessions", "start of a kernel",
                           json={"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}}).json()
        printed = asyncio.run(self.execute(f"{home}api/kernels/{session['kernel']['id']}/channels", [cell["source"] for cell in saved]))
        self.ask("DELETE", f"{home}api/sessions/{session['id']}", "end of a kernel")
        if printed != ANSWER:
            raise Failed(f"running a notebook: it printed {printed[-500:]!r} instead of {ANSWER!r}")

    async def execute(self, path: str, sources: list[str]) -> str:
        from tornado.httpclient import HTTPRequest
        from tornado.websocket import websocket_connect

        url = urljoin(self.url, path)
        cookies, origin, url = self.cookies(url), urljoin(url, "/").rstrip("/"), url.replace("http", "ws", 1)
        trust = ssl.create_default_context(cafile=self.ca) if url.startswith("wss") else None
        request = HTTPRequest(url, headers={"Origin": origin, **({"Cookie": cookies} if cookies else {}), **self.headers},
                              ssl_options=trust, request_timeout=60)
        channel, printed = await websocket_connect(request), ""
        try:
            for source in sources:
                header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "username": "", "session": uuid.uuid4().hex,
                          "version": "5.3", "date": ""}
                content = {"code": source, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
                await channel.write_message(json.dumps(
                    {"header": header, "parent_header": {}, "metadata": {}, "channel": "shell", "content": content}))
                while True:
                    raw = await asyncio.wait_for(channel.read_message(), 60)
                    if raw is None:
                        raise Failed(f"running a notebook: the connection closed after {printed!r}")
                    message = json.loads(raw)
                    if message["parent_header"].get("msg_id") != header["msg_id"]:
                        continue
                    if message["msg_type"] == "stream":
                        printed += message["content"]["text"]
                    elif message["msg_type"] == "error":
                        printed += f"{message['content']['ename']}: {message['content']['evalue']}"
                    elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                        break
        except TimeoutError:
            raise Failed(f"running a notebook: no answer within a minute, after {printed!r}") from None
        finally:
            channel.close()
        return printed

    def stop(self, name: str, server: str, seconds: float = 60) -> None:
        """Stop the server and have the hub forget it; its home is removed by who called this."""
        self.ask("DELETE", f"/hub/api/users/{name}/servers/{server}", "stop of the server", json={"remove": True})
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if server not in self.ask("GET", f"/hub/api/users/{name}", "state of the server").json().get("servers", {}):
                return
            time.sleep(0.3)
        raise Failed(f"stop of the server: it was still there after {seconds:.0f} s")


def said(answer: requests.Response) -> str:
    """What an error's answer says, in a line."""
    with contextlib.suppress(ValueError, AttributeError):
        told = answer.json()
        return str(told.get("message") or ". ".join(filter(None, (told.get("reason"), told.get("fix")))) or told)[:600]
    return " ".join(answer.text.split())[:300]


def run(url: str, ca: str | None, account: dict[str, Any]) -> None:
    """All of it, with a line and the seconds for each step."""
    visitor, name = Visitor(url, ca), account["name"]
    with step("signed in"):
        visitor.sign_in(name, account)
    for class_id in account["classes"]:
        try:
            with step(f"started a server in {class_id}"):
                home = visitor.start(name, class_id)
            with step("ran a notebook in it"):
                visitor.run_notebook(home)
        finally:
            with step("stopped it"):
                visitor.stop(name, class_id)


@contextlib.contextmanager
def step(done: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    print(f"{done} ({time.monotonic() - start:.1f} s)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("isolates")
    commands.add_parser("account")
    commands.add_parser("forget")
    running = commands.add_parser("run")
    running.add_argument("url")
    running.add_argument("--ca", help="certificates to trust; the system's without it")
    args = parser.parse_args()
    if args.command == "run":
        try:
            run(args.url, args.ca, json.load(sys.stdin))
        except Failed as failed:
            sys.exit(f"health check: {failed}")
        return
    from hub import paths
    from hub.config.site import Site

    site = Site.load(paths.CLASSES_YML)
    if args.command == "isolates":
        from hub.accounts.roles import AUTOGRADER
        from hub.network import wiring

        try:
            with step("the autograder can isolate student code"):
                isolates(f"{wiring.load(site).autograder.url}/services/{AUTOGRADER}/health")
        except Failed as failed:
            sys.exit(f"health check: {failed}")
    elif args.command == "account":
        print(json.dumps(let_in(site)))
    else:
        forget(site)


if __name__ == "__main__":
    main()
