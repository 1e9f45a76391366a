"""Plain definitions of optimisers and schedules: a few lines of NumPy each, by PyTorch's documentation."""

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np


def sgd(w, g, s, t, o):
    g = g + o["weight_decay"] * w
    if o["momentum"]:
        old = s.get("momentum_buffer")
        s["momentum_buffer"] = v = g if old is None else o["momentum"] * old + (1 - o["dampening"]) * g
        g = g + o["momentum"] * v if o["nesterov"] else v
    return w - o["lr"] * g


def adam(w, g, s, t, o):
    g, (b1, b2) = g + o["weight_decay"] * w, o["betas"]
    s["exp_avg"] = m = b1 * s.get("exp_avg", 0) + (1 - b1) * g
    s["exp_avg_sq"] = v = b2 * s.get("exp_avg_sq", 0) + (1 - b2) * g * g
    if o["amsgrad"]:
        s["max_exp_avg_sq"] = v = np.maximum(s.get("max_exp_avg_sq", 0), v)
    return w - o["lr"] * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + o["eps"])


def adamw(w, g, s, t, o):
    return adam(w * (1 - o["lr"] * o["weight_decay"]), g, s, t, {**o, "weight_decay": 0.0})


def rmsprop(w, g, s, t, o):
    g, a = g + o["weight_decay"] * w, o["alpha"]
    s["square_avg"] = v = a * s.get("square_avg", 0) + (1 - a) * g * g
    if o["centered"]:
        s["grad_avg"] = mean = a * s.get("grad_avg", 0) + (1 - a) * g
        v = np.maximum(v - mean * mean, 0)
    step = g / (np.sqrt(v) + o["eps"])
    if o["momentum"]:
        s["momentum_buffer"] = step = o["momentum"] * s.get("momentum_buffer", 0) + step
    return w - o["lr"] * step


def adagrad(w, g, s, t, o):
    g = g + o["weight_decay"] * w
    s["sum"] = total = s.get("sum", np.full_like(w, o["initial_accumulator_value"])) + g * g
    return w - o["lr"] / (1 + (t - 1) * o["lr_decay"]) * g / (np.sqrt(total) + o["eps"])


MOMENTS = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False}
DEFAULTS = {
    "SGD": (sgd, {"lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}),
    "Adam": (adam, MOMENTS),
    "AdamW": (adamw, {**MOMENTS, "weight_decay": 0.01}),
    "RMSprop": (
        rmsprop,
        {"lr": 0.01, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0, "centered": False},
    ),
    "Adagrad": (
        adagrad,
        {"lr": 0.01, "lr_decay": 0.0, "weight_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 1e-10},
    ),
}


class Optimizer:
    """Groups and a state for each parameter; the rule is a function of the weights, the gradient and the step."""

    def __init__(self, params, **options):
        self.rule, defaults = DEFAULTS[type(self).__name__]
        self.defaults, self.param_groups, self.state = {**defaults, **options}, [], {}
        params = list(params)
        for group in params if isinstance(params[0], dict) else [{"params": params}]:
            self.add_param_group(group)

    def add_param_group(self, group):
        self.param_groups.append({**self.defaults, **group, "params": list(group["params"])})

    def zero_grad(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    s = self.state.setdefault(id(p), {"step": 0})
                    s["step"] += 1
                    g = -p.grad.numpy() if group.get("maximize") else p.grad.numpy()
                    p.data = self.rule(p.numpy(), g, s, s["step"], group).astype(p.dtype)

    def state_dict(self):
        params = [p for group in self.param_groups for p in group["params"]]
        state = {i: dict(self.state[id(p)]) for i, p in enumerate(params) if id(p) in self.state}
        return {"state": state, "param_groups": self.param_groups}


class Schedule:
    """Changes each rate, by what it is now: so that several work on one optimiser."""

    def __init__(self, optimizer, *args, **options):
        self.optimizer, self.t = optimizer, 0
        self.set(*args, **options)
        self.bases = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
        self.apply()

    def apply(self):
        for group, base in zip(self.optimizer.param_groups, self.bases, strict=True):
            group["lr"] = self.rate(self.t, group["lr"], base)

    def restart(self):
        self.t = 0
        for group, base in zip(self.optimizer.param_groups, self.bases, strict=True):
            group["lr"] = self.rate(0, base, base)

    def step(self):
        self.t += 1
        self.apply()


class StepLR(Schedule):
    def set(self, step_size, gamma=0.1):
        self.size, self.gamma = step_size, gamma

    def rate(self, t, lr, base):
        return lr * self.gamma if t and t % self.size == 0 else lr


class ExponentialLR(StepLR):
    def set(self, gamma):
        self.size, self.gamma = 1, gamma


class MultiStepLR(Schedule):
    def set(self, milestones, gamma=0.1):
        self.counts, self.gamma = Counter(milestones), gamma

    def rate(self, t, lr, base):
        return lr * self.gamma ** self.counts[t]


class LinearLR(Schedule):
    def set(self, start_factor=1 / 3, end_factor=1.0, total_iters=5):
        self.line, self.total = (start_factor, end_factor - start_factor), total_iters

    def rate(self, t, lr, base):
        at = [self.line[0] + self.line[1] * min(s, self.total) / self.total for s in (t - 1, t)]
        return lr * at[1] / at[0] if t else lr * at[1]


class CosineAnnealingLR(Schedule):
    def set(self, T_max, eta_min=0.0):
        self.total, self.least = T_max, eta_min

    def rate(self, t, lr, base):
        at = [1 + math.cos(math.pi * s / self.total) for s in (t - 1, t)]
        if not t:
            return lr
        if (t - 1) % (2 * self.total) == self.total:  # from the bottom no factor leads up
            return lr + (base - self.least) * at[1] / 2
        return self.least + (lr - self.least) * at[1] / at[0]


class OneCycleLR(Schedule):
    """Knows nothing of the rate that it finds."""

    def set(
        self, max_lr, total_steps, pct_start=0.3, anneal_strategy="cos", cycle_momentum=True, base_momentum=0.85,
        max_momentum=0.95, div_factor=25.0, final_div_factor=1e4, three_phase=False,
    ):  # fmt: skip
        low, up = max_lr / div_factor, pct_start * total_steps - 1
        ends = [(0, low, max_momentum), (up, max_lr, base_momentum), (2 * up, low, max_momentum)]
        self.points = [*ends[: 2 + three_phase], (total_steps - 1, low / final_div_factor, max_momentum)]
        self.cosine, self.cycles = anneal_strategy == "cos", cycle_momentum
        for group in self.optimizer.param_groups:
            group["initial_lr"] = low

    def rate(self, t, lr, base):
        i = next((i for i in range(1, len(self.points)) if t <= self.points[i][0]), len(self.points) - 1)
        (start, *a), (end, *b) = self.points[i - 1], self.points[i]
        part = (t - start) / (end - start)
        part = (1 - math.cos(math.pi * part)) / 2 if self.cosine else part
        rate, momentum = (x + (y - x) * part for x, y in zip(a, b, strict=True))
        for group in self.optimizer.param_groups if self.cycles else ():
            group.update({"betas": (momentum, group["betas"][1])} if "betas" in group else {"momentum": momentum})
        return rate


class SequentialLR(Schedule):
    def set(self, schedulers, milestones):
        self.parts, self.milestones = schedulers, milestones

    def apply(self):
        now = sum(self.t >= m for m in self.milestones)
        if self.t == 0:
            for other in self.parts[1:]:
                other.t -= 1
        if self.t == 0 or self.t in self.milestones:
            self.parts[now].restart()
        else:
            self.parts[now].step()


class ReduceLROnPlateau:
    def __init__(
        self, optimizer, mode="min", factor=0.1, patience=10, threshold=1e-4, threshold_mode="rel", cooldown=0,
        min_lr=0.0, eps=1e-8,
    ):  # fmt: skip
        self.optimizer, self.sign, self.factor, self.patience = optimizer, 1 if mode == "max" else -1, factor, patience
        self.threshold, self.relative, self.cooldown = threshold, threshold_mode == "rel", cooldown
        self.least, self.eps, self.best, self.bad, self.rest = min_lr, eps, -self.sign * math.inf, 0, 0

    def step(self, metric):
        goal = self.best * (1 + self.sign * self.threshold) if self.relative else self.best + self.sign * self.threshold
        if self.sign * metric > self.sign * goal:
            self.best, self.bad = metric, 0
        else:
            self.bad += 1
        if self.rest:
            self.rest, self.bad = self.rest - 1, 0
        if self.bad > self.patience:
            self.bad, self.rest = 0, self.cooldown
            for group in self.optimizer.param_groups:
                lower = max(group["lr"] * self.factor, self.least)
                group["lr"] = lower if group["lr"] - lower > self.eps else group["lr"]


_SCHEDULES = [StepLR, ExponentialLR, MultiStepLR, LinearLR, CosineAnnealingLR, OneCycleLR, SequentialLR]
NAMESPACE = SimpleNamespace(
    **{name: type(name, (Optimizer,), {}) for name in DEFAULTS},
    **{c.__name__: c for c in (*_SCHEDULES, ReduceLROnPlateau)},
)
