# Generated from course/modules/source/07_optimizers/optimizers_dev.py by "python -m course.build": edit it there.

"""Optimizers: which way a parameter moves; schedules: how far, and when."""
import math
import numpy as np
from tinytorch.fast.inplace import in_place
from tinytorch.given.stepping import Schedule, Stepper, between


class Optimizer(Stepper):
    """Moves parameters against a direction made from their gradients; a subclass says which: `direction`."""

    def update(self, p, grad, *kept, lr, weight_decay=0.0, **options):
        """One step, in place: the pull of weight decay joins the gradient, p moves lr times against the direction."""
        if weight_decay:
            grad = grad + weight_decay * p
        p -= lr * self.direction(grad, *kept, **options)

    def direction(self, grad, *kept, **options):
        """The plain gradient. A subclass may change what is kept, in place, but never grad."""
        return grad


class SGD(Optimizer):
    """Gradient descent; with momentum, like a ball that rolls."""

    def __init__(self, parameters=None, lr=0.01, momentum=0.0, nesterov=False, weight_decay=0.0):
        super().__init__(parameters, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)

    def keeps(self, *, momentum, **options):
        return ("velocity",) if momentum else ()

    def direction(self, grad, velocity=None, *, momentum, nesterov, **options):
        if not momentum:
            return grad
        velocity *= momentum
        velocity += grad
        return grad + momentum * velocity if nesterov else velocity


class Adam(Optimizer):
    """Steps of about lr for every number, however large its gradients are."""

    def __init__(self, parameters=None, lr=0.001, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def keeps(self, **options):
        return ("m", "v")

    def direction(self, grad, m, v, *, betas, eps, step):
        beta1, beta2 = betas
        m += (1 - beta1) * (grad - m)
        v += (1 - beta2) * (grad * grad - v)
        part1, part2 = 1 - beta1 ** step, 1 - beta2 ** step     # the text's formula, with numbers divided instead of arrays
        return m / (np.sqrt(v) * (part1 / math.sqrt(part2)) + part1 * eps)


class AdamW(Adam):
    """Adam whose weight decay pulls at the weights themselves, not at their gradients."""

    def __init__(self, parameters=None, lr=0.001, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def update(self, p, grad, m, v, *, lr, weight_decay, **options):
        p *= 1 - lr * weight_decay
        super().update(p, grad, m, v, lr=lr, **options)


in_place(Adam)


def clip_grad_norm(parameters, max_norm):
    """Shorten all gradients by one factor so that together they are at most max_norm long; returns their length before."""
    parameters = [p for p in parameters if p.grad is not None]
    norm = math.sqrt(sum(float(np.vdot(p.grad, p.grad)) for p in parameters))
    if norm > max_norm:
        for p in parameters:
            p.grad = p.grad * (max_norm / norm)
    return norm


class StepLR(Schedule):
    """The rate times gamma after every step_size steps."""

    def __init__(self, optimizer, step_size, gamma=0.1):
        super().__init__(optimizer, step_size=step_size, gamma=gamma)

    def rate(self, lr, step):
        return lr * self.gamma ** (step // self.step_size)

class CosineLR(Schedule):
    """Down from lr to eta_min along half a cosine, in T_max steps; then it stays there."""

    def __init__(self, optimizer, T_max, eta_min=0.0):
        super().__init__(optimizer, T_max=T_max, eta_min=eta_min)

    def rate(self, lr, step):
        done = min(step / self.T_max, 1)
        return self.eta_min + (lr - self.eta_min) * (1 + math.cos(math.pi * done)) / 2


class WarmupLR(Schedule):
    """Up to lr in equal parts within the first `warmup` steps; then what the schedule `after` says, from its step 0 on, or lr."""

    def __init__(self, optimizer, warmup, after=None):
        super().__init__(optimizer, warmup=warmup, after=after)

    def rate(self, lr, step):
        if step < self.warmup:
            return lr * (step + 1) / self.warmup
        return self.after.rate(lr, step - self.warmup) if self.after else lr

class OneCycleLR(Schedule):
    """Up to max_lr (None: the group's own lr) in the first part, pct_start, of total_steps; then down to almost nothing."""

    def __init__(self, optimizer, max_lr, total_steps, pct_start=0.3, div_factor=25.0, final_div_factor=1e4, anneal_strategy="cos"):
        super().__init__(optimizer, max_lr=max_lr, total_steps=total_steps, pct_start=pct_start, div_factor=div_factor,
                         final_div_factor=final_div_factor, anneal_strategy=anneal_strategy)

    def rate(self, lr, step):
        high = lr if self.max_lr is None else self.max_lr
        low = high / self.div_factor
        top, last = self.pct_start * self.total_steps - 1, self.total_steps - 1
        if step < top:
            return between(low, high, step / top, self.anneal_strategy)
        return between(high, low / self.final_div_factor, min((step - top) / (last - top), 1), self.anneal_strategy)
