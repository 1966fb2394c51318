"""Module 10: what is loaded, in which order, by whom, and what is done to it on the way."""

import contextlib
import gc
import importlib.util
import json
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from tests.need import need
from tinytorch import datasets, randomness
from tinytorch.core import dataloader
from tinytorch.core.dataloader import (
    CIFAR10Dataset,
    Compose,
    Cutout,
    DataLoader,
    Dataset,
    MNISTDataset,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    TensorDataset,
    ToFloat,
    batches,
    in_order,
    parse_cifar10,
)
from tinytorch.core.tensor import Tensor

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"       # beside a checkout that has it; users do not
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
sizes = st.integers(1, 30)


def epoch_of(loader):
    return [tuple(np.asarray(field) for field in batch) for batch in loader]


def same(one, other):
    """The same batches, number by number."""
    return len(one) == len(other) and all(np.array_equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def pictures(n, channels=1, side=4, seed=0):
    return np.random.default_rng(seed).uniform(0.1, 1, size=(n, channels, side, side)).astype(np.float32)


# batches

@patient
@given(st.lists(st.integers(0, 99), max_size=40), sizes, st.booleans())
def test_batches_are_the_order_cut_into_pieces(order, batch_size, drop_last):
    parts = batches(np.array(order, dtype=int), batch_size, drop_last=drop_last)
    whole = len(order) // batch_size * batch_size if drop_last else len(order)
    assert [number for part in parts for number in part] == order[:whole]
    assert all(len(part) == batch_size for part in (parts if drop_last else parts[:-1]))
    assert all(len(part) for part in parts)


@patient
@given(n=sizes, batch_size=sizes, shuffle=st.booleans(), drop_last=st.booleans(), seed=st.integers(0, 2**40))
def test_an_epoch_shows_every_sample_once_and_len_says_in_how_many_batches(n, batch_size, shuffle, drop_last, seed):
    if drop_last and n < batch_size:
        return
    loader = DataLoader(np.arange(n, dtype=np.float32), np.arange(n), batch_size, shuffle, drop_last=drop_last, seed=seed)
    got = epoch_of(loader)
    assert len(got) == len(loader)
    seen = np.concatenate([y for _, y in got])
    assert np.array_equal(np.concatenate([x for x, _ in got]), seen)
    assert len(set(seen)) == len(seen) == (n // batch_size * batch_size if drop_last else n)
    assert shuffle or list(seen) == list(range(len(seen)))


def test_what_comes_out():
    images, labels = pictures(5).astype(np.float64), [1, 2, 3, 4, 5]
    (x, y), *_ = DataLoader(images, labels, batch_size=2)
    assert isinstance(x, Tensor)
    assert x.dtype == np.float32
    assert isinstance(y, np.ndarray)
    assert y.dtype.kind == "i"
    (x, y), *_ = DataLoader(Tensor(images), Tensor(labels))
    assert isinstance(y, Tensor)
    assert [len(batch) for batch in DataLoader(np.arange(3))] == [1]
    assert DataLoader(images, labels).batch_size == 32
    x, y = next(iter(DataLoader(TensorDataset(np.float32([[1, 2]]), [7]), batch_size=1)))
    assert (x.data.tolist(), y.tolist()) == ([[1, 2]], [7])


@pytest.mark.parametrize(("make", "message"), [
    (lambda: DataLoader(np.zeros((3, 2)), np.zeros(4)), r"one length .* \[3, 4\]"),
    (lambda: DataLoader(np.zeros((3, 2)), batch_size=0), "batch_size is a whole number from 1 on, not 0"),
    (lambda: DataLoader(np.zeros((3, 2)), batch_size=2.5), "whole number from 1 on, not 2.5"),
    (lambda: DataLoader(np.zeros((3, 2)), num_workers=-1), "num_workers is 0"),
    (lambda: DataLoader(np.zeros((0, 2))), "the dataset is empty"),
    (lambda: DataLoader(np.zeros((3, 2)), batch_size=4, drop_last=True), "3 samples are less than one batch of 4"),
    (lambda: TensorDataset(), "one length"),
    (lambda: Normalize(0.5, [0.2, 0]), "each std must be above 0"),
    (lambda: Normalize([0, 0], [1, 1])(pictures(2, channels=3)), r"expected images \(n, 2, height, width\), got \(2, 3, 4, 4\)"),
])
def test_wrong_requests_are_refused_with_a_reason(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_dataset_is_not_given_labels_nor_a_batch_size_in_their_place():
    with pytest.raises(TypeError, match=r"DataLoader\(dataset, batch_size=...\)"):
        DataLoader(TensorDataset(np.zeros(3)), 32)


# the same numbers, whenever and by whomever

def noisy(n=37, workers=0, **options):
    views = Compose(RandomHorizontalFlip(), RandomCrop(1), Cutout(2))
    return DataLoader(pictures(n), np.arange(n), 5, True, transform=views, num_workers=workers, **options)


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_workers_change_nothing_but_the_time(workers):
    alone, together = noisy(seed=4), noisy(seed=4, workers=workers)
    for _ in range(3):
        assert same(epoch_of(alone), epoch_of(together))


def test_epochs_differ_and_a_saved_state_goes_on_where_it_was():
    loader = noisy(seed=4)
    epochs = [epoch_of(loader) for _ in range(3)]
    assert not same(epochs[0], epochs[1])
    assert not same(epochs[0], epoch_of(noisy(seed=5)))
    loader = noisy(seed=4)
    epoch_of(loader)
    state = json.loads(json.dumps(loader.state_dict()))
    other = noisy(seed=99)
    other.load_state_dict(state)
    assert same(epoch_of(other), epochs[1])
    assert same(epoch_of(other), epochs[2])


def test_the_seed_comes_from_the_one_source_of_chance_and_from_nothing_drawn_there():
    randomness.manual_seed(3)
    one = epoch_of(noisy())
    randomness.manual_seed(3)
    randomness.generator().normal(size=100)
    assert same(one, epoch_of(noisy()))
    randomness.manual_seed(4)
    assert not same(one, epoch_of(noisy()))


def test_two_passes_at_once_do_not_disturb_each_other():
    want = [epoch_of(loader) for loader in [noisy(seed=1)] for _ in range(2)]
    loader = noisy(seed=1, workers=2)
    one, other = iter(loader), iter(loader)
    pairs = list(zip(one, other, strict=True))
    assert same([tuple(map(np.asarray, pair[0])) for pair in pairs], want[0])
    assert same([tuple(map(np.asarray, pair[1])) for pair in pairs], want[1])


def test_a_run_that_was_interrupted_goes_on_as_if_it_had_not_been(tmp_path):
    from tinytorch.core.layers import Flatten, Linear, Sequential
    from tinytorch.core.losses import CrossEntropyLoss
    from tinytorch.core.optimizers import Adam
    from tinytorch.core.training import Trainer

    def trainer():
        randomness.manual_seed(0)
        loader = DataLoader(pictures(40), np.arange(40) % 3, 8, True, transform=RandomCrop(1), num_workers=2)
        return Trainer(Sequential(Flatten(), Linear(16, 3)), CrossEntropyLoss(), Adam(lr=0.01)), loader

    whole, loader = trainer()
    whole.fit(loader, epochs=4, quiet=True)
    place = str(tmp_path / "run.safetensors")
    first, loader = trainer()
    first.fit(loader, epochs=2, checkpoint_path=place, quiet=True)
    second, loader = trainer()
    second.fit(loader, epochs=4, checkpoint_path=place, resume=True, quiet=True)
    for name, array in whole.model.state_dict().items():
        assert np.array_equal(array, second.model.state_dict()[name])


# worker threads

class Counting(Dataset):
    """Samples that note who asked; number `bad` fails."""

    def __init__(self, n=40, bad=None):
        self.n, self.bad, self.threads, self.asked = n, bad, set(), []

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.threads.add(threading.current_thread().name)
        self.asked.append(i)
        if i == self.bad:
            raise OSError(f"sample {i} cannot be read")
        return np.float32([i]), i


def test_workers_do_the_work():
    data = Counting()
    epoch_of(DataLoader(data, batch_size=4, num_workers=2))
    assert threading.current_thread().name not in data.threads
    assert sorted(data.asked) == list(range(40))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_in_a_worker_reaches_the_caller_after_what_came_before_it(workers):
    before, got = threading.active_count(), []
    loader = DataLoader(Counting(bad=17), batch_size=4, num_workers=workers)
    with pytest.raises(OSError, match="sample 17 cannot be read"):
        got.extend(y.tolist() for _, y in loader)
    assert got == [list(range(start, start + 4)) for start in range(0, 16, 4)]
    assert threading.active_count() == before


def break_off(loader):
    for _ in loader:
        break


def raise_inside(loader):
    with contextlib.suppress(ZeroDivisionError):
        for _ in loader:
            raise ZeroDivisionError


def forget(loader):
    iterator = iter(loader)
    next(iterator)
    del iterator
    gc.collect()


def close(loader):
    iterator = iter(loader)
    next(iterator)
    iterator.close()


@pytest.mark.parametrize("leave", [break_off, raise_inside, forget, close])
def test_a_loop_left_early_leaves_no_thread_behind(leave):
    before, data = threading.active_count(), Counting(4000)
    leave(DataLoader(data, batch_size=4, num_workers=3))
    assert threading.active_count() == before
    assert len(data.asked) <= 4 * (1 + 2 * 3), "no more than what was promised ahead may have been made"


@patient
@given(st.integers(0, 25), st.integers(1, 4), st.integers(1, 3))
def test_results_come_in_order_and_no_job_is_begun_too_early(n, workers, ahead):
    begun = []

    def jobs():
        for i in range(n):
            begun.append(i)
            yield i

    got = []
    for result in in_order(lambda i: i * i, jobs(), workers, ahead=ahead):
        got.append(result)
        assert len(begun) <= len(got) + ahead * workers
    assert got == [i * i for i in range(n)]


def test_a_program_that_ends_in_the_middle_of_an_epoch_ends():
    code = ("import numpy as np; from tinytorch.core.dataloader import DataLoader\n"
            "it = iter(DataLoader(np.zeros((1000, 2)), num_workers=2)); next(it); print('bye')")
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "bye\n", "")


# transforms

@patient
@given(n=st.integers(1, 6), channels=st.integers(1, 3), h=st.integers(1, 5), w=st.integers(1, 5), padding=st.integers(0, 3),
       seed=st.integers(0, 99), dtype=st.sampled_from(["float32", "uint8"]))
def test_every_crop_is_a_window_of_its_own_padded_picture(n, channels, h, w, padding, seed, dtype):
    x = np.random.default_rng(seed).integers(1, 255, size=(n, channels, h, w)).astype(dtype)
    before, got = x.copy(), RandomCrop(padding)(x, seed)
    assert (got.shape, got.dtype) == (x.shape, x.dtype)
    assert np.array_equal(x, before)
    assert not np.shares_memory(got, x)
    for old, new in zip(x, got, strict=True):
        padded = np.pad(old, ((0, 0), (padding, padding), (padding, padding)))
        assert (sliding_window_view(padded, old.shape).reshape(-1, *old.shape) == new).all(axis=(1, 2, 3)).any()


@patient
@given(seed=st.integers(0, 999), padding=st.integers(1, 3))
def test_all_windows_are_equally_likely(seed, padding):
    x = np.zeros((4000, 1, 7, 7), np.float32)
    x[:, :, 3, 3] = 1
    counts = RandomCrop(padding)(x, seed).sum(axis=(0, 1))
    expected = 4000 / (2 * padding + 1) ** 2
    middle = slice(3 - padding, 4 + padding)
    assert counts.sum() == 4000
    assert (abs(counts[middle, middle] - expected) < 6 * expected ** 0.5).all()


def test_reflection_enters_where_it_is_asked_for():
    x = np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3).repeat(200, axis=0)
    assert (RandomCrop(2, mode="reflect")(x, 0) > 0).all()
    assert (RandomCrop(2)(x, 0) == 0).any()


@patient
@given(n=st.integers(1, 20), p=st.floats(0, 1), seed=st.integers(0, 99), dtype=st.sampled_from(["float32", "uint8"]))
def test_a_flip_mirrors_whole_pictures_or_leaves_them(n, p, seed, dtype):
    x = np.random.default_rng(seed).integers(255, size=(n, 2, 3, 4)).astype(dtype)
    before, got = x.copy(), RandomHorizontalFlip(p)(x, seed)
    assert got.dtype == x.dtype
    assert np.array_equal(x, before)
    for old, new in zip(x, got, strict=True):
        assert np.array_equal(new, old) or np.array_equal(new, old[..., ::-1])
    assert p or np.array_equal(got, x)


@patient
@given(size=st.integers(1, 9), seed=st.integers(0, 99))
def test_cutout_covers_one_square_per_picture(size, seed):
    x = np.ones((30, 2, 6, 5), np.float32)
    got = Cutout(size, fill=-1)(x, seed)
    assert (x == 1).all()
    for picture in got:
        assert np.array_equal(picture[0], picture[1])
        rows, columns = (np.unique(axis) for axis in np.nonzero(picture[0] == -1))
        assert 1 <= len(rows) <= size
        assert 1 <= len(columns) <= size
        assert (picture[0] == -1).sum() == len(rows) * len(columns)
        assert (np.ptp(rows), np.ptp(columns)) == (len(rows) - 1, len(columns) - 1)


def test_normalize_and_to_float():
    x = np.random.default_rng(0).integers(256, size=(50, 3, 4, 4), dtype=np.uint8)
    unit = ToFloat()(x)
    assert unit.dtype == np.float32
    np.testing.assert_array_equal(unit, x.astype(np.float32) / 255)
    got = Normalize.of(unit)(unit)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(got.std(axis=(0, 2, 3)), 1, atol=1e-5)
    np.testing.assert_allclose(Normalize(0.5, 0.25)(unit), (unit - 0.5) / 0.25, rtol=1e-6)


def test_transforms_without_a_source_of_chance_use_the_common_one():
    views, x = Compose([RandomHorizontalFlip(), RandomCrop(1)]), pictures(9)
    randomness.manual_seed(1)
    one = views(x)
    assert not np.array_equal(one, views(x))
    randomness.manual_seed(1)
    assert np.array_equal(one, views(x))


@pytest.mark.oracle
def test_a_batch_is_what_pytorch_would_have_made():
    need("PyTorch", importlib.util.find_spec("torch"), "make oracle")
    import torch
    from torch.utils.data import DataLoader as TorchLoader
    from torch.utils.data import TensorDataset as TorchDataset

    x, y = pictures(23, 3), np.arange(23)
    for batch_size, drop_last in [(4, False), (4, True), (23, False), (30, False)]:
        theirs = TorchLoader(TorchDataset(torch.tensor(x), torch.tensor(y)), batch_size=batch_size, drop_last=drop_last)
        ours = DataLoader(x, y, batch_size=batch_size, drop_last=drop_last)
        assert same(epoch_of(ours), [tuple(field.numpy() for field in batch) for batch in theirs])
        assert len(ours) == len(theirs)


# the formats

@patient
@given(st.integers(0, 4), st.integers(0, 99))
def test_cifar10_records(n, seed):
    records = np.random.default_rng(seed).integers(256, size=(n, 3073), dtype=np.uint8)
    images, labels = parse_cifar10(records.tobytes())
    assert (images.shape, images.dtype, labels.dtype) == ((n, 3, 32, 32), np.uint8, np.uint8)
    assert np.array_equal(np.c_[labels, images.reshape(n, 3072)], records)
    with pytest.raises(ValueError, match=str(n * 3073 + 5)):
        parse_cifar10(bytes(n * 3073 + 5))


def idx(array):
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@patient
@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.integers(0, 99))
def test_idx_arrays(shape, seed):
    array = np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)
    assert np.array_equal(datasets.idx_array(idx(array)), array)
    broken = [idx(array)[:-1], idx(array) + b"x", b"\0\0\x0d" + idx(array)[3:], idx(array)[:3], b"", b"\0\0\x08\x03\xff\xff\xff\xff"]
    for raw in broken if array.size else broken[1:]:
        with pytest.raises(ValueError, match="not an idx file of bytes"):
            datasets.idx_array(raw)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder with tiny data sets in the publishers' formats."""
    monkeypatch.setattr(datasets, "CIFAR10_BYTES", 3 * 3073)
    monkeypatch.setenv("TINYTORCH_DATA", str(tmp_path))
    rng = np.random.default_rng(0)
    (tmp_path / "cifar-10-batches-bin").mkdir()
    for names in datasets.CIFAR10_FILES.values():
        for name in names:
            rng.integers(10, size=3 * 3073, dtype=np.uint8).tofile(tmp_path / "cifar-10-batches-bin" / name)
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    for split, n in (("train", 7), ("test", 4)):
        for remote, shape in zip(datasets.MNIST_FILES[split], [(n, 28, 28), (n,)], strict=True):
            (tmp_path / "MNIST" / "raw" / remote.name.removesuffix(".gz")).write_bytes(idx(rng.integers(10, size=shape, dtype=np.uint8)))
    return tmp_path


def test_cifar10_as_promised(small):
    data = CIFAR10Dataset(download=True, flatten=False)
    assert data.train_data.shape == (15, 3, 32, 32)
    assert data.test_data.shape == (3, 3, 32, 32)
    assert data.train_data.dtype == np.float32
    assert data.train_labels.dtype == data.test_labels.dtype == np.int64
    assert 0 <= data.train_data.min() <= data.train_data.max() <= 1
    raw = np.fromfile(small / "cifar-10-batches-bin" / "data_batch_2.bin", np.uint8).reshape(3, 3073)
    np.testing.assert_allclose(data.train_data[3:6].reshape(3, -1), raw[:, 1:] / 255, rtol=1e-6)
    assert data.train_labels[3:6].tolist() == raw[:, 0].tolist()
    assert (len(data), len(CIFAR10Dataset(train=False)), len(data.classes)) == (15, 3, 10)
    batch, labels = next(iter(DataLoader(data, batch_size=2)))
    assert np.array_equal(batch.data, data.train_data[:2])
    assert np.array_equal(labels, data.train_labels[:2])
    assert CIFAR10Dataset(flatten=True).train_data.shape == (15, 3072)


def test_bytes_keep_a_quarter_of_the_memory_and_give_the_same_batches(small):
    floats, as_bytes = CIFAR10Dataset(), CIFAR10Dataset(dtype="uint8")
    assert 4 * as_bytes.train_data.nbytes == floats.train_data.nbytes
    assert same(epoch_of(DataLoader(floats)), epoch_of(DataLoader(as_bytes, transform=ToFloat())))
    with pytest.raises(ValueError, match="not float64"):
        CIFAR10Dataset(dtype="float64")


def test_mnist_as_promised(small):
    data = MNISTDataset()
    assert (data.train_data.shape, data.test_data.shape) == ((7, 1, 28, 28), (4, 1, 28, 28))
    assert MNISTDataset(train=False, flatten=True)[:][0].shape == (4, 784)


def test_a_part_is_read_only_when_it_is_asked_for(small):
    (small / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(b"short")
    data = CIFAR10Dataset()
    with pytest.raises(ValueError, match=r"test_batch.bin has 5 bytes, not 9,219"):
        data.test_data  # noqa: B018


@pytest.mark.parametrize(("dataset", "name"), [(CIFAR10Dataset, "CIFAR-10"), (MNISTDataset, "MNIST")])
def test_a_missing_data_set_says_how_to_get_it(dataset, name, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYTORCH_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError) as missing:
        dataset()
    for word in (name, str(tmp_path), "download=True", "python -m tinytorch.datasets", "TINYTORCH_DATA"):
        assert word in str(missing.value)
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        dataset(folder=tmp_path / "elsewhere")


# the real data sets, where this machine has them

@pytest.fixture(scope="module")
def real(tmp_path_factory):
    if not (SHARED / "unpack.py").is_file():
        pytest.skip("needs ../shared/data beside the checkout")
    need("Pillow", importlib.util.find_spec("PIL"), "pip install pillow")
    folder = tmp_path_factory.mktemp("real")
    code = f"""
import sys; sys.path.insert(0, {str(SHARED)!r})
import unpack, pathlib, shutil
folder = pathlib.Path({str(folder)!r}); batches = folder / "cifar-10-batches-bin"; batches.mkdir()
unpack.decode("test").tofile(batches / "test_batch.bin")
for k in range(1, 6): shutil.copy(batches / "test_batch.bin", batches / f"data_batch_{{k}}.bin")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)     # the training pictures would take five times as long
    return folder


def test_real_cifar10(real):
    data = CIFAR10Dataset(train=False, folder=real)
    assert data.test_data.shape == (10000, 3, 32, 32)
    assert np.bincount(data.test_labels).tolist() == [1000] * 10
    np.testing.assert_allclose(data.test_data.mean(axis=(0, 2, 3)), [0.494, 0.485, 0.450], atol=0.01)
    bluer = [(data.test_data[data.test_labels == k, 2] - data.test_data[data.test_labels == k, 0]).mean() for k in range(10)]
    assert {data.classes[k] for k in np.argsort(bluer)[-2:]} == {"airplane", "ship"}       # sky and sea: names and channels are in order


def test_real_mnist():
    if not (SHARED / "t10k-labels-idx1-ubyte.gz").is_file():
        pytest.skip("needs ../shared/data beside the checkout")
    data = MNISTDataset(train=False, folder=SHARED)
    assert data.test_data.shape == (10000, 1, 28, 28)
    assert len(np.unique(data.test_labels)) == 10
    assert 0.1 < data.test_data.mean() < 0.2


# what the loader costs

def test_prefetching_hides_what_a_sample_waits_for():
    """Samples that wait 5 ms each, as for a disk: two threads wait at the same time, so an epoch takes about half."""
    import time

    class Disk(Counting):
        def __getitem__(self, i):
            time.sleep(0.005)
            return super().__getitem__(i)

    def seconds(workers):
        start = time.perf_counter()
        epoch_of(DataLoader(Disk(40), batch_size=4, num_workers=workers))
        return time.perf_counter() - start

    assert min(seconds(2) for _ in range(3)) < 0.75 * min(seconds(0) for _ in range(3))


def test_the_names_of_the_contract():
    for name in ("Dataset", "TensorDataset", "DataLoader", "CIFAR10Dataset", "MNISTDataset", "download_cifar10", "Normalize",
                 "RandomHorizontalFlip", "RandomCrop", "Cutout", "Compose"):
        assert hasattr(dataloader, name)
