"""Who may not do what, tried with real tokens and cookies; each refusal stands beside somebody for whom it works."""

import base64
import json
import os
import re
from urllib.parse import quote

import pytest
import requests

from hub import paths
from tests.integration.conftest import ASSIGNMENT, NOTEBOOK, SOURCE

pytestmark = pytest.mark.site
REFUSED = (401, 403, 404)
FILES = json.dumps([{"path": "a.ipynb", "content": base64.b64encode(b'{"cells": []}').decode()}])


@pytest.fixture(scope="module")
def tokens(loop):
    """(name, class) -> the token found inside that person's own server."""
    found = {(name, class_): person.token(class_) for class_, people in loop.students.items() for name, person in people.items()}
    staff = [loop.site.person(name) for name in ("grace", "gus")]
    for person in staff:
        person.start("ml101")
        found[person.name, "ml101"] = person.token("ml101")
    assert all(re.fullmatch("[0-9a-f]{32}", token) for token in found.values())
    assert len(set(found.values())) == len(found)
    yield found
    for person in staff:
        person.stop("ml101")


@pytest.fixture(scope="module")
def ask(loop, tokens):
    """ask(name, class, method, path, **data) with that server's token and nothing else."""
    def ask(name, class_, method, path, **data):
        return requests.request(method, loop.site.url + path, headers={"Authorization": f"token {tokens[name, class_]}"},
                                data=data or None, timeout=60, allow_redirects=False)
    return ask


# --------------------------------------------------------------------------------------------- the exchange
@pytest.fixture(scope="module")
def handed_in(ask):
    """When alice submitted in ml101, as the exchange tells her."""
    listed = ask("alice", "ml101", "GET", f"/services/ngshare/submissions/ml101/{ASSIGNMENT}/alice")
    assert listed.ok, listed.text
    return listed.json()["submissions"][0]["timestamp"]


@pytest.mark.parametrize("path", [
    "submission/ml101/{assignment}/alice", "submissions/ml101/{assignment}", "submissions/ml101/{assignment}/alice",
    "feedback/ml101/{assignment}/alice?timestamp={when}", "students/ml101", "student/ml101/alice"])
def test_only_staff_reads_what_others_submitted_and_got_back(ask, handed_in, path):
    path = "/services/ngshare/" + path.format(assignment=ASSIGNMENT, when=quote(handed_in))
    assert ask("grace", "ml101", "GET", path).json()["success"]
    for name, class_ in (("bob", "ml101"), ("carol", "ml201"), ("alice", "ml201")):
        refused = ask(name, class_, "GET", path)
        assert refused.status_code == 403, (name, refused.text)
        assert set(refused.json()) == {"success", "message"}


def test_a_students_own_feedback_is_the_only_one_they_get(ask, handed_in):
    own = ask("alice", "ml101", "GET", f"/services/ngshare/feedback/ml101/{ASSIGNMENT}/alice?timestamp={quote(handed_in)}")
    assert [file["path"] for file in own.json()["files"]] == [f"{NOTEBOOK}.html"]


@pytest.mark.parametrize(("method", "path", "data"), [
    ("POST", "assignment/ml101/03_activations", {"files": FILES}),
    ("POST", "assignment/ml101/{assignment}", {"files": FILES, "replace": "true"}),
    ("DELETE", "assignment/ml101/{assignment}", {}),
    ("POST", "feedback/ml101/{assignment}/alice", {"files": FILES, "timestamp": "{when}"}),
    ("POST", "feedback/ml101/{assignment}/bob", {"files": FILES, "timestamp": "{when}"}),
    ("POST", "student/ml101/mallory", {"first_name": "", "last_name": "", "email": ""}),
    ("POST", "students/ml101", {"students": '[{"username": "mallory", "first_name": "", "last_name": "", "email": ""}]'}),
    ("DELETE", "student/ml101/alice", {}),
    ("POST", "instructor/ml101/bob", {"first_name": "", "last_name": "", "email": ""}),
    ("DELETE", "instructor/ml101/grace", {}), ("POST", "course/mine", {}), ("DELETE", "course/ml101", {})])
def test_a_student_changes_nothing_but_their_own_submissions(ask, handed_in, method, path, data):
    values = {"assignment": ASSIGNMENT, "when": handed_in}
    refused = ask("bob", "ml101", method, "/services/ngshare/" + path.format(**values),
                  **{name: handed_in if value == "{when}" else value for name, value in data.items()})
    assert refused.status_code == 403, refused.text
    there = ask("alice", "ml101", "GET", f"/services/ngshare/assignment/ml101/{ASSIGNMENT}").json()
    assert f"{NOTEBOOK}.ipynb" in [file["path"] for file in there["files"]]


@pytest.mark.parametrize(("method", "path"), [
    ("GET", "assignments/ml201"), ("GET", f"assignment/ml201/{ASSIGNMENT}"), ("GET", f"submissions/ml201/{ASSIGNMENT}/alice"),
    ("GET", "instructors/ml201"), ("POST", f"submission/ml201/{ASSIGNMENT}")])
def test_another_class_is_neither_listed_nor_fetched_nor_submitted_to(ask, method, path):
    data = {"files": FILES} if method == "POST" else {}
    if method == "GET":
        assert ask("alice", "ml201", method, f"/services/ngshare/{path}").json()["success"]
    for name in ("bob", "alice"):                      # also for alice, who is in both: a server acts for its own class
        refused = ask(name, "ml101", method, f"/services/ngshare/{path}", **data)
        assert refused.status_code == 403, (name, refused.text)
        assert "this is the server of class ml101" in refused.json()["message"]


def test_the_pages_say_so_too(loop):
    bob = loop.students["ml101"]["bob"]
    listed = bob.get(f"{bob.home('ml101')}assignments", params={"course_id": "ml201"}).json()
    assert not listed["success"]
    assert "his is the server of class ml101" in listed["value"]
    for name, says in (("bob", "You do not have access to this course"), ("alice", "his is the server of class ml101")):
        fetched = loop.students["ml101"][name].act("ml101", "fetch", "09_spatial", course="ml201")
        assert not fetched["success"]
        assert says in " ".join(fetched["value"].split())
        assert "Traceback" not in fetched["value"]


def test_the_exchange_knows_nobody_without_a_token_and_has_no_page_that_dumps_it(loop, ask):
    for headers in ({}, {"Authorization": "token " + "0" * 32}):
        refused = requests.get(f"{loop.site.url}/services/ngshare/assignments/ml101", headers=headers, timeout=30, allow_redirects=False)
        assert refused.status_code == 401
    for name, class_ in (("bob", "ml101"), ("grace", "ml101")):
        assert ask(name, class_, "GET", "/services/ngshare/initialize-Data6ase?action=dump").status_code == 404


# --------------------------------------------------------------------------------------------- the hub
HUB_API = [
    ("GET", "users"), ("GET", "users/alice"), ("GET", "users/grace"), ("GET", "groups"), ("GET", "groups/nbgrader-ml101"),
    ("GET", "groups/formgrade-ml101"), ("GET", "services"), ("GET", "services/ml101"), ("GET", "services/ngshare"), ("GET", "proxy"),
    ("GET", "info"), ("POST", "shutdown"), ("POST", "users/mallory"), ("DELETE", "users/alice"), ("PATCH", "users/bob"),
    ("POST", "users/bob/tokens"), ("POST", "users/alice/tokens"), ("GET", "users/alice/tokens"), ("POST", "users/alice/activity"),
    ("POST", "groups/formgrade-ml101/users"), ("DELETE", "groups/nbgrader-ml101/users"), ("POST", "groups/mine"),
    ("POST", "users/alice/servers/ml101"), ("DELETE", "users/alice/servers/ml101"), ("DELETE", "users/alice/server"),
    ("POST", "shares/alice/ml101"), ("POST", "shares/bob/ml101"), ("PATCH", "shares/bob/ml101"), ("POST", "share-codes/bob/ml101")]
BODIES = {"PATCH users/bob": {"admin": True}, "POST groups/formgrade-ml101/users": {"users": ["bob"]},
          "DELETE groups/nbgrader-ml101/users": {"users": ["alice"]}, "POST proxy": {"api_url": "http://127.0.0.1:1"}}


@pytest.mark.parametrize(("method", "path"), HUB_API)
def test_the_hubs_api_tells_and_does_nothing_about_others(loop, tokens, method, path):
    """Neither with a browser's cookies nor with the token of a server; an admin sees what is denied here."""
    bob, url, body = loop.students["ml101"]["bob"], f"/hub/api/{path}", BODIES.get(f"{method} {path}", {})
    bob.get("/hub/home")
    with_token = requests.request(method, loop.site.url + url, json=body, timeout=30,
                                  headers={"Authorization": f"token {tokens['bob', 'ml101']}"})
    for refused in (bob.send(method, url, json=body), with_token):
        assert refused.status_code in REFUSED, refused.text
        for told in ("alice", "grace", "8"):
            assert f'"name": "{told}"' not in refused.text


def test_an_admin_sees_what_was_denied(loop):
    ada = loop.site.person("ada")
    ada.get("/hub/home")
    headers = {"X-XSRFToken": ada.xsrf("/hub/")}
    assert {"alice", "bob", "grace"} <= {user["name"] for user in ada.get("/hub/api/users", headers=headers).json()}
    assert "formgrade-ml101" in [group["name"] for group in ada.get("/hub/api/groups", headers=headers).json()]
    assert "ml101" in ada.get("/hub/api/services", headers=headers).json()


def test_who_asks_learns_about_themselves_only(loop, tokens):
    own = requests.get(f"{loop.site.url}/hub/api/user", headers={"Authorization": f"token {tokens['bob', 'ml101']}"}, timeout=30).json()
    assert own["name"] == "bob"
    assert own["groups"] == ["nbgrader-ml101"]
    assert not own.get("admin")
    assert sorted(own["scopes"]) == ["access:servers!server=bob/ml101", "access:services!service=autograder",
                                     "read:users:activity!user=bob",
                                     "read:users:groups!user=bob", "read:users:name!user=bob", "users:activity!user=bob"]
    for page in ("/hub/admin", "/metrics", "/hub/metrics"):
        assert loop.students["ml101"]["bob"].get(page).status_code in REFUSED, page


@pytest.mark.parametrize("server", ["servers/ml201", "server", "servers/mine", "servers/ML101", "servers/ml101%2F..%2Fml201"])
def test_no_server_but_that_of_an_own_class_is_started(loop, server):
    bob = loop.students["ml101"]["bob"]
    bob.get("/hub/home")
    refused = bob.send("POST", f"/hub/api/users/bob/{server}")
    assert refused.status_code in (403, 404), refused.text
    model = bob.get("/hub/api/users/bob", headers={"X-XSRFToken": bob.xsrf("/hub/")}).json()
    assert set(model["servers"]) <= {"ml101"}
    assert not (loop.site.state / "homes" / "bob" / "ml201").exists()


@pytest.mark.parametrize(("page", "says"), [
    ("/hub/spawn/bob/ml201", "not in a class named ml201"), ("/hub/spawn/bob", "Choose a class"),
    ("/hub/user-redirect/ml201/lab", "not in a class named ml201"), ("/hub/spawn/alice/ml101", "")])
def test_pages_that_start_servers_say_why_not(loop, page, says):
    refused = loop.students["ml101"]["bob"].get(page)
    assert refused.status_code in (403, 404), refused.text[:300]
    assert says in refused.text


# --------------------------------------------------------------------------------------------- other people's servers
OTHERS = ["lab", "tree", "api/contents", "api/kernels", "api/sessions", "api/terminals", "files/Welcome.md", "assignments?course_id=ml101"]


@pytest.mark.parametrize("path", OTHERS)
def test_another_persons_server_is_closed(loop, tokens, path):
    """With cookies, with the token, and on its own port, around the proxy."""
    site, bob = loop.site, loop.students["ml101"]["bob"]
    url = f"/user/alice/ml101/{path}"
    assert loop.students["ml101"]["alice"].get(url).ok or path == "tree"
    record = json.loads((site.state / "run" / "servers" / "alice" / "ml101.json").read_text())
    port = listening_port(record)
    header = {"Authorization": f"token {tokens['bob', 'ml101']}"}
    assert bob.get(url).status_code in REFUSED
    for base in (site.url, f"http://127.0.0.1:{port}"):
        refused = requests.get(base + url, headers=header, timeout=30)
        assert refused.status_code in REFUSED, f"{base}: {refused.status_code}"
        assert "Welcome to Machine learning" not in refused.text
    unknown = requests.get(f"http://127.0.0.1:{port}{url}", timeout=30, allow_redirects=False)
    assert unknown.status_code in (302, *REFUSED)


def listening_port(record):
    """The port on which a server's process listens: sockets by inode, as in /proc."""
    found = set()
    for pid in [record["pid"], record["inner_pid"], *children(record["inner_pid"])]:
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd") if os.path.lexists(f"/proc/{pid}/fd/{fd}")]
        inodes = {link[8:-1] for link in links if link.startswith("socket:")}
        with open("/proc/net/tcp") as table:
            rows = [line.split() for line in table.readlines()[1:]]
        found |= {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and row[9] in inodes}
    assert len(found) == 1, found
    return found.pop()


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as listed:
        return [int(child) for child in listed.read().split()]


def test_the_server_of_ones_other_class_needs_its_own_token(loop, tokens):
    for class_, other in (("ml101", "ml201"), ("ml201", "ml101")):
        header = {"Authorization": f"token {tokens['alice', class_]}"}
        assert requests.get(f"{loop.site.url}/user/alice/{class_}/api/contents", headers=header, timeout=30).ok
        assert requests.get(f"{loop.site.url}/user/alice/{other}/api/contents", headers=header, timeout=30).status_code == 403


# --------------------------------------------------------------------------------------------- the formgrader
FORMGRADER = ["formgrader", "formgrader/api/assignments", f"formgrader/api/submissions/{ASSIGNMENT}", "formgrader/api/students",
              "lab", "api/contents", "api/kernels", "api/terminals", "files/gradebook.db", f"files/source/{ASSIGNMENT}/{NOTEBOOK}.ipynb"]


@pytest.mark.parametrize("path", FORMGRADER)
def test_no_student_and_no_server_token_reaches_a_formgrader(loop, tokens, path):
    url = f"/services/ml101/{path}"
    assert loop.teachers["ml101"].get(url).ok
    port = json.loads((loop.site.state / "run" / "ports.json").read_text())["formgrader"]["ml101"]
    for class_, people in loop.students.items():
        for name, person in people.items():
            refused = person.get(url)
            assert refused.status_code in REFUSED, f"{name}: {refused.status_code}"
            header = {"Authorization": f"token {tokens[name, class_]}"}
            for base in (loop.site.url, f"http://127.0.0.1:{port}"):
                refused = requests.get(base + url, headers=header, timeout=30)
                assert refused.status_code in REFUSED, f"{name}, {base}: {refused.status_code}"
    # not even an instructor's: what runs in a notebook of hers must not grade
    assert requests.get(loop.site.url + url, headers={"Authorization": f"token {tokens['grace', 'ml101']}"}, timeout=30).status_code == 403


def test_a_grader_reaches_the_formgrader_of_their_class_only(loop, tokens):
    gus = loop.site.person("gus")
    assert gus.formgrader("ml101", "GET", "assignments").ok
    assert gus.get("/services/ml201/formgrader").status_code == 403
    assert gus.get("/services/ml201/api/contents").status_code == 403
    assert gus.get("/hub/admin").status_code == 403
    gus.get("/hub/home")
    assert gus.send("POST", "/hub/api/users/gus/servers/ml201").status_code == 403
    assert gus.get("/hub/api/users", headers={"X-XSRFToken": gus.xsrf("/hub/")}).status_code == 403
    header = {"Authorization": f"token {tokens['gus', 'ml101']}"}
    assert requests.get(f"{loop.site.url}/services/ngshare/submissions/ml101/{ASSIGNMENT}", headers=header, timeout=30).ok
    assert requests.get(f"{loop.site.url}/services/ngshare/submissions/ml201/{ASSIGNMENT}", headers=header, timeout=30).status_code == 403


# --------------------------------------------------------------------------------------------- the machine, from inside a server
LOOK = """
import json, os, pathlib, re
def text(path):
    try: return pathlib.Path(path).read_bytes().replace(b"\\0", b" ").decode(errors="replace")
    except OSError as error: return f"({error.strerror})"
pids = [name for name in os.listdir("/proc") if name.isdigit()]
print(json.dumps({
    "processes": [text(f"/proc/{pid}/cmdline") for pid in pids], "environments": [text(f"/proc/{pid}/environ") for pid in pids],
    "mounts": [line.split()[3:5] for line in text("/proc/self/mountinfo").splitlines()],
    "visible": [path for path in PATHS if os.path.lexists(path)], "uid": os.getuid(), "user": os.environ.get("USER"),
    "homes": os.listdir(os.path.dirname(os.environ["HOME"])),
}))
"""


def looked(person, base, closed):
    """What a process there sees; `closed`: paths of the machine to look for."""
    return json.loads(person.run_at(base, LOOK.replace("PATHS", repr([str(path) for path in closed]))))


def closed_paths(site):
    """What nobody's notebook has to see: the site's data and files, and the repository with the course's source."""
    return [site.state, *site.state.iterdir(), site.state / "homes" / "alice", site.state / "secrets" / "tokens.json",
            site.state / "classes" / "ml201" / "gradebook.db", site.state / "run" / "supervisor.sock", site.classes_yml]


def test_a_students_process_sees_its_own_home_and_nothing_of_the_site(loop):
    site, bob = loop.site, loop.students["ml101"]["bob"]
    repository = [paths.REPO / "course", paths.REPO / "hub", paths.REPO / ".git", paths.REPO / "classes.yml", paths.REPO / ".state",
                  paths.BUILD / "source", paths.BUILD / "editions" / "grading", "/etc/shadow", "/run", "/var"]
    seen = looked(bob, bob.home("ml101"), [*closed_paths(site), *repository])
    assert seen["visible"] == []
    assert seen["uid"] == 60902
    assert seen["homes"] == ["student"]
    of_site = {inside: source for source, inside in seen["mounts"] if str(site.state) in source}
    assert set(of_site) == {"/home/student", "/opt/tinytorch"}    # the second is a copy of the student edition
    assert of_site["/home/student"].endswith("/homes/bob/ml101")
    assert "/run/editions/" in of_site["/opt/tinytorch"]


def test_a_students_process_sees_its_own_processes_and_no_token_but_its_own(loop, tokens):
    site, bob = loop.site, loop.students["ml101"]["bob"]
    seen = looked(bob, bob.home("ml101"), [])
    assert 2 <= len(seen["processes"]) <= 8, seen["processes"]
    assert all(re.search(r"^bwrap |^/usr/bin/bwrap |start.py|jupyterhub-singleuser|ipykernel", line) for line in seen["processes"]), seen
    everything = json.dumps(seen)
    assert tokens["bob", "ml101"] in everything                   # the probe does read environments
    others = [token for owner, token in tokens.items() if owner != ("bob", "ml101")]
    secrets = [*json.loads((site.state / "secrets" / "tokens.json").read_text()).values(), site.password("alice"), site.password("grace")]
    assert not [secret for secret in [*others, *secrets] if secret in everything]


def distinctive(source, released):
    """Lines of solutions and hidden tests that no student is given, long enough to be nobody else's."""
    given = {line.strip() for cell in json.loads(released.read_text())["cells"] for line in "".join(cell["source"]).splitlines()}
    found = set()
    for cell in json.loads(source.read_text())["cells"]:
        for kind in ("SOLUTION", "HIDDEN TESTS"):
            for part in "".join(cell["source"]).split(f"### BEGIN {kind}")[1:]:
                found |= {line.strip() for line in part.split(f"### END {kind}")[0].splitlines()}
    return {line for line in found - given if len(line) >= 36 and not line.startswith("#")}


SEARCH = """
import os, subprocess, sys
open("/tmp/planted", "w").write(PLANTED)
mounts = {line.split()[4] for line in open("/proc/self/mountinfo")} - {"/", os.environ["HOME"]}
system = ("/proc", "/dev", "/usr", sys.base_prefix, os.path.realpath(sys.base_prefix))
found = subprocess.run(["grep", "-rlIF", "-f", os.environ["HOME"] + "/patterns", *(m for m in mounts if not m.startswith(system))],
                       capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
print(found.stdout or found.stderr)
"""


def test_no_solution_and_no_hidden_test_is_anywhere_in_reach(loop):
    """All that a student's process can read, but for the distribution's and the interpreter's files, and their own."""
    carol = loop.students["ml201"]["carol"]
    lines = set()
    for folder in sorted((paths.BUILD / "source").iterdir()):
        for notebook in folder.glob("*.ipynb"):
            lines |= distinctive(notebook, paths.BUILD / "release" / folder.name / notebook.name)
    assert len(lines) > 50
    patterns = carol.files("ml201") / "patterns"
    patterns.write_text("\n".join(sorted(lines)) + "\n")
    try:
        found = carol.run("ml201", SEARCH.replace("PLANTED", repr(f"x\n    {sorted(lines)[0]}\n")), seconds=120).split()
    finally:
        patterns.unlink()
    assert found == ["/tmp/planted"]                              # the search finds what is there
    own = carol.notebook("ml201", ASSIGNMENT).read_text()         # carol solved matmul; no hidden test came with the assignment
    hidden = distinctive(SOURCE, paths.BUILD / "release" / ASSIGNMENT / f"{NOTEBOOK}.ipynb")
    assert len([line for line in hidden if json.dumps(line)[1:-1] in own]) < len(hidden) / 2
    assert "HIDDEN TESTS" not in own


INSIDE = """
import json, os, socket, urllib.error, urllib.request
def ask(method, url, **headers):
    request = urllib.request.Request(url, method=method, headers=headers, data=b"{}" if method == "POST" else None)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer: return answer.status
    except urllib.error.HTTPError as error: return error.code
    except OSError as error: return str(error)
token = os.environ["JUPYTERHUB_API_TOKEN"]
ways = [{}, {"Authorization": f"token {token}"}, {"Authorization": f"Bearer {token}"}]
answers = {f"{method} {url} {n}": ask(method, url, **headers) for method, url in ASKED for n, headers in enumerate(ways)}
def connected(address):
    with socket.socket(socket.AF_UNIX) as link:
        try: link.connect(address)
        except OSError as error: return error.errno
    return 0
print(json.dumps([answers, connected(SOCKET)]))
"""


def test_proxy_autograder_and_supervisor_answer_nobody(loop):
    """Asked from inside bob's server, which shares the machine's loopback network."""
    site, bob = loop.site, loop.students["ml101"]["bob"]
    proxy, autograder = f"http://127.0.0.1:{site.port + 1}", f"http://127.0.0.1:{site.port + 4}"
    asked = [("GET", f"{proxy}/api/routes"), ("POST", f"{proxy}/api/routes/user/alice"), ("DELETE", f"{proxy}/api/routes/hub"),
             ("POST", f"{autograder}/api/jobs"), ("GET", f"{autograder}/api/jobs/{'0' * 64}")]
    code = INSIDE.replace("ASKED", repr(asked)).replace("SOCKET", repr(str(site.state / "run" / "supervisor.sock")))
    answers, connected = json.loads(bob.run("ml101", code))
    assert len(answers) == 3 * len(asked)
    jobs = {asked: code for asked, code in answers.items() if autograder in asked and not asked.endswith(" 0")}
    assert set(jobs.values()) == {422, 404}, answers              # the own token may submit, and see own jobs: nonsense, and none
    assert {code for asked, code in answers.items() if asked not in jobs} <= {401, 403}, answers
    assert connected == 2                                         # no such file
    real = {"Authorization": f"token {site.secret('proxy')}"}
    assert requests.get(f"{proxy}/api/routes", headers=real, timeout=10).status_code == 200


# --------------------------------------------------------------------------------------------- the machine, from inside a formgrader
def listeners():
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A"}


def test_a_formgrader_sees_its_own_course_and_no_other_and_no_secret_of_the_site(loop, tokens):
    site, grace = loop.site, loop.teachers["ml101"]
    assert grace.get("/services/ml101/lab").ok
    closed = [path for path in closed_paths(site) if path not in (site.state, site.state / "classes")]
    seen = looked(grace, "/services/ml101/", [*closed, site.state / "classes" / "ml101" / "gradebook.db"])
    assert seen["visible"] == [str(site.state / "classes" / "ml101" / "gradebook.db")]
    of_site = {inside for source, inside in seen["mounts"] if str(site.state) in inside}
    assert of_site == {str(site.state / "classes" / "ml101")}
    everything = json.dumps(seen)
    allowed = (site.secret("service:ml101"), site.secret("autograder"))
    secrets = [*json.loads((site.state / "secrets" / "tokens.json").read_text()).values(), *tokens.values(), site.password("grace")]
    assert not [secret for secret in secrets if secret in everything and secret not in allowed]


def test_no_kernel_of_a_formgrader_listens_where_students_are(loop):
    """Outputs of a kernel go to whoever connects to its port; they share the loopback network with every notebook."""
    grace, before = loop.teachers["ml101"], listeners()
    assert grace.get("/services/ml101/lab").ok
    kernel = grace.send("POST", "/services/ml101/api/kernels", json={"name": "python3"}).json()["id"]
    try:
        assert grace.run_at("/services/ml101/", "print(6 * 7)").strip() == "42"
        connection = json.loads(grace.run_at("/services/ml101/", "import ipykernel; print(open(ipykernel.get_connection_file()).read())"))
        assert connection["transport"] == "ipc"
    finally:
        grace.send("DELETE", f"/services/ml101/api/kernels/{kernel}")
    ours = [port for port in listeners() - before if port in range(loop.site.port, loop.site.port + 20)]
    assert not ours
