"""The one source of chance: initial weights, dropout, shuffling, augmentation. `manual_seed(0)` makes a run repeatable.

Initialisers draw from `generator()`, one after the other. Whatever draws again and again while training runs (a Dropout, a
shuffling loader, a worker thread) gets a generator of its own from `spawn()`, so that one of them does not shift the numbers of
the others. Each generator belongs to one thread.
"""

from typing import Any

import numpy as np

_generator = np.random.default_rng()


def manual_seed(seed: int) -> None:
    """Everything drawn or spawned after this depends on `seed` alone."""
    global _generator
    _generator = np.random.default_rng(seed)


def generator() -> np.random.Generator:
    """What initialisers draw from. Ask for it each time: manual_seed() replaces it."""
    return _generator


def spawn() -> np.random.Generator:
    """A generator of one's own: it depends on the seed and on how many were spawned before, not on what was drawn."""
    return _generator.spawn(1)[0]


def get_state() -> dict[str, Any]:
    """Where the source stands, as numbers and texts that JSON can hold, for whoever saves a run to go on with it."""
    seeds = _generator.bit_generator.seed_seq
    return {"entropy": seeds.entropy, "spawned": seeds.n_children_spawned, "draws": _generator.bit_generator.state}    # type: ignore[attr-defined]


def set_state(state: dict[str, Any]) -> None:
    """Go on where get_state() was called: the same draws and the same spawned generators follow."""
    global _generator
    bits = np.random.PCG64(np.random.SeedSequence(state["entropy"], n_children_spawned=state["spawned"]))
    bits.state = state["draws"]
    _generator = np.random.Generator(bits)
