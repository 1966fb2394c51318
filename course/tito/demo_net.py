"""A two-layer network in plain NumPy, forty lines: what the course takes apart and has you build yourself.

It does not use `tinytorch.core`: that is empty until you have written it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

HIDDEN, BATCH, RATE, MOMENTUM, TESTED = 64, 32, 0.1, 0.9, 360


@dataclass(frozen=True)
class Epoch:
    number: int
    loss: float                # mean cross-entropy over the training digits, in nats
    accuracy: float            # on the held-out digits, 0..1


class Net:
    """64 pixels -> 64 hidden units, ReLU -> 10 scores, softmax."""

    def __init__(self, rng: np.random.Generator):
        layer = lambda n, m: (rng.normal(size=(n, m)) * np.sqrt(2 / n)).astype(np.float32)
        self.weights = [layer(64, HIDDEN), np.zeros(HIDDEN, np.float32), layer(HIDDEN, 10), np.zeros(10, np.float32)]
        self.speeds = [np.zeros_like(w) for w in self.weights]

    def shares(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hidden values and the share of belief for each class: (n, 64), (n, 10)."""
        w1, b1, w2, b2 = self.weights
        hidden = np.maximum(x @ w1 + b1, 0)
        scores = hidden @ w2 + b2
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return hidden, powers / powers.sum(axis=1, keepdims=True)

    def step(self, x: np.ndarray, labels: np.ndarray) -> float:
        """One update by stochastic gradient descent; returns the batch's loss before it."""
        hidden, shares = self.shares(x)
        rows = np.arange(len(x))
        loss = -np.log(shares[rows, labels] + 1e-12).mean()
        d_scores = shares
        d_scores[rows, labels] -= 1
        d_scores /= len(x)
        d_hidden = d_scores @ self.weights[2].T * (hidden > 0)
        slopes = [x.T @ d_hidden, d_hidden.sum(axis=0), hidden.T @ d_scores, d_scores.sum(axis=0)]
        for weight, speed, slope in zip(self.weights, self.speeds, slopes, strict=True):
            speed *= MOMENTUM
            speed -= RATE * (1 - MOMENTUM) * slope
            weight += speed
        return float(loss)

    def guesses(self, x: np.ndarray) -> np.ndarray:
        return self.shares(x)[1].argmax(axis=1)


def train(images: np.ndarray, labels: np.ndarray, epochs: int, seed: int) -> Iterator[tuple[Epoch, Net, np.ndarray]]:
    """After each pass over the training digits: how it went, the net, and the indices of the held-out digits."""
    rng = np.random.default_rng(seed)
    x = images.reshape(len(images), 64)
    order = rng.permutation(len(x))
    held_out, training = order[:TESTED], order[TESTED:]
    net = Net(rng)
    for number in range(1, epochs + 1):
        shuffled = rng.permutation(training)
        losses = [net.step(x[batch], labels[batch]) for batch in np.array_split(shuffled, len(shuffled) // BATCH)]
        accuracy = float((net.guesses(x[held_out]) == labels[held_out]).mean())
        yield Epoch(number, float(np.mean(losses)), accuracy), net, held_out
