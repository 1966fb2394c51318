"""The joints of a site in containers, without an engine: who is where, sockets handed over, doors, and the Compose file."""

import argparse
import asyncio
import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import quote, unquote, urlsplit

import pytest
import yaml

from hub import database, paths
from hub.config import documents
from hub.config.excerpt import excerpt
from hub.config.site import Site
from hub.deployment import compose, health
from hub.network import sockets, wiring
from hub.network.door import Doors, to

SINGLE_USER = paths.REPO / "hub" / "single_user"


@pytest.fixture
def site():
    return Site.load(Site.example_path)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder of sockets with a short name: a socket's path has at most 107 characters."""
    folder = tmp_path if len(str(tmp_path)) < 60 else tmp_path.parent
    monkeypatch.setattr(sockets, "ROOT", folder)
    (folder / "servers").mkdir(exist_ok=True)
    yield folder
    shutil.rmtree(folder / "servers")


# --------------------------------------------------------------------------------------------- who is where
def test_on_one_machine_all_is_on_loopback_and_in_containers_nothing_is(site, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "RUN", tmp_path)
    here = wiring.load(site)
    assert {place.host for place in (here.public, here.hub, here.exchange, *here.formgrader.values())} == {"127.0.0.1"}
    assert here.inner_url == site.url
    monkeypatch.setenv(wiring.VARIABLE, "containers")
    there = wiring.load(site)
    assert there.hub.url == "http://hub:8081"
    assert there.formgrader["ml201"].url == "http://formgrader-ml201:8010"
    assert there.hub.bind_url == "http://0.0.0.0:8081"
    assert there.inner_url == "http://127.0.0.1:8000"
    monkeypatch.setenv(wiring.VARIABLE, "pods")
    with pytest.raises(ValueError, match="there is loopback"):
        wiring.load(site)


# --------------------------------------------------------------------------------------------- the listening socket
CHILD = """
import os, sys
sys.path.insert(0, {here!r})
import container
from pathlib import Path
listener, site = container.take(Path({folder!r}))
if {ready!r}:
    listener.setblocking(True)
    site.send(b".")
    connection, _ = listener.accept()
    connection.sendall(b"from inside")
"""


@pytest.mark.parametrize("ready", [True, False])
def test_the_server_gets_the_socket_and_the_hub_hears_when_it_is_ready(root, ready):
    place = sockets.folder("ml101", "alice")

    async def start() -> bytes:
        handover = sockets.Handover(place)
        code = textwrap.dedent(CHILD).format(here=str(SINGLE_USER), folder=str(place), ready=ready)
        child = subprocess.Popen([sys.executable, "-c", code])
        try:
            assert await asyncio.wait_for(handover.ready(), 60) == ready
            handover.close()
            if not ready:
                return b""
            reader, writer = await asyncio.open_unix_connection(str(place / "server.sock"))
            said = await asyncio.wait_for(reader.read(100), 60)
            writer.close()
            return said
        finally:
            child.wait(60)

    assert asyncio.run(start()) == (b"from inside" if ready else b"")
    assert not (place / "start.sock").exists()
    assert (place / "server.sock").stat().st_mode & 0o777 == 0o600
    sockets.remove(place)
    assert not place.exists()


def test_the_proxy_is_told_the_path_and_the_hub_its_own_words(root, monkeypatch):
    told = {}

    async def add_route(self, routespec, target, data):
        told.update(target=target, data=data)
    monkeypatch.setattr(sockets.ConfigurableHTTPProxy, "add_route", add_route)
    proxy = sockets.SocketProxy.__new__(sockets.SocketProxy)
    url = f"{sockets.url('ml101', 'some_one')}:80"
    asyncio.run(sockets.SocketProxy.add_route(proxy, "/user/some_one/ml101/", url, {}))
    assert unquote(urlsplit(told["target"]).netloc) == str(root / "servers" / "ml101--some_one" / "server.sock")
    route = {"target": told["target"], "user": "some_one"}
    monkeypatch.setattr(sockets.ConfigurableHTTPProxy, "_reformat_routespec", lambda self, spec, data: dict(data))
    assert sockets.SocketProxy._reformat_routespec(proxy, "/", route)["target"] == url
    asyncio.run(sockets.SocketProxy.add_route(proxy, "/", "http://hub:8081", {}))
    assert told["target"] == "http://hub:8081"


# --------------------------------------------------------------------------------------------- doors
def test_a_door_opens_with_its_folder_and_holds_so_many_connections(root, monkeypatch):
    monkeypatch.setattr("hub.network.door.CONNECTIONS", 3)
    monkeypatch.setattr("hub.single_user.relay.LINGER", 0.05)

    async def work() -> None:
        async def answer(reader, writer):
            writer.write(b"site")
            await writer.drain()
        site = await asyncio.start_server(answer, "127.0.0.1", 0)
        doors = asyncio.ensure_future(Doors("door.sock", to("127.0.0.1", site.sockets[0].getsockname()[1])).keep())
        places = [root / "servers" / f"ml101--{name}" for name in ("alice", "bob")]
        await asyncio.sleep(0.1)                     # it follows what happens after its start, too
        for place in places:
            place.mkdir()
        deadline = asyncio.get_running_loop().time() + 10
        while not all((place / "door.sock").exists() for place in places):
            assert asyncio.get_running_loop().time() < deadline, "the doors did not open"
            await asyncio.sleep(0.01)

        async def knock(place) -> bytes:
            reader, writer = await asyncio.open_unix_connection(str(place / "door.sock"))
            held.append(writer)
            return await asyncio.wait_for(reader.read(4), 10)
        held: list = []
        assert [await knock(places[0]) for _ in range(5)] == [b"site"] * 3 + [b""] * 2
        assert await knock(places[1]) == b"site"     # the neighbour's share is untouched
        shutil.rmtree(places[0])
        places[0].mkdir()                            # stopped and started again
        while not (places[0] / "door.sock").exists():
            await asyncio.sleep(0.01)
        for writer in held:
            writer.close()
        await asyncio.sleep(0.2)
        assert await knock(places[0]) == b"site"
        doors.cancel()

    asyncio.run(asyncio.wait_for(work(), 60))


def test_a_name_of_a_socket_fits_whatever_the_names_of_people_and_classes_are():
    longest = "/run/tinytorch/servers/" + "c" * 32 + "--" + "u" * 32 + "/server.sock"
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(FileNotFoundError):      # not: AF_UNIX path too long
        probe.connect(longest)


# --------------------------------------------------------------------------------------------- the Compose file
def rendered(site: Site, **changed) -> dict:
    options = {"version": "1", "state": "/s", "site": "/e", "sockets": "/s/sockets", "project": "tt", "registry": "r/", "publish": None,
               "tls": None, "monitoring": None, "engine": compose.ENGINE, "docker_group": 7, "apparmor": None, **changed}
    return yaml.safe_load(compose.render(site, argparse.Namespace(**options)))


def test_only_the_hub_has_the_engine_and_nothing_is_published_unasked(site):
    document = rendered(site)
    assert [name for name, service in document["services"].items() if any("docker.sock" in v for v in service["volumes"])] == ["hub"]
    assert not [name for name, service in document["services"].items() if "ports" in service]
    assert document["networks"]["core"] == {"internal": True, "name": "tt-core"}
    assert "egress" not in document["services"]
    assert [name for name, service in rendered(site, tls="/t")["services"].items() if "ports" in service] == ["caddy"]


def test_a_class_that_reaches_out_gets_a_service_on_a_network_of_its_own(tmp_path):
    shutil.copytree(Site.example_path.parent / "rosters", tmp_path / "rosters")
    (tmp_path / "classes.yml").write_text(Site.example_path.read_text().replace("      hosts: []", "      hosts: [packages.example.org]"))
    document = rendered(Site.load(tmp_path / "classes.yml"))
    assert document["services"]["egress"]["networks"] == ["egress"]
    assert [name for name, service in document["services"].items() if "egress" in service["networks"]] == ["egress"]


def test_a_formgrader_reads_of_its_own_class_only(site, tmp_path):
    for class_ in site.classes:
        folder = tmp_path / class_.id
        folder.mkdir()
        for name, text in excerpt(Site.example_path, class_.id).items():
            (folder / name).write_text(text)
        alone = Site.load(folder / "classes.yml")
        assert documents.courses(alone) == [each for each in documents.courses(site) if each["id"] == class_.id]
        assert (alone.url, alone.class_(class_.id).limits) == (site.url, class_.limits)
        written = "".join(file.read_text() for file in folder.iterdir())
        strangers = {name for name, person in site.people().items() if class_.id not in (*person.staff_of, *person.student_of)}
        assert strangers
        assert not [name for name in strangers if name in re.findall(r"[\w.-]+", written)]
        mounts = rendered(site, state="/state")["services"][f"formgrader-{class_.id}"]["volumes"]
        assert [mount for mount in mounts if mount.endswith(":/etc/tinytorch:ro")] == [f"/state/documents/{class_.id}:/etc/tinytorch:ro"]
    with pytest.raises(KeyError, match="no class"):
        excerpt(Site.example_path, "ml999")


def on_a_server(folder, address="postgresql://tt@db.example.org/hub") -> Site:
    shutil.copytree(Site.example_path.parent / "rosters", folder / "rosters", dirs_exist_ok=True)
    (folder / "classes.yml").write_text(Site.example_path.read_text().replace("  database: sqlite", f"  database: {address}"))
    return Site.load(folder / "classes.yml")


def test_jobs_in_a_database_outside_are_reached_and_a_change_of_it_replaces_who_reads_it(site, tmp_path):
    inside, outside = rendered(site)["services"], rendered(on_a_server(tmp_path))["services"]
    assert inside["autograder"]["networks"] == ["core"]
    assert outside["autograder"]["networks"] == ["core", "edge"]
    assert [name for name in inside if inside[name] != outside[name]] == ["hub", "autograder"]
    other = rendered(on_a_server(tmp_path, "postgresql://tt@other.example.org/hub"))["services"]
    assert [name for name in other if other[name] != outside[name]] == ["hub", "autograder"]


def test_where_apparmor_forbids_namespaces_the_autograder_alone_has_a_profile(site):
    free, restricted = rendered(site)["services"], rendered(site, apparmor="tinytorch-autograder")["services"]
    assert [name for name in free if free[name] != restricted[name]] == ["autograder"]
    assert restricted["autograder"]["security_opt"] == ["no-new-privileges:true", "apparmor=tinytorch-autograder"]
    assert restricted["autograder"]["privileged"]


@pytest.mark.parametrize(("answer", "said"), [(200, ""), (503, "autograder: .* answers 503: AppArmor forbids it. Allow bwrap")])
def test_a_site_that_cannot_isolate_student_code_is_not_ready(answer, said):
    """The sign-in page and every notebook work there, and nothing is ever graded."""
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(answer)
            self.end_headers()
            self.wfile.write(json.dumps({"ok": answer == 200, "reason": "AppArmor forbids it", "fix": "Allow bwrap"}).encode())

        def log_message(self, *words):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with pytest.raises(health.Failed, match=said) if said else contextlib.nullcontext():
                health.isolates(f"http://127.0.0.1:{server.server_port}/health", seconds=0)
        finally:
            server.shutdown()


def test_the_databases_password_goes_to_hub_and_autograder_in_files_of_their_own(site, tmp_path, monkeypatch):
    for name, folder in (("STATE", "state"), ("SECRETS", "state/secrets"), ("RUN", "with space"), ("CLASSES_YML", "classes.yml")):
        monkeypatch.setattr(paths, name, tmp_path / folder)
    monkeypatch.setattr(compose.os, "chown", lambda *arguments, **options: None)
    given = tmp_path / "state" / "secrets" / "database_password"
    given.parent.mkdir(parents=True)
    given.write_text("a:b\\c\n")
    given.chmod(0o600)
    served = on_a_server(tmp_path, "postgresql://tt@db.example.org:5433/hub?sslmode=require")
    compose.prepare(served)
    holders = [file for file in given.parent.rglob("*") if file.is_file() and b"a:b\\c" in file.read_bytes()]
    assert holders == [given, given.parent / "for" / "autograder" / "database_password"]
    (tmp_path / "with space").mkdir()
    address = database.of_jobs(served)
    passfile = quote(str(tmp_path / "with space" / "pgpass"), safe="")
    assert address == f"postgresql://tt@db.example.org:5433/hub?sslmode=require&passfile={passfile}"
    assert (tmp_path / "with space" / "pgpass").read_text() == "*:*:*:*:a\\:b\\\\c\n"
    assert (tmp_path / "with space" / "pgpass").stat().st_mode & 0o777 == 0o600
    assert database.of_jobs(site) == ""
    compose.prepare(site)                            # back to files: nobody keeps what nobody needs
    assert not (given.parent / "for" / "autograder" / "database_password").exists()


def test_prepare_gives_each_service_its_own_secrets(site, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "STATE", tmp_path)
    monkeypatch.setattr(paths, "CLASSES_YML", Site.example_path)
    monkeypatch.setattr(paths, "SECRETS", tmp_path / "secrets")
    monkeypatch.setattr(compose.os, "chown", lambda *arguments, **options: None)
    compose.prepare(site)
    whole = json.loads((tmp_path / "secrets" / "tokens.json").read_text())
    assert json.loads((tmp_path / "secrets" / "for" / "ml101" / "tokens.json").read_text()) == {
        "service:ml101": whole["service:ml101"], "autograder": whole["autograder"]}
    assert {file.stat().st_mode & 0o077 for file in (tmp_path / "secrets").rglob("*")} == {0}
    assert Site.load(tmp_path / "documents" / "ml101" / "classes.yml").class_("ml101").students == site.class_("ml101").students
    compose.prepare(site)                            # an upgrade keeps every secret
    assert json.loads((tmp_path / "secrets" / "tokens.json").read_text()) == whole
