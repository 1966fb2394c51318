"""In the sandbox: what one function or model of the student's framework costs: time, peak memory, operations.

The name is `module.function`, `module.Class` or `module.Class.method` of tinytorch.core. options.json may hold: "make" (arguments
that make the object: sizes of a layer, a list for a model), "inputs" (shapes; one 256 x 256 per argument without it), "backward".
Leaves result.json (what does not depend on the machine: shapes, operations, bytes), measured.json (times) and picture.png.

It is run three times in processes of their own, because each way of looking disturbs the others: plainly for the time, under
tracemalloc for memory, and with the framework rewritten (flops.py) for the operations.
"""

import contextlib
import cProfile
import importlib
import importlib.util
import inspect
import json
import os
import pstats
import re
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np

from tinytorch.testing import clock

SECONDS, RUNS = 2.0, 200                # until this much time or this many runs are spent on timing
DEFAULT_SHAPE = [256, 256]
BARS = 10


class Unclear(Exception):
    """The name or its arguments do not fit. The message says what would."""


# ---------------------------------------------------------------- what is profiled
def build(name, options):
    """(a function without arguments to be timed, its inputs). Raises Unclear."""
    function, label = find(name)
    if inspect.isclass(function) or "make" in options:
        function = made(function, label, options.get("make", []))
    if not callable(function):
        raise Unclear(f"{label} makes a {type(function).__name__}, which cannot be called with an input")
    inputs = tensors(function, label, options)
    backward = options.get("backward", False)

    def run():
        output = function(*inputs)
        if backward:
            total(output, label).backward()
        return output
    return run, inputs


def find(name):
    module_name, *path = name.split(".")
    try:
        found = importlib.import_module(f"tinytorch.core.{module_name}")
    except ModuleNotFoundError as error:
        if error.name != f"tinytorch.core.{module_name}":
            raise
        known = sorted(file.stem for file in Path("tinytorch/core").glob("*.py"))
        raise Unclear(f"there is no tinytorch.core.{module_name}; your exports are: {', '.join(known) or 'none yet'}") from None
    for part in path:
        if not hasattr(found, part):
            public = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
            raise Unclear(f"tinytorch.core.{module_name} has no {'.'.join(path)}; it has: {', '.join(sorted(public)[:40])}")
        found = getattr(found, part)
    return found, name


def made(function, label, arguments):
    try:
        return function(*arguments)
    except TypeError as error:
        raise Unclear(f"{label}{signature(function)} was not made with {arguments}: {error}. "
                      "Say its arguments with --make, such as --make 256 64") from None


def signature(function):
    try:
        return str(inspect.signature(function))
    except (TypeError, ValueError):
        return "(...)"


def tensors(function, label, options):
    """Random tensors of the shapes asked for, or one of the default shape for each argument that must be given."""
    tensor = importlib.import_module("tinytorch.core.tensor").Tensor
    shapes = options.get("inputs") or [DEFAULT_SHAPE] * needed(function)
    random = np.random.default_rng(int(os.environ.get("JOB_SEED", "0")))
    arrays = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
    if not options.get("backward"):
        return [tensor(array) for array in arrays]
    try:
        return [tensor(array, requires_grad=True) for array in arrays]
    except TypeError:
        raise Unclear("this framework's Tensor knows no requires_grad yet: leave --backward out until module 06") from None


def needed(function):
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    return max(1, sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters))


def total(output, label):
    output = output[0] if isinstance(output, tuple | list) else output
    if not hasattr(output, "sum") or not hasattr(output, "backward"):
        raise Unclear(f"{label} gives a {type(output).__name__}, which has no backward: leave --backward out")
    return output.sum()


# ---------------------------------------------------------------- three ways of looking
def look_at_time(name, options):
    run, _ = build(name, options)
    begun = time.perf_counter()
    run()
    first, cpu_then = time.perf_counter() - begun, clock.cpu_seconds()
    wall: list[float] = []
    while sum(wall) < SECONDS and len(wall) < RUNS:
        then = time.perf_counter()
        run()
        wall.append(time.perf_counter() - then)
    cpu = (clock.cpu_seconds() - cpu_then) / len(wall)
    profile = cProfile.Profile()
    with profile:
        for _ in range(max(1, min(20, int(1 / max(1e-4, wall[-1]))))):
            run()
    return {"runs": len(wall), "first_seconds": first, "best_seconds": min(wall), "median_seconds": statistics.median(wall),
            "cpu_seconds": cpu, "functions": functions(profile)}


def functions(profile):
    """Share of the time that each function spends in itself, the framework's by module, NumPy's by name."""
    spent: Counter[str] = Counter()
    calls_of: Counter[str] = Counter()
    for (file, line, function), (_, calls, own, *_) in vars(pstats.Stats(profile))["stats"].items():
        where = Path(file).stem if line else ""
        if "disable" in function or Path(file).stem in ("profile", "cProfile"):
            continue
        label = f"{where}.{function}" if where else built_in(function)
        spent[label] += own
        calls_of[label] += calls
    whole = sum(spent.values()) or 1.0
    return [{"function": label, "share": own / whole, "calls": calls_of[label]} for label, own in spent.most_common(BARS)]


def built_in(text):
    """`<method 'reduce' of 'numpy.ufunc' objects>` as numpy.ufunc.reduce."""
    method = re.fullmatch(r"<method '(\w+)' of '([\w.]+)' objects>", text)
    return f"{method[2]}.{method[1]}" if method else text.strip("<>").replace("built-in method ", "")


def look_at_memory(name, options):
    run, inputs = build(name, options)
    run()                                                   # what is made once, such as caches, is not the call's
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    output = run()
    after, peak = tracemalloc.get_traced_memory()
    return {"peak_bytes": peak - before, "kept_bytes": after - before, "input_bytes": sum(x.data.nbytes for x in inputs),
            "input_shapes": [list(x.shape) for x in inputs], "output_shape": list(getattr(output, "shape", []))}


def look_at_flops(name, options):
    # by its path: no folder of ours is on the search path
    spec = importlib.util.spec_from_file_location("flops", Path(__file__).with_name("flops.py"))
    assert spec
    assert spec.loader
    flops = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(flops)
    counted = flops.install()
    run, _ = build(name, options)
    counted.on = True
    run()
    counted.on = False
    return {"flops": sum(counted.flops.values()), "operations": [
        {"operation": operation, "flops": count, "calls": counted.calls[operation]} for operation, count in counted.flops.most_common()]}


LOOKS = {"time": look_at_time, "memory": look_at_memory, "flops": look_at_flops}


# ---------------------------------------------------------------- the whole
def main(name):
    options = json.loads(Path("options.json").read_text()) if Path("options.json").exists() else {}
    seen = {}
    for what in LOOKS:
        print(f"measuring {what}", flush=True)
        seen[what] = in_a_process(what, name, options)
    # memory of tracemalloc differs by some bytes between runs (Python's own objects): whole kB are the same
    memory = {key: value // 1024 * 1024 if key in ("peak_bytes", "kept_bytes") else value for key, value in seen["memory"].items()}
    Path("result.json").write_text(json.dumps({"profiled": name, "options": options, **memory, **seen["flops"]}, indent=1))
    best = seen["time"]["best_seconds"]
    measured = {**seen["time"], "gflops_per_second": seen["flops"]["flops"] / best / 1e9}
    Path("measured.json").write_text(json.dumps(measured, indent=1))
    with contextlib.suppress(ImportError):                  # without matplotlib there is no picture
        draw(name, memory, seen["flops"], measured)
    print(f"{name}: {best * 1000:.3f} ms, {memory['peak_bytes'] / 2**20:.2f} MB at most, {seen['flops']['flops']:,} operations, "
          f"{measured['gflops_per_second']:.2f} GFLOP/s")
    return 0


def in_a_process(what, name, options):
    reading, writing = os.pipe()
    child = subprocess.Popen([sys.executable, "-s", "-P", __file__, name, what, str(writing), json.dumps(options)], pass_fds=(writing,))
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        said = answer.read()
    if code := child.wait():
        sys.exit(code)
    return json.loads(said)


def one_look(name, what, descriptor, options):
    try:
        seen = LOOKS[what](name, json.loads(options))
    except Unclear as unclear:
        sys.exit(str(unclear))
    with os.fdopen(int(descriptor), "w") as answer:
        json.dump(seen, answer)
    return 0


def draw(name, memory, flops, measured):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    shapes = ", ".join("×".join(map(str, shape)) for shape in memory["input_shapes"])
    figure.suptitle(f"{name}({shapes}): {measured['best_seconds'] * 1000:.3g} ms, {memory['peak_bytes'] / 2**20:.3g} MB peak, "
                    f"{flops['flops'] / 1e6:.4g} MFLOP, {measured['gflops_per_second']:.3g} GFLOP/s")
    bars(left, "where the time goes (own time, %)", [(f["function"], 100 * f["share"]) for f in measured["functions"]])
    bars(right, "operations (MFLOP)", [(o["operation"], o["flops"] / 1e6) for o in flops["operations"][:BARS]])
    figure.savefig("picture.png", dpi=100, metadata={"Software": None})


def bars(axes, title, rows):
    axes.set_title(title, fontsize=10)
    drawn = axes.barh([name[-36:] for name, _ in rows], [value for _, value in rows], color="#3b6ea8")
    axes.bar_label(drawn, fmt="%.3g", padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.15)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) if len(sys.argv) == 2 else one_look(*sys.argv[1:]))
