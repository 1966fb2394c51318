"""Fetching data sets: interrupted, truncated, redirected, damaged, offline. The publisher here is a server on loopback."""

import gzip
import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from tinytorch import datasets, download
from tinytorch.core.dataloader import CIFAR10Dataset, MNISTDataset
from tinytorch.download import DownloadError, Line, Remote, fetch

BODY = np.random.default_rng(0).bytes(300_000)
REPO = Path(__file__).resolve().parents[2]


class Publisher(http.server.ThreadingHTTPServer):
    """Offers `files`; `manners` change how: cut after so many bytes, no ranges, other bytes, a redirect, an error."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files, self.asked, self.url = {}, [], f"http://127.0.0.1:{self.server_port}"
        self.manners()

    def manners(self, cut=None, cuts=10**6, ranges=True, status=200, location="", length=True, extra=b"", drift=0):
        self.cut, self.cuts, self.ranges, self.status = cut, cuts, ranges, status
        self.location, self.length, self.extra, self.drift = location, length, extra, drift

    def handle_error(self, request, client_address):
        pass                                    # a client that hangs up in the middle is part of the tests


class Answer(http.server.BaseHTTPRequestHandler):
    server: Publisher

    def do_GET(self):
        site, wanted = self.server, self.headers.get("Range")
        site.asked.append((self.path, wanted))
        if self.path == "/old.bin":
            self.send_response(302)
            self.send_header("Location", site.location)
            self.end_headers()
        elif site.status != 200 or self.path[1:] not in site.files:
            self.send_error(site.status if site.status != 200 else 404)
        else:
            self.offer(site.files[self.path[1:]], wanted)

    def offer(self, body, wanted):
        site, start = self.server, 0
        if wanted and site.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start + site.drift}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        rest = body[start:] + site.extra
        if site.length:
            self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if site.cut is not None and site.cuts > 0:
            site.cuts -= 1
            rest = rest[:site.cut]
        self.wfile.write(rest)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def site(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "TINYTORCH_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    server = Publisher()
    server.files["data.bin"] = BODY
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def remote(site, name="data.bin", body=BODY, path=None):
    return Remote(name, len(body), hashlib.sha256(body).hexdigest(), (f"{site.url}/{path or name}",))


def get(wanted, folder, **options):
    return fetch(wanted, folder, **{"pause": 0.0, "timeout": 5, "progress": lambda done, size: None} | options)


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_and_is_not_fetched_again(site, tmp_path):
    seen = []
    path = get(remote(site), tmp_path / "new" / "folder", progress=lambda done, size: seen.append((done, size)))
    assert path.read_bytes() == BODY
    assert listing(path.parent) == ["data.bin"]
    assert seen[0] == (0, len(BODY))
    assert seen[-1] == (len(BODY), len(BODY))
    assert seen == sorted(seen)
    assert get(remote(site), path.parent) == path
    assert len(site.asked) == 1


def test_an_interrupted_transfer_goes_on_where_it_stopped(site, tmp_path):
    site.manners(cut=100_000, cuts=2)
    assert get(remote(site), tmp_path).read_bytes() == BODY
    assert [wanted for _, wanted in site.asked] == [None, "bytes=100000-", "bytes=200000-"]


def test_what_has_arrived_is_kept_for_the_next_call(site, tmp_path):
    site.manners(cut=100_000)
    with pytest.raises(DownloadError) as failed:
        get(remote(site), tmp_path, attempts=2)
    assert listing(tmp_path) == ["data.bin.part"]
    assert "the connection ended after 200,000 of 300,000 bytes" in str(failed.value)
    assert "it goes on after 200,000 bytes" in str(failed.value)
    site.manners()
    assert get(remote(site), tmp_path).read_bytes() == BODY
    assert site.asked[-1][1] == "bytes=200000-"
    assert listing(tmp_path) == ["data.bin"]


def test_a_server_without_ranges_starts_anew(site, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(b"x" * 1000)
    site.manners(ranges=False)
    assert get(remote(site), tmp_path).read_bytes() == BODY


def test_a_server_that_goes_on_elsewhere_is_not_believed(site, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(BODY[:1000])
    site.manners(drift=7)
    assert get(remote(site), tmp_path).read_bytes() == BODY
    assert [wanted for _, wanted in site.asked] == ["bytes=1000-", None]


@pytest.mark.parametrize("begun", [b"wrong bytes from an older version", b"x" * 400_000], ids=["damaged", "too long"])
def test_a_partial_file_that_is_of_no_use_is_thrown_away(begun, site, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(begun)
    assert get(remote(site), tmp_path).read_bytes() == BODY


def test_a_partial_file_that_is_whole_needs_no_network(tmp_path):
    (tmp_path / "data.bin.part").write_bytes(BODY)
    nowhere = Remote("data.bin", len(BODY), hashlib.sha256(BODY).hexdigest(), ("http://127.0.0.1:9/data.bin",))
    assert get(nowhere, tmp_path).read_bytes() == BODY


def test_a_wrong_checksum_leaves_nothing_under_the_files_name(site, tmp_path):
    site.files["data.bin"] = BODY[:-1] + b"?"
    with pytest.raises(DownloadError, match=r"the checksum of data.bin is [0-9a-f]{16}..., it should be") as failed:
        get(remote(site), tmp_path)
    assert listing(tmp_path) == []
    assert len(site.asked) == download.ATTEMPTS
    assert str(tmp_path / "data.bin") in str(failed.value)


@pytest.mark.parametrize(("manners", "body", "said"), [
    ({}, BODY[:1000], "offers 1,000 bytes, the data set's file has 300,000"),
    ({"extra": b"more"}, BODY, "offers 300,004 bytes"),
    ({"extra": b"more" * 99_999, "length": False}, BODY, "sends more than the 300,000 bytes"),
    ({"length": False}, BODY[:1000], "the connection ended after 1,000"),
    ({"status": 403}, BODY, "the server says 403"),
    ({"status": 503}, BODY, "the server says 503"),
])
def test_a_server_with_something_else_is_named_with_what_it_did(manners, body, said, site, tmp_path):
    site.files["data.bin"] = body
    site.manners(**manners)
    with pytest.raises(DownloadError) as failed:
        get(remote(site), tmp_path)
    assert said in str(failed.value)
    assert f"{site.url}/data.bin" in str(failed.value)
    assert "data.bin" not in listing(tmp_path)


def test_a_server_that_is_busy_is_asked_again_and_one_that_refuses_is_not(site, tmp_path):
    for status, times in ((503, download.ATTEMPTS), (404, 1)):
        site.asked.clear()
        site.manners(status=status)
        with pytest.raises(DownloadError):
            get(remote(site), tmp_path)
        assert len(site.asked) == times


def test_the_next_address_is_tried(site, tmp_path):
    wanted = remote(site)
    both = Remote(wanted.name, wanted.size, wanted.sha256, (f"{site.url}/gone.bin", *wanted.urls))
    assert get(both, tmp_path).read_bytes() == BODY


def test_redirects_are_followed_also_when_going_on(site, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(BODY[:5000])
    site.manners(location="/data.bin")
    assert get(remote(site, path="old.bin"), tmp_path).read_bytes() == BODY
    assert site.asked[-1] == ("/data.bin", "bytes=5000-")


@pytest.mark.parametrize("location", ["/old.bin", "file:///etc/hostname", "ftp://127.0.0.1/data.bin"])
def test_redirects_in_a_circle_or_away_from_http_are_refused(location, site, tmp_path):
    site.manners(location=location)
    with pytest.raises(DownloadError):
        get(remote(site, path="old.bin"), tmp_path)
    assert listing(tmp_path) == []
    assert len(site.asked) <= 8 * download.ATTEMPTS


def test_offline_says_what_to_do_by_hand(tmp_path):
    nowhere = Remote("data.bin", 170_000_000, "0" * 64, ("http://127.0.0.1:9/data.bin",))
    with pytest.raises(DownloadError) as failed:
        get(nowhere, tmp_path)
    for words in ("http://127.0.0.1:9/data.bin", "170 MB", str(tmp_path / "data.bin"), "TINYTORCH_DATA", "refused"):
        assert words in str(failed.value)
    assert listing(tmp_path) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadError, match=r"cannot write .* Set TINYTORCH_DATA to a folder of your own"):
        get(Remote("data.bin", 10, "0" * 64, ()), tmp_path / "file" / "folder")


@pytest.mark.parametrize("cut", [None, 0], ids=["whole", "the first is cut off at once"])
def test_many_who_want_the_same_file_take_turns(site, tmp_path, cut):
    for turn in range(25):
        folder, start, ends = tmp_path / str(turn), threading.Barrier(6), []
        site.asked.clear()
        site.manners(cut=cut, cuts=1)

        def want(folder=folder, start=start, ends=ends):
            start.wait()
            try:
                ends.append(get(remote(site), folder, attempts=1).read_bytes() == BODY)
            except OSError as error:
                ends.append(type(error))

        threads = [threading.Thread(target=want) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(ends, key=str) == [*([DownloadError] if cut == 0 else [True]), *[True] * 5]
        assert len(site.asked) == (1 if cut is None else 2)
        assert listing(folder) == ["data.bin"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_silent_when_short_lines_in_a_file_and_one_line_in_a_terminal():
    for out, patience in ((io.StringIO(), 60.0), (io.StringIO(), -1.0), (Terminal(), -1.0)):
        show = Line("data.bin", out, patience)
        for done in range(0, 200_000_001, 1_000_000):
            show(done, 200_000_000)
        text = out.getvalue()
        if patience > 0:
            assert text == ""
        elif out.isatty():
            assert text.endswith("\rdata.bin: 200 MB of 200 MB, 100%\n")
            assert text.count("\n") == 1
        else:
            assert text.split("\n")[:2] == ["data.bin: 20 MB of 200 MB, 10%", "data.bin: 40 MB of 200 MB, 20%"]
            assert text.count("\n") == 10


# CIFAR-10's archive

RECORDS = 2
NAMES = [name for names in datasets.CIFAR10_FILES.values() for name in names]


def archive(members=None, **extra):
    """A small archive laid out as the publisher's, with other members beside, given as TarInfo or bytes."""
    rng, packed = np.random.default_rng(1), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in NAMES if members is None else members:
            add(tar, f"cifar-10-batches-bin/{name}", rng.integers(10, size=RECORDS * 3073, dtype=np.uint8).tobytes())
        for name, body in extra.items():
            add(tar, name, body)
    return packed.getvalue()


def add(tar, name, body):
    entry = body if isinstance(body, tarfile.TarInfo) else tarfile.TarInfo(name)
    entry.size = 0 if isinstance(body, tarfile.TarInfo) else len(body)
    tar.addfile(entry, None if isinstance(body, tarfile.TarInfo) else io.BytesIO(body))


@pytest.fixture
def publish(site, tmp_path, monkeypatch):
    """A function that makes the publisher offer these bytes as CIFAR-10; TINYTORCH_DATA is an empty folder."""
    monkeypatch.setenv("TINYTORCH_DATA", str(tmp_path / "home"))
    monkeypatch.setattr(datasets, "CIFAR10_BYTES", RECORDS * 3073)
    monkeypatch.setattr(download, "Line", lambda name: lambda done, size: None)

    def offer(body):
        site.files["cifar-10-binary.tar.gz"] = body
        monkeypatch.setattr(datasets, "CIFAR10_ARCHIVE", remote(site, "cifar-10-binary.tar.gz", body))
        return tmp_path / "home"
    return offer


def test_cifar10_comes_once_and_is_read_offline_afterwards(publish, site):
    home = publish(archive())
    first = CIFAR10Dataset(download=True, flatten=False)
    assert first.train_data.shape == (5 * RECORDS, 3, 32, 32)
    assert listing(home) == ["cifar-10-batches-bin", "cifar-10-binary.tar.gz"]
    assert listing(home / "cifar-10-batches-bin") == sorted(NAMES)
    asked = len(site.asked)
    (home / "cifar-10-binary.tar.gz").unlink()
    assert np.array_equal(CIFAR10Dataset(download=True).train_data, first.train_data)
    assert np.array_equal(CIFAR10Dataset().test_data, first.test_data)
    assert len(site.asked) == asked


def test_an_archive_that_was_brought_by_hand_is_opened(publish, site):
    home = publish(archive())
    home.mkdir()
    (home / "cifar-10-binary.tar.gz").write_bytes(archive())
    assert len(CIFAR10Dataset()) == 5 * RECORDS
    assert site.asked == []


def link(name, target, kind=tarfile.SYMTYPE):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def test_unpacking_writes_nothing_but_the_six_files(publish, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    strange = {"../escaped.bin": b"x", str(outside / "absolute.bin"): b"x", "cifar-10-batches-bin/../../escaped.bin": b"x",
               "cifar-10-batches-bin/readme.html": b"x", "cifar-10-batches-bin/link": link("cifar-10-batches-bin/link", str(outside)),
               "cifar-10-batches-bin/link/through.bin": b"x", "device": link("device", "", tarfile.CHRTYPE)}
    home = publish(archive(**strange))
    assert len(CIFAR10Dataset(download=True)) == 5 * RECORDS
    assert listing(home / "cifar-10-batches-bin") == sorted(NAMES)
    assert listing(outside) == []
    assert listing(tmp_path) == ["home", "outside"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_in_the_place_of_a_file_is_not_followed(kind, publish, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(RECORDS * 3073))
    name = "cifar-10-batches-bin/data_batch_1.bin"
    home = publish(archive(NAMES[1:], **{name: link(name, "../../secret", kind)}))
    with pytest.raises(ValueError, match=r"lacks data_batch_1\.bin"):
        CIFAR10Dataset(download=True)
    assert "data_batch_1.bin" not in listing(home / "cifar-10-batches-bin")


@pytest.mark.parametrize(("body", "said"), [
    (archive(NAMES[:-1]), "it lacks test_batch.bin"),
    (archive()[:-2000], "is damaged"),
    (gzip.compress(b"no archive at all" * 100), "is damaged"),
    (b"nothing packed", "is damaged"),
    (archive(NAMES[1:], **{f"cifar-10-batches-bin/{NAMES[0]}": bytes(10)}), "has 10 bytes, not 6,146"),
    (archive(NAMES[1:], **{f"cifar-10-batches-bin/{NAMES[0]}": bytes(10**6)}), "has 1,000,000 bytes, not 6,146"),
])
def test_a_damaged_archive_is_named_with_the_cure(body, said, publish):
    home = publish(body)
    with pytest.raises(ValueError, match="delete it and run this again") as failed:
        CIFAR10Dataset(download=True)
    assert said in str(failed.value)
    assert str(home / "cifar-10-binary.tar.gz") in str(failed.value)
    assert not any(name.startswith(".") for name in listing(home / "cifar-10-batches-bin"))


def test_a_mirror_takes_the_publishers_place(publish, site, monkeypatch):
    publish(archive())
    body = site.files.pop("cifar-10-binary.tar.gz")
    site.files["pub/cifar-10-binary.tar.gz"] = body
    monkeypatch.setenv("TINYTORCH_MIRROR", f"{site.url}/pub/")
    assert len(CIFAR10Dataset(download=True)) == 5 * RECORDS


# MNIST, the folder, the command

def test_mnist_comes_file_by_file(site, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "Line", lambda name: lambda done, size: None)
    offered = {}
    for split, n in (("train", 6), ("test", 3)):
        shapes = [(n, 28, 28), (n,)]
        bodies = [gzip.compress(b"\0\0\x08" + bytes([len(shape)]) + np.array(shape, ">u4").tobytes() + bytes(int(np.prod(shape))))
                  for shape in shapes]
        offered[split] = tuple(remote(site, old.name, body) for old, body in zip(datasets.MNIST_FILES[split], bodies, strict=True))
        site.files |= {new.name: body for new, body in zip(offered[split], bodies, strict=True)}
    monkeypatch.setattr(datasets, "MNIST_FILES", offered)
    data = MNISTDataset(download=True, folder=tmp_path)
    assert (data.train_data.shape, data.test_data.shape) == ((6, 1, 28, 28), (3, 1, 28, 28))
    assert len(site.asked) == len(listing(tmp_path / "MNIST" / "raw")) == 4
    MNISTDataset(folder=tmp_path)
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz").write_bytes(b"\x1f\x8bdamaged")
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte\.gz is damaged"):
        data = MNISTDataset(folder=tmp_path, train=False)


def test_a_file_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "IDX_BYTES", 1000)
    for pair in datasets.MNIST_FILES.values():
        for wanted in pair:
            (tmp_path / wanted.name).write_bytes(gzip.compress(bytes(10**6)))
    with pytest.raises(ValueError, match="unpacks to more than 1,000 bytes"):
        MNISTDataset(folder=tmp_path)


def test_the_folder_is_the_named_one_or_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TINYTORCH_DATA", "~/here")
    assert datasets.data_home() == Path("~/here").expanduser()
    monkeypatch.delenv("TINYTORCH_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert datasets.data_home() == tmp_path / "tinytorch"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert datasets.data_home() == Path("~/.cache/tinytorch").expanduser()


def test_the_command_says_what_is_here_and_fails_in_words(tmp_path):
    def run(*names):
        environment = {**os.environ, "TINYTORCH_DATA": str(tmp_path), "TINYTORCH_MIRROR": "http://127.0.0.1:9"}
        return subprocess.run([sys.executable, "-m", "tinytorch.datasets", *names], cwd=REPO, env=environment,
                              capture_output=True, text=True, timeout=60)
    said = run()
    assert (said.returncode, said.stderr) == (0, "")
    assert "not here: python -m tinytorch.datasets cifar10" in said.stdout
    assert str(tmp_path) in said.stdout
    assert run("cifar100").returncode == 2
    failed = run("mnist")
    assert failed.returncode == 1
    assert "could not be fetched" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_nothing_here_can_be_made_to_unpickle():
    for module in ("datasets", "download", "given/transforms", "given/loading", "core/dataloader"):
        text = (REPO / "tinytorch" / f"{module}.py").read_text()
        assert "import pickle" not in text
        assert "allow_pickle=True" not in text
