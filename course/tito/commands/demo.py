"""`tito demo`: the goal of the course, running, before anything has been built."""

import os
import sys
import time

import click

from course.tito import show
from course.tito.names import Group

EPOCHS, SEED = 40, 0
PAUSE = 0.05               # seconds per epoch on a terminal: a person wants to see the curve grow
PARTS = [("the images as arrays", "01"), ("the tensor that carries them", "02"), ("ReLU and softmax", "03"),
         ("the two layers", "04"), ("the loss", "05"), ("the gradients", "06"),
         ("the update with momentum", "07"), ("the loop over epochs", "08"), ("the shuffled batches", "10")]


@click.group("demo", cls=Group)
def group() -> None:
    """See what you are going to build, running.

    \b
    Example:
      tito demo quick
    """


@group.command()
def quick() -> None:
    """Train a small network on 1,797 real handwritten digits, here and now, in seconds and without a network.

    \b
    Example:
      tito demo quick
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")         # before NumPy is imported: such small products gain nothing from more
    from course.tito.demo_net import HIDDEN, TESTED
    from tinytorch.data import digits
    images, labels = digits()
    click.echo(f"{len(images):,} handwritten digits of 8 x 8 pixels: {len(images) - TESTED:,} to learn from, "
               f"{TESTED} held out for the test.\n"
               f"A network of two layers, 64 pixels to {HIDDEN} hidden units to 10 classes, in forty lines of plain NumPy.\n"
               f"None of it comes from your tinytorch.core: that is yet to be written, by you.\n")
    net, held_out, epochs, seconds = _train(images, labels)
    click.echo(f"\nTrained for {len(epochs)} epochs in {seconds:.1f} s on one core. "
               f"Of the {TESTED} digits it never saw it names {epochs[-1].accuracy:.1%} correctly.\n")
    _print_guesses(net, images[held_out], labels[held_out])
    _print_parts()


def _train(images, labels):
    """Train with a live curve on a terminal, with a line now and then elsewhere."""
    from course.tito.demo_net import train
    live = _Live() if sys.stdout.isatty() else _Lines()
    epochs, seconds = [], 0.0
    with live:
        before = time.perf_counter()
        for epoch, net, held_out in train(images, labels, EPOCHS, SEED):      # noqa: B007 (used after the loop)
            seconds += time.perf_counter() - before
            epochs.append(epoch)
            live.show(epochs)
            before = time.perf_counter()
    return net, held_out, epochs, seconds


class _Lines:
    """One plain line for some of the epochs."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def show(self, epochs) -> None:
        if epochs[-1].number in (1, 2, 5) or epochs[-1].number % 10 == 0:
            click.echo(_caption(epochs))


class _Live(_Lines):
    """The curve, redrawn in place after each epoch."""

    def __enter__(self):
        from rich.live import Live
        self.screen = Live(console=show.console(), auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self.screen.__enter__()
        return self

    def __exit__(self, *problem):
        self.screen.__exit__(*problem)

    def show(self, epochs) -> None:
        from rich.text import Text

        from course.tito.demo_picture import curve
        drawn = curve([e.loss for e in epochs], top=2.0, columns=EPOCHS)
        self.screen.update(Text(f"training loss after each epoch\n{drawn}\n{_caption(epochs)}"), refresh=True)
        time.sleep(PAUSE)


def _caption(epochs) -> str:
    last = epochs[-1]
    return f"epoch {last.number:>2} of {EPOCHS}   training loss {last.loss:.3f}   test accuracy {last.accuracy:.1%}"


def _print_guesses(net, images, labels) -> None:
    """A few held-out digits with the net's guess, mistakes among them."""
    import numpy as np

    from course.tito.demo_picture import digits
    guesses = net.guesses(images.reshape(len(images), 64))
    right, wrong = np.flatnonzero(guesses == labels)[:2], np.flatnonzero(guesses != labels)[:2]
    chosen = np.concatenate([right, wrong])
    captions = [f"{guesses[i]}" if guesses[i] == labels[i] else f"{guesses[i]}, but it is {labels[i]}" for i in chosen]
    click.echo(digits(images[chosen], captions))


def _print_parts() -> None:
    from course.curriculum import find_module
    click.echo("\nWhere you build each part:")
    rows = []
    for part, number in PARTS:
        module = find_module(number)
        rows.append((f"  {part}", module.slug, module.title if module.ready else f"{module.title} (comes later)"))
    show.table(["", "", ""], rows, header=False)
    click.echo("\nBegin with: tito module start 01")
