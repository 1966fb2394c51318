"""The graph that ops record: what stands behind a tensor, one step of the walk back, and a picture.

Module 06 writes the walk. The steps are here, with a word for everything that can be wrong with a graph or a rule.
"""
import operator
from typing import Any

import numpy as np

from tinytorch.core.utils import broadcast_shape

FREED = "freed"                     # the origin of a tensor through which a walk has gone
NOTHING = object()                  # a rule's gradient of an input whose gradient another thread makes
VERSION = operator.attrgetter("version")


def inputs_of(t):
    """The tensors that t was made from, as far as they need a gradient, one entry per use; none for a leaf.

    RuntimeError if t was walked already or its numbers have changed since, NotImplementedError if its op has no rule.
    """
    if t.origin is None:
        return []
    if t.origin is FREED:
        raise RuntimeError("this graph was walked already and its memory is freed: run the forward pass again, "
                           "or add losses up and call backward() once")
    op, inputs, _, _, versions = t.origin
    if op.derivative is None:
        raise NotImplementedError(f"{op.__name__}() has no derivative yet: write one with @{op.__name__}.backward")
    if versions != [t.version, *map(VERSION, inputs)]:
        raise RuntimeError(f"an input or the result of {op.__name__}() was changed after the forward pass: call backward() before that")
    return [x for x in inputs if x.requires_grad]


def first_gradient(loss, grad=None):
    """What arrives at the end of a graph: 1 for a loss of one number, or the caller's grad, copied. ValueError if that cannot be."""
    if not loss.requires_grad:
        raise ValueError("backward() found nothing to learn: nothing behind this tensor was made with requires_grad=True, "
                         "or it was computed inside no_grad()")
    if grad is None and loss.size != 1:
        raise ValueError(f"backward() needs a scalar loss or a grad; this tensor is {loss.shape}: sum() or mean() it first")
    grad = np.array(1, np.float32).reshape(loss.shape) if grad is None else np.array(grad, dtype=np.float32)
    if grad.shape != loss.shape:
        raise ValueError(f"backward() got a grad of shape {grad.shape} for a tensor of shape {loss.shape}")
    return grad


def input_gradients(t, grad):
    """(x, its gradient) for each input of t that needs one, by the rule of the op that made t. t forgets how it was made.

    What the op kept may have a rule of its own, `gradients(grad)`: how a product was made can matter to how its gradients are.
    A gradient is a float32 array of x's shape, or of a shape that x was broadcast to. For a leaf it lies in memory that nobody else
    uses. ValueError if the rule returned anything else.
    """
    op, inputs, kept, options, _ = t.origin
    t.origin = FREED
    arrays = [x.data for x in inputs]
    made = kept.gradients(grad) if hasattr(kept, "gradients") else op.derivative(grad, kept, *arrays, **options)
    made = made if isinstance(made, tuple) else (made,)
    if len(made) != len(inputs):
        raise ValueError(f"the rule of {op.__name__}() returned {len(made)} gradients for {len(inputs)} inputs")
    taken = [grad, kept, *arrays]
    for place, (x, gx) in enumerate(zip(inputs, made, strict=True)):
        if x.requires_grad:
            gx = gx() if callable(gx) else gx
            if gx is NOTHING:
                continue
            if gx is None:
                raise ValueError(f"the rule of {op.__name__}() returned None for input {place}: is a return missing?")
            gx = np.asarray(gx, dtype=np.float32)
            if gx.shape != x.shape:
                if not fits(gx.shape, x.shape):
                    raise ValueError(f"the rule of {op.__name__}() returned a gradient of shape {gx.shape} "
                                     f"for input {place} of shape {x.shape}")
            elif x.origin is None and (gx.base is not None or any(gx is other for other in taken)):
                gx = gx.copy()
            taken.append(gx)
            yield x, gx


def total(so_far, grad):
    """Gradients that meet add up; None where none has arrived yet. Always an array, also of shape ()."""
    return grad if so_far is None else np.asarray(so_far + grad)


def fits(given, wanted):
    """May a rule return a gradient of shape `given` for an input of shape `wanted`? If that is its shape, or was broadcast to it."""
    if given[max(0, len(given) - len(wanted)):] == wanted:         # as a bias was: the usual case
        return True
    try:
        return broadcast_shape(given, wanted) == given
    except ValueError:
        return False


def draw(root, *, names=None, grads=None, title=None):
    """Draw the graph behind `root`, leaves on the left; `names` and `grads` map tensors to what stands in their boxes.

    For small graphs, before a walk has freed them. Returns the matplotlib figure.
    """
    import matplotlib.pyplot as plt

    names, grads = names or {}, grads or {}
    depth = _depths(root)
    columns = [[t for t in depth if depth[t] == column] for column in range(max(depth.values()) + 1)]
    tallest = max(map(len, columns))
    place = {t: (column, (tallest - len(tensors)) / 2 + row) for column, tensors in enumerate(columns) for row, t in enumerate(tensors)}
    figure, axes = plt.subplots(figsize=(2.1 * len(columns), 1.2 * tallest + 0.8))
    for t in depth:
        for x in _inputs(t):
            bend = 0.0 if depth[t] - depth[x] == 1 else 0.35           # a long arrow goes round the boxes between
            axes.annotate("", place[t], place[x], zorder=1, arrowprops={
                "arrowstyle": "-|>", "color": "0.5", "shrinkA": 30, "shrinkB": 30, "connectionstyle": f"arc3,rad={bend}"})
        value = f"{t.item():.4g}" if t.size == 1 else str(t.shape)
        lines = [f"{names.get(t, '')} = {value}".removeprefix(" = ")]
        if t.origin is not None:
            lines.insert(0, FREED if t.origin is FREED else t.origin[0].__name__)
        if t in grads:
            lines.append(f"gradient {float(grads[t]):.4g}")
        axes.text(*place[t], "\n".join(lines), ha="center", va="center", zorder=2,
                  bbox={"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "C0" if t.origin is None else "0.4"})
    axes.set(xlim=(-0.6, len(columns) - 0.4), ylim=(tallest - 0.4, -0.6), title=title)
    axes.axis("off")
    return figure


def _inputs(t):
    return [] if t.origin is None or t.origin is FREED else list(t.origin[1])


def _depths(root):
    """The longest way from a leaf to each tensor behind root, inputs before results."""
    depth: dict[Any, int] = {}
    stack = [(root, False)]
    while stack:
        t, ready = stack.pop()
        if ready:
            depth[t] = max([depth[x] + 1 for x in _inputs(t)], default=0)
        elif t not in depth:
            stack += [(t, True), *[(x, False) for x in _inputs(t)]]
    return depth
