"""Convolutional networks that learn CIFAR-10 in minutes on two cores: what the recipes in course/recipes use beside the framework.

After K. Jordan's airbench94 (2024, "94 % on CIFAR-10 in 3.29 seconds on a single GPU"), made smaller: a first layer that is
computed, not learned (`whitening`), convolutions that at first let their input through (`dirac`), batch normalisation without gain,
label smoothing, Nesterov momentum under a triangular rate, weights that are drawn towards their own average (`Lookahead`), pictures
mirrored in every other epoch (`AlternatingFlip`), and scores averaged over several views of a picture (`predict`).

Naming this file under `uses:` in a recipe registers the data "cifar10-bytes", the model "speedrun" and the runner "speedrun".
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch import modelfiles, performance, randomness
from tinytorch.core.activations import ReLU
from tinytorch.core.autograd import no_grad
from tinytorch.core.dataloader import Compose, DataLoader, Dataset, Normalize, RandomCrop, ToFloat
from tinytorch.core.layers import Linear, Module, Sequential
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.optimizers import SGD
from tinytorch.core.spatial import BatchNorm2d, Conv2d, GlobalMaxPool2d, MaxPool2d
from tinytorch.core.tensor import Tensor
from tinytorch.core.training import loss_and_gradients, take_step
from tinytorch.datasets import CIFAR10_CLASSES
from tinytorch.experiments import register
from tinytorch.fast.parallel import blas_threads, cut, data_parallel, team
from tinytorch.given import runs
from tinytorch.given.stepping import Schedule
from tinytorch.given.windows import windows

KEPT = "best.last.tt"         # in the experiment's folder: what an interrupted run goes on from

# the network

def whitening(images: np.ndarray, kernel: int, axes: int, eps: float = 5e-3) -> np.ndarray:
    """Filters (2 * axes, C, kernel, kernel) after which the pixels of a patch of pictures (n, C, H, W) are no longer correlated.

    The main axes of the patches' distribution, each divided by the patches' spread along it (`eps` bounds that from below: what hardly
    varies is mostly noise), and each once more with the other sign, for a relu keeps only one side.
    """
    rows = windows(images.transpose(0, 2, 3, 1), (kernel, kernel), (kernel, kernel)).transpose(0, 1, 2, 5, 3, 4)
    patches = rows.reshape(-1, images.shape[1] * kernel * kernel).astype(np.float64)
    variances, directions = np.linalg.eigh(patches.T @ patches / len(patches))
    filters = (directions / np.sqrt(variances + eps)).T[::-1][:axes].reshape(-1, images.shape[1], kernel, kernel)
    return np.concatenate([filters, -filters]).astype(np.float32)


def dirac(weight: np.ndarray) -> None:
    """Make the first filters of (O, C, kh, kw) pass one channel each through unchanged, in place: as deep as it is, signals get through."""
    filters, channels, height, width = weight.shape
    n = min(filters, channels)
    weight[:n] = 0
    weight[np.arange(n), np.arange(n), height // 2, width // 2] = 1


class Scale(Module):
    """x times a fixed number."""

    def __init__(self, factor: float):
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def extra_repr(self) -> str:
        return f"{self.factor:.4g}"


@register("model", "speedrun")
def network(*, widths: Sequence[int], depth: int = 1, stem: int = 2, axes: int = 12, stride: int = 1, padding: int = 0,
            classes: int = 10, scale: float = 1 / 9) -> Sequential:
    """A fixed stem of whitening filters, one block per width that halves the picture, the largest value of each channel, a linear layer.

    `stem`: side of the whitening filters, two for each of so many `axes` (3 * stem ** 2 at most), applied every `stride` pixels.
    `depth`: convolutions per block.
    """
    channels = 2 * axes
    layers: list = [Conv2d(3, channels, stem, stride=stride, padding=padding, bias=False), ReLU()]
    layers[0].weight.requires_grad = False
    for width in widths:
        for number in range(depth):
            convolution = Conv2d(channels, width, 3, padding=1, bias=False)
            dirac(convolution.weight.data)
            norm = BatchNorm2d(width, eps=1e-12, momentum=0.4)
            norm.weight.requires_grad = False
            layers += [convolution, *([MaxPool2d(2)] if number == 0 else []), norm, ReLU()]
            channels = width
    return Sequential(*layers, GlobalMaxPool2d(), Linear(channels, classes, bias=False), Scale(scale))


# the training

class Triangle(Schedule):
    """The rate as a share of the full one: from `start` up to 1 at `peak` (a share of all steps), then down to `end`."""

    def __init__(self, optimizer: Any, total_steps: int, start: float = 0.2, peak: float = 0.23, end: float = 0.07):
        super().__init__(optimizer, total_steps=total_steps, start=start, peak=peak, end=end)

    def rate(self, lr: float, step: int) -> float:
        options: Any = self
        return lr * float(np.interp(step / options.total_steps, [0, options.peak, 1], [options.start, 1, options.end]))


class Lookahead:
    """A slow average of weights and buffers. Every `every` steps it moves towards the model, and the model starts again from it.

    How much of itself it keeps grows with the cube of the time: at first nothing, near the end `decay` per step, and at the end the
    model becomes the average.
    """

    def __init__(self, model: Module, decay: float = 0.95, every: int = 5):
        self.model, self.decay, self.every = model, decay ** every, every
        self.average = model.state_dict()

    def step(self, done: float) -> None:
        """After every `every`th step; `done` is the share of the training that is over."""
        keep = np.float32(self.decay * done ** 3 if done < 1 else 1)
        for name, array in self.model.named_arrays().items():
            slow = self.average[name]
            slow += (1 - keep) * (array - slow)
        self.model.load_state_dict(self.average)


class AlternatingFlip(Dataset):
    """Pictures and labels; half of the pictures, drawn once, are mirrored in even epochs and the other half in odd ones.

    Mirroring by chance shows some pictures the same way again and again; taking turns shows every picture both ways in any two epochs.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.images, self.labels, self.epoch = images, labels, 0
        self.first = randomness.spawn().random(len(images)) < 0.5

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple:
        return tuple(field[0] for field in self.batch(np.array([i])))

    def batch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images, mirrored = self.images[numbers], self.first[numbers] ^ (self.epoch % 2 == 1)
        images[mirrored] = images[mirrored, ..., ::-1]
        return images, self.labels[numbers]


def predict(model: Module, images: np.ndarray, prepare: Any, *, shift: int = 0, batch_size: int = 250) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, classes) of pictures alone, and summed over several views of each: the picture and its mirror image, and, with a
    `shift`, both also moved by so many pixels to either corner (edges reflected), which count half. Batches are shared among the team."""
    model.eval()

    def work(part: slice) -> tuple[np.ndarray, np.ndarray]:
        alone, summed = [], []
        with no_grad():
            for start in range(part.start, part.stop, batch_size):
                x = prepare(images[start:min(start + batch_size, part.stop)])
                alone.append(model(Tensor(x)).data)
                total = alone[-1] + model(Tensor(x[..., ::-1])).data
                for moved in _moved(x, shift):
                    total += (model(Tensor(moved)).data + model(Tensor(moved[..., ::-1])).data) / 2
                summed.append(total)
        return np.concatenate(alone), np.concatenate(summed)

    with blas_threads(1):
        found = team().map(work, cut(len(images), team().threads))
    model.train()
    return np.concatenate([scores for scores, _ in found]), np.concatenate([scores for _, scores in found])


def _moved(x: np.ndarray, shift: int) -> list[np.ndarray]:
    """Pictures (n, C, H, W) moved by `shift` pixels down and right, and up and left; none for 0."""
    if not shift:
        return []
    wide = np.pad(x, ((0, 0), (0, 0), (shift, shift), (shift, shift)), mode="reflect")
    return [wide[..., start:start + x.shape[2], start:start + x.shape[3]] for start in (0, 2 * shift)]


def groups(model: Module, lr: float, weight_decay: float, bias_factor: float) -> list[dict]:
    """Parameter groups: the biases of batch normalisation move `bias_factor` times as fast, and decay at the same pace as the rest."""
    learned = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    biases = [pair for pair in learned if pair[0].endswith("bias")]
    return [{"params": [pair for pair in learned if pair not in biases], "lr": lr, "weight_decay": weight_decay},
            {"params": biases, "lr": lr * bias_factor, "weight_decay": weight_decay / bias_factor}]


def _keep(path: Path, epoch: int, model: Module, optimizer: SGD, average: Lookahead | None, loader: DataLoader) -> None:
    """Write all that the next epoch depends on and that the seed does not give again."""
    modelfiles.save(path, {"epoch": epoch, "model": dict(model.state_dict()), "optimizer": optimizer.state_dict(),
                           "average": dict(average.average) if average else {}, "chance": runs.chance({"train": loader})})


def _go_on(path: Path, model: Module, optimizer: SGD, average: Lookahead | None, loader: DataLoader) -> int:
    """Put back what `_keep` wrote; returns how many epochs are done."""
    state = modelfiles.load(path)
    modelfiles.put_weights(model, state["model"], path)
    optimizer.load_state_dict(state["optimizer"])
    if average:
        average.average = {name: state["average"][name] for name in average.average}
    runs.restore_chance(state["chance"], {"train": loader}, path)
    return int(state["epoch"])


@register("data", "cifar10-bytes", CIFAR10_CLASSES)
def cifar10_bytes(*, download: bool = True) -> tuple[np.ndarray, ...]:
    """CIFAR-10 as bytes: a quarter of the memory of the floats."""
    from tinytorch.core.dataloader import CIFAR10Dataset

    data = CIFAR10Dataset(download=download, dtype="uint8")
    return data.train_data, data.train_labels, data.test_data, data.test_labels


@register("runner", "speedrun")
def run(experiment: Any, *, lr: float = 0.375, momentum: float = 0.85, weight_decay: float = 1.33e-3, bias_factor: float = 64.0,
        label_smoothing: float = 0.2, translate: int = 1, whiten_eps: float = 5e-3, lookahead: float = 0.95,
        evaluate_every: int = 0, test_shift: int = 0, resume: bool = False) -> dict[str, float]:
    """Train experiment's model on all its training data. No epoch is chosen: the result is that of the last one.

    `lr` and `weight_decay` belong to the mean loss. `evaluate_every`: look at the test data after so many epochs, for the log only.
    `accuracy` is that of the scores summed over views of a picture (see `predict`; `test_shift` is its shift), `accuracy_one_view` that
    of the picture alone. `resume`: go on after the last epoch that was kept in the experiment's folder, to the numbers that an unbroken
    run would have had.
    """
    began, cpu_began, plan = time.monotonic(), time.process_time(), experiment.config
    performance.keep_memory()
    performance.use_threads(plan.training.threads)
    x, y, test_x, test_y = plan.data.set.make()
    sample = x[np.sort(randomness.spawn().permutation(len(x))[:5000])]
    normalize = Normalize.of(sample.astype(np.float32) / np.float32(255))
    prepare = Compose(ToFloat(), normalize)
    model = experiment.model()
    stem = model[0].weight
    stem.data = whitening(prepare(sample), stem.shape[2], len(stem) // 2, whiten_eps)

    data = AlternatingFlip(x, y)
    steps = [*([RandomCrop(translate, mode="reflect")] if translate else []), ToFloat(), normalize]
    loader = DataLoader(data, batch_size=plan.data.batch_size, shuffle=True, drop_last=True, transform=Compose(steps),
                        num_workers=plan.data.workers, seed=plan.seed)
    total = plan.training.epochs * len(loader)
    optimizer = SGD(groups(model, lr, weight_decay, bias_factor), lr=lr, momentum=momentum, nesterov=True)
    schedule, average = Triangle(optimizer, total), Lookahead(model, lookahead) if lookahead else None
    loss, gradients = CrossEntropyLoss(label_smoothing=label_smoothing), data_parallel(loss_and_gradients, plan.training.threads)

    def accuracies() -> tuple[float, float]:
        alone, summed = predict(model, test_x, prepare, shift=test_shift)
        experiment.confusion(test_y, summed.argmax(axis=1), summed.shape[1])
        one, views = ((scores.argmax(axis=1) == test_y).mean() for scores in (alone, summed))
        return float(views), float(one)

    kept = experiment.folder / KEPT
    first = _go_on(kept, model, optimizer, average, loader) if resume and kept.exists() else 0
    done = schedule.steps = first * len(loader)
    schedule.apply()
    for epoch in range(first, plan.training.epochs):
        data.epoch, wall, cpu, losses, right, seen = epoch, time.monotonic(), time.process_time(), 0.0, 0, 0
        for images, labels in loader:
            value, scores = take_step(model, loss, optimizer, images, labels, gradients=gradients)
            done += 1
            schedule.step()
            if average and (done % average.every == 0 or done == total):
                average.step(done / total)
            losses, seen = losses + value * len(labels), seen + len(labels)
            right += int((scores.argmax(axis=1) == labels).sum())
        row = {"loss": losses / seen, "accuracy": right / seen,
               "seconds": time.monotonic() - wall, "cpu_seconds": time.process_time() - cpu}
        if evaluate_every and (epoch + 1) % evaluate_every == 0 and epoch + 1 < plan.training.epochs:
            row["test_accuracy"] = accuracies()[0]
        _keep(kept, epoch + 1, model, optimizer, average, loader)
        experiment.log("epoch", epoch=epoch + 1, **{name: round(value, 4) for name, value in row.items()})
        if not experiment.quiet:
            print(f"epoch {epoch + 1:3d}  " + "  ".join(f"{name} {value:.4f}" for name, value in row.items()), flush=True)
    trained = {"training_seconds": round(time.monotonic() - began, 1), "training_cpu_seconds": round(time.process_time() - cpu_began, 1)}
    views, one = accuracies()
    return {"accuracy": views, "accuracy_one_view": one, **trained}
