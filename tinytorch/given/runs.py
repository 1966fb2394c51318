"""What surrounds a training loop: checkpoints and resuming, errors that say where, and what is shown meanwhile.

`Trainer.fit` (module 08) holds the loop itself. A `Run` is one call of it. A checkpoint is written after every epoch and
holds all that the next epoch depends on: weights, optimizer, scheduler, history, and the state of every generator of random
numbers, so that a run that was killed goes on to the numbers that it would have had.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tinytorch import modelfiles, randomness
from tinytorch.core.tensor import Tensor
from tinytorch.fast.blas import blas_threads
from tinytorch.progress import Progress

FORMAT = 1              # of a checkpoint's content
CURE = "A smaller learning rate or clip=1.0 usually helps"


class Run:
    """One call of `fit`: `for epoch in run.epochs()`, `run.watch(loader)` around each loader, `run.keep` at the end.

    monitor            what decides which epoch is the best: by default val_loss, without validation loss; anything without "loss" in
                       its name is better when it is larger
    save_best          at the end the model has the weights of its best epoch
    checkpoint_path    a file written after every epoch, from which the run can be resumed. With save_best it holds the best weights,
                       and the file to resume from stands beside it: best_model.last.pkl beside best_model.pkl
    resume             True: go on from that file, if there is one; or the path of another such file
    quiet              True: show nothing; None: a bar on a terminal, lines elsewhere
    on_epoch           called with the number of an epoch and its results, after they were kept
    """

    def __init__(self, trainer: Any, stopper: Any, train: Iterable, validation: Iterable | None = None, *, epochs: int = 1,
                 monitor: str | None = None, save_best: bool = False, checkpoint_path: Any = None, resume: Any = False,
                 quiet: bool | None = None, on_epoch: Callable[[int, dict[str, float]], object] | None = None):
        if not isinstance(epochs, int | np.integer) or epochs < 1:
            raise ValueError(f"epochs={epochs!r}: give a whole number from 1 on")
        for name, loader in (("train", train), ("val_dataloader", validation)):
            _refuse_iterator(loader, name, int(epochs))
        moved, own = trainer.optimizer.parameters, trainer.model.parameters()
        if all(isinstance(p, Tensor) for p in (*moved, *own)) and not {*map(id, moved)} & {*map(id, own)}:
            raise ValueError("the optimizer holds no parameter of this model: make it from model.parameters(), or without any")
        self.trainer, self.stopper, self.train, self.validation = trainer, stopper, train, validation
        self.last_epoch, self.save_best, self.on_epoch = int(epochs), save_best, on_epoch
        self.monitor = monitor or ("loss" if validation is None else "val_loss")
        self.best_path = Path(checkpoint_path) if checkpoint_path is not None and save_best else None
        self.path = None if checkpoint_path is None else beside(checkpoint_path) if save_best else Path(checkpoint_path)
        self.epoch, self.step, self.place, self.began = 0, 0, "", 0.0
        trainer.history = {}
        self.progress, self.settings = Progress(self.last_epoch, quiet), ExitStack()
        if resume:
            self._resume(resume)

    def epochs(self) -> Iterator[int]:
        """Numbers of the epochs still to do, from 1; none if the run had stopped early before it was resumed."""
        first = self.epoch + 1
        if first > 1 and self.stopper.worn_out:
            return
        for epoch in range(first, self.last_epoch + 1):
            self.epoch, self.step, self.began = epoch, 0, time.monotonic()
            yield epoch

    def watch(self, loader: Iterable) -> Iterator:
        """The batches of a loader, counted and looked at on their way into the loop."""
        self.place = "training" if loader is self.train else "evaluation"
        self.step = 0
        for batch in checked(self.progress.watch(loader, f"epoch {self.epoch}/{self.last_epoch}, {self.place}")):
            self.step += 1
            yield batch

    def score(self, row: dict[str, float]) -> float:
        """The monitored quantity as a number of which less is better."""
        if self.monitor not in row:
            raise ValueError(f"monitor={self.monitor!r}: this run measures {', '.join(row)}")
        return row[self.monitor] if "loss" in self.monitor else -row[self.monitor]

    def keep(self, row: dict[str, float], better: bool) -> None:
        """Put an epoch's row into the history, write the files, show a line."""
        seconds = time.monotonic() - self.began
        for name, value in {**row, "lr": float(self.trainer.optimizer.lr)}.items():
            self.trainer.history.setdefault(name, []).append(value)
        if better and self.best_path is not None:
            modelfiles.save_model(self.best_path, self.trainer.model, epoch=self.epoch, **row)
        if self.path is not None:
            modelfiles.save(self.path, self._state())
        if self.on_epoch is not None:
            self.on_epoch(self.epoch, row)
        self.progress.end_of_epoch(self.epoch, row, seconds, last=self.epoch == self.last_epoch or self.stopper.worn_out)

    def __enter__(self) -> "Run":
        if getattr(self.trainer.gradients, "threads", 0) == 1:          # one thread is one thread, in matrix products as well
            self.settings.enter_context(blas_threads(1))
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.settings.close()
        self.progress.close()
        if error is None:
            self._put_best_back()
            return
        if not self.epoch:
            return                         # not begun
        where = f"epoch {self.epoch}, {self.place} step {self.step}"
        if isinstance(error, FloatingPointError):
            raise FloatingPointError(f"{where}: {error}") from error
        error.add_note(f"This happened in {where}.")
        done = len(next(iter(self.trainer.history.values()), []))
        if isinstance(error, KeyboardInterrupt) and self.path is not None and done:
            error.add_note(f"{self.path} holds the run up to epoch {done}: fit(..., resume=True) goes on from there.")

    def _put_best_back(self) -> None:
        if self.save_best and self.stopper.weights is not None:
            self.trainer.model.load_state_dict(self.stopper.weights)

    # ------------------------------------------------------------ checkpoints

    def _state(self) -> dict[str, Any]:
        trainer = self.trainer
        return {"format": FORMAT, "epoch": self.epoch, "history": trainer.history, "model": dict(trainer.model.state_dict()),
                "optimizer": trainer.optimizer.state_dict(),
                "scheduler": None if trainer.scheduler is None else trainer.scheduler.state_dict(),
                "stopper": {"best": float(self.stopper.best), "waited": int(self.stopper.waited)},
                "chance": chance(self._random_parts())}

    def _random_parts(self) -> dict[str, Any]:
        return {"model": self.trainer.model, "train": self.train, "validation": self.validation}

    def _resume(self, wanted: Any) -> None:
        path = self.path if wanted is True else Path(wanted)
        if path is None:
            raise ValueError("resume=True needs checkpoint_path=, the file of the run that was interrupted")
        if not path.exists():
            if wanted is not True:
                raise FileNotFoundError(f"there is no {path} to resume from")
            self.progress.say(f"there is no {path} yet: starting at epoch 1")
            return
        state = modelfiles.load(path)
        if not isinstance(state, dict) or state.get("format") != FORMAT or "chance" not in state:
            raise modelfiles.ModelFileError(f"{path} is no checkpoint of a run: it may hold a model alone, which load_model reads")
        trainer = self.trainer
        modelfiles.put_weights(trainer.model, state["model"], path)
        trainer.optimizer.load_state_dict(state["optimizer"])
        if (trainer.scheduler is None) != (state["scheduler"] is None):
            raise ValueError(f"{path} was written {'without' if state['scheduler'] is None else 'with'} a scheduler, "
                             f"this Trainer has {'none' if trainer.scheduler is None else 'one'}: make it as it was")
        if trainer.scheduler is not None:
            trainer.scheduler.load_state_dict(state["scheduler"])
        self.stopper.best, self.stopper.waited = state["stopper"]["best"], state["stopper"]["waited"]
        if self.save_best and np.isfinite(self.stopper.best):
            self._remember_best(path)
        restore_chance(state["chance"], self._random_parts(), path)
        self.epoch = state["epoch"]
        trainer.history = {name: list(values) for name, values in state["history"].items()}
        self.progress.say(f"resumed from {path} after epoch {self.epoch}")

    def _remember_best(self, path: Path) -> None:
        """The best weights so far, from their own file; they were never worse than those of the checkpoint."""
        if self.best_path is None or not self.best_path.exists():
            beside_what = self.best_path or "checkpoint_path="
            raise FileNotFoundError(f"{path} can be resumed with save_best=True only beside {beside_what}, which held the best weights")
        tree = modelfiles.load(self.best_path)
        modelfiles.put_weights(self.trainer.model, tree["model"], self.best_path)        # compares the shapes
        self.stopper.weights = tree["model"]
        modelfiles.put_weights(self.trainer.model, modelfiles.load(path)["model"], path)


def step_function(gradients: Callable, threads: int = 1) -> Callable:
    """`gradients(model, loss, x, y)`, which returns a batch's loss and scores, with a check that the loss is finite.

    With more threads than one, each batch is shared among them by `fast.parallel`; with one, a `Run` lets matrix products use one.
    """
    if not isinstance(threads, int) or threads < 1:
        raise ValueError(f"threads={threads!r}: give a whole number from 1 on")
    if threads > 1:
        from tinytorch.fast.parallel import data_parallel

        gradients = data_parallel(gradients, threads)

    def checked(model: Any, loss: Any, x: Any, y: Any) -> tuple[float, np.ndarray]:
        result = gradients(model, loss, x, y)
        if not math.isfinite(result[0]):
            raise FloatingPointError(not_finite(model, x, result[0]))
        return result

    checked.threads = threads           # type: ignore[attr-defined]
    return checked


def beside(path: Any) -> Path:
    """`best_model.pkl` holds the best weights; `best_model.last.pkl`, the state from which to go on."""
    path = Path(path)
    return path.with_name(f"{path.stem}.last{path.suffix}")


def checked(batches: Iterable) -> Iterator:
    """The batches of a loader, if they are such: ValueError or TypeError says what is wrong with one, or that there is none."""
    batch = None
    for batch in batches:
        check_batch(batch)
        yield batch
    if batch is None:
        raise ValueError("the loader gave no batch at all: is its data empty, or was it used up before?")


def check_batch(batch: Any) -> None:
    """A batch is a pair (x, y) of equal, positive length."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise TypeError(f"a batch should be a pair (x, y), this one is a {type(batch).__name__}"
                        + (f" of {len(batch)} parts" if isinstance(batch, tuple | list) else ""))
    x, y = batch
    if len(x) != len(y):
        raise ValueError(f"a batch has {len(x)} inputs and {len(y)} targets: each input needs one")
    if not len(x):
        raise ValueError("a batch is empty: leave it out")


def _refuse_iterator(loader: Any, name: str, epochs: int) -> None:
    if loader is None:
        return
    if not hasattr(loader, "__iter__") and not hasattr(loader, "__getitem__"):
        raise TypeError(f"{name} should give batches (x, y) when looped over, a {type(loader).__name__} does not")
    if epochs > 1 and hasattr(loader, "__next__"):
        raise TypeError(f"{name} is a {type(loader).__name__}, which is used up after one epoch of {epochs}: give something that "
                        "starts anew with every loop, such as a list of batches, Batches(x, y) or a DataLoader")


# ---------------------------------------------------------------- chance

def chance(parts: dict[str, Any]) -> dict[str, Any]:
    """The state of the one source of chance, and of every generator that an object keeps inside."""
    return {"source": randomness.get_state(),
            "inside": {name: _state_of(generator) for name, generator in _generators(parts)},
            "own": {name: part.state_dict() for name, part in parts.items() if name != "model" and hasattr(part, "state_dict")}}


def restore_chance(kept: dict[str, Any], parts: dict[str, Any], path: Any) -> None:
    """Set every generator to where it was; ValueError if there are others now than then."""
    found = dict(_generators(parts))
    own = {name for name, part in parts.items() if name != "model" and hasattr(part, "state_dict")}
    if different := (set(found) ^ set(kept["inside"])) | (own ^ set(kept["own"])):
        raise ValueError(f"{path} was written with other sources of chance ({', '.join(sorted(different))}): "
                         "build model and loaders as they were")
    randomness.set_state(kept["source"])
    for name in own:
        parts[name].load_state_dict(kept["own"][name])
    for name, generator in found.items():
        _set_state(generator, kept["inside"][name])


def _state_of(generator: np.random.Generator) -> dict[str, Any]:
    spawned = getattr(generator.bit_generator.seed_seq, "n_children_spawned", 0)
    return {"draws": _plain(generator.bit_generator.state), "spawned": int(spawned)}


def _set_state(generator: np.random.Generator, kept: dict[str, Any]) -> None:
    generator.bit_generator.state = kept["draws"]
    missing = kept["spawned"] - getattr(generator.bit_generator.seed_seq, "n_children_spawned", 0)
    if missing > 0:
        generator.spawn(missing)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def _generators(parts: dict[str, Any]) -> Iterator[tuple[str, np.random.Generator]]:
    """Every generator kept by an object or by what it holds, each once, with its path; the shared source is left out."""
    seen = {id(randomness.generator())}
    waiting = [(name, part, 0) for name, part in reversed(parts.items())]
    while waiting:
        path, value, depth = waiting.pop()
        if id(value) in seen or depth > 8:
            continue
        if isinstance(value, np.random.Generator):
            seen.add(id(value))
            yield path, value
            continue
        if isinstance(value, str | bytes | int | float | np.ndarray | type | None) or hasattr(value, "requires_grad"):
            continue
        seen.add(id(value))
        inside: Iterable[tuple[str, Any]] = ()
        if isinstance(value, dict):
            inside = ((str(key), part) for key, part in value.items())
        elif isinstance(value, list | tuple) and len(value) < 10_000:
            inside = ((str(i), part) for i, part in enumerate(value))
        elif hasattr(value, "__dict__") and not isinstance(value, ModuleType):
            inside = vars(value).items()
        waiting += [(f"{path}.{key}", part, depth + 1) for key, part in reversed(list(inside))]


# ---------------------------------------------------------------- diagnosis

def not_finite(model: Any, x: Any, loss: float) -> str:
    """Where nan or inf first appears when x goes through the model: in x, in a weight, behind a layer, or in the loss."""
    from tinytorch.core.autograd import no_grad

    said = f"the loss is {loss:g}"
    numbers = _numbers(x)
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        rows = np.flatnonzero(~np.isfinite(numbers.reshape(len(numbers), -1)).all(axis=1))
        return f"{said}: the batch itself is not finite, first in its example {rows[0]}. Clean the data"
    with suppress(AttributeError):
        for name, parameter in model.named_parameters():
            if not np.isfinite(parameter.data).all():
                return f"{said}: the parameter {name} is not finite since an earlier step. {CURE}"
    found: list[str] = []
    buffers = model.state_dict() if hasattr(model, "state_dict") else None
    with no_grad(), _watched(model, found), np.errstate(all="ignore"):
        model(x)
    if buffers is not None:
        model.load_state_dict(buffers)         # running averages have seen this batch once already
    if found:
        return f"{said}: {found[0]} is the first layer whose output is not finite. {CURE}"
    return f"{said}, although every layer's output is finite: look at the loss function and the targets"


class _Watched:
    """Stands in for a layer and notes whether what it returns is finite."""

    def __init__(self, layer: Any, name: str, found: list[str]):
        self.layer, self.name, self.found = layer, name, found

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        out = self.layer(*inputs, **options)
        if not np.isfinite(_numbers(out)).all():
            self.found.append(f"{self.name} ({type(self.layer).__name__})")
        return out

    def __getattr__(self, name: str) -> Any:
        return getattr(self.layer, name)

    def __getitem__(self, index: Any) -> Any:
        return self.layer[index]

    def __len__(self) -> int:
        return len(self.layer)


@contextmanager
def _watched(model: Any, found: list[str]) -> Iterator[None]:
    """Every layer inside the model replaced by its watched self, and put back."""
    undo: list[tuple[Any, str, Any]] = []
    waiting = [(model, "")]
    seen: set[int] = set()
    try:
        while waiting:
            owner, prefix = waiting.pop()
            if id(owner) in seen or not hasattr(owner, "__dict__"):
                continue
            seen.add(id(owner))
            for name, value in list(vars(owner).items()):
                if isinstance(value, list | tuple) and any(map(_is_layer, value)):
                    undo.append((owner, name, value))
                    waiting += [(part, f"{prefix}{name}.{i}.") for i, part in enumerate(value) if _is_layer(part)]
                    owner.__dict__[name] = type(value)(_Watched(part, f"{prefix}{name}.{i}", found) if _is_layer(part) else part
                                                       for i, part in enumerate(value))
                elif _is_layer(value):
                    undo.append((owner, name, value))
                    waiting.append((value, f"{prefix}{name}."))
                    owner.__dict__[name] = _Watched(value, f"{prefix}{name}", found)
        yield
    finally:
        for owner, name, value in reversed(undo):
            owner.__dict__[name] = value


def _numbers(x: Any) -> np.ndarray:
    """The array in a tensor, or the array itself."""
    return np.asarray(x.data if hasattr(x, "requires_grad") else x)


def _is_layer(value: Any) -> bool:
    return callable(value) and hasattr(value, "parameters") and not isinstance(value, type)
