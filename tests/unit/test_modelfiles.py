"""Model files: what goes in comes out, and nothing that comes in can do harm, however it was made."""

import contextlib
import gzip
import json
import os
import pickle
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tinytorch import modelfiles, randomness
from tinytorch.core.activations import ReLU
from tinytorch.core.layers import BatchNorm1d, Linear, Sequential
from tinytorch.modelfiles import DTYPES, ModelFileError, load, load_model, save, save_model

patient = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
ARRAYS = st.sampled_from(sorted(DTYPES.values())).flatmap(
    lambda dtype: arrays(np.dtype(dtype), array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))
PLAIN = st.none() | st.booleans() | st.integers(-2**140, 2**140) | st.floats(allow_nan=False) | st.text(max_size=8)
TREES = st.recursive(ARRAYS | PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.text(st.characters(blacklist_characters="/", blacklist_categories=["Cs"]), max_size=5), inner, max_size=3), max_leaves=8)


def network(hidden=3):
    randomness.manual_seed(0)
    return Sequential(Linear(4, hidden), BatchNorm1d(hidden), ReLU(), Linear(hidden, 2))


def same(a, b):
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


# ---------------------------------------------------------------- what goes in comes out

@patient
@given(tree=TREES)
def test_whatever_is_saved_comes_back(tree, tmp_path):
    save(tmp_path / "any.pkl", tree)
    assert same(tree, load(tmp_path / "any.pkl"))


def test_views_other_byte_orders_numpy_numbers_and_tuples(tmp_path):
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    save(tmp_path / "x", {"turned": x.T[::2], "big": x.astype(">f8"), "one": np.float32(0.1), "pair": (1, x[0])})
    got = load(tmp_path / "x")
    assert np.array_equal(got["turned"], x.T[::2])
    assert got["big"].dtype == np.dtype(np.float64)
    assert np.array_equal(got["big"], x)
    assert got["one"] == float(np.float32(0.1))
    assert got["pair"][0] == 1
    assert np.array_equal(got["pair"][1], x[0])
    got["turned"][:] = 0                                             # memory of its own, writable


def test_the_layout_is_that_of_safetensors(tmp_path):
    save(tmp_path / "x", {"model": {"w": np.float32([[1, 2], [3, 4]]), "n": np.int64([7])}, "epoch": 3})
    raw = (tmp_path / "x").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8:8 + length]), raw[8 + length:]
    assert length % 8 == 0
    assert set(header) == {"__metadata__", "model/w", "model/n"}
    assert all(isinstance(value, str) for value in header["__metadata__"].values())
    start, end = header["model/w"]["data_offsets"]
    assert header["model/w"]["dtype"] == "F32"
    assert np.frombuffer(data[start:end], "<f4").tolist() == [1, 2, 3, 4]
    assert sorted(entry["data_offsets"] for name, entry in header.items() if name != "__metadata__")[-1][1] == len(data)


def test_a_file_of_another_tool_gives_its_arrays(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {"format": "pt"}}).encode()
    (tmp_path / "other.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + np.float32([1, 2]).tobytes())
    assert load(tmp_path / "other.safetensors")["a"].tolist() == [1, 2]


def test_a_model_with_buffers_and_what_is_said_about_it(tmp_path):
    model, other = network(), network()
    model(np.random.default_rng(1).normal(size=(8, 4)))               # moves the running averages
    for parameter in model.parameters():
        parameter.data = parameter.data + 1
    save_model(tmp_path / "best_model.pkl", model, epoch=3, names=["cat", "dog"])
    assert load_model(tmp_path / "best_model.pkl", other) == {"epoch": 3, "names": ["cat", "dog"]}
    assert same(dict(model.state_dict()), dict(other.state_dict()))


@pytest.mark.parametrize(("tree", "text"), [
    ({"a": np.array([1j])}, "a is an array of complex128"), ({"a": np.array([None])}, "a is an array of object"),
    ({"x": {"f": print}}, "x/f is a builtin_function_or_method"), ({1: 2}, "the key 1"), ({"$array": 1}, "the key '$array'"),
    ({"a": {"b": np.ones(1)}, "a/b": np.ones(1)}, "two arrays would be called a/b"), ({"s": {1, 2}}, "s is a set"),
])
def test_what_cannot_be_saved_is_named_and_no_file_appears(tree, text, tmp_path):
    with pytest.raises((TypeError, ValueError), match=text.replace("$", r"\$")):
        save(tmp_path / "x", tree)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_nested_without_an_end(tmp_path):
    tree: list = []
    for _ in range(100):
        tree = [tree]
    with pytest.raises(ValueError, match="levels deep"):
        save(tmp_path / "x", tree)


# ---------------------------------------------------------------- another architecture

def test_another_architecture_names_layers_and_shapes_and_changes_nothing(tmp_path):
    save_model(tmp_path / "m", network(hidden=5))
    model = network()
    before = model.state_dict()
    with pytest.raises(ModelFileError, match=r"layers.0.weight has the shape \(4, 5\) in the file, \(4, 3\) in the model.*Build the model"):
        load_model(tmp_path / "m", model)
    assert same(before, model.state_dict())
    shorter = Sequential(Linear(4, 5), ReLU())
    with pytest.raises(ModelFileError, match=r"layers.3.weight \(5, 2\) is only in the file"):
        load_model(tmp_path / "m", shorter)
    longer = Sequential(*network(hidden=5).layers, Linear(2, 2))
    with pytest.raises(ModelFileError, match=r"layers.4.weight \(2, 2\) is missing in the file"):
        load_model(tmp_path / "m", longer)


def test_a_file_without_a_model(tmp_path):
    save(tmp_path / "m", {"epoch": 3})
    with pytest.raises(ModelFileError, match="no model"):
        load_model(tmp_path / "m", network())


# ---------------------------------------------------------------- hostile and damaged files

class Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_no_pickle_is_ever_loaded(tmp_path):
    marker = tmp_path / "executed"
    plain, archive, array = tmp_path / "a.pkl", tmp_path / "b.npz", tmp_path / "c.npy"
    plain.write_bytes(pickle.dumps({"model": Bomb(marker)}))
    np.savez(archive, model=np.array([Bomb(marker)], dtype=object))
    np.save(array, np.array([Bomb(marker)], dtype=object), allow_pickle=True)
    for path, kind in ((plain, "a pickle file"), (archive, "a zip file"), (array, "a single NumPy array")):
        with pytest.raises(ModelFileError, match=f"{path.name} is not a model file of TinyTorch: it is {kind}"):
            load_model(path, network())
    for protocol in range(6):
        plain.write_bytes(pickle.dumps(Bomb(marker), protocol=protocol))
        with pytest.raises(ModelFileError, match="not a model file"):
            load(plain)
    assert not marker.exists()


def test_bombs_are_refused_before_they_are_unpacked(tmp_path):
    bomb = tmp_path / "bomb.pkl"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.npy", bytes(50_000_000))
    with pytest.raises(ModelFileError, match="a zip file"):
        load(bomb)
    bomb.write_bytes(gzip.compress(bytes(10_000_000)))
    with pytest.raises(ModelFileError, match="a gzip file"):
        load(bomb)


def written(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(shape=(2,), start=0, end=8, dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


HOSTILE = {
    "empty": (b"", "it is empty"),
    "a few bytes": (b"\x01\x02", "does not begin like one"),
    "text": (b"hello world, this is no model", "does not begin like one"),
    "web page": (b"<!doctype html><html>not found</html>", "a web page"),
    "huge header": ((2**62).to_bytes(8, "little") + b"{}", "claims 4,611,686,018,427,387,904 bytes"),
    "header longer than the file": ((1000).to_bytes(8, "little") + b"{}", "it was cut off"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_does_not_begin_like_a_model_file(name, tmp_path):
    raw, text = HOSTILE[name]
    (tmp_path / "x.pkl").write_bytes(raw)
    with pytest.raises(ModelFileError, match=text) as caught:
        load(tmp_path / "x.pkl")
    assert "x.pkl" in str(caught.value)


@pytest.mark.parametrize(("header", "data", "text"), [
    ({"a": entry(dtype="OBJECT")}, bytes(8), "type, shape and place"),
    ({"a": entry(dtype=["F32"])}, bytes(8), "type, shape and place"),
    ({"a": 7}, bytes(8), "type, shape and place"),
    ({"a": entry(shape=(-2,))}, bytes(8), "claims the shape"),
    ({"a": entry(shape=(2.0,))}, bytes(8), "claims the shape"),
    ({"a": entry(shape=(True, 2))}, bytes(8), "claims the shape"),
    ({"a": entry(shape=(3,))}, bytes(8), "claims the shape"),
    ({"a": entry(shape=(1,) * 64, end=4)}, bytes(4), "claims the shape"),
    ({"a": entry(shape=(2**40,), end=2**42)}, bytes(8), "need 4,398,046,511,104 bytes, 8 are there"),
    ({"a": entry(shape=(0, 2**80), end=0)}, b"", None),                  # no bytes: fine or refused, but no crash
    ({"a": entry(start=8, end=16)}, bytes(16), "begins at byte 8"),
    ({"a": entry(), "b": entry()}, bytes(8), "begins at byte 0, the one before it ends at 8"),
    ({"a": entry(), "b": entry(start=4, end=12)}, bytes(12), "begins at byte 4"),
    ({"a": entry()}, bytes(12), "4 bytes follow"),
    ({"a": entry()}, bytes(4), "cut off"),
    ([1, 2], b"", "does not begin like one"),
    (b'{"a": ' + json.dumps(entry()).encode() + b', "a": ' + json.dumps(entry()).encode() + b"}", bytes(8), "given twice"),
    (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"", "JSON cannot be read"),
    (b'{"a": ' + b"9" * 10_000 + b"}", b"", "JSON cannot be read"),
    (b"{not json", b"", "JSON cannot be read"),
    ({"__metadata__": {"tree": "[" * 60_000}}, b"", "JSON cannot be read"),
    ({"__metadata__": {"tree": 7}}, b"", "not a text of JSON"),
    ({"__metadata__": {"tree": json.dumps({"$array": "b"})}}, b"", "names an array that it does not hold"),
    ({"__metadata__": {"tree": json.dumps({"$array": "b", "x": 1})}}, b"", "names an array that it does not hold"),
    ({"__metadata__": {"tree": "[" * 200 + "]" * 200}}, b"", "levels deep"),
])
def test_headers_that_lie(header, data, text, tmp_path):
    path = written(tmp_path / "x.pkl", header, data)
    if text is None:
        with contextlib.suppress(ModelFileError):
            load(path)
        return
    with pytest.raises(ModelFileError, match=text):
        load(path)


def test_a_file_cut_off_anywhere_is_refused(tmp_path):
    save_model(tmp_path / "m", network(), epoch=1)
    raw = (tmp_path / "m").read_bytes()
    for end in range(0, len(raw), 7):
        (tmp_path / "cut").write_bytes(raw[:end])
        with pytest.raises(ModelFileError):
            load(tmp_path / "cut")


@patient
@given(data=st.data())
def test_flipped_bytes_are_read_or_refused_and_never_crash(data, tmp_path):
    save_model(tmp_path / "m", network(), epoch=1)
    raw = bytearray((tmp_path / "m").read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=4)):
        raw[place] = data.draw(st.integers(0, 255))
    (tmp_path / "flipped").write_bytes(raw)
    with contextlib.suppress(ModelFileError):
        load_model(tmp_path / "flipped", network())


def test_other_booleans_than_two_become_two(tmp_path):
    written(tmp_path / "x", {"a": entry(shape=(3,), end=3, dtype="BOOL")}, b"\x00\x01\xff")
    assert load(tmp_path / "x")["a"].view(np.uint8).tolist() == [0, 1, 1]


def test_folders_pipes_and_missing_files(tmp_path):
    with pytest.raises(ModelFileError, match="is not a file"):
        load(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="is not a file"):
        load(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        save(tmp_path, {})


# ---------------------------------------------------------------- writing

def test_a_failure_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "m.pkl"
    save(path, {"epoch": 1})
    with pytest.raises(ZeroDivisionError), modelfiles.written_atomically(path) as file:
        file.write(b"half" * (1 // 0))
    assert load(path) == {"epoch": 1}
    assert os.listdir(tmp_path) == ["m.pkl"]


FULL = """
import resource, sys
import numpy as np
from tinytorch.modelfiles import save
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save(sys.argv[1], {"big": np.zeros(1_000_000)})
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize("old", [True, False])
def test_no_room_keeps_the_old_file(tmp_path, old):
    path = tmp_path / "m.pkl"
    if old:
        save(path, {"epoch": 1})
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert ("the old m.pkl is kept" if old else "no file was written") in done.stdout, done.stdout + done.stderr
    assert [p.name for p in tmp_path.iterdir()] == (["m.pkl"] if old else [])
    assert not old or load(path) == {"epoch": 1}


def test_permissions_and_links_stay(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    save(real, 1)
    assert stat.S_IMODE(real.stat().st_mode) & 0o600 == 0o600
    real.chmod(0o640)
    link.symlink_to(real)
    save(link, 2)
    assert link.is_symlink()
    assert load(real) == 2
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
