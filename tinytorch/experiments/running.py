"""One run of a configuration: a folder with its text, a log with a line per epoch, and the results."""

import importlib
import inspect
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import tinytorch
from tinytorch import randomness
from tinytorch.experiments.components import Component, ConfigError, class_names
from tinytorch.experiments.configuration import as_json, as_plain, changed, parse, source
from tinytorch.given.batches import as_labels, classes_of

MOST_CLASSES = 100          # of a confusion matrix: more is nothing to look at


class Experiment:
    """One run of a configuration in a folder of its own."""

    def __init__(self, config: Any, folder: str | os.PathLike, quiet: bool | None = None):
        self.config, self.folder, self.quiet = config, Path(folder), quiet
        self.folder.mkdir(parents=True, exist_ok=True)

    def log(self, event: str, **values: Any) -> None:
        """Add a line of JSON to log.jsonl: what happened, when, and its values."""
        line = json.dumps({"event": event, "time": _now(), **values}, default=as_json)
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def data(self) -> tuple[Any, Any, Any]:
        """Loaders for training, validation (None without) and test. Which examples are kept back depends on the seed."""
        plan = self.config.data
        x, y, test_x, test_y = plan.set.make()
        order = np.random.default_rng(self.config.seed).permutation(len(x))
        held_back = round(plan.validation * len(x))
        kept, rest = order[:held_back], np.sort(order[held_back:])
        if plan.normalize:
            axes = (0, *range(2, x.ndim)) if x.ndim > 2 else None
            mean, deviation = x[rest].mean(axis=axes, keepdims=True), x[rest].std(axis=axes, keepdims=True) + 1e-6
            x, test_x = (x - mean) / deviation, (test_x - mean) / deviation
        train = self._loader(x[rest], y[rest])
        return train, self._plain(x[kept], y[kept]) if held_back else None, self._plain(test_x, test_y)

    def _plain(self, x: np.ndarray, y: np.ndarray) -> Any:
        from tinytorch.core.training import Batches
        return Batches(x, y, max(self.config.data.batch_size, 256))

    def _loader(self, x: np.ndarray, y: np.ndarray) -> Any:
        """Module 10's loader where the plan needs it; else a smaller one, so that what runs does not depend on what is installed."""
        from tinytorch.core.training import Batches
        plan = self.config.data
        if not plan.augment and not plan.workers:
            return Batches(x, y, plan.batch_size, shuffle=True)
        loading = importlib.import_module("tinytorch.core.dataloader")
        steps = [part.make() for part in plan.augment]
        return loading.DataLoader(x, y, plan.batch_size, shuffle=True, transform=loading.Compose(steps) if steps else None,
                                  num_workers=plan.workers, seed=self.config.seed)

    def model(self) -> Any:
        """The model, with initial weights from the seed."""
        from tinytorch.core.layers import Sequential
        if isinstance(self.config.model, list):
            return Sequential(*[part.make() for part in self.config.model])
        return self.config.model.make()

    def confusion(self, labels: np.ndarray, taken_for: np.ndarray, classes: int) -> None:
        """Write confusion.json: how often each class of the test data (row) was taken for which (column), and the classes' names."""
        counts = np.zeros((classes, classes), np.int64)
        np.add.at(counts, (labels, taken_for), 1)
        names = class_names.get(self.config.data.set.name, range(classes))
        (self.folder / "confusion.json").write_text(json.dumps({"classes": [str(name) for name in names], "matrix": counts.tolist()}))

    def run(self, resume: bool = False) -> dict[str, float]:
        """Train, evaluate on the test data, and return the results. The log holds a line per epoch."""
        config, began = self.config, time.monotonic()
        self.log("resume" if resume else "start", **surroundings(), seed=config.seed, config=as_plain(config))
        randomness.manual_seed(config.seed)
        try:
            results = config.runner.make(self, **({"resume": True} if resume else {})) if config.runner else self._train(resume)
        except BaseException as error:
            self.log("stopped", error=f"{type(error).__name__}: {error}", seconds=round(time.monotonic() - began, 3))
            raise
        reached = {name: results.get(name, float("nan")) >= least for name, least in config.goal.items()}
        self.log("result", **results, seconds=round(time.monotonic() - began, 3), **({"goal": reached} if reached else {}))
        return results

    def _train(self, resume: bool) -> dict[str, float]:
        from tinytorch.core.training import Trainer, evaluate_model
        config, plan = self.config, self.config.training
        train, validation, test = self.data()
        model = self.model()
        optimizer = config.optimizer.make()
        optimizer.bind(model.named_parameters())
        steps = plan.epochs * len(train)
        scheduler = config.scheduler and self._scheduler(config.scheduler, optimizer, steps)
        loss, metrics = config.loss.make(), [part.make() for part in config.metrics]
        trainer = Trainer(model, loss, optimizer, metrics, scheduler=scheduler, clip=plan.clip, threads=plan.threads)
        trainer.fit(train, validation, epochs=plan.epochs, save_best=plan.save_best, checkpoint_path=self.folder / "best.tt",
                    patience=plan.patience, monitor=plan.monitor, resume=resume, quiet=self.quiet,
                    on_epoch=lambda epoch, row: self.log("epoch", epoch=epoch, **row))
        answers: list[tuple[np.ndarray, np.ndarray]] = []
        widest = 2

        def judged(scores: Any, y: Any) -> Any:
            nonlocal widest
            if scores.data.ndim == 2 and scores.shape[1] <= MOST_CLASSES and np.issubdtype(np.asarray(y).dtype, np.integer):
                answers.append((as_labels(y), classes_of(scores.data)))
                widest = max(widest, scores.shape[1])
            return loss(scores, y)

        results = evaluate_model(model, test, judged, metrics)
        if answers:
            labels, taken_for = map(np.concatenate, zip(*answers, strict=True))
            self.confusion(labels, taken_for, widest)
        return results

    def _scheduler(self, part: Component, optimizer: Any, steps: int) -> Any:
        """A schedule of so many steps, unless the file says how many; one that stands in another's `after` gets what is left."""
        wanted = inspect.signature(part.find()).parameters
        lengths = {} if part.positional else {name: steps for name in ("total_steps", "T_max") if name in wanted}
        if isinstance(inner := part.named.get("after"), Component):
            rest = max(steps - int(part.named.get("warmup", 0)), 1)
            part = Component(part.kind, part.name, part.positional, {**part.named, "after": self._scheduler(inner, optimizer, rest)})
        return part.make(optimizer, **lengths)


def run(path: str | os.PathLike, *, out: str | os.PathLike | None = None, seed: int | None = None, epochs: int | None = None,
        changes: dict[str, Any] | None = None, resume: bool = False, quiet: bool | None = None) -> dict[str, float]:
    """Run a configuration. `out`: the folder, by default runs/NAME-TIME. `changes`: what differs from the file, {"optimizer.Adam.lr": 0.1}.

    With resume, `path` is the folder of a run that was interrupted.
    """
    more = {"seed": seed, "training.epochs": epochs}
    text = source(Path(path) / "config.yml" if resume else Path(path))
    changes = {**(changes or {}), **{key: value for key, value in more.items() if value is not None}}
    text = changed(text, changes, str(path)) if changes else text
    config = parse(text, f"{path}, as changed" if changes else str(path))
    if resume and config.runner and "resume" not in inspect.signature(config.runner.find()).parameters:
        raise ConfigError(f"{path}: the runner {config.runner.name} cannot go on with an interrupted run: start it anew")
    folder = Path(path) if resume else Path(out) if out is not None else \
        _fresh(Path("runs"), f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    if not resume and (folder / "log.jsonl").exists():
        raise FileExistsError(f"{folder} holds a run already: name another folder, or resume that one")
    experiment = Experiment(config, folder, quiet)
    (folder / "config.yml").write_text(text, encoding="utf-8")
    return experiment.run(resume)


def entries(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's log; the last one may be half, if the machine stopped while it was written."""
    for line in (Path(folder) / "log.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "event" in entry:
            yield entry


def surroundings() -> dict[str, Any]:
    """What a result may depend on beside configuration and seed."""
    return {"command": shlex.join(["python", *sys.orig_argv[1:]]), "python": platform.python_version(), "numpy": np.__version__,
            "tinytorch": tinytorch.__version__, "system": f"{platform.system()} {platform.machine()}", "cores": os.cpu_count(),
            "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or "default"}


def _fresh(parent: Path, name: str) -> Path:
    """A folder that does not exist yet."""
    names = (name if n == 1 else f"{name}-{n}" for n in range(1, 10_000))
    return next(parent / one for one in names if not (parent / one).exists())


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def summary(folder: Path) -> str:
    """A run in one line: what came out, how long it took, or where it stopped."""
    log = list(entries(folder))
    start = next((entry for entry in log if entry["event"] == "start"), {})
    epochs = [entry for entry in log if entry["event"] == "epoch"]
    last = log[-1] if log else {"event": "nothing"}
    head = f"{folder.name}  seed {start.get('seed', '?')}  {len({entry['epoch'] for entry in epochs})} epochs"
    if last["event"] == "result":
        values = "  ".join(f"{name} {value:.4f}" for name, value in last.items() if isinstance(value, float) and name != "seconds")
        return f"{head}  {values}  {last.get('seconds', 0):.1f} s"
    return f"{head}  {last.get('error') or last['event']}"


def history(folder: Path) -> dict[str, list[float]]:
    """What a run's log says of each epoch, {"loss": [...], "val_loss": [...]}, no rates, no times; of a resumed epoch the later one."""
    epochs = {entry["epoch"]: entry for entry in entries(folder) if entry["event"] == "epoch"}
    beside = {"event", "time", "epoch", "lr", "seconds", "cpu_seconds"}
    return {name: [entry.get(name, float("nan")) for _, entry in sorted(epochs.items())]
            for name, value in (epochs[max(epochs)] if epochs else {}).items() if name not in beside and isinstance(value, int | float)}


def draw(folder: Path) -> Path:
    """Learning curves from a run's log, as curves.svg beside it; ConfigError where no epoch has ended yet."""
    from tinytorch.plots import plot_training_history
    log, curves = {entry["event"]: entry for entry in entries(folder)}, history(folder)
    if not curves:
        raise ConfigError(f"{folder}: no epoch of this run has ended, so there is nothing to draw")
    begun, result = log.get("start", {}), log.get("result", {})
    test = next((f"; test: {name} {result[name]:.4f}" for name in (*curves, "accuracy") if name != "loss" and name in result), "")
    name = begun.get("config", {}).get("name", folder.name)
    plot_training_history(curves, folder / "curves.svg", f"{name}, seed {begun.get('seed', '?')}{test}")
    return folder / "curves.svg"
