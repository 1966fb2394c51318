"""Model files: arrays and JSON, nothing that can be executed. `save_model` and `load_model` work on any file name.

The layout is that of safetensors, which other tools read, too: eight bytes that say how long the header is (little endian),
a JSON header with each array's type, shape and place, and then the numbers themselves, uncompressed and without gaps. What is
not an array (numbers, texts, lists, dicts) stands as JSON in the header's `__metadata__`. So reading one allocates no more than
the file is long, and calls nothing that the file could name.
"""

import json
import math
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
          "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1"}
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
LONGEST_HEADER = 16 * 1024 * 1024          # bytes; a model of 10,000 arrays needs about one megabyte
DEEPEST = 50                               # levels of lists and dicts
MARK = "$array"                            # {"$array": "model/weight"} stands in the JSON where the array belongs
OTHERS = {b"\x80": "a pickle file, and loading one of those runs whatever code it holds",
          b"PK": "a zip file (.npz and PyTorch's .pt are such)", b"\x93NUMPY": "a single NumPy array (.npy)",
          b"\x1f\x8b": "a gzip file", b"\x89HDF": "an HDF5 file (Keras writes them)", b"{": "a JSON text", b"<": "a web page"}


class ModelFileError(ValueError):
    """A file that is no model file, is damaged, or belongs to another architecture. The message names file, reason and cure."""


def save_model(path: str | os.PathLike, model: Any, **about: Any) -> None:
    """Keep a model's weights and buffers, and what you say about it: numbers, texts, lists, dicts. OSError keeps the old file."""
    save(path, {"model": dict(model.state_dict()), "about": about})


def load_model(path: str | os.PathLike, model: Any) -> dict[str, Any]:
    """Put a file's weights into a model of the same architecture and return what was said about it.

    ModelFileError names every layer that does not fit, before anything in the model has changed.
    """
    tree = load(path)
    if not isinstance(tree, dict) or not isinstance(tree.get("model"), dict):
        raise ModelFileError(f"{path} holds arrays, but no model: write it with save_model(path, model)")
    put_weights(model, tree["model"], path)
    about = tree.get("about", {})
    return about if isinstance(about, dict) else {}


def put_weights(model: Any, state: dict[str, np.ndarray], path: str | os.PathLike) -> None:
    """`model.load_state_dict` after a comparison of names and shapes that tells all the differences."""
    own = {name: np.shape(array) for name, array in model.state_dict().items()}
    found = {name: np.shape(array) for name, array in state.items()}
    differences = [f"{name} has the shape {found[name]} in the file, {own[name]} in the model"
                   for name in own if name in found and own[name] != found[name]]
    differences += [f"{name} {own[name]} is missing in the file" for name in own if name not in found]
    differences += [f"{name} {found[name]} is only in the file" for name in found if name not in own]
    if differences:
        more = f"; and {len(differences) - 6} more" if len(differences) > 6 else ""
        raise ModelFileError(f"{path} is of another architecture: {'; '.join(differences[:6])}{more}. "
                             "Build the model as it was when the file was saved")
    model.load_state_dict(state)


# ---------------------------------------------------------------- trees of arrays and plain values

def save(path: str | os.PathLike, tree: Any) -> None:
    """Write nested dicts and lists of arrays, numbers, texts and None. The file appears whole or not at all."""
    arrays: dict[str, np.ndarray] = {}
    plain = _take_out(tree, arrays, ())
    header: dict[str, Any] = {"__metadata__": {"format": "tinytorch", "tree": json.dumps(plain)}}
    order = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)        # keeps every array aligned
    start = 0
    for name in order:
        array = arrays[name]
        header[name] = {"dtype": NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [start, start + array.nbytes]}
        start += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > LONGEST_HEADER:
        raise ValueError(f"the names and plain values of {path} take {len(text):,} bytes, at most {LONGEST_HEADER:,} are allowed: "
                         "keep long lists of numbers as arrays")
    with written_atomically(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(arrays[name].reshape(-1).view(np.uint8).data)


def load(path: str | os.PathLike) -> Any:
    """What `save` wrote: fresh arrays and plain values. ModelFileError for anything else; nothing of the file is executed."""
    with _opened(path) as (file, size):
        header = _header(file, size, path)
        metadata = header.pop("__metadata__", {})
        places = _places(header, size - file.tell(), path)
        arrays = {name: _read(file, dtype, shape, path) for name, dtype, shape in places}
    text = metadata.get("tree") if isinstance(metadata, dict) else None
    if text is None:
        return arrays                       # written by another tool
    if not isinstance(text, str):
        raise _damaged(path, "its plain values are not a text of JSON")
    return _put_back(_json(text, path), arrays, path)


def _take_out(value: Any, arrays: dict[str, np.ndarray], place: tuple[str, ...]) -> Any:
    """The tree with a mark in place of every array, which goes to `arrays` under its path."""
    where = "/".join(place) or "the value itself"
    if len(place) > DEEPEST:
        raise ValueError(f"{where} is nested more than {DEEPEST} levels deep")
    if isinstance(value, np.ndarray):
        little = value.dtype.newbyteorder("<") if value.dtype.byteorder in "<>=" else value.dtype
        if np.dtype(little) not in NAMES:
            raise TypeError(f"{where} is an array of {value.dtype}: a model file holds numbers and booleans")
        name = "/".join(place) or "array"
        if name in arrays or name == "__metadata__":
            raise ValueError(f"two arrays would be called {name}: rename one of the keys")
        arrays[name] = np.ascontiguousarray(value, dtype=little).reshape(value.shape)
        return {MARK: name}
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str) or key == MARK:
                raise TypeError(f"{where} has the key {key!r}: keys are texts, and not {MARK!r}")
        return {key: _take_out(part, arrays, (*place, key)) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_take_out(part, arrays, (*place, str(i))) for i, part in enumerate(value)]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{where} is a {type(value).__name__}: a model file holds arrays, numbers, texts, lists, dicts and None")


def _put_back(value: Any, arrays: dict[str, np.ndarray], path: str | os.PathLike, depth: int = 0) -> Any:
    if depth > DEEPEST + 1:
        raise _damaged(path, f"its values are nested more than {DEEPEST} levels deep")
    if isinstance(value, list):
        return [_put_back(part, arrays, path, depth + 1) for part in value]
    if not isinstance(value, dict):
        return value
    if MARK not in value:
        return {key: _put_back(part, arrays, path, depth + 1) for key, part in value.items()}
    name = value[MARK]
    if len(value) != 1 or not isinstance(name, str) or name not in arrays:
        raise _damaged(path, f"it names an array that it does not hold: {str(name)[:60]!r}")
    return arrays[name]


# ---------------------------------------------------------------- reading what may be hostile

@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[tuple[BinaryIO, int]]:
    """A regular file and its size; a pipe or device would make us wait, or read without an end."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    facts = os.fstat(handle)
    if not stat.S_ISREG(facts.st_mode):
        os.close(handle)
        raise ModelFileError(f"{path} is not a file: give the name of a model file")
    with os.fdopen(handle, "rb") as file:
        yield file, facts.st_size


def _header(file: BinaryIO, size: int, path: str | os.PathLike) -> dict[str, Any]:
    start = file.read(8)
    length = int.from_bytes(start, "little")
    first = file.read(1)
    if len(start) < 8 or first != b"{":
        kind = next((text for magic, text in OTHERS.items() if start.startswith(magic)), "")
        why = f"it is {kind}" if kind else "it is empty" if not start else "it does not begin like one"
        raise ModelFileError(f"{path} is not a model file of TinyTorch: {why}. Model files hold arrays and JSON only, "
                             "whatever their suffix: write this one again with save_model(path, model)")
    if length > LONGEST_HEADER:
        raise _damaged(path, f"its header claims {length:,} bytes, at most {LONGEST_HEADER:,} are allowed")
    if length > size - 8:
        raise _damaged(path, f"its header claims {length:,} bytes, the file has {size:,}: it was cut off")
    header = _json((first + file.read(length - 1)).decode("utf-8", "replace"), path)
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a table")
    return header


def _places(header: dict[str, Any], room: int, path: str | os.PathLike) -> list[tuple[str, np.dtype, tuple[int, ...]]]:
    """Name, type and shape of each array in the order of the file: they must fill the rest of the file exactly."""
    found = []
    for name, entry in header.items():
        try:
            dtype, shape, (start, end) = np.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"]), entry["data_offsets"]
        except (KeyError, TypeError, ValueError):
            raise _damaged(path, f"it does not say type, shape and place of the array {name[:60]!r}") from None
        numbers = (*shape, start, end)
        if any(type(n) is not int or n < 0 for n in numbers) or len(shape) > 32 or end - start != math.prod(shape) * dtype.itemsize:
            raise _damaged(path, f"the array {name[:60]!r} claims the shape {str(shape)[:60]} in bytes "
                                 f"{str(start)[:20]} to {str(end)[:20]}")
        found.append((start, end, name, dtype, shape))
    found.sort(key=lambda entry: entry[:2])
    at = 0
    for start, end, name, _, _ in found:
        if start != at:
            raise _damaged(path, f"the array {name[:60]!r} begins at byte {start}, the one before it ends at {at}")
        at = end
    if at > room:
        raise _damaged(path, f"its arrays need {at:,} bytes, {room:,} are there: it was cut off")
    if at < room:
        raise _damaged(path, f"{room - at:,} bytes follow its last array")
    return [(name, dtype, shape) for _, _, name, dtype, shape in found]


def _read(file: BinaryIO, dtype: np.dtype, shape: tuple[int, ...], path: str | os.PathLike) -> np.ndarray:
    try:
        array = np.empty(math.prod(shape), np.uint8 if dtype.kind == "b" else dtype)
    except MemoryError:
        raise ModelFileError(f"{path} holds an array of shape {shape}, for which this machine has no memory") from None
    if file.readinto(array.view(np.uint8).data) != array.nbytes:          # type: ignore[attr-defined]
        raise _damaged(path, "it became shorter while it was read")
    if dtype.kind == "b":
        array = array != 0                   # any other byte would be a boolean that is neither
    try:
        return array.astype(dtype.newbyteorder("="), copy=False).reshape(shape)
    except ValueError:
        raise _damaged(path, f"an array claims the shape {str(shape)[:60]}, which no array can have") from None


def _json(text: str, path: str | os.PathLike) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            raise ValueError("a name is given twice")
        return table

    try:
        return json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its JSON cannot be read ({type(error).__name__}: {str(error)[:80]})") from None


def _damaged(path: str | os.PathLike, why: str) -> ModelFileError:
    return ModelFileError(f"{path} is damaged: {why}. Take an older copy, or train and save again")


# ---------------------------------------------------------------- writing

@contextmanager
def written_atomically(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its place when the block ends well. Until then, and after any failure, the old one is whole."""
    target = Path(path).resolve()
    if target.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file in it")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            kept = f"the old {target.name} is kept" if target.exists() else "no file was written"
            raise OSError(error.errno, f"{os.strerror(error.errno) if error.errno else error} while saving; {kept}", str(path)) from error
        raise


def _sync_folder(folder: Path) -> None:
    """Make the new name last through a power cut, where the system can do that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
