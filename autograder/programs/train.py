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
CONFUSION = RUN / "confusion.json"
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
    config, log = experiments.read(RUN / "config.yml"), list(experiments.entries(RUN))
    measured = {key: results.pop(key) for key in list(results) if "second" in key}
    measured["seconds"] = sum(entry["seconds"] for entry in log if entry["event"] in ("stopped", "result"))
    Path("measured.json").write_text(json.dumps(measured, indent=1))
    epochs = {entry["epoch"]: {key: value for key, value in entry.items() if key not in NOT_FIGURES and "second" not in key}
              for entry in log if entry["event"] == "epoch"}
    confusion = json.loads(CONFUSION.read_text()) if CONFUSION.exists() else None      # none of what has no classes
    goal = {key: {"least": least, "reached": bool(results.get(key, float("nan")) >= least)} for key, least in config.goal.items()}
    Path("result.json").write_text(json.dumps({
        "recipe": name, "seed": config.seed, "results": results, "goal": goal, "passed": all(one["reached"] for one in goal.values()),
        **({"confusion": confusion} if confusion else {}),
        "epochs": [{"epoch": epoch, **epochs[epoch]} for epoch in sorted(epochs)]}, indent=1))
    shutil.copy(RUN / "log.jsonl", "log.jsonl")
    with contextlib.suppress(ImportError):                  # without matplotlib there is no picture
        draw(f"{name}, seed {config.seed}: test " + ", ".join(f"{key} {value:.4f}" for key, value in results.items()), confusion)
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


def draw(title, confusion):
    """Learning curves, two below each other, and the confusion matrix beside them."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    from tinytorch.experiments.running import history
    from tinytorch.plots import draw_confusion, draw_history, quantities

    curves = history(RUN)
    names = quantities(curves)
    columns = -(-len(names) // 2)
    figure = pyplot.figure(figsize=(4.4 * columns + (6.4 if confusion else 0), 6.4), layout="constrained")
    halves = figure.subfigures(1, 2, width_ratios=[4.4 * columns, 6.4], squeeze=False)[0] if confusion else [figure]
    places = list(halves[0].subplots(min(2, len(names)), columns, squeeze=False).T.flat)
    for place, name in zip(places, names, strict=False):
        draw_history(place, curves, name)
        place.spines[["top", "right"]].set_visible(False)
    for place in places[len(names):]:
        place.set_axis_off()
    if confusion:
        draw_confusion(halves[1].subplots(), confusion["matrix"], confusion["classes"], "test data")
    figure.suptitle(title)
    figure.savefig("picture.png", dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
