"""What the fast recipes use: each piece by what it promises, and a whole small run."""

import json
from pathlib import Path

import numpy as np
import pytest

from tinytorch import experiments, randomness, speedrun
from tinytorch.core.layers import Linear, Module
from tinytorch.core.optimizers import SGD
from tinytorch.core.spatial import Conv2d
from tinytorch.core.tensor import Tensor
from tinytorch.fast import parallel

RECIPES = Path(__file__).parents[2] / "course" / "recipes"


def pictures(n, side=16):
    """Smooth random pictures: neighbouring pixels are alike, as in photographs."""
    random = np.random.default_rng(0)
    rough = random.normal(size=(n, 3, side + 4, side + 4))
    return np.mean([rough[:, :, i:i + side, j:j + side] for i in range(4) for j in range(4)], axis=0).astype(np.float32)


def test_whitening_leaves_nothing_correlated():
    images = pictures(400)
    filters = speedrun.whitening(images, 2, 12, eps=1e-9)
    assert filters.shape == (24, 3, 2, 2)
    assert (filters[12:] == -filters[:12]).all()
    layer = Conv2d(3, 12, 2, stride=2, bias=False)
    layer.weight.data = filters[:12]
    seen = layer(images).data.transpose(0, 2, 3, 1).reshape(-1, 12)
    np.testing.assert_allclose(seen.T @ seen / len(seen), np.eye(12), atol=1e-2)


def test_the_main_axes_come_first():
    assert np.allclose(speedrun.whitening(pictures(50), 2, 3)[:3], speedrun.whitening(pictures(50), 2, 12)[:3])
    spread = [(pictures(50)[:, :, :2, :2] * axis).sum(axis=(1, 2, 3)).std() for axis in
              (f / np.linalg.norm(f) for f in speedrun.whitening(pictures(50), 2, 12)[:12])]
    assert spread[0] > spread[5] > spread[11]


@pytest.mark.parametrize(("filters", "channels"), [(4, 4), (6, 4), (3, 5)])
def test_dirac_lets_channels_through(filters, channels):
    layer = Conv2d(channels, filters, 3, padding=1, bias=False)
    before = layer.weight.data.copy()
    speedrun.dirac(layer.weight.data)
    x, n = np.random.default_rng(0).normal(size=(2, channels, 5, 5)).astype(np.float32), min(filters, channels)
    np.testing.assert_allclose(layer(x).data[:, :n], x[:, :n], rtol=1e-6)
    assert (layer.weight.data[n:] == before[n:]).all()


def test_triangle():
    optimizer = SGD([Tensor([1.0], requires_grad=True)], lr=2.0)
    schedule = speedrun.Triangle(optimizer, 100, start=0.2, peak=0.25, end=0.1)
    rates = [schedule.rate(2.0, step) for step in range(101)]
    assert [rates[0], rates[25], rates[100]] == pytest.approx([0.4, 2.0, 0.2])
    assert np.argmax(rates) == 25
    assert optimizer.lr == pytest.approx(0.4)


def test_lookahead_follows_at_first_and_ends_as_the_average():
    model = Linear(1, 1)
    model.weight.data[...] = 1
    average = speedrun.Lookahead(model, decay=0.5, every=1)
    model.weight.data[...] = 2
    average.step(0.0)
    assert model.weight.data == 2                                   # nothing kept yet
    model.weight.data[...] = 4
    average.step(0.9)
    kept = 0.5 * 0.9 ** 3
    assert model.weight.data == pytest.approx(kept * 2 + (1 - kept) * 4)
    before = model.weight.data.copy()
    model.weight.data[...] = 9
    average.step(1.0)
    assert model.weight.data == before                              # the model has become the average


def test_alternating_flip_shows_each_picture_both_ways_in_two_epochs():
    randomness.manual_seed(0)
    images, numbers = np.arange(20 * 12, dtype=np.uint8).reshape(20, 1, 3, 4), np.arange(20)
    data = speedrun.AlternatingFlip(images, numbers)
    first, labels = data.batch(numbers)
    data.epoch = 1
    second, _ = data.batch(numbers)
    assert (labels == numbers).all()
    assert (second == first[..., ::-1]).all()
    mirrored = (first[..., 0] != images[..., 0]).all(axis=(1, 2))
    assert 0 < mirrored.sum() < 20
    assert (images == np.arange(20 * 12, dtype=np.uint8).reshape(20, 1, 3, 4)).all()
    assert data[3][0].shape == (1, 3, 4)


def test_biases_get_a_rate_of_their_own_and_frozen_weights_none():
    model = speedrun.network(widths=[4, 8], stem=2, axes=5)
    assert model[0].weight.shape == (10, 3, 2, 2)
    weights, biases = speedrun.groups(model, lr=0.1, weight_decay=0.01, bias_factor=10)
    assert [name for name, _ in biases["params"]] == ["layers.4.bias", "layers.8.bias"]
    assert len(weights["params"]) == 3                              # two convolutions and the linear layer
    assert weights["lr"] * weights["weight_decay"] == pytest.approx(biases["lr"] * biases["weight_decay"])


def test_scores_are_summed_over_the_views_of_a_picture():
    """With a model that gives its upper left pixel as the score, every view can be read off the picture."""
    class Corner(Module):
        def forward(self, x):
            return x[:, :, 0, 0]

    x = np.random.default_rng(0).normal(size=(3, 2, 4, 5)).astype(np.float32)
    alone, summed = speedrun.predict(Corner(), x, lambda pictures: pictures)
    assert np.allclose(alone, x[..., 0, 0])
    assert np.allclose(summed, x[..., 0, 0] + x[..., 0, -1])
    _, moved = speedrun.predict(Corner(), x, lambda pictures: pictures, shift=1)
    # moved down and right, row 1 is reflected above row 0; moved up and left, row 1 is the first
    down, up = x[..., 1, 1] + x[..., 1, 3], x[..., 1, 1] + x[..., 1, 3]
    assert np.allclose(moved, summed + (down + up) / 2)
    assert len(speedrun._moved(x, 1)) == 2
    assert (speedrun._moved(x, 1)[0][..., 1:, 1:] == x[..., :-1, :-1]).all()
    assert (speedrun._moved(x, 1)[1][..., :-1, :-1] == x[..., 1:, 1:]).all()


@pytest.fixture
def stripes(tmp_path):
    """A recipe of three epochs on pictures that anybody can tell apart."""
    @experiments.register("data", "stripes")
    def stripes():
        random = np.random.default_rng(0)
        images, labels = random.integers(0, 60, size=(300, 3, 16, 16), dtype=np.uint8), np.arange(300) % 2
        images[labels == 1, :, ::2] += 150                          # lying stripes
        images[labels == 0, :, :, ::2] += 150                       # upright ones
        return images[:200], labels[:200], images[200:], labels[200:]

    recipe = tmp_path / "stripes.yml"
    recipe.write_text("""
name: stripes
uses: [tinytorch.speedrun]
data: {set: stripes, batch_size: 20}
model: {speedrun: {stem: 2, axes: 6, widths: [8, 8], classes: 2}}
training: {epochs: 3, threads: 2}
runner: {speedrun: {lr: 0.2, bias_factor: 1, evaluate_every: 1}}
goal: {accuracy: 0.9}
""")
    yield recipe
    parallel.use_threads(1)


def test_a_small_run_is_logged_and_can_be_repeated(tmp_path, stripes):
    first, second = (experiments.run(stripes, out=tmp_path / name, quiet=True) for name in "ab")
    assert first["accuracy"] >= 0.9
    assert [first["accuracy"], first["accuracy_one_view"]] == [second["accuracy"], second["accuracy_one_view"]]
    log = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert [entry["event"] for entry in log] == ["start", "epoch", "epoch", "epoch", "result"]
    assert {"loss", "accuracy", "seconds", "cpu_seconds", "test_accuracy"} <= log[1].keys()
    assert log[1]["loss"] > log[3]["loss"]
    matrix = np.array(json.loads((tmp_path / "a" / "confusion.json").read_text())["matrix"])
    assert matrix.trace() / matrix.sum() == pytest.approx(first["accuracy"])


def test_a_run_that_was_killed_goes_on_to_the_same_numbers(tmp_path, stripes, monkeypatch):
    whole = experiments.run(stripes, out=tmp_path / "whole", quiet=True)
    take_step, steps = speedrun.take_step, iter(range(100))

    def killed(*arguments, **options):
        if next(steps) == 15:                                   # half of the second epoch is done
            raise KeyboardInterrupt
        return take_step(*arguments, **options)

    monkeypatch.setattr(speedrun, "take_step", killed)
    with pytest.raises(KeyboardInterrupt):
        experiments.run(stripes, out=tmp_path / "cut", quiet=True)
    monkeypatch.undo()
    results = experiments.run(tmp_path / "cut", resume=True, quiet=True)
    figures = ["accuracy", "accuracy_one_view"]
    assert [results[name] for name in figures] == [whole[name] for name in figures]
    losses = [[entry["loss"] for entry in experiments.entries(tmp_path / name) if entry["event"] == "epoch"] for name in ("whole", "cut")]
    assert losses[0] == losses[1]
    assert len(losses[1]) == 3


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yml")), ids=lambda path: path.stem)
def test_recipes_are_in_order(recipe):
    config = experiments.read(recipe)
    assert config.name == recipe.stem
    if config.runner:
        model = config.model.make()
        assert model(np.zeros((2, 3, 32, 32), np.float32)).shape == (2, 10)
