# Generated from course/modules/source/10_dataloader/dataloader_dev.py by "python -m course.build": edit it there.

"""From files to shuffled, varied batches that are ready when the network wants them."""
from collections import deque
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from tinytorch.core.tensor import Tensor
from tinytorch.datasets import CIFAR10_CLASSES, Pictures, cifar10_bytes, download_cifar10, download_mnist, mnist_arrays  # noqa: F401
from tinytorch.given.loading import BatchPlan
from tinytorch.given.transforms import Compose, Cutout, Normalize, ToFloat, chance


def parse_cifar10(raw):
    """Images (n, 3, 32, 32) and labels (n,), bytes, from records of 1 label and 3 x 32 x 32 pixels."""
    records = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


class Dataset:
    """Samples by number: a subclass has `len(dataset)` and `dataset[i]`, a tuple of arrays or numbers."""

    def batch(self, numbers):
        """The samples of these numbers, one array per field, made one by one. A subclass may be faster."""
        samples = [self[int(i)] for i in numbers]
        return tuple(np.stack(field) for field in zip(*samples, strict=True))

class TensorDataset(Dataset):
    """Arrays or tensors of equal length; sample i is entry i of each."""

    def __init__(self, *arrays):
        self.arrays = tuple(np.asarray(array) for array in arrays)
        if len({len(array) for array in self.arrays}) != 1:
            raise ValueError(f"arrays of one length are needed, these have {[len(array) for array in self.arrays]}")

    def __len__(self): return len(self.arrays[0])
    def __getitem__(self, i): return tuple(array[i] for array in self.arrays)
    def batch(self, numbers): return self[numbers]


def batches(order, batch_size, *, drop_last=False):
    """The numbers in `order`, cut into arrays of batch_size; the rest is a smaller last one, or dropped."""
    end = len(order) - len(order) % batch_size if drop_last else len(order)
    return [order[start:start + batch_size] for start in range(0, end, batch_size)]


class DataLoader(BatchPlan):
    """Batches of a dataset, or of arrays: floats as Tensors, whole numbers as arrays. One pass is an epoch."""

    def __init__(self, data, labels=None, batch_size=32, shuffle=False, **options):
        if isinstance(data, Dataset) and labels is not None:
            raise TypeError("a Dataset brings its own labels: write DataLoader(dataset, batch_size=...)")
        dataset = data if isinstance(data, Dataset) else TensorDataset(data) if labels is None else TensorDataset(data, labels)
        super().__init__(dataset, batch_size, shuffle, **options)

    def order(self, epoch):
        if not self.shuffle:
            return np.arange(len(self.dataset))
        return self.generator(epoch, 0).permutation(len(self.dataset))

    def load(self, epoch, number, samples):
        first, *others = self.dataset.batch(samples)
        if self.transform is not None:
            first = self.transform(first, self.generator(epoch, number + 1))
        return tuple(Tensor(field) if field.dtype.kind == "f" else field for field in (first, *others))

    def __iter__(self):
        epoch, self.epoch = self.epoch, self.epoch + 1
        make = lambda job: self.load(epoch, *job)
        jobs = enumerate(batches(self.order(epoch), self.batch_size, drop_last=self.drop_last))
        return in_order(make, jobs, self.num_workers) if self.num_workers else map(make, jobs)


class RandomHorizontalFlip:
    """Mirrors each picture left to right, with probability p."""

    def __init__(self, p=0.5):
        self.p = p

    def __call__(self, images, random=None):
        random = chance(random)
        mirrored = random.random(len(images)) < self.p
        out = images.copy()
        out[mirrored] = images[mirrored, ..., ::-1]
        return out


class RandomCrop:
    """Moves each picture by up to `padding` pixels, up or down and left or right; zeros or its mirror image enter."""

    def __init__(self, padding, mode="constant"):
        self.padding, self.mode = padding, mode

    def __call__(self, images, random=None):
        random = chance(random)
        n, _, height, width = images.shape
        rim = (self.padding, self.padding)
        padded = np.pad(images, ((0, 0), (0, 0), rim, rim), mode=self.mode)
        views = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
        down, right = random.integers(2 * self.padding + 1, size=(2, n))
        return views[np.arange(n), :, down, right]


def in_order(make, jobs, workers, *, ahead=2):
    """make(job) for every job, in order, by threads that are at most `ahead` jobs per worker ahead of the caller."""
    waiting = deque()
    with ThreadPoolExecutor(workers) as pool:
        for job in jobs:
            waiting.append(pool.submit(make, job))
            if len(waiting) > ahead * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class CIFAR10Dataset(Pictures, Dataset):
    """50,000 and 10,000 colour pictures of 32 x 32 in 10 classes (A. Krizhevsky, 2009)."""
    classes = CIFAR10_CLASSES

    def read(self, split):
        return zip(*map(parse_cifar10, cifar10_bytes(split, self.folder, self.download)), strict=True)

class MNISTDataset(Pictures, Dataset):
    """60,000 and 10,000 handwritten digits of 28 x 28, one channel (Y. LeCun, C. Cortes, C. Burges)."""
    def read(self, split):
        images, labels = mnist_arrays(split, self.folder, self.download)
        return [images[:, None]], [labels]
