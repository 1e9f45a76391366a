"""The package, PyTorch, and the package with plain definitions, as what a program of a random network asks for.

The numbers come from a seed, so that all get the same: values of parameters, inputs, targets, masks of dropout.
"""

import copy
import importlib.util
import os
import tempfile
from types import SimpleNamespace

import network_plain
import numpy as np

import tinygrad_lenet as tl


class Difference(Exception):
    """The first difference, with the step and both values."""


def blocks(nn):
    """Modules of several layers, the same for both libraries."""

    class Residual(nn.Module):
        def __init__(self, *body):
            super().__init__()
            self.body = nn.Sequential(*body)

        def forward(self, x):
            y = self.body(x)
            return x + y if x.shape == y.shape else y

    class Twice(Residual):
        def forward(self, x):
            y = self.body(x)
            return self.body(y) if x.shape == y.shape else y

    class Chain(nn.Module):
        def __init__(self, *parts):
            super().__init__()
            self.parts = nn.ModuleList(parts)

        def forward(self, x):
            for part in self.parts:
                x = part(x)
            return x

    class Spare(Residual):
        """With parameters that nothing uses."""

        def __init__(self, *body):
            super().__init__(*body)
            self.unused = nn.Linear(2, 3)

        def forward(self, x):
            return self.body(x)

    class Tied(nn.Module):
        """One weight in two layers."""

        def __init__(self, n):
            super().__init__()
            self.first, self.second = nn.Linear(n, n), nn.Linear(n, n, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x).tanh())

    class Recurrent(nn.Module):
        """The output of each step, and something of the last states."""

        def __init__(self, cell):
            super().__init__()
            self.cell = cell

        def forward(self, x):
            y, states = self.cell(x)
            for state in states if isinstance(states, tuple) else (states,):
                y = y + state.mean()
            return y

    return {c.__name__: c for c in (Residual, Twice, Chain, Spare, Tied, Recurrent)}


class Library:
    """Everything that a program asks for; numbers come from the seed, rounded to one dtype for all libraries."""

    ours = True

    def __init__(self, seed, dtype, rounded=None, resumes=True):
        self.seed, self.dtype, self.rounded, self.resumes = seed, np.dtype(dtype), np.dtype(rounded or dtype), resumes
        self.figures, self.counts = [], {}
        self.nn = SimpleNamespace(**{name: getattr(tl.nn, name) for name in tl.nn.__all__}, **blocks(tl.nn))
        self.optim = tl.optim

    def rng(self, what):
        """A generator that gives the same numbers to both libraries at the same call."""
        self.counts[what] = self.counts.get(what, 0) + 1
        return np.random.default_rng([self.seed, len(what), self.counts[what]])

    def values(self, array):
        return np.asarray(array, np.float64).astype(self.rounded).astype(self.dtype)

    def tensor(self, array):
        return tl.tensor(array)

    def array(self, numbers):
        return self.tensor(self.values(numbers))

    def initial(self, named):
        """Values for parameters, of about the size that keeps activations near 1."""
        rng = np.random.default_rng(self.seed)
        for name, shape in named:
            drawn = rng.standard_normal(shape)
            if len(shape) > 1:
                drawn /= np.sqrt(max(1, np.prod(shape[1:])))
            elif name.endswith("weight"):
                drawn = rng.uniform(0.5, 1.5, shape)
            else:
                drawn *= 0.2
            yield name, self.values(drawn)

    def ready(self, model):
        """The model in the dtype, with values of the seed."""
        new = {}
        names = [(name, p.shape) for name, p in model.named_parameters()]
        values = dict(self.initial(names))
        for (_, p), value in zip(model.named_parameters(), values.values(), strict=True):
            new[id(p)] = tl.nn.Parameter(value)
        for buffer in model.buffers():
            new[id(buffer)] = tl.tensor(buffer.numpy().astype(self.dtype)) if buffer.dtype.kind == "f" else buffer
        for module in model.modules():
            for name, value in list(vars(module).items()):
                if id(value) in new:
                    setattr(module, name, new[id(value)])
        return model

    def inputs(self, shape, batches=1, tokens=False):
        """The batches of one step."""
        for _ in range(batches):
            rng = self.rng("inputs")
            x = rng.integers(0, 7, shape) if tokens else self.values(rng.standard_normal(shape))
            yield self.tensor(x)

    def target(self, kind, shape, ignored):
        rng = self.rng("target")
        if kind == "classes":
            y = rng.integers(0, shape[1], (shape[0], *shape[2:]))
            if ignored is not None and y.size:
                lost = rng.random(y.shape) < 0.3
                lost.flat[0] = False
                y = np.where(lost, ignored, y)
                y.flat[0] = y.flat[0] if y.flat[0] != ignored else (ignored + 1) % shape[1]
            return self.tensor(y)
        if kind == "values":
            return self.tensor(self.values(rng.standard_normal(shape)))
        y = rng.uniform(0, 1, shape)
        return self.tensor(self.values(y if kind == "shares" else y / np.sum(y, 1, keepdims=True)))

    def ignored(self, loss):
        index = getattr(loss, "options", {}).get("ignore_index", -100)
        return None if index == -100 else index

    def learn(self, model, x, loss, kind):
        """Forward and backward; what is not reduced is averaged."""
        out = model(x)
        value = loss(out, self.target(kind, tuple(out.shape), self.ignored(loss)))
        self.figures.append(value)
        value = value.mean() if value.ndim else value
        value.backward()

    def metric(self, t):
        return float(np.random.default_rng([self.seed, t]).integers(0, 5))

    def advance(self, schedule, t):
        """One step of a schedule, which may want to know a metric."""
        if "Plateau" in type(schedule).__name__:
            schedule.step(self.metric(t))
        else:
            schedule.step()

    def clip(self, params, most, **options):
        self.figures.append(tl.optim.clip_grad_norm_(params, most, **options))

    def clip_values(self, params, most):
        for p in params:
            if p.grad is not None:
                p.grad = p.grad.clip(-most, most)

    def resume(self, build, model, optimizer, schedules, ending):
        """The same training in new objects, by way of a file."""
        if not self.resumes:
            return model, optimizer, schedules
        if not importlib.util.find_spec("safetensors"):
            ending = ending.replace("safetensors", "npz")
        state = {
            "optimizer": optimizer.state_dict(),
            "schedules": [schedule.state_dict() for schedule in schedules],
            "random": model.random_state(),
            "training": model.training,
        }
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "state")
            if ending == "ckpt":
                state["model"] = model.state_dict()
            else:
                tl.save(path + "." + ending, model)
            tl.save_checkpoint(path, state)
            state = tl.load_checkpoint(path)
            weights = state["model"] if ending == "ckpt" else tl.load(path + "." + ending)
        model, optimizer, schedules = build()
        model.load_state_dict(weights)
        optimizer.load_state_dict(state["optimizer"])
        for schedule, its in zip(schedules, state["schedules"], strict=True):
            schedule.load_state_dict(its)
        model.load_random_state(state["random"])
        return model.train(state["training"]), optimizer, schedules

    def take(self, model, optimizer, states):
        """Go on with the states of the other library."""
        model.load_state_dict(states[0])
        own = optimizer.state_dict()
        groups = [{k: theirs[k] for k in ours} for ours, theirs in zip(own["param_groups"], states[1], strict=True)]
        state = {i: {"step": 1, **values} for i, values in states[2].items()}  # PyTorch's SGD counts no steps
        optimizer.load_state_dict({"state": state, "param_groups": groups})

    def give(self, model, optimizer):
        """Weights, groups, and states of an optimiser, as NumPy's arrays and numbers."""
        state = optimizer.state_dict()
        return model.state_dict(), state["param_groups"], state["state"]


class Plain(Library):
    """The package, with plain definitions of optimisers and schedules, and numerical gradients."""

    def __init__(self, seed, dtype, **options):
        super().__init__(seed, dtype, **options)
        self.optim, self.resumes, self.checks = network_plain.NAMESPACE, False, 0

    def learn(self, model, x, loss, kind):
        self.checks += 1
        if self.checks % 4 != 1:
            super().learn(model, x, loss, kind)
            return
        models = [copy.deepcopy(model) for _ in range(2)]
        before = {name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None}
        counts = dict(self.counts)
        super().learn(model, x, loss, kind)
        fixed = {f"{name}.weight": m.padding_idx for name, m in model.named_modules() if hasattr(m, "padding_idx")}
        rng, slope, far = np.random.default_rng(self.seed), 0.0, 1e-7
        for (name, p), *others in zip(*(m.named_parameters() for m in (model, *models)), strict=True):
            if p.grad is None:
                continue
            v = rng.standard_normal(p.shape)
            if fixed.get(name) is not None:  # a row that gets no gradient, by definition
                v[fixed[name]] = 0
            slope += float(((p.grad.numpy() - before.get(name, 0)) * v).sum())
            for (_, q), sign in zip(others, (1, -1), strict=True):
                q.data = q.numpy() + sign * far * v
        ends, self.counts = [], counts
        for twin in models:
            self.counts = dict(counts)
            out = twin(x)
            value = loss(out, self.target(kind, tuple(out.shape), self.ignored(loss)))
            ends.append(float(value.mean().item()))
        expected = (ends[0] - ends[1]) / (2 * far)
        if np.isfinite(ends).all() and not abs(slope - expected) <= 1e-5 * max(1.0, abs(slope), *map(abs, ends)):
            raise Difference(f"the slope of the loss is {slope}, numerically {expected}")


class Torch(Library):
    """PyTorch."""

    ours = False

    def __init__(self, seed, dtype, **options):
        super().__init__(seed, dtype, **options)
        import torch

        self.torch, self.kind = torch, getattr(torch, self.dtype.name)
        own = self

        class Dropout(torch.nn.Module):
            """With the masks that the package draws."""

            layer = tl.nn.Dropout

            def __init__(self, p, generator):
                super().__init__()
                self.p, self.twin = p, self.layer(p, generator=generator)

            def forward(self, x):
                if not self.training:
                    return x
                mask = self.twin(tl.ones(*x.shape, dtype=own.dtype)).numpy()
                assert np.isin(mask, [0, np.array(1 / (1 - self.p)).astype(own.dtype)]).all()
                return x * torch.tensor(mask)

        class Dropout2d(Dropout):
            layer = tl.nn.Dropout2d

        names = {**vars(torch.nn), **blocks(torch.nn), "Dropout": Dropout, "Dropout2d": Dropout2d}
        self.nn = SimpleNamespace(**names, LeNet5=lenet(torch.nn))
        self.optim = SimpleNamespace(**{**vars(torch.optim), **vars(torch.optim.lr_scheduler)})

    def tensor(self, array):
        return self.torch.tensor(array)

    def ready(self, model):
        model.to(self.kind)
        named = list(model.named_parameters())
        values = dict(self.initial([(name, tuple(p.shape)) for name, p in named]))
        for name, p in named:
            p.data = self.torch.tensor(values[name])
        return model

    def ignored(self, loss):
        index = getattr(loss, "ignore_index", -100)
        return None if index == -100 else index

    def clip(self, params, most, **options):
        self.figures.append(self.torch.nn.utils.clip_grad_norm_(params, most, **options))

    def clip_values(self, params, most):
        self.torch.nn.utils.clip_grad_value_(params, most)

    def resume(self, build, model, optimizer, schedules, ending):
        return model, optimizer, schedules

    def take(self, model, optimizer, states):
        model.load_state_dict({k: self.torch.tensor(v) for k, v in states[0].items()})
        own = optimizer.state_dict()["param_groups"]
        groups = [{**theirs, **ours} for theirs, ours in zip(own, states[1], strict=True)]
        state = {
            i: {k: self.torch.tensor(np.float32(v) if k == "step" else v) for k, v in values.items()}
            for i, values in states[2].items()
        }
        optimizer.load_state_dict({"state": state, "param_groups": groups})

    def give(self, model, optimizer):
        weights = {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}
        params = [p for group in optimizer.param_groups for p in group["params"]]
        state = {  # not its state_dict(), which fails once a parameter has left the groups
            i: {k: v.numpy().copy() if v.ndim else int(v) for k, v in optimizer.state[p].items() if v is not None}
            for i, p in enumerate(params)
            if optimizer.state.get(p, {}).get("step", 1)  # Adagrad has states of parameters that never had a gradient
        }
        return weights, optimizer.param_groups, state


def lenet(nn):
    """LeNet-5 by PyTorch's layers."""

    class LeNet5(nn.Module):
        def __init__(self, num_classes=10, activation="relu", pool="max", batch_norm=False):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
            self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, num_classes)
            if batch_norm:
                self.norm1, self.norm2 = nn.BatchNorm2d(6), nn.BatchNorm2d(16)
            kinds = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU}
            self.act, self.pool = kinds[activation](), {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}[pool](2)
            self.norms = batch_norm

        def forward(self, x):
            for i, conv in ((1, self.conv1), (2, self.conv2)):
                x = conv(x)
                x = getattr(self, f"norm{i}")(x) if self.norms else x
                x = self.pool(self.act(x))
            return self.fc3(self.act(self.fc2(self.act(self.fc1(x.flatten(1))))))

    return LeNet5
