"""What all optimizers and all schedules share: which parameters, what is kept for each, and how a run is resumed.

The rule by which a parameter moves is not here: it is `update` of an optimizer. Nor is the rate of a step: `rate` of a schedule.
Both are written in module 07.
"""

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tinytorch import performance
from tinytorch.core.tensor import Tensor
from tinytorch.fast import parallel

BLOCK = 1 << 15         # numbers worked on at a time: with all they need, 128 KiB each, they stay in a core's own cache
SHARED = 1 << 20        # numbers from which on several threads are faster than one: with 300,000, waking the other costs what it saves
LONG = 1 << 17          # the least that a thread works on at a time when work is shared
TINY = float(np.finfo(np.float32).tiny)     # numbers below are kept with fewer digits, and processors are slow with them
SWEEP = 128             # steps after which what is kept is swept of such numbers


def in_blocks(function: Callable[..., None], *arrays: np.ndarray, size: int = BLOCK) -> None:
    """function(*arrays), for a function that changes arrays of one shape number by number: the same result, block by block.

    A rule such as `p -= lr * (m / root)` makes arrays on the way. As long as the parameter, they travel to memory and back;
    as long as a block, they stay in the cache. Large arrays are shared among the threads of `parallel.team()`, after
    `performance.keep_memory()`: function may not keep anything between its calls. Arrays that are not laid out row by row are passed on.
    """
    n, team = arrays[0].size, parallel.team()
    if n <= size or not all([array.flags.c_contiguous for array in arrays]):
        function(*arrays)
        return
    rows = [array.reshape(-1) for array in arrays]

    def work(part: slice) -> None:
        length = part.stop - part.start
        block = math.ceil(length / max(1, round(length / size)))            # equal ones, about as long as asked for
        for start in range(part.start, part.stop, block):
            end = min(start + block, part.stop)
            function(*[row[start:end] for row in rows])

    # With short blocks threads mostly wait for Python's lock; with long ones, each block's memory is given back to the system by one
    # thread and asked for by the next block, which costs more than two threads gain, unless the process keeps its memory.
    if team.threads > 1 and n >= SHARED and performance.memory_kept:
        size = max(size, LONG)
        team.map(work, parallel.cut(n, team.threads))
    else:
        work(slice(0, n))


def sweep(kept: np.ndarray) -> None:
    """Make 0 of what is almost 0, in place.

    Where a unit has died no gradient arrives any more, and a running mean shrinks by a tenth with each step: to 1e-45 in 900 steps, and
    there it stays, as 0.9 of the smallest number is rounded up to it. With a third of its units dead, an MLP took twice as long for a step.
    """
    kept[np.abs(kept) < TINY] = 0


class Stepper:
    """Parameters in groups, what is kept for each, and the walk over them. A subclass says how one moves: `update`.

    `param_groups` is a list of dicts: "params", "names", and the group's own options (lr, weight_decay, ...). `state` has one
    dict per parameter, in the order of `parameters`: "step", how often it was moved, and the arrays that `keeps` names.
    Without parameters an optimizer waits for `bind`. `update` gets `block` numbers at a time, of a parameter of up to `whole` all.
    """

    block, whole = BLOCK, BLOCK

    def __init__(self, parameters: Iterable | None = None, lr: float = 0.01, **options: Any) -> None:
        if isinstance(parameters, (int, float)):
            raise TypeError(f"the first argument is the parameters: write {type(self).__name__}(lr={parameters})")
        self.defaults = checked({"lr": lr, **options})
        self.steps = 0
        self.schedule: Schedule | None = None
        self.param_groups = [self._group([], {}, 0)]
        self.state: list[dict] = []
        if parameters is not None:
            self.bind(parameters)

    def keeps(self, **options: Any) -> tuple[str, ...]:
        """The names of the arrays kept for each parameter, as large as it is, zeros at first; `update` gets them in this order."""
        return ()

    def update(self, p: np.ndarray, grad: np.ndarray, *kept: np.ndarray, step: int, **options: Any) -> None:
        """Move p, and change what is kept, in place. `step` counts from 1."""
        raise NotImplementedError(f"{type(self).__name__} needs an update(p, grad, ...) that changes p in place")

    # which parameters

    def bind(self, parameters: Iterable) -> None:
        """Take these parameters, and forget all that was kept for others.

        `parameters`: tensors, pairs (name, tensor) as Module.named_parameters() gives them, or groups such as
        [{"params": weights}, {"params": biases, "lr": 0.1, "weight_decay": 0}]; what a group does not say comes from the defaults.
        """
        given = [parameters] if isinstance(parameters, (Tensor, dict)) else list(parameters)
        groups: list[dict] = []
        for group in given if given and isinstance(given[0], dict) else [{"params": given}]:
            if not isinstance(group, dict) or "params" not in group:
                raise TypeError('a group of parameters is a dict such as {"params": [...], "lr": 0.1}')
            own = {name: value for name, value in group.items() if name != "params"}
            if unknown := sorted(own.keys() - self.defaults.keys()):
                raise ValueError(f"{type(self).__name__} has no option {unknown[0]!r}; it has {', '.join(self.defaults)}")
            groups.append(self._group(group["params"], own, sum(len(other["params"]) for other in groups)))
        _refuse_unfit(_named(groups))
        self.param_groups = groups
        self.state = [{} for _ in self.parameters]
        if self.schedule:
            self.schedule.apply()

    def _group(self, entries: Iterable, own: dict, first: int) -> dict:
        """A group with all its options. `first` is the number of its first parameter, for want of a name."""
        entries = [entries] if isinstance(entries, Tensor) else entries
        named = [entry if isinstance(entry, tuple) else (f"parameter {number}", entry) for number, entry in enumerate(entries, first)]
        options = self.defaults | checked(own)
        return {"params": [p for _, p in named], "names": [name for name, _ in named], **options, "initial_lr": options["lr"]}

    @property
    def parameters(self) -> list[Tensor]:
        """All parameters, group after group."""
        return [p for _, p in _named(self.param_groups)]

    @property
    def lr(self) -> float:
        """The rate of the next step, of the first group. Setting it sets all groups, and is refused if their rates differ."""
        return self.param_groups[0]["lr"]

    @lr.setter
    def lr(self, lr: float) -> None:
        rates = sorted({group["initial_lr"] for group in self.param_groups})
        if len(rates) > 1:
            raise ValueError(f"the groups have the rates {rates}: set param_groups[i]['lr'] of the one that you mean")
        self.defaults.update(checked({"lr": lr}))
        for group in self.param_groups:
            group["lr"] = group["initial_lr"] = self.defaults["lr"]

    # moving them

    def zero_grad(self) -> None:
        """Forget the gradients, before the next backward() adds to them."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def step(self) -> None:
        """Move every parameter that has a gradient. Nothing moves if any gradient is unfit."""
        grads = [_gradient(name, p) for name, p in _named(self.param_groups)]
        if all(grad is None for grad in grads):
            raise RuntimeError("step() found no gradient: call loss.backward() before it" if grads else
                               "step() has no parameters: name them when you make the optimizer, or give them to bind()")
        self.steps += 1
        waiting = iter(zip(grads, self.state, strict=True))
        for group in self.param_groups:
            options = {name: group[name] for name in self.defaults}
            for p in group["params"]:
                grad, state = next(waiting)
                if grad is not None:
                    self.step_parameter(p, grad, state, options)

    def step_parameter(self, p: Tensor, grad: np.ndarray, state: dict, options: dict) -> None:
        """Move one parameter in place, in blocks, and count its new version: the graph of an earlier forward pass is void."""
        data = p.data if p.data.flags.writeable else p.data.copy()
        names = self.keeps(**options)
        for name in names:
            if name not in state:
                state[name] = np.zeros_like(data)
        state["step"] = step = state.get("step", 0) + 1
        in_blocks(functools.partial(self.update, step=step, **options), data, grad, *[state[name] for name in names],
                  size=self.whole if data.size <= self.whole else self.block)
        if step % SWEEP == 0:
            for name in names:
                in_blocks(sweep, state[name])
        p.data = data

    # going on another day

    def state_dict(self) -> dict:
        """All that the next step depends on but the parameters themselves: copies of arrays, and what JSON can hold."""
        groups = [{name: list(value) if isinstance(value, tuple) else value for name, value in group.items() if name != "params"}
                  for group in self.param_groups]
        state = [{name: np.copy(value) if isinstance(value, np.ndarray) else value for name, value in kept.items()}
                 for kept in self.state]
        return {"steps": self.steps, "groups": groups, "state": state}

    def load_state_dict(self, saved: dict) -> None:
        """Go on where `state_dict()` was taken. The parameters must be bound, in the same groups. Nothing changes if they do not fit."""
        theirs, ours = [len(group["names"]) for group in saved["groups"]], [len(group["params"]) for group in self.param_groups]
        if theirs != ours:
            raise ValueError(f"the saved groups have {theirs} parameters, this optimizer's have {ours}: bind the same model first")
        options = [{name: tuple(value) if isinstance(value, list) else value for name, value in group.items() if name != "names"}
                   for group in saved["groups"]]
        if wrong := [names for names in map(set, options) if names != {*self.defaults, "initial_lr"}]:
            raise ValueError(f"this is not the state of {type(self).__name__}: it has the options {', '.join(sorted(wrong[0]))}")
        state = [{name: int(value) if name == "step" else np.array(value, dtype=np.float32) for name, value in kept.items()}
                 for kept in saved["state"]]
        for (label, p), kept in zip(_named(self.param_groups), state, strict=True):
            for name, value in kept.items():
                if name != "step" and np.shape(value) != p.shape:
                    raise ValueError(f"the saved {name} of {label} has the shape {np.shape(value)}, the parameter has {p.shape}")
        for group, values in zip(self.param_groups, options, strict=True):
            group.update(values)
        self.steps, self.state = int(saved["steps"]), state

    def __repr__(self) -> str:
        options = "".join(f", {name}={value}" for name, value in self.defaults.items())
        return f"{type(self).__name__}({len(self.parameters)} parameters{options})"


class Schedule:
    """The rate of an optimizer as a function of the number of the step: call step() after each step of the optimizer.

    A subclass says `rate(lr, step)`: the rate at step 0, 1, 2, ... of a group whose full rate is lr. Its options become
    attributes. An optimizer follows the schedule that was made for it last; a schedule inside another only answers `rate`.
    """

    def __init__(self, optimizer: Stepper, **options: Any) -> None:
        if not isinstance(optimizer, Stepper):
            raise TypeError(f"a schedule belongs to an optimizer, not to {type(optimizer).__name__}")
        self.optimizer, self.steps = optimizer, 0
        vars(self).update(checked(options))
        optimizer.schedule = self
        self.apply()

    def rate(self, lr: float, step: int) -> float:
        raise NotImplementedError(f"{type(self).__name__} needs a rate(lr, step)")

    def apply(self) -> None:
        """Give every group the rate of the present step."""
        for group in self.optimizer.param_groups:
            group["lr"] = float(self.rate(group["initial_lr"], self.steps))

    def step(self) -> None:
        """The optimizer has made a step: on to the rate of the next one."""
        if self.optimizer.schedule is not self:
            raise RuntimeError(f"the optimizer follows the {type(self.optimizer.schedule).__name__} that was made after this: step that")
        self.steps += 1
        self.apply()

    def get_last_lr(self) -> list[float]:
        """The present rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict:
        return {"steps": self.steps}

    def load_state_dict(self, saved: dict) -> None:
        self.steps = int(saved["steps"])
        self.apply()


def between(start: float, end: float, done: float, how: str = "cos") -> float:
    """From start (done = 0) to end (done = 1), along half a cosine or ("linear") a straight line."""
    return start + (end - start) * (done if how == "linear" else (1 - math.cos(math.pi * done)) / 2)


def _named(groups: list[dict]) -> list[tuple[str, Tensor]]:
    return [pair for group in groups for pair in zip(group["names"], group["params"], strict=True)]


def _refuse_unfit(named: list[tuple[str, Any]]) -> None:
    """Raise for parameters that no step could move, or that one step would move twice."""
    if not named:
        raise ValueError("there are no parameters to move: is the list empty, or a generator that was used before? "
                         "Call model.parameters() anew for each use")
    seen: dict[int, str] = {}
    for name, p in named:
        if not isinstance(p, Tensor):
            raise TypeError(f"{name} is no Tensor but a {type(p).__name__}: pass model.parameters()")
        if p.origin is not None:
            raise ValueError(f"{name} was calculated from other tensors and gets no gradient: pass those it was made from")
        if id(p) in seen:
            raise ValueError(f"{name} and {seen[id(p)]} are the same tensor: a step would move it twice")
        seen[id(p)] = name
    if not any(p.requires_grad for _, p in named):
        raise ValueError("none of the parameters has requires_grad=True, so none would ever move")


def _gradient(name: str, p: Tensor) -> np.ndarray | None:
    """The gradient of a parameter, laid out row by row, if it is fit to step with."""
    if p.grad is None:
        return None
    grad = np.asarray(p.grad, dtype=np.float32, order="C")
    if grad.shape != p.shape:
        raise ValueError(f"the gradient of {name} should have its shape {p.shape}, it has {grad.shape}")
    if not (math.isfinite(_square(grad)) or np.isfinite(grad).all()):      # the first is one number, but a square may overflow
        found = "nan" if np.isnan(grad).any() else "inf"
        raise FloatingPointError(f"the gradient of {name} {p.shape} holds {found}, so nothing was moved: lower the rate, clip the "
                                 "gradients, or look for log(0) and 0 / 0 in the loss")
    return grad


def _square(grad: np.ndarray) -> float:
    """The sum of squares of a gradient; large ones are shared among the threads of `parallel.team()`."""
    team = parallel.team()
    if team.threads == 1 or grad.size < SHARED:
        return np.vdot(grad, grad)
    row = grad.reshape(-1)
    return sum(team.map(lambda part: np.vdot(row[part], row[part]), parallel.cut(row.size, team.threads)))


NOT_NEGATIVE = (lambda x: 0 <= x < math.inf), "a number that is not negative"
BELOW_ONE = (lambda x: 0 <= x < 1), "at least 0 and below 1"
POSITIVE = (lambda x: 0 < x < math.inf), "a number above 0"
SOME_STEPS = (lambda x: x >= 1 and x == int(x)), "a whole number of steps, at least 1"
LIMITS = {"lr": NOT_NEGATIVE, "weight_decay": NOT_NEGATIVE, "eps": NOT_NEGATIVE, "momentum": BELOW_ONE, "betas": BELOW_ONE,
          "gamma": POSITIVE, "eta_min": NOT_NEGATIVE, "max_lr": NOT_NEGATIVE, "div_factor": POSITIVE, "final_div_factor": POSITIVE,
          "pct_start": BELOW_ONE, "step_size": SOME_STEPS, "T_max": SOME_STEPS, "warmup": SOME_STEPS, "total_steps": SOME_STEPS}


def checked(options: dict) -> dict:
    """The options, numbers within their limits and as Python's own: with a float64 of NumPy, every step would be float64."""
    return {name: _checked(name, value) for name, value in options.items()}


def _checked(name: str, value: Any) -> Any:
    if name not in LIMITS or value is None:
        return value
    fits, wanted = LIMITS[name]
    numbers = value if name == "betas" else [value]
    if not all(fits(number) for number in numbers):
        raise ValueError(f"{name} should be {wanted}, not {value}")
    if name == "betas":
        return tuple(float(number) for number in numbers)
    return int(value) if fits is SOME_STEPS[0] else float(value)
