"""What a hostile student can do from inside of a container: nothing to the host, the site, the network or a neighbour.

Every probe runs twice: in the student's container, where it must be refused, and in a container to which nothing is refused, where it
must succeed. What stands for the internet and for a cloud's metadata address are hosts in a network namespace that the test makes;
no packet goes anywhere else. About two minutes on two free cores.
"""

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
import requests

from hub.spawning import engine
from tests.docker_site import docker
from tests.need import need

pytestmark = [pytest.mark.docker, pytest.mark.site, pytest.mark.timeout(1200)]
PROBES = Path(__file__).with_name("probes.py")
PATIENCE = 240
METADATA, INTERNET = "169.254.169.254", "203.0.113.10"     # the second is kept free for documentation
OPEN = "/tmp/probes.py"
PYTHON = "/opt/envs/user/bin/python"


def run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture(scope="module")
def people(contained):
    """alice, who attacks, and bob, her neighbour; both servers run."""
    found = {name: contained.person(name) for name in ("alice", "bob", "ada")}
    for name in ("alice", "bob"):
        found[name].start("ml101", PATIENCE)
    return found


@pytest.fixture(scope="module")
def world(contained):
    """A network namespace with a web server at the metadata address and at an address of the internet."""
    need("iproute2 and root", shutil.which("ip") and os.geteuid() == 0, "apt-get install iproute2, and run it as root")
    name = f"{contained.project}w"
    run("ip", "netns", "add", name)
    server = None
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        for address in (METADATA, INTERNET):
            run("ip", "-n", name, "addr", "add", f"{address}/32", "dev", "lo")
        server = subprocess.Popen(["ip", "netns", "exec", name, "python3", "-m", "http.server", "80"], cwd="/var/empty" if
                                  Path("/var/empty").is_dir() else "/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        yield name
    finally:
        if server:
            server.kill()
            server.wait()
        run("ip", "netns", "del", name)


@pytest.fixture(scope="module")
def free(contained, world):
    """A container to which nothing is refused: on the services' network, root, the engine's socket, and a cable into that world."""
    name = f"{contained.project}-free"
    rights = [word for cap in ("SYS_ADMIN", "NET_ADMIN") for word in ("--cap-add", cap)]
    rights += [word for option in ("seccomp", "apparmor", "systempaths") for word in ("--security-opt", f"{option}=unconfined")]
    seen = [word for path in ("/var/run/docker.sock", "/sys/fs/cgroup") for word in ("-v", f"{path}:{path}")]
    docker("run", "-d", "--name", name, "--label", f"org.tinytorch.project={contained.project}", "--network", f"{contained.project}-core",
           *rights, *seen, "-u", "0:0", "--tmpfs", "/run/tinytorch", "--entrypoint", "sleep", contained.image("student"), "100000")
    try:
        pid = contained.inspect(name)["State"]["Pid"]
        inside = ["nsenter", "-t", str(pid), "-n"]
        cable = ["ip", "link", "add", "world0", "type", "veth", "peer", "name", "world1", "netns", world]
        run(*inside[:-1], "-n", *cable)
        run(*inside, "ip", "addr", "add", "198.51.100.1/30", "dev", "world0")
        run(*inside, "ip", "link", "set", "world0", "up")
        run("ip", "-n", world, "addr", "add", "198.51.100.2/30", "dev", "world1")
        run("ip", "-n", world, "link", "set", "world1", "up")
        for address in (METADATA, INTERNET):
            run(*inside, "ip", "route", "add", f"{address}/32", "via", "198.51.100.2")
        docker("exec", name, "sh", "-c", "touch /run/tinytorch/door.sock")
        yield name
    finally:
        docker("rm", "-f", name)


@pytest.fixture(scope="module")
def host(contained):
    """Something that listens on the host, at the address of the services' network."""
    gateway = engine.ask("GET", f"/networks/{contained.project}-core")["IPAM"]["Config"][0]["Gateway"]
    server = subprocess.Popen(["python3", "-m", "http.server", "--bind", gateway, "23999"], cwd="/var/empty" if Path("/var/empty").is_dir()
                              else "/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield gateway, 23999
    server.kill()
    server.wait()


@pytest.fixture(scope="module")
def asked(contained, people, host):
    """Every address that a student has no business at."""
    def address(service):
        networks = contained.inspect(contained.service(service))["NetworkSettings"]["Networks"]
        return networks[f"{contained.project}-core"]["IPAddress"]
    addresses = {"the public proxy directly": (address("proxy"), 8000), "the proxy's API": (address("proxy"), 8001),
                 "the hub directly": (address("hub"), 8081), "the exchange": (address("exchange"), 8003),
                 "the autograder": (address("autograder"), 8004), "another container": (address("formgrader-ml201"), 8010),
                 "the host": host, "the metadata address": (METADATA, 80), "the internet": (INTERNET, 80)}
    return json.dumps({"addresses": addresses})


def probe(container, asked):
    subprocess.run([docker.__globals__["DOCKER"], "exec", "-i", container, "sh", "-c", f"cat > {OPEN}"], input=PROBES.read_bytes(),
                   check=True, timeout=60)
    return json.loads(docker("exec", container, PYTHON, OPEN, asked, timeout=PATIENCE).splitlines()[-1])


@pytest.fixture(scope="module")
def refused(contained, people, asked):
    """What succeeded for alice, run in a kernel of her server."""
    code = f"import subprocess, sys; open({OPEN!r}, 'w').write({PROBES.read_text()!r}); " \
           f"print(subprocess.run([sys.executable, {OPEN!r}, {asked!r}], capture_output=True, text=True).stdout)"
    return json.loads(people["alice"].run("ml101", code, PATIENCE).strip().splitlines()[-1])


@pytest.fixture(scope="module")
def allowed(free, asked):
    return probe(free, asked)


PROBED = [
    *(f"reaches {name}" for name in (
        "the public proxy directly", "the proxy's API", "the hub directly", "the exchange", "the autograder", "another container",
        "the host", "the metadata address", "the internet")),
    "engine", "raw ICMP", "raw frames", "mounts", "makes a device", "becomes root", "runs a program of root", "user namespace",
    "kernel settings", "cgroup", "replaces its socket", "renames the door",
    *(f"writes {path}" for path in ("/", "/usr", "/etc", "/opt/settings", "/opt/tinytorch", "/run/tinytorch"))]


@pytest.mark.parametrize("what", PROBED)
def test_a_student_is_refused_what_an_unconfined_container_is_not(refused, allowed, what):
    assert allowed[what], "the probe itself does not work, so a refusal would prove nothing"
    assert not refused[what]


def test_all_probes_are_looked_at(refused):
    assert set(refused) == set(PROBED)


def test_no_rights_are_left(people):
    said = people["alice"].run("ml101", "print(open('/proc/self/status').read())", PATIENCE)
    status = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
    assert {status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    assert status["Uid"].split() == ["10001"] * 4


def test_only_loopback_exists(people):
    said = people["alice"].run("ml101", "import socket; print([name for _, name in socket.if_nameindex()])", PATIENCE)
    assert said.strip() == "['lo']"


# --------------------------------------------------------------------------------------------- through the door
ASK = """
import json, os, urllib.error, urllib.request
def ask(method, path, body=None):
    request = urllib.request.Request("http://127.0.0.1:8000" + path, method=method, data=body,
                                     headers={"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"]})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
print(json.dumps([ask(*each) for each in %r]))
"""
BEYOND = [("GET", "/hub/api/users"), ("GET", "/hub/api/users/bob"), ("POST", "/hub/api/users/bob/servers/ml101"),
          ("DELETE", "/hub/api/users/bob/servers/ml101"), ("GET", "/hub/api/proxy"), ("GET", "/hub/api/groups"),
          ("POST", "/hub/api/users/alice/tokens"), ("POST", "/hub/api/shutdown"), ("GET", "/hub/metrics"),
          ("GET", "/user/bob/ml101/api/contents"), ("GET", "/services/ml101/formgrader"), ("GET", "/api/routes")]


def test_the_token_of_a_server_opens_nothing_beyond_its_scopes(people):
    answers = json.loads(people["alice"].run("ml101", ASK % (BEYOND,), PATIENCE))
    assert not {each: code for each, code in zip(BEYOND, answers, strict=True) if code not in (401, 403, 404, 405)}
    own = [("GET", "/hub/api/user"), ("GET", "/services/autograder/api/jobs"), ("GET", "/user/alice/ml101/api/contents")]
    assert json.loads(people["alice"].run("ml101", ASK % (own,), PATIENCE)) == [200, 200, 200]
    ada = people["ada"]
    ada.get("/hub/home")
    assert ada.get("/hub/api/users/bob", headers={"X-XSRFToken": ada.xsrf("/hub/")}).status_code == 200     # for who may, it is there


def test_the_door_leads_to_the_public_proxy_whatever_is_asked_for(people, contained):
    """A request that names another host gets what the site answers, not that host."""
    said = people["alice"].run("ml101", """
import socket
for line in ("GET http://hub:8081/hub/api HTTP/1.1\\r\\nHost: hub:8081", "CONNECT proxy:8001 HTTP/1.1\\r\\nHost: proxy:8001"):
    with socket.create_connection(("127.0.0.1", 8000)) as s:
        s.settimeout(10)
        s.sendall(line.encode() + b"\\r\\nConnection: close\\r\\n\\r\\n")
        try:
            print(s.recv(200).split(b"\\r\\n")[0])
        except OSError as error:
            print(error)
""", PATIENCE)
    assert "200" not in said.split("\n")[1]
    api = requests.get(f"{contained.url}/api/routes", timeout=30, allow_redirects=False)
    assert api.status_code in (302, 404)


def test_who_floods_the_door_fills_their_own_share(people):
    """More connections than one container may have are closed; the neighbour's door stays open."""
    alice, bob = people["alice"], people["bob"]
    flood = """
import socket, time
held = []
for _ in range(130):
    s = socket.create_connection(("127.0.0.1", 8000))
    s.settimeout(0.5)
    s.sendall(b"GET /hub/health HTTP/1.1\\r\\nHost: x\\r\\n")
    held.append(s)
time.sleep(2)
closed = 0
for s in held:
    try:
        closed += s.recv(1) == b""
    except TimeoutError:
        pass
    except OSError:
        closed += 1
    if closed >= 30: break
print(closed)
time.sleep(SECONDS)
for s in held:                               # else her own server, behind the same door, could not ask the hub about her any more
    s.close()
"""
    closed = int(alice.run("ml101", flood.replace("SECONDS", "0"), PATIENCE).split()[0])
    assert 20 <= closed <= 40
    results = []
    attack = threading.Thread(target=lambda: results.append(alice.run("ml101", flood.replace("SECONDS", "8"), PATIENCE)))
    attack.start()
    try:
        time.sleep(5)
        assert json.loads(bob.run("ml101", ASK % ([("GET", "/hub/api/user")],), PATIENCE)) == [200]
    finally:
        attack.join()


# --------------------------------------------------------------------------------------------- bombs
@contextlib.contextmanager
def unaffected(people):
    """The neighbour's server answers all the while."""
    over, answers = threading.Event(), []

    def look():
        while not over.is_set():
            answers.append(people["bob"].get("/user/bob/ml101/api/status").status_code)
            over.wait(1)

    watch = threading.Thread(target=look)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()
    assert answers
    assert set(answers) == {200}


FORKS = """
import os, signal, subprocess, time
made = []
try:
    for _ in range(400):
        pid = os.fork()
        if pid == 0:
            time.sleep(30); os._exit(0)
        made.append(pid)
except OSError:
    pass
for pid in made:
    os.kill(pid, signal.SIGKILL)
for pid in made:
    os.waitpid(pid, 0)
print(len(made))
"""
MEMORY = """
import subprocess, sys
done = subprocess.run([sys.executable, "-c", "x = bytearray(1500 * 2**20); print(len(x))"], capture_output=True, text=True)
print(done.returncode, done.stdout.strip())
"""


def test_a_fork_bomb_ends_at_the_classs_limit(people, free):
    with unaffected(people):
        assert int(people["alice"].run("ml101", FORKS, PATIENCE)) < 256
    assert int(docker("exec", free, PYTHON, "-c", FORKS, timeout=PATIENCE)) == 400
    assert people["alice"].run("ml101", "print('still here')", PATIENCE).strip() == "still here"


def test_a_memory_bomb_ends_itself_only(people, free):
    with unaffected(people):
        assert people["alice"].run("ml101", MEMORY, PATIENCE).split() == ["-9"]
    assert docker("exec", free, PYTHON, "-c", MEMORY, timeout=PATIENCE).split() == ["0", str(1500 * 2**20)]
    assert people["alice"].run("ml101", "print('still here')", PATIENCE).strip() == "still here"


FILL = """
import os
def fill(path, most, size=2**20):
    written = 0
    try:
        with open(path, "wb", buffering=0) as file:
            while written < most:
                written += file.write(bytes(size))
    except OSError as error:
        pass
    finally:
        if os.path.exists(path): os.unlink(path)
    return written // 2**20
print(fill("/tmp/fill", 400 * 2**20), fill("/dev/shm/fill", 100 * 2**20), fill(os.path.expanduser("~/fill"), 150 * 2**20))
"""


def test_a_disk_is_not_filled_by_one_file_and_not_through_memory(people, free):
    """/tmp and /dev/shm have a size and count as memory; a file in the home is at most as large as the class's disk limit."""
    tmp, shared, home = map(int, people["alice"].run("ml101", FILL, PATIENCE).split())
    assert tmp <= 256
    assert shared <= 64
    assert home <= 100
    assert docker("exec", free, PYTHON, "-c", FILL, timeout=PATIENCE).split()[0] == "400"


def test_what_a_student_prints_does_not_fill_the_hosts_disk(people, contained):
    """The log of a container is turned over: 30 MB are written to the server's own output, 10 are kept."""
    people["alice"].run("ml101", "import os\nwith open(f'/proc/{os.getppid()}/fd/1', 'w') as out:\n    for _ in range(300): "
                                 "out.write(('x' * 999 + '\\n') * 100)", PATIENCE)
    log = Path(contained.inspect(contained.student("ml101", "alice"))["LogPath"])
    assert sum(file.stat().st_size for file in log.parent.glob(f"{log.name}*")) < 12 * 2**20


def test_a_link_in_place_of_the_socket_could_not_mislead_the_proxy(people, contained):
    """The folder is the site's: what lies in it is a socket of the site's own user, and the neighbour's is another folder."""
    folder = contained.sockets / "servers" / "ml101--alice"
    socket = (folder / "server.sock").lstat()
    assert socket.st_uid == 10000
    assert socket.st_mode & 0o777 == 0o600
    assert not (folder / "start.sock").exists()                   # nobody can take the listening socket a second time
    assert (contained.sockets / "servers").stat().st_mode & 0o777 == 0o700
