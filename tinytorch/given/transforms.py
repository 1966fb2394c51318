"""What may be done to a batch of pictures on its way to the network.

A transform is a function of a batch (n, channels, height, width) and a source of chance, and returns a new batch. Whatever
it draws comes from that source, so that a run can be repeated; `chance` says what may stand there. Module 10 writes
RandomHorizontalFlip and RandomCrop in the same manner.
"""

import numpy as np

from tinytorch import randomness


def chance(random: np.random.Generator | int | None) -> np.random.Generator:
    """A generator as it is; from a seed, a new one that depends on it alone; without either, the one of tinytorch.randomness."""
    return randomness.generator() if random is None else np.random.default_rng(random)


class Compose:
    """One transform after the other."""

    def __init__(self, *transforms):
        self.transforms = transforms[0] if len(transforms) == 1 and isinstance(transforms[0], (list, tuple)) else transforms

    def __call__(self, images, random=None):
        random = chance(random)
        for transform in self.transforms:
            images = transform(images, random)
        return images


class ToFloat:
    """Bytes 0..255 become float32 0..1: first in line where a data set is kept as bytes, a quarter of the memory."""

    def __call__(self, images, random=None):
        return images.astype(np.float32) / np.float32(255)


class Normalize:
    """(images - mean) / std, one mean and one std for all numbers or one of each per channel."""

    def __init__(self, mean, std):
        self.mean, self.std = (np.asarray(numbers, np.float32).reshape(-1, 1, 1) for numbers in (mean, std))
        if (self.std <= 0).any():
            raise ValueError(f"each std must be above 0, they are {self.std.ravel().tolist()}")

    @classmethod
    def of(cls, images):
        """With the mean and std of each channel of these images (n, channels, height, width)."""
        axes = (0, 2, 3)
        return cls(images.mean(axis=axes, dtype=np.float64), images.std(axis=axes, dtype=np.float64))

    def __call__(self, images, random=None):
        if images.ndim != 4 or len(self.mean) not in (1, images.shape[1]):
            raise ValueError(f"expected images (n, {len(self.mean)}, height, width), got {images.shape}")
        return (images - self.mean) / self.std


class Cutout:
    """A square of `size` pixels, somewhere in each image and cut off at its edges, becomes `fill` (DeVries and Taylor, 2017)."""

    def __init__(self, size, fill=0.0):
        self.size, self.fill = size, fill

    def __call__(self, images, random=None):
        random = chance(random)
        n, (height, width) = len(images), images.shape[2:]
        top, left = (random.integers(side, size=(n, 1)) - self.size // 2 for side in (height, width))
        rows = (np.arange(height) >= top) & (np.arange(height) < top + self.size)
        columns = (np.arange(width) >= left) & (np.arange(width) < left + self.size)
        return np.where((rows[:, :, None] & columns[:, None, :])[:, None], images.dtype.type(self.fill), images)
