"""The images, layer by layer: what must not be in them, what must, and that each of them runs as it will on a site.

Everything is looked for in all layers, also in those that a later one hides. Of the build machine it takes about 4 minutes
when nothing is built yet, one minute afterwards. TINYTORCH_STUDENT_IMAGES names further student images to hold to the same.
"""

import json
import os
import re
import subprocess
import time
import types
import uuid
from email.parser import BytesParser
from pathlib import Path

import pytest

from course.build import framework, leaks
from course.build.cells import read_cells
from hub import paths, version
from images import build, catalogue, engine, layers, listing
from tests import docker_site
from tests.need import need

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

STUDENT_LIMIT = 700                      # MB beyond the base
LEAK_IN_PACKAGES = 3                     # a package may share a line or two with a solution by chance, a copy shares dozens
EPOCH = 1577836800                       # the time that all our files carry
OTHERS = os.environ.get("TINYTORCH_STUDENT_IMAGES", "").split()
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]{32}")
PASSWORD_IN_URL = re.compile(rb"https?://[\w.%+-]+:[^\s/@\"']+@[\w.-]+")
CACHES = re.compile(r"/(root/\.(cache|npm|local)/|cache/.|var/lib/apt/lists/.|var/cache/apt/.|.*/\.cache/(uv|pip)|.*\.deb$|.*/_cacache/)")
TOOLS_OF_BUILDS = re.compile(r"/(opt/envs/uv/|opt/envs/node/|usr/bin/(gcc|make|pip3?|npm)$)")

KINDS = {kind.name: kind for kind in catalogue.KINDS}
RUNS = {
    "base": ["/usr/bin/python3", "-c", "import ssl; assert ssl.create_default_context().get_ca_certs()"],
    "student": ["tito", "system", "doctor"],
    "hub": ["/opt/envs/hub/bin/python", "-c", "import hub.launch, hub.config.site, hub.spawning.spawner, nativeauthenticator"],
    "exchange": ["/opt/envs/exchange/bin/python", "hub/exchange/serve.py", "--help"],
    "proxy": ["/opt/envs/proxy/node", "/opt/envs/proxy/node_modules/configurable-http-proxy/bin/configurable-http-proxy", "--version"],
    "autograder": ["/opt/envs/user/bin/python", "-c", "import autograder.service, autograder.exam.examiner, tinytorch.core.tensor"],
    "grader": ["/opt/envs/user/bin/python", "-c", "import nbgrader.apps, autograder.marks.nbgrader_plugin, hub.courses"],
    "caddy": ["/usr/bin/caddy", "version"],
    "monitoring": ["/usr/bin/prometheus", "--version"],
}


def docker(*words, **options):
    return subprocess.run([engine.client(), *words], capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def images():
    """The images of this checkout, built if they are not yet; name -> tag. On failure the builder's own words."""
    try:
        engine.client()
    except engine.EngineError as lacking:
        need("a Docker engine that builds", False, str(lacking))
    _, built = docker_site.images()
    return {name: kind.tag(built) for name, kind in KINDS.items()}


@pytest.fixture(scope="module")
def planted(images):
    """A student image with a line of a solution in one layer, which the next layer removes again."""
    tag = f"tinytorch-test/planted:{uuid.uuid4().hex[:8]}"
    line = max(secret_lines(), key=len)
    recipe = f"FROM {images['student']}\nUSER root\nRUN echo \"$LINE\" >/opt/notes.txt\nRUN rm /opt/notes.txt\n"
    recipe = recipe.replace("RUN echo", "ARG LINE\nRUN echo")
    done = docker("build", "-q", "-t", tag, "--build-arg", f"LINE={line}", "-", input=recipe, env={**os.environ, "DOCKER_BUILDKIT": "1"})
    assert done.returncode == 0, done.stderr
    yield tag
    docker("rmi", tag)


@pytest.fixture(scope="module")
def saved(images, planted, tmp_path_factory):
    """All images in one file, opened."""
    file = tmp_path_factory.mktemp("images") / "images.tar"
    yield layers.save([*images.values(), planted, *OTHERS], file)
    file.unlink()


@pytest.fixture(scope="module")
def manifests(images):
    return build.manifests()


# --------------------------------------------------------------------------------------------- what is secret
def secret_lines():
    return leaks.secrets(cell for module in framework.available() for cell in read_cells(module.source))


def secret_texts():
    """String constants that compiled solutions have and nothing else of ours: they show in bytecode, where no line does."""
    def texts(code):
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                yield from texts(constant)
            elif isinstance(constant, str) and len(constant) >= leaks.TRIVIAL and "\n" not in constant:
                yield constant

    def of(kind):
        return {text for module in framework.available() if module.export for text in texts(compile(kind(module), "", "exec"))}

    names = [name for name in version.files() if name.endswith(".py") and not name.startswith(("course/modules/", "tinytorch/core/"))]
    openly = "".join((paths.REPO / name).read_text() for name in names)
    return {text for text in of(framework.reference) - of(framework.stubs) if text not in openly}


def lines_of(data):
    """The lines of a text, as they are and as JSON writes them into notebooks."""
    for line in data.split(b"\n"):
        yield from forms(line)
        if b"\\n" in line:
            for piece in line.split(b"\\n"):
                yield from forms(piece)


def forms(line):
    plain = line.strip()
    yield plain.decode(errors="replace")
    if b'"' in plain:
        text = plain.removeprefix(b'"').replace(b'\\"', b'"').replace(b"\\\\", b"\\")
        for end in (b"", b'"', b'",'):
            yield text.removesuffix(end).strip().decode(errors="replace")


def found_secrets(layer, hidden, texts):
    """path -> the secret lines and texts in it."""
    found = {}
    for path, data in layer.contents():
        if path.endswith(".pyc"):
            here = {text for text in texts if text.encode() in data}
        elif b"\0" in data[:4096]:
            continue
        else:
            here = hidden.intersection(lines_of(data))
        if here:
            found[path] = here
    return found


def told(layer_list, hidden, texts):
    """What would be a leak, as lines for people."""
    for layer in layer_list:
        for path, here in found_secrets(layer, hidden, texts).items():
            package = "/site-packages/" in path or path.startswith(("/usr/", "/var/"))
            if len(here) >= (LEAK_IN_PACKAGES if package else 1):
                yield f"{path}: {sorted(here)[:3]}"


# --------------------------------------------------------------------------------------------- students' images
def student_tags(images):
    return [images["student"], *OTHERS]


def test_no_layer_of_a_student_image_holds_a_solution_or_a_hidden_test(images, saved):
    hidden, texts = secret_lines(), secret_texts()
    assert len(hidden) > 300
    assert len(texts) > 10
    for tag in student_tags(images):
        assert list(told(saved.of(tag), hidden, texts)) == []
        paths_ = [path for layer in saved.of(tag) for path in layer.files]
        assert not [path for path in paths_ if "/modules/source/" in path and not path.startswith("/home/")]
        assert not [path for path in paths_ if path.endswith(("_dev.py", "gradebook.db"))]


def test_the_same_search_finds_every_one_of_them_in_the_grader_image(images, saved):
    """So it can fail: with sources and bytecode in it, all lines and all texts are seen."""
    hidden, texts = secret_lines(), secret_texts()
    others = {id(layer) for layer in saved.of(images["student"])}
    seen = [here for layer in saved.of(images["grader"]) if id(layer) not in others
            for here in found_secrets(layer, hidden, texts).values()]
    assert hidden | texts == set().union(*seen)


def test_the_search_sees_what_a_later_layer_hides(images, saved, planted):
    assert "/opt/notes.txt" not in saved.shown(planted)
    [leak] = told(saved.of(planted), secret_lines(), secret_texts())
    assert leak.startswith("/opt/notes.txt")


def test_the_student_image_is_small_enough(images, manifests):
    for name, manifest in manifests.items():
        print(f"{name:<11} {manifest['bytes'] / 1e6:6.0f} MB, {manifest['bytes_beyond_base'] / 1e6:6.0f} MB beyond the base")
    assert manifests["student"]["bytes_beyond_base"] <= STUDENT_LIMIT * 1_000_000


@pytest.fixture
def server(images, request):
    """A student's server as a site runs it: no network, nothing writable but its home. A stand-in for the hub answers inside."""
    name = f"tinytorch-images-{uuid.uuid4().hex[:8]}"
    tag = request.param or images["student"]
    env = {"JUPYTERHUB_API_TOKEN": "a" * 32, "JUPYTERHUB_API_URL": "http://127.0.0.1:8000/hub/api", "JUPYTERHUB_USER": "alice",
           "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-alice", "JUPYTERHUB_SERVICE_PREFIX": "/user/alice/ml101/",
           "JUPYTERHUB_SERVICE_URL": "http://127.0.0.1:8888/user/alice/ml101/", "JUPYTERHUB_BASE_URL": "/", "JUPYTERHUB_HOST": ""}
    done = docker("run", "-d", "--name", name, "--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL",
                  "--security-opt", "no-new-privileges", "-v", f"{name}:/home/student",
                  *(word for key, value in env.items() for word in ("-e", f"{key}={value}")), tag)
    assert done.returncode == 0, done.stderr
    try:
        docker("exec", "-d", name, "python", "-c", HUB_STAND_IN)
        yield lambda *command: docker("exec", name, *command), lambda: docker("logs", name)
    finally:
        docker("rm", "-f", name)
        docker("volume", "rm", name)


HUB_STAND_IN = """
import http.server, json
class Hub(http.server.BaseHTTPRequestHandler):
    def answer(self):
        body = json.dumps({"version": "5.5.4", "name": "alice", "kind": "user"}).encode()
        self.send_response(200); self.send_header("Content-Type", "application/json")
        self.send_header("X-JupyterHub-Version", "5.5.4"); self.end_headers(); self.wfile.write(body)
    do_GET = do_POST = answer
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Hub).serve_forever()
"""
ASK = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8888/user/alice/ml101/api', timeout=5).read().decode())"


@pytest.mark.parametrize("server", [None, *OTHERS], indirect=True, ids=lambda tag: tag or "student")
def test_a_student_server_starts_with_a_read_only_root_and_no_network(server):
    run, logs = server
    deadline, said = time.monotonic() + 120, None
    while time.monotonic() < deadline:
        said = run("python", "-c", ASK)
        if said.returncode == 0:
            break
        time.sleep(0.5)
    log = logs()
    assert said.returncode == 0, log.stdout + log.stderr
    assert "version" in json.loads(said.stdout)
    assert "Traceback" not in log.stderr
    assert run("cat", "/proc/1/comm").stdout.strip() == "tini"
    where = run("python", "-c", "import tinytorch.core.tensor as t; print(t.__file__)").stdout.strip()
    assert where == "/opt/tinytorch/tinytorch/core/tensor.py"
    assert run("sh", "-c", "command -v node npm pip uv").stdout == ""
    assert run("python", "-c", "import rfc3987_syntax").returncode == 1
    assert run("stat", "-c", "%a %u", "/home/student").stdout.strip() == "700 10001"
    assert run("sh", "-c", "touch /opt/tinytorch/x /opt/envs/user/x /var/tmp/x").returncode != 0


# --------------------------------------------------------------------------------------------- every image
def tag_of(images, name):
    return images.get(name, name)


@pytest.mark.parametrize("name", [*KINDS, *OTHERS])
def test_it_runs_without_rights_network_or_a_writable_root(images, name):
    tag = tag_of(images, name)
    kept = listing.inspect(tag)["Config"]
    user = KINDS[name].user if name in KINDS else KINDS["student"].user
    assert kept["User"] == user
    program, *rest = RUNS.get(name, RUNS["student"])
    done = docker("run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt",
                  "no-new-privileges", "-v", "/home/student", "--entrypoint", program, tag, *rest)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", [*KINDS, *OTHERS])
def test_its_layers_hold_no_secret_no_cache_and_no_rights_of_another(images, saved, name):
    tag = tag_of(images, name)
    for layer in saved.of(tag):
        assert not [path for path, member in layer.files.items() if member.isfile() and CACHES.match(path)]
        assert not [path for path in layer.files if TOOLS_OF_BUILDS.match(path)]
        for path, data in layer.contents():
            if b"\0" in data[:4096]:
                continue                               # a program: TLS libraries carry keys to test themselves with
            assert not PRIVATE_KEY.search(data), f"a private key in {path}"
            if not path.startswith(("/usr/", "/var/")) and "/site-packages/" not in path and "/node_modules/" not in path:
                assert not PASSWORD_IN_URL.search(data), f"a password in {path}"
    shown = saved.shown(tag)
    assert not [path for path, member in shown.items() if member.isfile() and member.mode & 0o6000]
    assert not [path for path, member in shown.items() if "SCHILY.xattr.security.capability" in member.pax_headers]
    assert not [path for path, member in shown.items() if not member.issym() and member.mode & 0o002 and not member.mode & 0o1000
                and not path.startswith("/dev")]
    assert not PASSWORD_IN_URL.search(json.dumps(saved.images[tag].config).encode())
    assert not [path for path in shown if path.startswith("/run/secrets/")]


@pytest.mark.parametrize("name", KINDS)
def test_it_says_what_it_is(images, manifests, name):
    labels = listing.inspect(images[name])["Config"]["Labels"]
    for word in ("title", "description", "version", "revision", "created", "licenses", "base.name"):
        assert labels[f"org.opencontainers.image.{word}"]
    assert labels["org.opencontainers.image.version"] == images[name].rpartition(":")[2]
    assert manifests[name]["layers"] == listing.inspect(images[name])["RootFS"]["Layers"]


@pytest.mark.parametrize("name", KINDS)
def test_its_list_of_contents_is_what_its_layers_hold(images, saved, manifests, name):
    """Read from the layers' files here, asked of the tools inside there: two ways, one list."""
    bill = json.loads((build.OUT / f"{name}.cdx.json").read_text())
    listed = {component["purl"] for component in bill["components"] if "purl" in component}
    shown, files = saved.shown(images[name]), {path: layer for layer in saved.of(images[name]) for path in layer.files}
    expected = set()
    for path in shown:
        if path.endswith(".dist-info/METADATA") and path.startswith("/opt/envs/"):
            said = BytesParser().parsebytes(files[path].read(path), headersonly=True)
            expected.add(f"pkg:pypi/{re.sub('[-_.]+', '-', said['Name']).lower()}@{said['Version'].replace('+', '%2B')}")
        elif re.fullmatch(r"/opt/envs/.*/node_modules/(@[^/]+/)?[^/@]+/package\.json", path):
            said = json.loads(files[path].read(path))
            if "version" in said:
                expected.add(f"pkg:npm/{said['name'].replace('@', '%40')}@{said['version']}")
    assert {purl for purl in listed if not purl.startswith("pkg:deb/")} == expected
    status = files["/var/lib/dpkg/status"].read("/var/lib/dpkg/status").decode()
    installed = {re.search(r"^Package: (.+)$", part, re.M)[1] for part in status.split("\n\n") if "Status: install ok installed" in part}
    assert {component["name"] for component in bill["components"] if component.get("purl", "").startswith("pkg:deb/")} == installed
    assert bill["metadata"]["component"]["version"] == images[name].rpartition(":")[2]


@pytest.mark.parametrize("name", KINDS)
def test_nothing_of_ours_carries_the_time_of_its_build(images, saved, name):
    """What makes the same inputs the same layers: a single file with the time of now would change its layer's digest."""
    for layer in saved.of(images[name])[1:]:
        late = {path: member.mtime for path, member in layer.files.items() if member.mtime > EPOCH
                and path.startswith(("/opt/", "/home/", "/etc/tinytorch", "/srv/"))}
        assert not late


def test_the_certificates_of_this_machine_stay_out(images, saved):
    """The build trusts them and the images do not, unless EXTRA_CA says so."""
    own = [re.sub(rb"\s", b"", file.read_bytes())[100:400] for file in Path("/usr/local/share/ca-certificates").glob("*.crt")]
    if not own:
        pytest.skip("this machine has no authority of its own")
    for name in KINDS:
        for layer in saved.of(images[name]):
            for path, data in layer.contents():
                if path.endswith((".crt", ".pem")):
                    data = re.sub(rb"\s", b"", data)
                    assert not [cert for cert in own if cert in data], path
