"""Can I prevent overfitting? Dropout, weight decay, early stopping and augmentation: each by itself, then all at work on digits."""

from itertools import product

import numpy as np

from course.checkpoints.support import agree, fast, refused, values
from tinytorch.core.activations import ReLU
from tinytorch.core.dataloader import DataLoader, RandomCrop, RandomHorizontalFlip
from tinytorch.core.layers import Dropout, Flatten, Linear, Sequential
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.optimizers import SGD, AdamW
from tinytorch.core.tensor import Tensor
from tinytorch.core.training import Accuracy, EarlyStopping, Trainer, evaluate_model
from tinytorch.data import digits
from tinytorch.randomness import manual_seed

# ------------------------------------------------------------ dropout

def can_silence_a_share_of_the_numbers():
    manual_seed(0)
    x = np.random.default_rng(0).uniform(1, 2, size=(200, 300)).astype(np.float32)
    for p in (0.1, 0.5, 0.8):
        layer = Dropout(p)
        first, second = (values(layer(Tensor(x))) for _ in range(2))
        silent = (first == 0).mean()
        assert abs(silent - p) < 0.02, f"Dropout({p}) should silence {p:.0%} of 60,000 numbers, it silences {silent:.1%}"
        agree(first[first != 0], x[first != 0] / (1 - p), f"the numbers that Dropout({p}) lets through", rtol=1e-4)
        both = ((first == 0) & (second == 0)).mean()
        assert abs(both - p * p) < 0.02, f"two passes of Dropout({p}) should agree in {p * p:.0%} of silent numbers, they do in {both:.1%}"
    agree(Dropout(0.0)(Tensor(x)), x, "Dropout(0)")
    share = (values(Dropout()(Tensor(x))) == 0).mean()
    assert abs(share - 0.5) < 0.02, f"Dropout() should silence half of the numbers, it silences {share:.1%}"
    for p in (-0.1, 1.0):
        refused(ValueError, Dropout, p)


def can_pass_gradients_only_where_numbers_passed():
    manual_seed(1)
    x = Tensor(np.random.default_rng(1).uniform(1, 2, size=(50, 60)), requires_grad=True)
    out = Dropout(0.4)(x)
    out.sum().backward()
    agree(x.grad, values(out) / values(x), "the gradient of the sum behind Dropout(0.4)", rtol=1e-4)


def can_let_everything_through_when_nothing_is_learned():
    manual_seed(2)
    x, y = np.random.default_rng(2).normal(size=(40, 8)).astype(np.float32), np.arange(40) % 3
    model = Sequential(Linear(8, 30), Dropout(0.5), Linear(30, 3))
    first, second = values(model(Tensor(x))), values(model(Tensor(x)))
    assert not np.array_equal(first, second), "while a model learns, Dropout should change its output from pass to pass"
    once, twice = (evaluate_model(model, [(Tensor(x), y)]) for _ in range(2))
    assert once == twice, f"evaluate_model should switch dropout off: twice the same model gives {once} and {twice}"
    assert model.training, "after evaluate_model a model that was learning should be learning again"
    model.eval()
    weight, bias = (values(p) for p in model.parameters()[2:])
    hidden = x @ values(model.parameters()[0]) + values(model.parameters()[1])
    agree(model(Tensor(x)), hidden @ weight + bias, "a model with Dropout after eval()", atol=1e-4)
    loss = -np.log(np.take_along_axis(_shares(hidden @ weight + bias), y[:, None], axis=1)).mean()
    agree(once["loss"], loss, "the loss that evaluate_model gives", atol=1e-4)
    right = ((hidden @ weight + bias).argmax(axis=1) == y).mean()
    agree(once["accuracy"], right, "the accuracy that evaluate_model gives")
    evaluate_model(model, [(Tensor(x), y)])
    assert not model.training, "evaluate_model should leave a model in eval() as it found it"


def _shares(scores):
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


# ------------------------------------------------------------ weight decay

def can_pull_weights_towards_zero():
    for kind, options, share in ((SGD, {"lr": 0.1, "weight_decay": 0.5}, 0.95), (AdamW, {"lr": 0.1, "weight_decay": 0.5}, 0.95),
                                 (AdamW, {"lr": 0.1}, 0.999)):
        p = Tensor([4.0, -2.0], requires_grad=True)
        optimizer = kind([p], **options)
        for _ in range(3):
            p.grad = np.float32([0, 0])
            optimizer.step()
        agree(p, np.array([4, -2]) * share ** 3, f"4 and -2 after 3 steps of {kind.__name__} with {options}, gradients 0,", rtol=1e-4)
    p = Tensor([3.0], requires_grad=True)
    optimizer = AdamW([p], lr=0.1, weight_decay=0.5)
    p.grad = np.float32([100])
    optimizer.step()
    agree(p, [3 * 0.95 - 0.1], "a weight of 3 after a step of AdamW against a gradient of 100", rtol=1e-4)
    p = Tensor([3.0], requires_grad=True)
    optimizer = SGD([p], lr=0.1, weight_decay=0.5)
    p.grad = np.float32([2])
    optimizer.step()
    agree(p, [3 - 0.1 * (2 + 1.5)], "a weight of 3 after a step of SGD against a gradient of 2", rtol=1e-4)


# ------------------------------------------------------------ early stopping

def can_say_when_waiting_is_useless():
    model = Linear(2, 1)
    stopper = EarlyStopping(patience=2)
    found = []
    for score in (5.0, 3.0, 4.0, 2.0, 2.0, 2.5):
        better = stopper.update(score, model)
        found.append((bool(better), bool(stopper.worn_out)))
    want = [(True, False), (True, False), (False, False), (True, False), (False, False), (False, True)]
    assert found == want, f"with patience 2, scores 5, 3, 4, 2, 2, 2.5 should be (better, worn out) {want}, they are {found}"
    forever = EarlyStopping()
    for score in range(50):
        forever.update(float(score), model)
    assert not forever.worn_out, "without patience nothing should wear out, not even after 49 worse scores"


def can_keep_the_best_weights_meanwhile():
    model, stopper = Linear(2, 1), EarlyStopping(patience=3)
    for score, number in ((2.0, 1), (1.0, 2), (1.5, 3)):
        model.weight.data = np.full((2, 1), number, np.float32)
        stopper.update(score, model)
    model.weight.data[:] = 9
    agree(stopper.weights["weight"], np.full((2, 1), 2), "the weights kept from the epoch with the lowest score")


def can_stop_a_run_and_return_to_its_best():
    history, trainer, unseen = _learn(0, patience=4, save_best=True)
    losses = history["val_loss"]
    best = int(np.argmin(losses))
    assert len(losses) == best + 5, f"with patience 4 a run whose best epoch is {best + 1} should end with {best + 5}, it has {len(losses)}"
    assert len(losses) < 60, "30 % of these labels are wrong, so unseen loss rises long before epoch 60, but the run was not stopped"
    got = evaluate_model(trainer.model, unseen)["loss"]
    agree(got, losses[best], "the loss on unseen digits after a run with save_best=True", rtol=1e-4)


# ------------------------------------------------------------ augmentation

def _pictures(n, height=5, width=6):
    return np.random.default_rng(n).uniform(1, 2, size=(n, 3, height, width)).astype(np.float32)


def can_mirror_pictures():
    pictures = _pictures(400)
    before, mirror = pictures.copy(), pictures[:, :, :, ::-1]
    agree(RandomHorizontalFlip(1.0)(pictures, np.random.default_rng(0)), mirror, "RandomHorizontalFlip(1)")
    agree(RandomHorizontalFlip(0.0)(pictures, np.random.default_rng(0)), pictures, "RandomHorizontalFlip(0)")
    for flip, p in ((RandomHorizontalFlip(), 0.5), (RandomHorizontalFlip(0.2), 0.2)):
        out = values(flip(pictures, np.random.default_rng(1)))
        mirrored = (out == mirror).all(axis=(1, 2, 3))
        assert (mirrored | (out == pictures).all(axis=(1, 2, 3))).all(), "each picture should come out as it is or mirrored left to right"
        assert abs(mirrored.mean() - p) < 0.08, f"RandomHorizontalFlip({p}) mirrors {mirrored.mean():.0%} of 400 pictures"
        agree(flip(pictures, np.random.default_rng(1)), out, "the same pictures with the same seed")
    assert np.array_equal(pictures, before), "RandomHorizontalFlip changed the pictures that it was given"


def can_move_pictures():
    pictures = _pictures(300)
    before = pictures.copy()
    for padding, mode in ((1, "constant"), (2, "constant"), (2, "reflect")):
        crop = RandomCrop(padding, mode) if mode != "constant" else RandomCrop(padding)
        out = values(crop(pictures, np.random.default_rng(padding)))
        assert out.shape == pictures.shape, f"RandomCrop({padding}) should keep the shape {pictures.shape}, it gives {out.shape}"
        padded = np.pad(pictures, ((0, 0), (0, 0), (padding, padding), (padding, padding)), mode=mode)
        moves = list(product(range(2 * padding + 1), repeat=2))
        found = np.array([(out == padded[:, :, down:down + 5, right:right + 6]).all(axis=(1, 2, 3)) for down, right in moves])
        name, never = f"RandomCrop({padding}, {mode!r})", moves[int(found.any(axis=1).argmin())]
        assert found.any(axis=0).all(), f"{name} should move each picture by up to {padding} pixels, not otherwise"
        assert found.any(axis=1).all(), f"{name} cuts none of 300 pictures at {never} of the padded one"
        agree(crop(pictures, np.random.default_rng(padding)), out, "the same pictures with the same seed")
    assert np.array_equal(pictures, before), "RandomCrop changed the pictures that it was given"


def can_vary_what_is_learned_from_in_every_epoch():
    pictures, labels = _pictures(30), np.arange(30)
    loader = DataLoader(pictures, labels, batch_size=8, shuffle=True, transform=RandomCrop(2), seed=3)
    epochs = [list(loader) for _ in range(2)]
    seen = []
    for epoch in epochs:
        order = np.concatenate([np.asarray(y) for _, y in epoch])
        assert sorted(order.tolist()) == labels.tolist(), "an epoch should hold every label once"
        seen.append(np.concatenate([values(x) for x, _ in epoch])[np.argsort(order)])
    same = (seen[0] == seen[1]).all(axis=(1, 2, 3)).mean()
    assert same < 0.4, f"with RandomCrop(2), {same:.0%} of pictures are the same in two epochs: they should be moved anew in each"
    alone = DataLoader(pictures, labels, batch_size=8, transform=RandomHorizontalFlip(1.0), seed=3)
    plain = DataLoader(pictures, labels, batch_size=8)
    kinds = [type(field).__name__ for field in next(iter(plain))]
    assert kinds == ["Tensor", "ndarray"], f"a batch should hold pictures as a Tensor and whole-number labels as an array, it holds {kinds}"
    agree(np.concatenate([values(x) for x, _ in alone]), pictures[:, :, :, ::-1], "pictures from a loader that mirrors all of them")
    agree(np.concatenate([values(x) for x, _ in plain]), pictures, "pictures from a loader without transform")


# ------------------------------------------------------------ all at work

def _learn(seed, *, dropout=0.0, decay=0.0, transform=None, epochs=60, **options):
    """60 epochs on 100 digits, the first 30 of which are labelled at random; judged on 797 others that are labelled right."""
    images, labels = digits()
    random = np.random.default_rng(seed)
    manual_seed(seed)
    rows = random.permutation(1000)[:100]
    learned = labels[rows]
    learned[:30] = random.integers(10, size=30)
    model = Sequential(Flatten(), Linear(64, 128), ReLU(), Dropout(dropout), Linear(128, 10))
    train = DataLoader(images[rows, None], learned, batch_size=25, shuffle=True, transform=transform)
    unseen = DataLoader(images[1000:, None], labels[1000:], batch_size=400)
    trainer = Trainer(model, CrossEntropyLoss(), AdamW(lr=0.01, weight_decay=decay), [Accuracy()])
    return trainer.fit(train, unseen, epochs=epochs, quiet=True, **options), trainer, unseen


def can_learn_less_by_heart():
    ways = {"nothing against overfitting": {}, "dropout": {"dropout": 0.5}, "weight decay": {"decay": 3.0},
            "augmentation": {"transform": RandomCrop(1)}}
    ends = {name: np.mean([[_learn(seed, **way)[0][key][-1] for key in ("accuracy", "val_loss")] for seed in (0, 1)], axis=0)
            for name, way in ways.items()}
    known, loss = ends.pop("nothing against overfitting")
    assert known > 0.95, f"100 digits, some labelled wrong, should be learned by heart when nothing prevents it; {known:.0%} were"
    for name, (_, better) in ends.items():
        assert better < 0.88 * loss, f"with {name} the loss on unseen digits should be well below {loss:.2f}, it is {better:.2f}"


def can_do_that_at_the_speed_of_numpy():
    x = Tensor(np.ones((1000, 1000)))
    layer, random = Dropout(0.5), np.random.default_rng(0)
    fast(lambda: layer(x), lambda: x.data * ((random.random(x.shape, dtype=np.float32) >= 0.5) / np.float32(0.5)),
         "dropout of a million numbers", times=6)              # with draws and factors in float64 it takes 3 to 4 times as long
    pictures = _pictures(500, 32, 32)

    def plain_crop():
        padded, moves = np.pad(pictures, ((0, 0), (0, 0), (2, 2), (2, 2))), random.integers(5, size=(500, 2))
        return np.stack([padded[i, :, down:down + 32, right:right + 32] for i, (down, right) in enumerate(moves)])

    def plain_flip():
        out = pictures.copy()
        out[::2] = pictures[::2, :, :, ::-1]
        return out

    crop, flip = RandomCrop(2), RandomHorizontalFlip()
    fast(lambda: crop(pictures, random), plain_crop, "moving 500 pictures of 32 x 32", times=4)
    fast(lambda: flip(pictures, random), plain_flip, "mirroring half of 500 pictures of 32 x 32", times=4)
