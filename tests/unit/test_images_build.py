"""What a build of the images is given, without building: only files that git knows, secrets as secrets."""

import io
import os
import subprocess
import tarfile

import pytest

from hub import version
from images import build, catalogue, engine


def members(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: member for member in tar}


def test_a_build_sees_the_files_that_git_knows_and_always_the_same_bytes():
    (version.REPO / "build").mkdir(exist_ok=True)
    sent = members(build.context(None))
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=version.REPO,
                            capture_output=True, text=True)
    if listed.returncode == 0:
        assert set(sent) <= set(listed.stdout.splitlines())
    assert {name.split("/")[0] for name in sent} == set(version.ROOMS)
    assert not [name for name in sent if "__pycache__" in name or (name.endswith("classes.yml") and "example" not in name)]
    assert {member.mtime for member in sent.values()} == {0}
    assert {member.uid for member in sent.values()} == {0}
    assert build.context(None) == build.context(None)


def test_authorities_come_in_by_their_folder_and_an_empty_one_is_said(tmp_path):
    with pytest.raises(engine.EngineError, match=r"holds no file that ends with \.crt"):
        build.context(tmp_path)
    (tmp_path / "ours.crt").write_text("-----BEGIN CERTIFICATE-----\n")
    assert "images/extra-ca/ours.crt" in members(build.context(tmp_path))
    assert not [name for name in members(build.context(None)) if name.endswith(".crt")]


def test_an_index_with_a_password_is_a_secret_and_no_argument(monkeypatch):
    monkeypatch.setenv("UV_INDEX_URL", "https://me:it's me@packages.example/simple")
    with build.secrets() as passed:
        assert not [word for word in passed if "packages.example" in word]
        file = next(word.partition("src=")[2] for word in passed if word.startswith("id=packages"))
        assert os.stat(file).st_mode & 0o077 == 0
        said = subprocess.run(["sh", "-c", f". {file}; printf %s \"$UV_INDEX_URL\""], capture_output=True, text=True).stdout
        assert said == "https://me:it's me@packages.example/simple"
    assert not os.path.exists(file)


def test_a_client_without_buildkit_is_passed_over_and_none_is_said(tmp_path, monkeypatch):
    for name, script in {"new": 'echo "Docker version 28.2.2, build 1"', "old": 'echo "Docker version 20.10.24, build 1"'}.items():
        (tmp_path / name).mkdir()
        program = tmp_path / name / "docker"
        program.write_text(f"#!/bin/sh\ncase $1 in buildx) exit 1 ;; version) echo 20.10 ;; *) {script} ;; esac\n")
        program.chmod(0o755)
    monkeypatch.delenv("DOCKER", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}/new:{tmp_path}/old:/usr/bin:/bin")
    engine.client.cache_clear()
    assert engine.client() == f"{tmp_path}/old/docker"
    monkeypatch.setenv("DOCKER", f"{tmp_path}/new/docker")
    engine.client.cache_clear()
    with pytest.raises(engine.EngineError, match="docker-buildx"):
        engine.client()
    monkeypatch.delenv("DOCKER")
    monkeypatch.setenv("PATH", str(tmp_path))
    engine.client.cache_clear()
    with pytest.raises(engine.EngineError, match=r"apt-get install docker\.io"):
        engine.client()
    engine.client.cache_clear()


def test_the_catalogue_and_the_dockerfile_name_the_same_images():
    stages = {line.split(" AS ")[1] for line in (version.REPO / build.DOCKERFILE).read_text().splitlines() if line.startswith("FROM ")}
    assert {kind.name for kind in catalogue.KINDS} <= stages
    assert build.parse([]).names == []
    assert build.parse([]).extra_ca is None
    assert build.parse(["student", "hub", "--tag", "dev"]).tag == ["dev"]


def test_the_default_base_is_pinned_by_its_digest(monkeypatch):
    asked = []
    monkeypatch.setattr(engine, "exists", lambda image: asked.append(image) or image != catalogue.OWN_BASE)
    assert "@sha256:" in build.base_image("")
    assert build.base_image("mine:1") == "mine:1"


def test_what_failed_is_told_with_its_meaning(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("#12 [env-user 2/2] RUN sh install.sh\n#12 3.1 error: No space left on device (os error 28)\n"
                   "------\n > x:\nexecutor failed y\n")
    said = build.explained(log)
    assert "No space left on device" in said
    assert "The disk is full" in said
    assert "executor" not in said
