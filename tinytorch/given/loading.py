"""What a loader was told and how far it has come; module 10 writes the loader on top."""

import numpy as np

from tinytorch import randomness


class BatchPlan:
    """How a dataset is dealt out in batches: their size, their order, what is done to them, and the seed of all chance.

    Nothing that an epoch draws depends on anything but `seed` and the epoch's number: not on what other code drew, not on
    num_workers, not on earlier epochs. Without a seed, tinytorch.randomness gives one. `epoch` counts the passes begun.
    """

    def __init__(self, dataset, batch_size=32, shuffle=False, drop_last=False, transform=None, num_workers=0, seed=None):
        if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise ValueError(f"batch_size is a whole number from 1 on, not {batch_size!r}")
        if num_workers < 0:
            raise ValueError(f"num_workers is 0 (no threads) or more, not {num_workers}")
        self.dataset, self.batch_size, self.shuffle, self.drop_last = dataset, int(batch_size), shuffle, drop_last
        self.transform, self.num_workers, self.epoch = transform, num_workers, 0
        self.seed = int(randomness.spawn().integers(2**32)) if seed is None else seed
        if not len(dataset):
            raise ValueError("the dataset is empty: there is nothing to load")
        if not len(self):
            raise ValueError(f"{len(dataset)} samples are less than one batch of {batch_size}, and drop_last=True drops them")

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole if self.drop_last or not rest else whole + 1

    def generator(self, epoch: int, number: int) -> np.random.Generator:
        """Fresh chance for one purpose: number 0 is for the epoch's order, 1, 2, 3, ... for what is done to its batches."""
        return np.random.default_rng([self.seed, epoch, number])

    def state_dict(self) -> dict[str, int]:
        """All that an exact continuation needs, as numbers that JSON can hold."""
        return {"seed": self.seed, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on as the loader would whose state this is."""
        self.seed, self.epoch = int(state["seed"]), int(state["epoch"])
