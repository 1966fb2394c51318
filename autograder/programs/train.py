"""In the sandbox: trains what a recipe describes with the student's framework (tinytorch.experiments says how).

The recipe is recipe.yml of the work folder, else the course's of that name. Data sets lie in TINYTORCH_DATA, read-only. The folder
`run` is what a training can go on from: the autograder keeps it while the training runs, and puts it back when a fault of its
own interrupted it. Leaves result.json (figures that depend on nothing but recipe and seed), measured.json (seconds), picture.png
(the learning curve) and log.jsonl.
"""

import contextlib
import importlib
import json
import os
import shutil
import sys
from pathlib import Path

import course

RUN, OWN = Path("run"), Path("recipe.yml")
NOT_FIGURES = {"event", "time", "seconds", "epoch"}


def main(name):
    try:
        experiments = importlib.import_module("tinytorch.experiments")
    except ImportError as error:
        sys.exit(f"this course cannot train recipes yet: {error}")
    recipe = OWN if OWN.exists() else Path(course.__file__).parent / "recipes" / f"{name}.yml"
    if not recipe.is_file():
        sys.exit(f"there is no recipe {name}; there are: {', '.join(sorted(file.stem for file in recipe.parent.glob('*.yml')))}")
    seed = int(os.environ.get("JOB_SEED", "0")) or None     # 0: the recipe's own
    try:
        results = dict(run(experiments, recipe, seed))
    except (experiments.ConfigError, FloatingPointError, ImportError, OSError, ValueError) as error:
        sys.exit("\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])]))
    measured = {key: results.pop(key) for key in list(results) if "second" in key}
    Path("measured.json").write_text(json.dumps(measured, indent=1))
    config, log = experiments.read(RUN / "config.yml"), list(experiments.entries(RUN))
    epochs = {entry["epoch"]: {key: value for key, value in entry.items() if key not in NOT_FIGURES and "second" not in key}
              for entry in log if entry["event"] == "epoch"}
    goal = {key: {"least": least, "reached": bool(results.get(key, float("nan")) >= least)} for key, least in config.goal.items()}
    Path("result.json").write_text(json.dumps({
        "recipe": name, "seed": config.seed, "results": results, "goal": goal, "passed": all(one["reached"] for one in goal.values()),
        "epochs": [{"epoch": epoch, **epochs[epoch]} for epoch in sorted(epochs)]}, indent=1))
    shutil.copy(RUN / "log.jsonl", "log.jsonl")
    with contextlib.suppress(ImportError):                  # without matplotlib there is no picture
        draw(name, config.seed, epochs, results)
    print("test  " + "  ".join(f"{key} {value:.4f}" for key, value in results.items()))
    return 0


def run(experiments, recipe, seed):
    if (RUN / "best.last.tt").exists():
        print("going on from the last epoch that was kept", flush=True)
        try:
            return experiments.run(RUN, resume=True)
        except experiments.ConfigError as error:            # a runner of its own that cannot
            print(f"starting anew: {error}", flush=True)
    shutil.rmtree(RUN, ignore_errors=True)
    return experiments.run(recipe, out=RUN, seed=seed)


def draw(name, seed, epochs, results):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    numbers = sorted(epochs)
    keys = {key for row in epochs.values() for key, value in row.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    groups = [("loss", sorted(key for key in keys if "loss" in key)), ("metrics", sorted(
        key for key in keys if any(key.removeprefix("val_") == result for result in results) and "loss" not in key))]
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for place, (title, names) in zip(axes, groups, strict=True):
        for key in names:
            place.plot(numbers, [epochs[number].get(key, float("nan")) for number in numbers], marker=".", label=key)
        place.set(title=title, xlabel="epoch")
        place.spines[["top", "right"]].set_visible(False)
        if names:
            place.legend(frameon=False)
    figure.suptitle(f"{name}, seed {seed}: test " + ", ".join(f"{key} {value:.4f}" for key, value in results.items()))
    figure.savefig("picture.png", dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
