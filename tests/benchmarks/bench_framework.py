"""The framework against PyTorch on the CPU: time and memory of training steps, from the same weights on the same data.

Each side runs in a process of its own, and they take turns, a few steps each, so that whatever else the machine does hits both. What
is compared: CPU time at one thread (robust on a busy machine), wall time at two. PyTorch is as a user gets it: its own memory
allocator settings, memory order (N, C, H, W), Adam as `torch.optim.Adam(model.parameters())` makes it. TinyTorch is as
`performance.keep_memory()` and `Trainer(threads=n)` make it; the table also has it without keep_memory, and PyTorch with its channels
in last place and with its fused optimizer. Before anything is timed, the first losses of all of them must agree to 4 digits
(to 3 where two threads have batch normalisation statistics of half a batch each).

Each step takes the next of some 25 MB of pictures, a class being a pattern under noise, and three labels in ten are drawn anew, so that
there is always something to learn. Ten steps with one batch would learn it by heart and a thousand with a few kill a third of the units:
then gradients, squares and means sink below 1e-38, numbers with which processors are slow on both sides.

    python -m tests.benchmarks framework            everything
    python -m tests.benchmarks.bench_framework --only cnn mlp --threads 1 --rounds 5
"""

import argparse
import itertools
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

ROUNDS = 12                                 # turns of each side; the first does not count
FIRST = 3                                   # losses that must agree
PICTURES = 6_400_000                        # numbers in all pictures, which are taken in turn
DRAWS = 4                                   # sets of labels for them, in turn
TURN = 0.6                                  # seconds of one turn, about
# workload: (batch, limit of the ratio of medians, what it is)
WORKLOADS = {
    "cnn": (32, 1.0, "flagship: conv 3-32, conv 32-64, linear 50176-128, linear 128-10; Adam"),
    "pool": (32, 1.0, "conv 3-32, pool, conv 32-64, pool, linear 2304-128, linear 128-10; Adam"),
    "mlp": (64, 0.7, "linear 784-128, linear 128-10; Adam"),
    "recipe": (256, 1.1, "course/recipes/cifar10-75.yml with all 48 axes in its stem, which is fixed; SGD with Nesterov momentum"),
}
MEMORY_LIMIT = 1.3
# a contender: (framework, further settings)
SIDES = {
    "tinytorch": ("tinytorch", ("keep",)), "tinytorch, not kept": ("tinytorch", ()),
    "torch": ("torch", ()), "torch, channels last": ("torch", ("channels_last",)), "torch, fused": ("torch", ("fused",)),
}
RECIPE: dict[str, Any] = {"widths": (32, 64, 128), "stem": 4, "axes": 48, "stride": 2, "padding": 1}


def arrays(workload: str) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Initial weights in PyTorch's shapes and order, pictures (batches, batch, ...), labels (DRAWS * batches, batch): the same in every
    process."""
    random, batch = np.random.default_rng(0), WORKLOADS[workload][0]
    shape = (784,) if workload == "mlp" else (3, 32, 32)
    patterns = random.standard_normal((10, *shape), np.float32)
    pictures = random.standard_normal((PICTURES // (batch * math.prod(shape)), batch, *shape), np.float32)
    classes = random.integers(10, size=pictures.shape[:2])
    for some, their in zip(pictures, classes, strict=True):
        some += patterns[their]
    classes = np.tile(classes, (DRAWS, 1))
    labels = np.where(random.random(classes.shape) < 0.7, classes, random.integers(10, size=classes.shape))

    def weight(*shape: int) -> np.ndarray:
        return (random.normal(size=shape) * (2 / np.prod(shape[1:])) ** 0.5).astype(np.float32)

    if workload == "mlp":
        weights = [weight(128, 784), np.zeros(128, np.float32), weight(10, 128), np.zeros(10, np.float32)]
        return weights, pictures, labels
    if workload == "recipe":
        channels = (96, *RECIPE["widths"])
        weights = [weight(96, 3, 4, 4)]
        for inputs, outputs in itertools.pairwise(channels):
            weights += [weight(outputs, inputs, 3, 3), np.ones(outputs, np.float32), np.zeros(outputs, np.float32)]
        return [*weights, weight(10, channels[-1])], pictures, labels
    inputs = 50176 if workload == "cnn" else 2304
    shapes = [(32, 3, 3, 3), (64, 32, 3, 3), (128, inputs), (10, 128)]
    return [array for shape in shapes for array in (weight(*shape), np.zeros(shape[0], np.float32))], pictures, labels


# the two sides: a function that makes one training step and returns its loss

def tinytorch_step(workload: str, threads: int, settings: list[str]) -> Callable[[], float]:
    from tinytorch import performance
    from tinytorch.core.activations import ReLU
    from tinytorch.core.layers import Linear, Sequential
    from tinytorch.core.losses import CrossEntropyLoss
    from tinytorch.core.optimizers import SGD, Adam
    from tinytorch.core.spatial import Conv2d, MaxPool2d
    from tinytorch.core.tensor import Tensor
    from tinytorch.core.training import loss_and_gradients, take_step
    from tinytorch.fast.parallel import data_parallel

    if "keep" in settings:
        performance.keep_memory()
    weights, x, y = arrays(workload)
    optimizer: Any
    if workload == "mlp":
        model = Sequential(Linear(784, 128), ReLU(), Linear(128, 10))
    elif workload == "cnn":
        model = Sequential(Conv2d(3, 32, 3), ReLU(), Conv2d(32, 64, 3), ReLU(), Linear(50176, 128), ReLU(), Linear(128, 10))
    elif workload == "pool":
        model = Sequential(Conv2d(3, 32, 3), ReLU(), MaxPool2d(2), Conv2d(32, 64, 3), ReLU(), MaxPool2d(2),
                           Linear(2304, 128), ReLU(), Linear(128, 10))
    else:
        from tinytorch.speedrun import network
        model = network(depth=1, **RECIPE)
    for p, values in zip(model.parameters(), weights, strict=True):
        p.data = np.ascontiguousarray(values.T if values.ndim == 2 else values)     # Linear holds (inputs, outputs)
    if workload == "recipe":
        from tinytorch.speedrun import groups
        optimizer = SGD(groups(model, 0.05, 1e-3, 1.0), lr=0.05, momentum=0.85, nesterov=True)
        loss = CrossEntropyLoss(label_smoothing=0.2)
    else:
        optimizer, loss = Adam(model.parameters(), lr=0.001), CrossEntropyLoss()
    gradients = data_parallel(loss_and_gradients, threads) if threads > 1 else loss_and_gradients
    pictures, labels = itertools.cycle(x), itertools.cycle(y)
    return lambda: take_step(model, loss, optimizer, Tensor(next(pictures)), next(labels), gradients=gradients)[0]


def torch_step(workload: str, threads: int, settings: list[str]) -> Callable[[], float]:
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    weights, x, y = arrays(workload)
    if workload == "mlp":
        layers: list = [nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10)]
    elif workload == "cnn":
        layers = [nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Flatten(),
                  nn.Linear(50176, 128), nn.ReLU(), nn.Linear(128, 10)]
    elif workload == "pool":
        layers = [nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                  nn.Linear(2304, 128), nn.ReLU(), nn.Linear(128, 10)]
    else:
        layers, channels = [nn.Conv2d(3, 96, 4, stride=2, padding=1, bias=False), nn.ReLU()], 96
        layers[0].weight.requires_grad_(False)
        for width in RECIPE["widths"]:
            norm = nn.BatchNorm2d(width, eps=1e-12, momentum=0.4)
            norm.weight.requires_grad_(False)
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.MaxPool2d(2), norm, nn.ReLU()]
            channels = width
        layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels, 10, bias=False)]
    model, batches, labels = nn.Sequential(*layers), list(torch.tensor(x)), itertools.cycle(torch.tensor(y))
    with torch.no_grad():
        for p, values in zip(model.parameters(), weights, strict=True):
            p.copy_(torch.tensor(values))
    if "channels_last" in settings:
        model, batches = model.to(memory_format=torch.channels_last), [each.to(memory_format=torch.channels_last) for each in batches]
    fused = {"fused": True} if "fused" in settings else {}
    scale, optimizer, criterion = 1.0, None, None
    if workload == "recipe":
        learned = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(learned, lr=0.05, momentum=0.85, nesterov=True, weight_decay=1e-3, **fused)
        criterion, scale = nn.CrossEntropyLoss(label_smoothing=0.2), 1 / 9
    else:
        optimizer, criterion = torch.optim.Adam(model.parameters(), lr=0.001, **fused), nn.CrossEntropyLoss()

    inputs = itertools.cycle(batches)

    def step() -> float:
        optimizer.zero_grad()
        scores = model(next(inputs))
        value = criterion(scores * scale if scale != 1 else scores, next(labels))
        value.backward()
        optimizer.step()
        return value.item()

    return step


# a process that makes steps when told

def work(framework: str, workload: str, threads: int, settings: list[str]) -> None:
    """Answer each line, a number of steps, by a line of JSON: losses, and CPU and wall seconds of each step."""
    step = (tinytorch_step if framework == "tinytorch" else torch_step)(workload, threads, settings)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        answer: dict[str, list[float]] = {"loss": [], "cpu": [], "wall": []}
        for _ in range(int(line)):
            cpu, wall = time.process_time(), time.perf_counter()
            answer["loss"].append(step())
            answer["cpu"].append(time.process_time() - cpu)
            answer["wall"].append(time.perf_counter() - wall)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**answer, "peak": peak, "base": base, "waited": waited()}), flush=True)


def waited() -> float:
    """Seconds that the threads of this process were ready to run and did not, because others ran."""
    total = 0.0
    for task in os.listdir("/proc/self/task") if os.path.isdir("/proc/self/task") else []:
        try:
            with open(f"/proc/self/task/{task}/schedstat") as file:
                total += int(file.read().split()[1]) / 1e9
        except OSError:
            continue
    return total


class Contender:
    """One side in a process of its own."""

    def __init__(self, name: str, workload: str, threads: int):
        framework, settings = SIDES[name]
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.name, self.steps = name, 1
        self.process = subprocess.Popen([sys.executable, "-m", __spec__.name, "--work", framework, workload, str(threads), *settings],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True)
        self.taken: list[dict] = []
        self._read()

    def _read(self) -> dict:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended without an answer")
        return json.loads(line)

    def run(self, steps: int) -> dict:
        assert self.process.stdin
        print(steps, file=self.process.stdin, flush=True)
        return self._read()

    def turn(self) -> None:
        self.taken.append(self.run(self.steps))

    def median(self, what: str) -> float:
        """Milliseconds per step, over all turns but the first."""
        return 1000 * statistics.median(value for turn in self.taken[1:] for value in turn[what])

    def close(self) -> None:
        if self.process.stdin:
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def compare(workload: str, threads: int, rounds: int, names: list[str]) -> dict[str, dict[str, float]]:
    """Per contender: median CPU and wall milliseconds of a step, peak memory in MB, share of time spent waiting for a core."""
    contenders: list[Contender] = []
    try:
        for name in names:
            contenders.append(Contender(name, workload, threads))
        first = {each.name: each.run(FIRST)["loss"] for each in contenders}
        reference = first["torch"]
        for name, losses in first.items():
            shared = name.startswith("tinytorch") and threads > 1 and workload == "recipe"      # batch statistics of half batches
            if not np.allclose(losses, reference, rtol=1e-3 if shared else 1e-4):
                raise SystemExit(f"{workload}: the first losses differ: {name} {losses}, torch {reference}")
        for each in contenders:                     # turns of about equal length
            each.steps = max(1, round(TURN / statistics.median(each.run(3)["wall"])))
        for _ in range(rounds + 1):
            for each in contenders:
                each.turn()
        return {each.name: {"cpu": each.median("cpu"), "wall": each.median("wall"), "peak": each.taken[-1]["peak"],
                            "steps": sum(len(turn["cpu"]) for turn in each.taken[1:]),
                            "waited": (each.taken[-1]["waited"] - each.taken[0]["waited"]) / sum(sum(t["wall"]) for t in each.taken[1:])}
                for each in contenders}
    finally:
        for each in contenders:
            each.close()


def main(only: list[str] | None = None, threads: tuple[int, ...] = (1, 2), rounds: int = ROUNDS) -> dict:
    """Every figure, every ratio beside its target, and whether all targets are met."""
    if not find_spec("torch"):
        return {"skipped": "needs PyTorch: make oracle", "met": None}
    result: dict[str, Any] = {"load before": round(os.getloadavg()[0], 1)}
    met = True

    def note(key: str, value: str) -> None:
        result[key] = value
        print(f"  {key:<44} {value}", file=sys.stderr, flush=True)

    for workload in only or WORKLOADS:
        limit = WORKLOADS[workload][1]
        names = [name for name in SIDES if name != "torch, channels last" or workload != "mlp"]
        for count in threads:
            found = compare(workload, count, rounds, names)
            what = "cpu" if count == 1 else "wall"
            for name, values in found.items():
                note(f"{workload}, {count} thread{'s' * (count > 1)}, {name}",
                     f"CPU {values['cpu']:7.2f} ms  wall {values['wall']:7.2f} ms  peak {values['peak']:4.0f} MB  "
                     f"{values['steps']} steps, waited {values['waited']:.0%}")
            ratio = found["tinytorch"][what] / found["torch"][what]
            memory = found["tinytorch"]["peak"] / found["torch"]["peak"]
            reached = ratio <= limit and memory <= MEMORY_LIMIT
            met &= reached
            note(f"{workload}, {count} thread{'s' * (count > 1)}: RATIO of {what} time",
                 f"{ratio:.2f} (target {limit}), memory {memory:.2f} (target {MEMORY_LIMIT}): {'met' if reached else 'NOT met'}")
    result["load after"] = round(os.getloadavg()[0], 1)
    result["met"] = met
    return result


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5:])
        raise SystemExit
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(WORKLOADS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    figures = main(options.only, tuple(options.threads), options.rounds)
    for key, value in figures.items():
        print(f"{key:<44} {value}")
    print(json.dumps(figures))
    raise SystemExit(0 if figures["met"] else 1)
