"""The way out of a class: which hosts, which addresses, and what is answered to everything else. All on loopback."""

import asyncio
import socket
from pathlib import Path

import pytest

from hub.config.site import Site
from hub.network import egress, sockets
from hub.network.door import Doors


def site_with(tmp_path: Path, limits: str) -> Site:
    line = "      network: none " if limits.startswith("network") else "      hosts: [] "
    text = Site.example_path.read_text().replace(line, f"      {limits} #")
    assert limits in text
    (tmp_path / "rosters").mkdir()
    for roster in (Site.example_path.parent / "rosters").iterdir():
        (tmp_path / "rosters" / roster.name).write_text(roster.read_text())
    (tmp_path / "classes.yml").write_text(text)
    return Site.load(tmp_path / "classes.yml")


@pytest.fixture
def names(monkeypatch):
    """A DNS of the test's own: no question leaves the machine."""
    known = {"allowed.example.org": "127.0.0.1", "other.example.org": "127.0.0.1", "rebound.example.org": "169.254.169.254"}

    async def getaddrinfo(self, host, port, **_):
        if host not in known:
            raise socket.gaierror(-2, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known[host], port))]
    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)


def ask(site: Site, folder: Path, request: bytes, server: str = "ml101--alice", monkeypatch=None, public=("127.0.0.1",)) -> bytes:
    """What is answered on that server's egress.sock; a host that answers listens on loopback."""
    async def talk() -> bytes:
        async def upper(reader, writer):
            writer.write((await reader.read(100)).upper())
            await writer.drain()
            writer.close()
        host = await asyncio.start_server(upper, "127.0.0.1", 0)
        monkeypatch.setattr(egress, "PORT", host.sockets[0].getsockname()[1])
        monkeypatch.setattr(sockets, "ROOT", folder)
        (folder / "servers" / server).mkdir(parents=True)
        rules = egress.Egress(site)
        doors = Doors(egress.NAME, rules.lead, rules.wanted)
        await doors.look()
        if not (folder / "servers" / server / egress.NAME).exists():
            return b"no way out"
        reader, writer = await asyncio.open_unix_connection(str(folder / "servers" / server / egress.NAME))
        writer.write(request.replace(b":443", f":{egress.PORT}".encode()))
        answer = await asyncio.wait_for(reader.read(300), 10)
        if b" 200 " in answer:
            writer.write(b"hello")
            answer += await asyncio.wait_for(reader.read(100), 10)
        writer.close()
        return answer
    real = egress.is_public
    monkeypatch.setattr(egress, "is_public", lambda address: address in public or real(address))
    return asyncio.run(talk())


CONNECT = b"CONNECT %s:443 HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(("limits", "request_", "begins"), [
    ("hosts: [allowed.example.org]", CONNECT % b"allowed.example.org", b"HTTP/1.1 200"),
    ("hosts: [allowed.example.org]", CONNECT % b"other.example.org", b"HTTP/1.1 403"),
    ("network: internet", CONNECT % b"other.example.org", b"HTTP/1.1 200"),
    ("network: internet", CONNECT % b"rebound.example.org", b"HTTP/1.1 403"),
    ("network: internet", CONNECT % b"nowhere.example.org", b"HTTP/1.1 502"),
    ("network: internet", b"CONNECT other.example.org:22 HTTP/1.1\r\n\r\n", b"HTTP/1.1 403"),
    ("network: internet", b"GET http://other.example.org/ HTTP/1.1\r\n\r\n", b"HTTP/1.1 405"),
    ("network: internet", b"nonsense\r\n\r\n", b"HTTP/1.1 405"),
    ("network: none", CONNECT % b"allowed.example.org", b"no way out"),
])
def test_what_a_class_may_reach(tmp_path, names, monkeypatch, limits, request_, begins):
    answer = ask(site_with(tmp_path, limits), tmp_path / "s", request_, monkeypatch=monkeypatch)
    assert answer.startswith(begins), answer
    assert (b"HELLO" in answer) == (b" 200 " in answer)


def test_the_other_class_has_no_way_out(tmp_path, names, monkeypatch):
    site = site_with(tmp_path, "network: internet")
    assert ask(site, tmp_path / "s", CONNECT % b"other.example.org", "ml201--carol", monkeypatch) == b"no way out"


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "172.17.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
                                     "224.0.0.1", "::1", "fe80::1", "fd00::1", "::ffff:10.0.0.1"])
def test_what_is_not_public_is_never_connected_to(address):
    assert not egress.is_public(address)


def test_public_addresses_are():
    assert egress.is_public("151.101.1.1")
    assert egress.is_public("2a04:4e42::1")
