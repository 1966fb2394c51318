"""Where the public data sets are on this machine, and how they come here: CIFAR-10 and MNIST, as files.

    python -m tinytorch.datasets                 what is here, and where
    python -m tinytorch.datasets cifar10 mnist   fetch what is missing

They live in the folder named by TINYTORCH_DATA, else in the user's cache (`~/.cache/tinytorch`), laid out as

    cifar-10-batches-bin/data_batch_1.bin ... data_batch_5.bin, test_batch.bin      the publisher's binary version
    MNIST/raw/train-images-idx3-ubyte.gz ...                                        the four idx files, packed or not

An archive that stands there unopened (`cifar-10-binary.tar.gz`) is opened; idx files may also stand in the folder
itself. TINYTORCH_MIRROR names an address that offers the same files, for a site without the internet. Nothing is ever
unpickled: these formats are bytes. Modules read them with `tinytorch.core.dataloader`, which students write.
"""

import gzip
import math
import os
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np

from tinytorch.download import DownloadError, Progress, Remote, fetch

CIFAR10_ARCHIVE = Remote(
    "cifar-10-binary.tar.gz", 170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",))
CIFAR10_FOLDER = "cifar-10-batches-bin"
CIFAR10_FILES = {"train": [f"data_batch_{k}.bin" for k in range(1, 6)], "test": ["test_batch.bin"]}
CIFAR10_BYTES = 10_000 * 3073               # of each file: 10,000 records of 1 label and 3 x 32 x 32 pixels
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_MNIST_URLS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://yann.lecun.com/exdb/mnist/")


def _idx(name: str, size: int, sha256: str) -> Remote:
    return Remote(name, size, sha256, tuple(url + name for url in _MNIST_URLS))


MNIST_FILES = {
    "train": (_idx("train-images-idx3-ubyte.gz", 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
              _idx("train-labels-idx1-ubyte.gz", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c")),
    "test": (_idx("t10k-images-idx3-ubyte.gz", 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
             _idx("t10k-labels-idx1-ubyte.gz", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6")),
}
IDX_BYTES = 100_000_000                     # more than any idx file of MNIST holds unpacked


def data_home() -> Path:
    """The folder of the data sets: TINYTORCH_DATA, else `tinytorch` in the user's cache."""
    named = os.environ.get("TINYTORCH_DATA")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tinytorch"


def has_cifar10(folder: str | Path | None = None) -> bool:
    """Whether CIFAR-10 is on this machine, opened or as its archive: `CIFAR10Dataset()` will need no network."""
    home = Path(folder or data_home())
    return not _missing(home / CIFAR10_FOLDER) or (home / CIFAR10_ARCHIVE.name).is_file()


def has_mnist(folder: str | Path | None = None) -> bool:
    """Whether MNIST is on this machine."""
    home = Path(folder or data_home())
    return all(_idx_file(home, remote.name) for pair in MNIST_FILES.values() for remote in pair)


def download_cifar10(folder: str | Path | None = None, *, progress: Progress | None = None) -> Path:
    """The folder with CIFAR-10's six binary files; the archive (170 MB) is fetched and opened unless they are there.

    Raises DownloadError with the steps to do by hand when there is no network.
    """
    home = Path(folder or data_home())
    batches = home / CIFAR10_FOLDER
    if _missing(batches):
        try:
            _unpack(fetch(_mirrored(CIFAR10_ARCHIVE), home, progress=progress), batches)
        except DownloadError:
            raise
        except (tarfile.TarError, zlib.error, EOFError) as error:
            raise ValueError(f"{home / CIFAR10_ARCHIVE.name} is damaged ({error}): delete it and run this again") from error
    return batches


def download_mnist(folder: str | Path | None = None, *, progress: Progress | None = None) -> Path:
    """The folder under which MNIST's four idx files stand; those that are not there are fetched (12 MB in all)."""
    home = Path(folder or data_home())
    for pair in MNIST_FILES.values():
        for remote in pair:
            if not _idx_file(home, remote.name):
                fetch(_mirrored(remote), home / "MNIST" / "raw", progress=progress)
    return home


def cifar10_bytes(split: str, folder: str | Path | None = None, download: bool = False) -> list[bytes]:
    """The binary files of a split ("train" or "test"), each 10,000 records of 3,073 bytes.

    FileNotFoundError says how to get the data set, ValueError which file is not what it should be.
    """
    home = Path(folder or data_home())
    if not has_cifar10(home) and not download:
        raise FileNotFoundError(_how_to_get("CIFAR-10", "CIFAR10Dataset", "cifar10", home))
    batches = download_cifar10(home)
    files = [(path := batches / name, path.read_bytes()) for name in CIFAR10_FILES[split]]
    for path, raw in files:
        if len(raw) != CIFAR10_BYTES:
            raise ValueError(f"{path} has {len(raw):,} bytes, not {CIFAR10_BYTES:,}: delete it and fetch CIFAR-10 again")
    return [raw for _, raw in files]


def mnist_bytes(split: str, folder: str | Path | None = None, download: bool = False) -> tuple[bytes, bytes]:
    """The images and the labels of a split ("train" or "test") in MNIST's idx format, unpacked."""
    home = Path(folder or data_home())
    if not has_mnist(home):
        if not download:
            raise FileNotFoundError(_how_to_get("MNIST", "MNISTDataset", "mnist", home))
        download_mnist(home)
    images, labels = (_read_idx(home, remote.name) for remote in MNIST_FILES[split])
    return images, labels


def idx_array(raw: bytes) -> np.ndarray:
    """The array in an idx file of bytes: its head is 0, 0, 8, the number of axes, and each size in 4 bytes, the highest first."""
    head = 4 + 4 * raw[3] if len(raw) > 3 else 4
    shape = np.frombuffer(raw[4:head], dtype=">u4").tolist() if len(raw) >= head else []
    if raw[:3] != b"\0\0\x08" or len(raw) < head or len(raw) != head + math.prod(shape):
        raise ValueError("this is not an idx file of bytes, or not all of one")
    return np.frombuffer(raw, dtype=np.uint8, offset=head).reshape(shape)


def mnist_arrays(split: str, folder: str | Path | None = None, download: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 28, 28) and labels (n,) of a split, bytes."""
    images, labels = (idx_array(raw) for raw in mnist_bytes(split, folder, download))
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ValueError(f"MNIST's {split} images have the shape {images.shape}, its labels {labels.shape}: fetch them again")
    return images, labels


class Pictures:
    """What module 10's CIFAR10Dataset and MNISTDataset have in common: labelled pictures in two parts, each read when first asked for.

    train_data, test_data: (n, channels, height, width), or (n, pixels) with flatten=True; float32 in 0..1, or with
    dtype="uint8" the bytes 0..255, a quarter of the memory. train_labels, test_labels: (n,) int64. As a data set it is its
    training part, or with train=False its test part. download=True fetches what is missing; `folder` replaces TINYTORCH_DATA.
    """

    def __init__(self, *, train: bool = True, download: bool = False, flatten: bool = False, dtype: str | type = "float32",
                 folder: str | Path | None = None):
        if np.dtype(dtype) not in (np.float32, np.uint8):
            raise ValueError(f"dtype is float32 (numbers in 0..1) or uint8 (bytes in 0..255), not {np.dtype(dtype)}")
        self.train, self.download, self.flatten, self.dtype, self.folder = train, download, flatten, np.dtype(dtype), folder
        len(self)                               # reads: now, not in the middle of an epoch, is the time to miss a file

    def read(self, split: str) -> tuple[Iterable[np.ndarray], Iterable[np.ndarray]]:
        """Images (n, channels, height, width) and labels (n,) of "train" or "test", both as bytes, each in one or several parts."""
        raise NotImplementedError(f"{type(self).__name__} has no read(split) yet")

    def _arrays(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        images, labels = (list(parts) for parts in self.read(split))
        data = np.concatenate(images, dtype=self.dtype)
        if self.dtype == np.float32:
            data /= 255
        return data.reshape(len(data), -1) if self.flatten else data, np.concatenate(labels, dtype=np.int64)

    _train = cached_property(lambda self: self._arrays("train"))
    _test = cached_property(lambda self: self._arrays("test"))
    train_data, train_labels = property(lambda self: self._train[0]), property(lambda self: self._train[1])
    test_data, test_labels = property(lambda self: self._test[0]), property(lambda self: self._test[1])

    def __len__(self) -> int:
        return len((self._train if self.train else self._test)[1])

    def __getitem__(self, i):
        """Image and label of one number, or of an array of numbers."""
        return tuple(array[i] for array in (self._train if self.train else self._test))

    def batch(self, numbers):
        return self[numbers]


def _missing(batches: Path) -> list[str]:
    return [name for names in CIFAR10_FILES.values() for name in names if not (batches / name).is_file()]


def _mirrored(remote: Remote) -> Remote:
    mirror = os.environ.get("TINYTORCH_MIRROR")
    return Remote(remote.name, remote.size, remote.sha256, (f"{mirror.rstrip('/')}/{remote.name}",)) if mirror else remote


def _how_to_get(name: str, dataset: str, command: str, home: Path) -> str:
    return (f"{name} is not in {home}. Fetch it with {dataset}(download=True) or `python -m tinytorch.datasets {command}`, "
            f"or set TINYTORCH_DATA to a folder that holds it")


def _unpack(archive: Path, batches: Path) -> None:
    """Take the six files that belong to the data set out of the archive, whole or not at all; whatever else it holds stays in it."""
    wanted = {f"{CIFAR10_FOLDER}/{name}": name for names in CIFAR10_FILES.values() for name in names}
    batches.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            name = wanted.get(member.name)
            stream = tar.extractfile(member) if name and member.isreg() else None
            if not name or not stream:
                continue
            if member.size != CIFAR10_BYTES:
                raise tarfile.TarError(f"{member.name} has {member.size:,} bytes, not {CIFAR10_BYTES:,}")
            with tempfile.TemporaryDirectory(dir=batches, prefix=".") as half:
                fresh = Path(half) / name
                fresh.write_bytes(stream.read())
                os.replace(fresh, batches / name)
    if missing := _missing(batches):
        raise tarfile.TarError(f"it lacks {', '.join(missing)}")


def _idx_file(home: Path, name: str) -> Path | None:
    """Where an idx file stands: MNIST/raw or the folder itself, packed or not."""
    places = [home / "MNIST" / "raw", home]
    return next((path for place in places for path in (place / name, place / name.removesuffix(".gz")) if path.is_file()), None)


def _read_idx(home: Path, name: str) -> bytes:
    path = _idx_file(home, name)
    if path is None:
        raise FileNotFoundError(f"{name} is not in {home}")
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            raw = file.read(IDX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and fetch MNIST again") from error
    if len(raw) > IDX_BYTES:
        raise ValueError(f"{path} unpacks to more than {IDX_BYTES:,} bytes: it is not MNIST; delete it and fetch MNIST again")
    return raw


def main(names: list[str]) -> int:
    """What `python -m tinytorch.datasets` does; the exit code."""
    known = {"cifar10": (has_cifar10, download_cifar10), "mnist": (has_mnist, download_mnist)}
    if unknown := [name for name in names if name not in known]:
        print(f"unknown data set {', '.join(unknown)}; known are {', '.join(known)}", file=sys.stderr)
        return 2
    for name in names:
        try:
            known[name][1]()
        except (OSError, ValueError) as error:
            print(error, file=sys.stderr)
            return 1
    print(f"folder: {data_home()}")
    for name, (is_here, _) in known.items():
        print(f"{name:8} {'here' if is_here() else f'not here: python -m tinytorch.datasets {name}'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
