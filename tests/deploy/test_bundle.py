"""Images in one file: what was saved is what is loaded, and nothing of a damaged file reaches the engine. A few seconds."""

import hashlib
import io
import json
import subprocess
import tarfile
import uuid

import pytest

from images import bundle, engine, listing
from tests.need import need

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def image():
    """A small image of its own, made here from one file: no build is needed, and removing it hurts nobody."""
    try:
        engine.client()
    except engine.EngineError as lacking:
        need("a Docker engine", False, str(lacking))
    tag = f"tinytorch-test/carried:{uuid.uuid4().hex[:8]}"
    recipe = "FROM scratch\nCOPY x /x\nUSER 10000:10000\nENTRYPOINT [\"/x\"]\n"
    done = subprocess.run([engine.client(), "build", "-q", "-t", tag, "-"], input=context(recipe), capture_output=True)
    assert done.returncode == 0, done.stderr
    yield tag
    subprocess.run([engine.client(), "rmi", "-f", tag], capture_output=True)


def context(recipe):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in {"Dockerfile": recipe.encode(), "x": uuid.uuid4().bytes * 5000}.items():
            bundle.add(tar, name, data)
    return buffer.getvalue()


@pytest.fixture
def bundled(image, tmp_path, monkeypatch, capsys):
    """A bundle of it, and the image gone from the engine; with the digest that `save` printed."""
    said = listing.inspect(image)
    manifest = {**bundle.carried(image), "name": "carried", "layers": said["RootFS"]["Layers"]}
    (tmp_path / "carried.json").write_text(listing.text(manifest))
    (tmp_path / "carried.cdx.json").write_text("{}\n")
    monkeypatch.setattr(bundle, "OUT", tmp_path)
    monkeypatch.setattr(bundle, "manifests", lambda: {"carried": manifest})
    file = bundle.save(tmp_path / "all.tar.gz", [])
    digest = capsys.readouterr().out.split("sha256 ")[1].strip()
    engine.docker("rmi", "-f", image)
    assert not engine.exists(image)
    yield file, digest
    if not engine.exists(image):
        bundle.load(file)


def test_what_was_saved_is_loaded(bundled, image):
    file, digest = bundled
    assert hashlib.sha256(file.read_bytes()).hexdigest() == digest
    assert bundle.load(file, digest) == [image]
    said = listing.inspect(image)
    assert said["Config"]["User"] == "10000:10000"
    with tarfile.open(file) as tar:
        assert {"SHA256SUMS", "contents/carried.json", "contents/carried.cdx.json", "manifest.json"} <= set(tar.getnames())


def test_the_engine_takes_it_by_itself(bundled, image):
    """Where nobody has this checkout: an admin's `docker load`."""
    file, _ = bundled
    engine.docker("load", "--input", file)
    assert engine.exists(image)


def rewritten(file, target, change):
    """The same bundle with its parts (name -> member and content) after `change`."""
    with tarfile.open(file) as tar:
        parts = {member.name: [member, tar.extractfile(member).read() if member.isfile() else None] for member in tar}
    change(parts)
    with tarfile.open(target, "w:gz", compresslevel=1) as tar:
        for member, data in parts.values():
            if data is not None:
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data) if data is not None else None)
    return target


def damage_a_layer(parts):
    name = next(name for name, (_, data) in parts.items() if data and name != "SHA256SUMS" and len(data) > 50000)
    data = bytearray(parts[name][1])
    data[len(data) // 2] ^= 1
    parts[name][1] = bytes(data)


def damage_a_manifest(parts):
    parts["contents/carried.json"][1] += b" "


def take_out_the_sums(parts):
    del parts["SHA256SUMS"]


def add_a_part(parts):
    parts["more"] = [tarfile.TarInfo("more"), b"x"]


@pytest.mark.parametrize("change", [damage_a_layer, damage_a_manifest, take_out_the_sums, add_a_part])
def test_nothing_of_an_altered_file_is_loaded(bundled, image, tmp_path, change):
    file, digest = bundled
    altered = rewritten(file, tmp_path / "altered.tar.gz", change)
    with pytest.raises(bundle.Damaged, match="Nothing was loaded"):
        bundle.load(altered)
    with pytest.raises(bundle.Damaged, match="it is another file, or was altered"):
        bundle.load(altered, digest)
    assert not engine.exists(image)


@pytest.mark.parametrize("part", [0.5, 0.999])
def test_nothing_of_a_file_that_was_cut_off_is_loaded(bundled, image, tmp_path, part):
    file, _ = bundled
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(file.read_bytes()[:int(file.stat().st_size * part)])
    with pytest.raises(bundle.Damaged, match="Nothing was loaded"):
        bundle.load(cut)
    assert not engine.exists(image)


def test_an_image_that_is_not_what_its_manifest_says_is_told(bundled, image, tmp_path):
    """A file that somebody made anew, with right digests and another image in it."""
    def exchange(parts):
        manifest = {**json.loads(parts["contents/carried.json"][1]), "layers": ["sha256:" + "0" * 64]}
        was = hashlib.sha256(parts["contents/carried.json"][1]).hexdigest()
        parts["contents/carried.json"][1] = listing.text(manifest).encode()
        now = hashlib.sha256(parts["contents/carried.json"][1]).hexdigest()
        parts["SHA256SUMS"][1] = parts["SHA256SUMS"][1].replace(was.encode(), now.encode())

    file, _ = bundled
    with pytest.raises(bundle.Damaged, match="other layers"):
        bundle.load(rewritten(file, tmp_path / "other.tar.gz", exchange))


def test_a_bundle_of_what_is_not_built_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "manifests", lambda: {"hub": {"image": "tinytorch/hub:never-built"}})
    with pytest.raises(engine.EngineError, match="make images builds them"):
        bundle.save(tmp_path / "x.tar.gz", [])
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_looked_at_without_an_engine(bundled, tmp_path, monkeypatch, capsys):
    """What a deployment does before it copies the file to a host."""
    file, _ = bundled
    monkeypatch.setenv("DOCKER", "/nowhere/docker")
    bundle.main(["verify", str(file)])
    assert "1 images in" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="is not what was saved"):
        bundle.main(["verify", str(rewritten(file, tmp_path / "altered.tar.gz", damage_a_layer))])
    monkeypatch.delenv("DOCKER")
