"""Is the rule of an op right? Its forward, nudged in float64, answers for every number of every input.

Nothing of `tinytorch.core` is imported: whoever checks rules must not depend on the code that is checked.
"""

import numpy as np


def gradients_of(op, grad, *inputs, **options):
    """What the rule of `op` makes of `grad`: a float64 array for each input, with broadcasting undone."""
    arrays = [np.asarray(x, dtype=np.float64) for x in inputs]
    _, kept = _forward(op, arrays, options)
    made = op.derivative(np.asarray(grad, dtype=np.float64), kept, *arrays, **options)
    made = made if isinstance(made, tuple) else (made,)
    name = op.__name__
    assert len(made) == len(arrays), f"{name} has {len(arrays)} inputs; its rule returned {len(made)} gradients"
    made = [gx() if callable(gx) else gx for gx in made]
    for place, (gx, x) in enumerate(zip(made, arrays, strict=True)):
        assert gx is not None, f"{name}, input {place}: the rule returned None (is a return missing?)"
        assert _fits(np.shape(gx), x.shape), (
            f"{name}, input {place}: the rule returned a gradient of shape {np.shape(gx)} for an input of shape {x.shape}")
    return [_summed(np.asarray(gx, dtype=np.float64), x.shape) for gx, x in zip(made, arrays, strict=True)]


def check_rule(op, *inputs, nudge=1e-6, tolerance=1e-5, seed=0, **options):
    """AssertionError, naming op, input and index, where the rule of `op` and a nudge of its forward disagree.

    The inputs become float64, and `op` must be smooth where they lie. The gradient that arrives is drawn, so that a rule that
    forgets it, or writes into it, is noticed.
    """
    arrays = [np.array(x, dtype=np.float64) for x in inputs]
    arrives = np.random.default_rng(seed).normal(size=_forward(op, arrays, options)[0].shape)
    given = [np.array(x) for x in (arrives, *arrays)]
    made = gradients_of(op, *given, **options)
    names = ["the gradient that arrives", *[f"input {place}" for place in range(len(arrays))]]
    for name, now, before in zip(names, given, [arrives, *arrays], strict=True):
        assert np.array_equal(now, before), f"{op.__name__}: the rule changed {name}; it must make new arrays"
    for name, x, gx in zip(names[1:], arrays, made, strict=True):
        check_gradient(lambda: (_forward(op, arrays, options)[0] * arrives).sum(), x, gx, f"{op.__name__}, {name}", nudge, tolerance)


def check_gradient(f, x, gradient, name="x", nudge=1e-6, tolerance=1e-5):
    """AssertionError, naming x and index, where `gradient` differs from what a nudge of x, in place, does to the number f().

    x is a float64 array that f looks at. A difference of `tolerance` is allowed, relative to slopes above 1.
    """
    assert np.shape(gradient) == x.shape, f"{name}: the gradient should have shape {x.shape}, it has {np.shape(gradient)}"
    for index in np.ndindex(x.shape):
        at, ends = x[index], []
        for moved in (at + nudge, at - nudge):
            x[index] = moved
            ends.append(f())
        x[index] = at
        slope, got = (ends[0] - ends[1]) / (2 * nudge), gradient[index]
        assert abs(got - slope) <= tolerance * max(1, abs(slope)), (
            f"{name}, index {index}: a nudge says {slope:.6g}, the gradient is {got:.6g}")


def _forward(op, arrays, options):
    """(result, what the rule gets to see of it), both as arrays."""
    out = op.forward(*arrays, **options)
    out, kept = out if isinstance(out, tuple) else (out, None)
    out = np.asarray(out)
    return out, out if kept is None else kept


def _fits(given, wanted):
    """Whether an input of the wanted shape may have been broadcast to the given one."""
    try:
        return np.broadcast_shapes(given, wanted) == given
    except ValueError:
        return False


def _summed(grad, shape):
    """What broadcasting had copied, summed."""
    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))
    return np.asarray(grad.sum(axis=tuple(axis for axis, n in enumerate(shape) if n == 1), keepdims=True))
