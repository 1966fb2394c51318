"""A whole site on loopback for tests, started the way `make up` does it, and people who use it over HTTP like a browser."""

import csv
import fcntl
import json
import os
import random
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
import websocket

from hub import paths
from hub.network import ports

PORTS = 20                               # a site's, from its public one on
RESERVED = []                            # lock files, open as long as this process lives: two test runs choose different ports


def free_port() -> int:
    """A port with some free ones behind it, away from the default site's, that no other test run has chosen."""
    for base in random.sample(range(20000, 32000, 100), 120):
        file = Path(tempfile.gettempdir()) / f"tinytorch-test-ports-{base}-{os.getuid()}"
        lock = file.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        if not any(ports.taken(base + n) for n in range(PORTS)):
            RESERVED.append(lock)
            return base
        lock.close()
    raise RuntimeError("no free ports on loopback")


class Site:
    """One site with its own data, classes and ports."""

    def __init__(self, folder: Path, example: Path = paths.REPO / "hub" / "example", change=lambda text: text):
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.state, self.classes_yml = folder / "state", folder / "classes.yml"
        shutil.copytree(example / "rosters", folder / "rosters")
        self.classes_yml.write_text(change((example / "classes.yml").read_text().replace("http://127.0.0.1:8000", self.url)))
        self.env = {**os.environ, "TINYTORCH_STATE": str(self.state), "TINYTORCH_CLASSES": str(self.classes_yml), "NO_COLOR": "1"}

    def command(self, *words: str, timeout: float = 240) -> subprocess.CompletedProcess:
        return subprocess.run([str(paths.env_bin("hub", "python")), "-m", "hub.up", *words], cwd=paths.REPO, env=self.env,
                              capture_output=True, text=True, timeout=timeout)

    def up(self) -> str:
        done = self.command("up")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def down(self) -> None:
        self.command("down")

    def password(self, name: str) -> str:
        with (self.state / "secrets" / "signins.csv").open() as stream:
            return next(row["password"] for row in csv.DictReader(stream) if row["username"] == name)

    def secret(self, name: str) -> str:
        return json.loads((self.state / "secrets" / "tokens.json").read_text())[name]

    def home(self, name: str, class_: str) -> Path:
        """Where a person's files of one class lie on this machine."""
        return self.state / "homes" / name / class_

    def person(self, name: str) -> "Person":
        return Person(self, name)

    def supervisor(self, *words: str) -> str:
        """Ask the site's supervisor: `stop exchange`, for one."""
        conf = self.state / "run" / "supervisord.conf"
        return subprocess.run([str(paths.env_bin("hub", "supervisorctl")), "-c", str(conf), *words], capture_output=True, text=True).stdout

    def pid(self, program: str) -> int:
        """The process id of one of the supervisor's programs."""
        return int(self.supervisor("pid", program))

    def wait(self, path: str = "/hub/health", seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if requests.get(self.url + path, timeout=5).status_code < 500:
                    return
            except requests.RequestException:
                pass
            time.sleep(0.2)
        raise AssertionError(f"{path} did not answer within {seconds} s")

    def log(self, name: str) -> str:
        return (self.state / "logs" / f"{name}.log").read_text(errors="replace")


class WithoutTLS(requests.adapters.HTTPAdapter):
    """Lets cookies for https through where a test has no TLS in front of the hub of an https site."""

    def send(self, *arguments, **options):
        answer = super().send(*arguments, **options)
        said = answer.raw._original_response.msg
        cookies = said.get_all("Set-Cookie", [])
        del said["Set-Cookie"]
        for cookie in cookies:
            said["Set-Cookie"] = re.sub(r"; *secure", "", cookie, flags=re.IGNORECASE)
        return answer


def browser() -> requests.Session:
    session = requests.Session()
    session.mount("http://", WithoutTLS())
    return session


class Person:
    """Somebody signed in: cookies and XSRF tokens as a browser keeps them."""

    def __init__(self, site: Site, name: str, password: str | None = None):
        self.site, self.name, self.session = site, name, browser()
        page = self.get("/hub/login")
        self.signed_in = self.session.post(
            page.url, data={"username": name, "password": password or site.password(name), "_xsrf": self.xsrf("/hub/")},
            allow_redirects=False, timeout=30)

    def url(self, path: str) -> str:
        return urljoin(self.site.url, path)

    def xsrf(self, path: str) -> str:
        """The token for the longest matching cookie path, as the page's own script would find it."""
        fits = [c for c in self.session.cookies if c.name == "_xsrf" and path.startswith(c.path)]
        return max(fits, key=lambda c: len(c.path)).value if fits else ""

    def get(self, path: str, **options) -> requests.Response:
        return self.session.get(self.url(path), timeout=60, **options)

    def send(self, method: str, path: str, **options) -> requests.Response:
        headers = {"X-XSRFToken": self.xsrf(urlsplit(self.url(path)).path), "Referer": self.url("/"), **options.pop("headers", {})}
        return self.session.request(method, self.url(path), headers=headers, timeout=240, **options)

    def home(self, class_: str) -> str:
        return f"/user/{self.name}/{class_}/"

    def files(self, class_: str) -> Path:
        return self.site.home(self.name, class_)

    def start(self, class_: str, seconds: float = 90) -> str:
        """Start the server of a class and sign in to it; returns its path."""
        self.get("/hub/home")
        answer = self.send("POST", f"/hub/api/users/{self.name}/servers/{class_}")
        assert answer.status_code in (201, 202, 400), answer.text
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            model = self.get(f"/hub/api/users/{self.name}", headers={"X-XSRFToken": self.xsrf("/hub/")}).json()
            server = model.get("servers", {}).get(class_, {})
            if server.get("ready"):
                page = self.get(self.home(class_) + "lab")
                assert page.ok, page.text[:500]
                return self.home(class_)
            time.sleep(0.3)
        raise AssertionError(f"the server {self.name}/{class_} was not ready in {seconds} s: "
                             + self.site.log("hub")[-1500:])

    def stop(self, class_: str) -> None:
        self.send("DELETE", f"/hub/api/users/{self.name}/servers/{class_}")

    def token(self, class_: str) -> str:
        """The token in the environment of the person's server, where every process of theirs can read it."""
        return self.run(class_, "import os; print(os.environ['JUPYTERHUB_API_TOKEN'])").strip()

    # ------------------------------------------------------------------ what nbgrader's pages call
    def assignments(self, class_: str) -> dict:
        return self.get(f"{self.home(class_)}assignments", params={"course_id": class_}).json()

    def act(self, class_: str, action: str, assignment: str, course: str | None = None) -> dict:
        """fetch, submit or fetch_feedback, as the assignment list does it."""
        return self.send("POST", f"{self.home(class_)}assignments/{action}",
                         json={"assignment_id": assignment, "course_id": course or class_}).json()

    def notebook(self, class_: str, assignment: str) -> Path:
        [file] = (self.files(class_) / "modules" / "source" / assignment).glob("*.ipynb")
        return file

    def formgrader(self, class_: str, method: str, path: str, **options) -> requests.Response:
        """The formgrader's own API, after signing in to it as the browser does."""
        base = f"/services/{class_}/formgrader"
        if not any(c.path.startswith(f"/services/{class_}") for c in self.session.cookies):
            first = self.get(base)
            assert first.ok, f"{first.status_code} from {first.url}: {first.text[:300]}"
        return self.send(method, f"{base}/api/{path}", **options)

    def run(self, class_: str, code: str, seconds: float = 60) -> str:
        """Run code in a fresh kernel of the person's server; returns what it printed or its error."""
        return self.run_at(self.home(class_), code, seconds)

    def run_at(self, base: str, code: str, seconds: float = 60) -> str:
        """The same in any Jupyter server that the person is signed in to."""
        kernel = self.send("POST", f"{base}api/kernels", json={"name": "python3"}).json()
        assert "id" in kernel, kernel
        cookies = "; ".join(f"{c.name}={c.value}" for c in self.session.cookies if base.startswith(c.path))
        ws = websocket.create_connection(self.url(f"{base}api/kernels/{kernel['id']}/channels").replace("http", "ws", 1),
                                         cookie=cookies, timeout=seconds, origin=self.site.url)
        message = {"header": {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "username": "", "session": uuid.uuid4().hex,
                              "version": "5.3", "date": ""}, "parent_header": {}, "metadata": {}, "channel": "shell",
                   "content": {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}}
        try:
            ws.send(json.dumps(message))
            printed = ""
            while True:
                answer = json.loads(ws.recv())
                content = answer["content"]
                if content.get("execution_state") in ("restarting", "dead"):
                    raise AssertionError(f"the kernel ended while it ran this, after printing {printed!r}:\n{code}")
                if answer["parent_header"].get("msg_id") != message["header"]["msg_id"]:
                    continue
                if answer["msg_type"] == "stream":
                    printed += content["text"]
                elif answer["msg_type"] == "error":
                    printed += re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(content["traceback"]))
                elif answer["msg_type"] == "status" and content["execution_state"] == "idle":
                    return printed
        finally:
            ws.close()
            self.send("DELETE", f"{base}api/kernels/{kernel['id']}")


def solve(notebook: Path, source: Path, cells=lambda grade_id: True) -> None:
    """Write the reference answers of the source notebook into a student's notebook, in the cells chosen by grade id."""
    answers = {c["metadata"]["nbgrader"]["grade_id"]: c["source"] for c in json.loads(source.read_text())["cells"]
               if c["metadata"].get("nbgrader", {}).get("solution")}
    document = json.loads(notebook.read_text())
    for cell in document["cells"]:
        grade_id = cell["metadata"].get("nbgrader", {}).get("grade_id")
        if grade_id in answers and cells(grade_id):
            cell["source"] = answers[grade_id]
    notebook.write_text(json.dumps(document))
