"""Experiments: a file is refused with line and cure or run to the same numbers, and its log says how it was run."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tinytorch import experiments, modelfiles
from tinytorch.core.layers import Linear, Sequential
from tinytorch.data import digits
from tinytorch.experiments import ConfigError, parse, read, register, run
from tinytorch.experiments.__main__ import main
from tinytorch.modelfiles import load_model

REPO = Path(__file__).parents[2]
GOOD = """
name: small
seed: 3
data: {set: digits, batch_size: 64, validation: 0.2}
model:
  - Flatten
  - Linear: [64, 16]
  - ReLU
  - Dropout: 0.2
  - Linear: {inputs: 16, outputs: 10}
optimizer: {AdamW: {lr: 1e-2, weight_decay: 1e-3}}
scheduler: {OneCycleLR: {max_lr: 2e-2}}
metrics: [Accuracy, F1]
training: {epochs: 3, clip: 1, patience: 5}
"""


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "small.yml"
    path.write_text(GOOD)
    return path


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def numbers(folder):
    """All that a run measured, without the times."""
    return [{key: value for key, value in entry.items() if key not in ("time", "seconds", "command")} for entry in log(folder)]


# ---------------------------------------------------------------- reading

def test_every_field_has_the_default_that_is_documented():
    pytest.importorskip("tinytorch.core.dataloader")                   # where the augmentations are
    config = parse("name: a\nmodel: [{Linear: [64, 10]}]")
    text = re.search(r"```yaml\n(.*?)```", (REPO / "course/recipes/README.md").read_text(), re.DOTALL)[1]
    shown = parse(text.replace("uses: [tinytorch.something]", "uses: []").replace("{wide: {width: 64}}", "null"))
    for section in ("data", "training"):
        for name in type(getattr(config, section)).model_fields:
            assert f"  {name}:" in text, f"{section}.{name} is not documented"
    for name in type(config).model_fields:
        assert re.search(rf"(?m)^{name}:", text), f"{name} is not documented"
    assert (config.data.batch_size, config.data.validation, config.data.normalize, config.data.workers) == (32, 0.1, False, 0)
    assert (config.training.epochs, config.training.threads, config.training.save_best, config.runner) == (10, 1, True, None)
    assert shown.optimizer.named == {"lr": 1e-3, "weight_decay": 0.01}


@pytest.mark.parametrize(("line", "changed", "text"), [
    ("seed: 3", "sed: 3", 'line 3: sed: there is no such key: did you mean "seed"?'),
    ("seed: 3", "seed: three", "line 3: seed: should be a valid integer, it is 'three'"),
    ("seed: 3", "seed: -1", "line 3: seed: should be greater than or equal to 0, it is -1"),
    ("seed: 3", "seed: true", "line 3: seed: should be a valid integer, it is True"),
    ("seed: 3", "seed: 3\nseed: 4", "line 4: seed is given a second time, first in line 3"),
    ("name: small", "name: ../../etc", "line 2: name: '../../etc' should be made of letters"),
    ("name: small", "", "line 3: name: is missing"),
    ("set: digits", "set: digit", "line 4: data.set: there is no data 'digit': did you mean \"digits\"?"),
    ("set: digits", "set: {digits: {flat: true}}", "line 4: data.set.digits.flat: no such argument; it has none"),
    ("batch_size: 64", "batch_size: 0", "line 4: data.batch_size: should be greater than or equal to 1, it is 0"),
    ("batch_size: 64", "batchsize: 64", 'line 4: data.batchsize: there is no such key: did you mean "batch_size"?'),
    ("validation: 0.2", "validation: 1.5", "line 4: data.validation: should be less than 1, it is 1.5"),
    ("- ReLU", "- Relu", "line 8: model.2: there is no layer 'Relu': did you mean \"ReLU\"?"),
    ("- ReLU", "- [ReLU]", "line 8: model.2: should be the name of a layer, alone or with its arguments"),
    ("- ReLU", "- {ReLU: 1, Tanh: 2}", "line 8: model.2: should be the name of a layer"),
    ("Linear: [64, 16]", "Linear: [64]", "line 7: model.1: Linear: missing a required argument: 'outputs'"),
    ("Linear: [64, 16]", "Linear: [64, 16, 1, 2]", "line 7: model.1: Linear: too many positional arguments"),
    ("inputs: 16", "input: 16", 'line 10: model.4.Linear.input: no such argument: did you mean "inputs"?'),
    ("AdamW: {", "AdmW: {", "line 11: optimizer: there is no optimizer 'AdmW': did you mean \"AdamW\"?"),
    ("AdamW: {lr", "AdamW: {rate", "line 11: optimizer.AdamW.rate: no such argument"),
    ("OneCycleLR: {max_lr: 2e-2}", "OneCycleLR", "line 12: scheduler: OneCycleLR: missing a required argument: 'max_lr'"),
    ("[Accuracy, F1]", "[Accuracy, F2]", "line 13: metrics.1: there is no metric 'F2'"),
    ("[Accuracy, F1]", "Accuracy", "line 13: metrics: should be a list of metrics, it is 'Accuracy'"),
    ("epochs: 3", "epoch: 3", 'line 14: training.epoch: there is no such key: did you mean "epochs"?'),
    ("clip: 1", "clip: -1", "line 14: training.clip: should be greater than 0, it is -1"),
    ("training: {epochs: 3, clip: 1, patience: 5}", "training: 3", "line 14: training: "),
    ("seed: 3", "uses: [os]", "line 3: uses: 'os': only libraries of TinyTorch"),
    ("seed: 3", "uses: [tinytorch.nothing]", "line 3: uses: tinytorch.nothing cannot be imported"),
    ("seed: 3", "seed: &a 3\ndescription: *a", "line 4: aliases (*name) are not allowed"),
    ("seed: 3", "seed: !!python/object/apply:os.system ['true']", "line 3: not YAML: could not determine a constructor"),
    ("seed: 3", "seed: [3", "not YAML"),
    ("seed: 3", "\tseed: 3", "line 3: not YAML"),
    ("seed: 3", "goal: {accuracy: high}", "line 3: goal.accuracy: should be a valid number, it is 'high'"),
])
def test_mistakes_are_told_with_line_and_nearest_name(line, changed, text):
    assert GOOD.count(line) == 1
    with pytest.raises(ConfigError) as caught:
        parse(GOOD.replace(line, changed), "x.yml")
    assert f"x.yml, {text}" in str(caught.value) if text.startswith("line") else text in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        parse(GOOD.replace("seed", "sed").replace("epochs", "epoch").replace("ReLU", "Relu"), "x.yml")
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["x.yml, line 3", "x.yml, line 8", "x.yml, line 14"]


@pytest.mark.parametrize("text", ["", "[]", "7", "- a", "name: {a: [}", "\x00", "{{{{", "a: " + "[" * 2000])
def test_what_is_no_configuration(text):
    with pytest.raises(ConfigError):
        parse(text)


def test_large_files_and_bytes_are_refused(tmp_path):
    (tmp_path / "a.yml").write_text("# " + "x" * 2_000_000)
    with pytest.raises(ConfigError, match="at most 1,000,000"):
        read(tmp_path / "a.yml")
    (tmp_path / "b.yml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        read(tmp_path / "b.yml")


def test_short_powers_of_ten_are_numbers():
    config = parse(GOOD.replace("clip: 1", "clip: 1e-3"))
    assert config.training.clip == 1e-3
    assert config.optimizer.named == {"lr": 0.01, "weight_decay": 0.001}


# ---------------------------------------------------------------- running

def test_the_same_file_gives_the_same_numbers_and_another_seed_others(good, tmp_path):
    results = [run(good, out=tmp_path / name, seed=seed, quiet=True) for name, seed in (("a", None), ("b", None), ("c", 4))]
    assert results[0] == results[1] != results[2]
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b")
    assert (tmp_path / "a/best.last.tt").read_bytes() == (tmp_path / "b/best.last.tt").read_bytes()


def test_a_run_says_what_was_taken_for_what_on_the_test_data(good, tmp_path):
    results = run(good, out=tmp_path / "a", quiet=True)
    told = json.loads((tmp_path / "a/confusion.json").read_text())
    matrix, (_, labels) = np.array(told["matrix"]), digits()
    assert told["classes"] == list("0123456789")
    assert matrix.sum(axis=1).tolist() == np.bincount(labels[-360:], minlength=10).tolist()
    assert matrix.trace() / 360 == pytest.approx(results["accuracy"])


def test_the_log_says_how_it_was_run(good, tmp_path):
    results = run(good, out=tmp_path / "a", epochs=2, quiet=True)
    start, *epochs, result = log(tmp_path / "a")
    assert start["event"] == "start"
    assert start["seed"] == 3
    assert {"time", "command", "python", "numpy", "tinytorch", "cores", "blas_threads", "system"} <= set(start)
    assert start["numpy"] == np.__version__
    assert start["config"]["training"] == {"epochs": 2, "clip": 1.0, "patience": 5, "monitor": None, "save_best": True, "threads": 1}
    assert start["config"]["model"][1] == {"Linear": [64, 16]}
    assert [entry["epoch"] for entry in epochs] == [1, 2]
    assert set(epochs[0]) == {"event", "time", "epoch", "loss", "accuracy", "f1", "val_loss", "val_accuracy", "val_f1"}
    assert result["accuracy"] == results["accuracy"] > 0.3
    assert result["seconds"] > 0
    assert read(tmp_path / "a/config.yml").model_dump(include={"name", "seed", "data"}) == \
        parse(GOOD).model_dump(include={"name", "seed", "data"})


def test_the_kept_model_is_the_tested_one(good, tmp_path):
    results = run(good, out=tmp_path / "a", quiet=True)
    config = read(good)
    model = experiments.Experiment(config, tmp_path / "a").model()
    load_model(tmp_path / "a/best.tt", model)
    *_, test = experiments.Experiment(config, tmp_path / "a").data()
    assert importlib.import_module("tinytorch.core.training").evaluate_model(model, test)["accuracy"] == results["accuracy"]


def test_what_is_kept_back_is_neither_learned_from_nor_tested_on(good, tmp_path):
    train, validation, test = experiments.Experiment(read(good), tmp_path).data()
    assert (len(train.x), len(validation.x), len(test.x)) == (1150, 287, 360)
    rows = [part.x.reshape(len(part.x), -1).tobytes() for part in (train, validation, test)]
    everything = {row.tobytes() for part in (train, validation, test) for row in part.x}
    assert len(everything) >= 1790, "the parts share pictures"
    assert len(set(rows)) == 3


def test_an_interrupted_run_is_resumed_to_the_same_numbers(good, tmp_path):
    good.write_text(GOOD.replace("epochs: 3", "epochs: 40").replace("patience: 5", "patience: 40"))
    want = run(good, out=tmp_path / "whole", quiet=True)
    command = [sys.executable, "-m", "tinytorch.experiments", "run", str(good), "--out", str(tmp_path / "cut"), "--quiet"]
    with subprocess.Popen(command, cwd=REPO, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}) as running:
        deadline = time.monotonic() + 60
        while not (tmp_path / "cut/best.last.tt").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
    assert run(tmp_path / "cut", resume=True, quiet=True) == want
    assert (tmp_path / "cut/best.last.tt").read_bytes() == (tmp_path / "whole/best.last.tt").read_bytes()
    assert "resume" in [entry["event"] for entry in log(tmp_path / "cut")]


def test_a_failure_is_logged(good, tmp_path):
    good.write_text(GOOD.replace("outputs: 10", "outputs: 7"))
    with pytest.raises(ValueError, match="outside 0 to 6"):
        run(good, out=tmp_path / "a", quiet=True)
    assert log(tmp_path / "a")[-1]["event"] == "stopped"
    assert "outside 0 to 6" in log(tmp_path / "a")[-1]["error"]
    with pytest.raises(FileExistsError, match="holds a run already"):
        run(good, out=tmp_path / "a", quiet=True)


@register("model", "test-wide")
def _wide(*, width, depth=1):
    return Sequential(*[Linear(64, width)] * min(depth, 1), Linear(width, 10))


@register("runner", "test-own")
def _own(experiment, *, bonus=0.0):
    train, *_ = experiment.data()
    experiment.log("epoch", epoch=1, loss=1.0)
    return {"accuracy": 0.5 + bonus, "weights": float(sum(p.size for p in experiment.model().parameters())), "batches": float(len(train))}


def test_libraries_register_models_and_runners(tmp_path, capsys):
    text = "name: own\nmodel: {test-wide: {width: 8}}\nrunner: {test-own: {bonus: 0.25}}\ngoal: {accuracy: 0.8}\ndata: {validation: 0}"
    (tmp_path / "own.yml").write_text(text)
    assert main(["run", str(tmp_path / "own.yml"), "--out", str(tmp_path / "a"), "--quiet"]) == 1
    shown = capsys.readouterr()
    assert "accuracy 0.7500" in shown.out
    assert "weights 610" in shown.out
    assert "the goal of accuracy 0.8 was missed" in shown.err
    assert log(tmp_path / "a")[-1]["goal"] == {"accuracy": False}
    with pytest.raises(ConfigError, match=r"line 2: model.test-wide.widht: no such argument: did you mean \"width\""):
        parse(text.replace("width: 8", "widht: 8"))
    with pytest.raises(ConfigError, match=r"line 3: runner.test-own.bonos: no such argument"):
        parse(text.replace("bonus", "bonos"))


def test_single_values_can_be_changed(good, tmp_path):
    changes = ("optimizer.AdamW.lr=3e-3", "model.1.Linear.1=8", "model.4.Linear.inputs=8", "training.epochs=1",
               "loss={CrossEntropyLoss: {label_smoothing: 0.1}}")
    settings = [part for change in changes for part in ("--set", change)]
    assert main(["run", str(good), "--quiet", "--out", str(tmp_path / "a"), "--seed", "9", *settings]) == 0
    start = log(tmp_path / "a")[0]
    assert start["seed"] == 9
    assert start["config"]["optimizer"] == {"AdamW": {"lr": 0.003, "weight_decay": 0.001}}
    assert start["config"]["model"][1] == {"Linear": [64, 8]}
    assert start["config"]["loss"] == {"CrossEntropyLoss": {"label_smoothing": 0.1}}
    assert run(tmp_path / "a/config.yml", out=tmp_path / "b", quiet=True) == run(tmp_path / "a", resume=True, quiet=True)
    assert len(run(tmp_path / "a", epochs=3, resume=True, quiet=True)) == 3
    assert [entry["epoch"] for entry in log(tmp_path / "a") if entry["event"] == "epoch"] == [1, 2, 3]


@pytest.mark.parametrize(("change", "text"), [
    ("training.epoch=3", 'training.epoch: there is no such key: did you mean "epochs"?'), ("seed=-1", "seed: should be greater than"),
    ("seed", "write it as KEY=VALUE"), ("model.9.Linear=3", "cannot set model.9.Linear: there is no 9 in a list of 5"),
    ("model.2.slope=3", "there is no slope in 'ReLU'. Write that out as a table first"), ("seed=[1", "not YAML"),
])
def test_changes_are_checked_like_the_file(good, tmp_path, capsys, change, text):
    assert main(["run", str(good), "--out", str(tmp_path / "a"), "--set", change]) == 1
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((REPO / "course/recipes").glob("*.yml")), ids=lambda path: path.stem)
def test_the_recipes_of_the_course_can_be_read(path):
    assert read(path).goal, "a recipe says what it should reach"


def test_the_recipe_for_digits_reaches_its_goal(tmp_path):
    path = REPO / "course/recipes/digits.yml"
    assert run(path, out=tmp_path / "a", quiet=True)["accuracy"] >= read(path).goal["accuracy"]


def test_a_runner_that_cannot_resume_says_so(tmp_path):
    (tmp_path / "own.yml").write_text("name: own\nmodel: {test-wide: {width: 8}}\nrunner: test-own")
    run(tmp_path / "own.yml", out=tmp_path / "a", quiet=True)
    with pytest.raises(ConfigError, match="the runner test-own cannot go on"):
        run(tmp_path / "a", resume=True, quiet=True)


def test_a_schedule_after_a_warmup_lasts_for_the_rest(tmp_path):
    text = GOOD.replace("OneCycleLR: {max_lr: 2e-2}", "WarmupLR: {warmup: 10, after: CosineLR}")
    (tmp_path / "x.yml").write_text(text)
    run(tmp_path / "x.yml", out=tmp_path / "a", quiet=True)
    rates = [entry for entry in modelfiles.load(tmp_path / "a/best.last.tt")["history"]["lr"]]
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert rates[0] > rates[1] > 0.001
    assert log(tmp_path / "a")[0]["config"]["scheduler"] == {"WarmupLR": {"warmup": 10, "after": "CosineLR"}}
    with pytest.raises(ConfigError, match=r"line 12: scheduler.WarmupLR.after: there is no scheduler 'CosinLR': did you mean \"CosineLR\""):
        parse(text.replace("CosineLR", "CosinLR"))


def test_data_can_be_normalized_and_varied(tmp_path):
    pytest.importorskip("tinytorch.core.dataloader")
    text = GOOD.replace("batch_size: 64", "batch_size: 64, normalize: true, workers: 1, augment: [{RandomCrop: {padding: 1}}]")
    experiment = experiments.Experiment(parse(text), tmp_path)
    train, validation, _ = experiment.data()
    seen = np.concatenate([x.data if hasattr(x, "requires_grad") else x for x, _ in train])
    assert seen.shape == (1150, 1, 8, 8)
    assert abs(validation.x.mean()) < 0.1
    assert 0.8 < validation.x.std() < 1.2
    (tmp_path / "x.yml").write_text(text)
    assert run(tmp_path / "x.yml", out=tmp_path / "a", quiet=True) == run(tmp_path / "x.yml", out=tmp_path / "b", quiet=True)


def test_the_file_at_the_end_of_module_08_runs(tmp_path):
    source = (REPO / "course/modules/source/08_training/training_dev.py").read_text()
    text = re.search(r"# ```yaml\n(.*?)# ```", source, re.DOTALL)[1].replace("# ", "")
    (tmp_path / "digits.yml").write_text(text)
    assert run(tmp_path / "digits.yml", out=tmp_path / "a", epochs=3, quiet=True)["accuracy"] > 0.8


# ---------------------------------------------------------------- the command

def command(*arguments, cwd=REPO):
    return subprocess.run([sys.executable, "-m", "tinytorch.experiments", *map(str, arguments)], cwd=cwd, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(REPO), "OPENBLAS_NUM_THREADS": "1"})


def test_the_command_runs_checks_and_shows(good, tmp_path):
    done = command("run", good, "--epochs", 2, "--seed", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"test  loss [\d.]+  accuracy 0\.\d+  f1 0\.\d+", done.stdout)
    folder, = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("small-2")
    assert log(folder)[0]["command"].startswith("python -m tinytorch.experiments run")
    shown = command("show", folder)
    assert re.fullmatch(r"small-[\d-]+  seed 1  2 epochs  loss [\d.]+  accuracy [\d.]+  f1 [\d.]+  [\d.]+ s\n", shown.stdout)
    timed = [json.dumps({"seconds": 1.0, "cpu_seconds": 2.0, **entry} if entry["event"] == "epoch" else entry) for entry in log(folder)]
    (folder / "log.jsonl").write_text("\n".join(timed) + "\n")              # as runners of recipes log them
    drawn = command("show", "--curves", folder)
    assert drawn.stdout == f"{shown.stdout}  {folder / 'curves.svg'}\n"
    picture = (folder / "curves.svg").read_text()
    assert all(f"<!-- {word} -->" in picture for word in ("loss", "accuracy", "f1", "training", "unseen"))
    assert "seconds -->" not in picture
    (folder / "log.jsonl").write_text((folder / "log.jsonl").read_text().splitlines()[0] + "\n")
    assert "nothing to draw" in command("show", "--curves", folder).stderr
    assert command("check", good).stdout == f"{good}: in order\n"


def test_the_command_ends_with_1_or_2_and_no_traceback(good, tmp_path):
    good.write_text(GOOD.replace("epochs", "epoch"))
    for arguments, code, text in ((["check", good], 1, 'line 14: training.epoch: there is no such key: did you mean "epochs"?'),
                                  (["run", good], 1, "line 14"), (["run", tmp_path / "nothing.yml"], 1, "No such file"),
                                  (["run", tmp_path, "--resume"], 1, "No such file"), (["walk"], 2, "invalid choice"), ([], 2, "required")):
        done = command(*arguments, cwd=tmp_path)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
        assert text in done.stderr
