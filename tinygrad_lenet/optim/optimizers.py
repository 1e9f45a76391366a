"""Optimisers: PyTorch's names, defaults and semantics, each update rule a few lines of NumPy in place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..arguments import entries, flag, instance, integer, listed, number, said
from ..errors import ArgumentError, DTypeError, GradientError
from ..graph import user_line
from ..tensor import Tensor

Array: TypeAlias = NDArray[Any]
Options: TypeAlias = dict[str, Any]


# Where the options of all optimisers lie.
_INTERVALS = dict.fromkeys(("lr", "initial_lr", "weight_decay", "momentum", "eps", "lr_decay"), "[0, inf)")
_INTERVALS |= {"initial_accumulator_value": "[0, inf)", "alpha": "[0, 1]", "dampening": "(-inf, inf)", "mu": "(0, inf)"}
_FLAGS = ("nesterov", "amsgrad", "centered")


class Optimizer:
    """Base of the optimisers: keeps groups of parameters with their options, and a state for each parameter.

    Args:
        params: the Tensors to learn; or a list of dicts, each with ``params`` and the options that differ for them.
        defaults: the options of groups that do not say otherwise.

    ``param_groups[0]["lr"]`` and the other options may be changed at any time; schedules do so.

    Raises:
        ArgumentError: no parameters, one of them twice, or an option outside its range; the latter also from
            :meth:`step`, which has then changed nothing.
        DTypeError: something that is not a Tensor; an option that is no number.
        GradientError: a Tensor that does not require a gradient.

    >>> import numpy as np
    >>> import tinygrad_lenet as tl
    >>> class Signs(tl.optim.Optimizer):
    ...     def update(self, w, g, state, options):
    ...         w -= options["lr"] * np.sign(g)
    >>> w = tl.tensor([1.0, -2.0], requires_grad=True)
    >>> optimizer = Signs([w], {"lr": 0.5})
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([ 0.5, -1.5], requires_grad=True)
    """

    def __init__(self, params: Iterable[Any], defaults: Options) -> None:
        kind = type(self).__name__
        if not isinstance(params, Iterable) or isinstance(params, (str, bytes, Mapping, np.ndarray)):
            raise DTypeError(
                f"{kind}: params must be Tensors, got a {type(params).__name__}; pass model.parameters(), or a list of "
                "dicts"
            )
        self.defaults = self._plain(defaults)
        given = _several(params)
        if not given:
            raise ArgumentError(f"{kind}: params: got no parameters; pass model.parameters()")
        groups: list[Any] = given if isinstance(given[0], Mapping) else [{"params": given}]
        if not all(isinstance(group, Mapping) for group in groups):
            raise DTypeError(f"{kind}: got a mixture of groups and Tensors; make each group a dict with 'params'")
        if not all("params" in group for group in groups):
            raise ArgumentError(f"{kind}: each group must have 'params', and may have the options that differ for them")
        self.param_groups: list[Options] = []
        self.state: dict[int, Options] = {}  # by the number of the parameter, counted through all groups
        self._checked: dict[int, Options] = {}  # the groups as they were when last checked, by number
        seen: set[int] = set()
        for group in groups:
            members = _several(listed(kind, "params", group["params"], "Tensors"))
            if isinstance(group["params"], Tensor):
                members = [group["params"]]
            for p in members:
                self._check(p, seen)
            self.param_groups.append({**self._plain({**self.defaults, **group}), "params": members})

    def _plain(self, options: Mapping[str, Any]) -> Options:
        """The options of a group, checked: as Python's numbers, which do not make float32 wider."""
        kind, found = type(self).__name__, dict(options)
        for name, value in options.items():
            if name in _INTERVALS:
                found[name] = number(kind, name, value, _INTERVALS[name])
            elif name in _FLAGS:
                found[name] = flag(kind, name, value)
            elif name == "betas":
                betas = listed(kind, name, value, "a pair of numbers")
                if len(betas) != 2:
                    raise ArgumentError(f"{kind}: betas must be two numbers in [0, 1), got {said(value)}")
                found[name] = tuple(number(kind, name, beta, "[0, 1)") for beta in betas)
        if found.get("nesterov") and (found["momentum"] == 0 or found["dampening"] != 0):
            raise ArgumentError(
                f"{kind}: nesterov needs momentum above 0 and no dampening, got momentum={found['momentum']}, "
                f"dampening={found['dampening']}"
            )
        return found

    def _checked_groups(self) -> list[Options]:
        """The groups with their options checked, anew where they are no longer what they were."""
        for i, group in enumerate(self.param_groups):
            try:
                same = group == self._checked[i]
            except Exception:  # a new group; an option that cannot be compared
                same = False
            if not same:
                self._checked[i] = self._plain(group)
        return [self._checked[i] for i in range(len(self.param_groups))]

    def _check(self, p: Any, seen: set[int]) -> None:
        name = type(self).__name__
        if not isinstance(p, Tensor):
            raise DTypeError(f"{name}: params must be Tensors, got {type(p).__name__}; pass model.parameters()")
        if not p.requires_grad or not p.is_leaf:
            raise GradientError(f"{name}: a parameter of shape {p.shape} is not a leaf that requires a gradient")
        if not p._data.flags.writeable:
            raise ArgumentError(f"{name}: a parameter of shape {p.shape} is a read-only view; make it a clone()")
        if id(p) in seen:
            raise ArgumentError(f"{name}: a parameter of shape {p.shape} was given twice")
        seen.add(id(p))

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for group in self.param_groups:
            for p in group["params"]:
                p._grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        index, line = 0, user_line()
        for group in self._checked_groups():  # all, before anything is changed
            for p in group["params"]:
                if p._grad is not None:
                    state = self.state.get(index)
                    if state is None:
                        state = self.state[index] = {"step": 0, "scratch": np.empty_like(p._data)}
                    state["step"] += 1
                    # A change in place: a graph that saved the old value must not use it.
                    p._version[:] = p._version[0] + 1, line
                    self.update(p._data, p._grad._data, state, group)
                index += 1

    def update(self, w: Array, g: Array, state: Options, options: Options) -> None:
        """Change ``w`` in place, given its gradient ``g``, which must be left as it is."""
        raise NotImplementedError

    def state_dict(self) -> Options:
        """Everything that a later run needs to go on with the same bits: numbers and copies of arrays, no Tensors."""
        state = {
            i: {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in values.items() if k != "scratch"}
            for i, values in self.state.items()
        }
        start, groups = 0, []
        for group in self.param_groups:
            stop = start + len(group["params"])
            groups.append({**group, "params": list(range(start, stop))})
            start = stop
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Options) -> None:
        """Go on where :meth:`state_dict` was taken; the parameters must be the same, in number, order and shape."""
        kind = type(self).__name__
        groups, states = entries(kind, state_dict, "param_groups", "state")
        groups = listed(kind, "param_groups", groups, "a list of dicts")
        own = [len(group["params"]) for group in self.param_groups]
        given = [
            len(listed(kind, "params", entries(kind, group, "params")[0], "a list of numbers")) for group in groups
        ]
        if own != given:
            raise ArgumentError(f"{kind}: the state is of groups with {given} parameters, this optimiser has {own}")
        params = [p for group in self.param_groups for p in group["params"]]
        state: dict[int, Options] = {}
        for key, values in instance(kind, "state", states, Mapping).items():  # type: ignore[type-abstract]
            text = isinstance(key, str) and key.isdecimal()  # as JSON has it
            i = integer(kind, "the number of a parameter", int(key) if text else key)
            if not 0 <= i < len(params):
                raise ArgumentError(f"{kind}: the state is of parameter {said(i)}, this has {len(params)}")
            values = instance(kind, f"the state of parameter {i}", values, Mapping)  # type: ignore[type-abstract]
            state[i] = {"scratch": np.empty_like(params[i]._data)}
            for name, value in values.items():
                what = f"{name} of parameter {i}"
                state[i][name] = (
                    integer(kind, what, value, 0) if name == "step" else _like(kind, what, value, params[i])
                )
            entries(kind, values, "step")
        updates = [self._plain({name: group[name] for name in group if name != "params"}) for group in groups]
        missing = [name for new in updates for name in self.defaults if name not in new]
        if missing:
            raise ArgumentError(f"{kind}: the state lacks {', '.join(missing)}; is it of another kind of optimiser?")
        self.state = state
        for group, new in zip(self.param_groups, updates, strict=True):
            group.update(new)

    def __repr__(self) -> str:
        options = [
            ", ".join(f"{k}={v}" for k, v in group.items() if k not in ("params", "initial_lr"))
            for group in self.param_groups
        ]
        return f"{type(self).__name__}({'; '.join(options)})"


def _several(params: Iterable[Any]) -> list[Any]:
    return [params] if isinstance(params, Tensor) else list(params)


def _like(who: str, what: str, value: Any, p: Tensor) -> Array:
    """A private copy of what a state has for a parameter, in its dtype and shape."""
    try:
        array = np.array(value.numpy() if isinstance(value, Tensor) else value)
    except Exception as error:  # whatever an object of the user's own raises
        raise DTypeError(f"{who}: {what} must be an array of numbers ({error})") from None
    if array.dtype.kind not in "fiu":
        raise DTypeError(f"{who}: {what} must be an array of numbers, got {said(array)}")
    if array.shape != p.shape:
        raise ArgumentError(f"{who}: {what} has shape {array.shape}, expected {p.shape}")
    return array.astype(p.dtype)


def _decayed(w: Array, g: Array, options: Options) -> Array:
    """The gradient of the loss plus ``weight_decay / 2 * |w|^2``."""
    return g + options["weight_decay"] * w if options["weight_decay"] else g


def _buffer(state: Options, name: str, w: Array, value: float = 0.0) -> Array:
    if name not in state:
        state[name] = np.full_like(w, value)
    array: Array = state[name]
    return array


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Sutskever et al., 2013, in PyTorch's form).

    ``v = momentum * v + (1 - dampening) * g`` (``v = g`` at first), ``w = w - lr * v``; with ``nesterov``
    ``w = w - lr * (g + momentum * v)``; ``g`` includes ``weight_decay * w``.

    Raises:
        ArgumentError: ``nesterov`` without momentum or with dampening; or as :class:`Optimizer`.

    >>> import tinygrad_lenet as tl
    >>> w = tl.tensor([1.0], requires_grad=True)
    >>> optimizer = tl.optim.SGD([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.8], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults)

    def update(self, w: Array, g: Array, state: Options, options: Options) -> None:
        """One step for one parameter."""
        g = _decayed(w, g, options)
        momentum, scratch = options["momentum"], state["scratch"]
        if momentum:
            if "momentum_buffer" not in state:
                v = state["momentum_buffer"] = np.array(g, order="C")
            else:
                v = state["momentum_buffer"]
                v *= momentum
                v += g if not options["dampening"] else np.multiply(g, 1 - options["dampening"], out=scratch)
            g = g + momentum * v if options["nesterov"] else v
        w -= np.multiply(g, options["lr"], out=scratch)


class Adam(Optimizer):
    """Adam (Kingma & Ba, 2015, algorithm 1), with the loss's weight decay, or ``amsgrad`` (Reddi et al., 2018,
    algorithm 2: the largest ``v`` so far in place of ``v``).

    ``m = beta1 * m + (1 - beta1) * g``, ``v = beta2 * v + (1 - beta2) * g^2``,
    ``w = w - lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)``: so the first step is ``lr`` long in each
    weight, however steep the loss. Weight decay adds ``weight_decay * w`` to ``g``; see :class:`AdamW`.

    >>> import tinygrad_lenet as tl
    >>> w = tl.tensor([1.0, -100.0], requires_grad=True)
    >>> optimizer = tl.optim.Adam([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.detach().round(4)
    tensor([  0.9, -99.9])
    """

    decoupled = False  # weight decay: on the weights themselves, or through the gradient

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
        super().__init__(params, defaults)

    def update(self, w: Array, g: Array, state: Options, options: Options) -> None:
        """One step for one parameter."""
        (beta1, beta2), step, scratch = options["betas"], state["step"], state["scratch"]
        if self.decoupled:
            w *= 1 - options["lr"] * options["weight_decay"]
        else:
            g = _decayed(w, g, options)
        m, v = _buffer(state, "exp_avg", w), _buffer(state, "exp_avg_sq", w)
        m += np.multiply(np.subtract(g, m, out=scratch), 1 - beta1, out=scratch)
        v *= beta2
        v += np.multiply(np.multiply(g, g, out=scratch), 1 - beta2, out=scratch)
        if options["amsgrad"]:
            largest = _buffer(state, "max_exp_avg_sq", w)
            v = np.maximum(largest, v, out=largest)
        np.sqrt(v, out=scratch)
        scratch /= math.sqrt(1 - beta2**step)
        scratch += options["eps"]
        np.divide(m, scratch, out=scratch)
        w -= np.multiply(scratch, options["lr"] / (1 - beta1**step), out=scratch)


class AdamW(Adam):
    """Adam with decoupled weight decay, ``w = w - lr * weight_decay * w`` before it (Loshchilov & Hutter, 2019,
    algorithm 2).

    >>> import tinygrad_lenet as tl
    >>> w = tl.tensor([1.0], requires_grad=True)
    >>> optimizer = tl.optim.AdamW([w], lr=0.1, weight_decay=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.detach().round(4)  # 1 - 0.1 * 0.5 * 1, and a step of 0.1
    tensor([0.85])
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad)


class RMSprop(Optimizer):
    """RMSprop (Tieleman & Hinton, 2012, lecture 6.5), plain or ``centered`` (Graves, 2013, equations 38 to 41), with
    momentum.

    ``v = alpha * v + (1 - alpha) * g^2``, ``w = w - lr * g / (sqrt(v) + eps)``; centred: ``sqrt(v - mean(g)^2)``.

    >>> import tinygrad_lenet as tl
    >>> w = tl.tensor([1.0], requires_grad=True)
    >>> optimizer = tl.optim.RMSprop([w], lr=0.01)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.detach().round(4)  # v is 0.01 * 2^2: a step of 0.01 / 0.1
    tensor([0.9])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
        }
        super().__init__(params, defaults)

    def update(self, w: Array, g: Array, state: Options, options: Options) -> None:
        """One step for one parameter."""
        g = _decayed(w, g, options)
        alpha, scratch, v = options["alpha"], state["scratch"], _buffer(state, "square_avg", w)
        v *= alpha
        v += np.multiply(np.multiply(g, g, out=scratch), 1 - alpha, out=scratch)
        if options["centered"]:
            mean = _buffer(state, "grad_avg", w)
            mean += np.multiply(np.subtract(g, mean, out=scratch), 1 - alpha, out=scratch)
            np.subtract(v, np.multiply(mean, mean, out=scratch), out=scratch)
            np.sqrt(scratch, out=scratch)
        else:
            np.sqrt(v, out=scratch)
        scratch += options["eps"]
        np.divide(g, scratch, out=scratch)
        if options["momentum"]:
            speed = _buffer(state, "momentum_buffer", w)
            speed *= options["momentum"]
            speed += scratch
            np.copyto(scratch, speed)
        scratch *= options["lr"]
        w -= scratch


class Adagrad(Optimizer):
    """Adagrad (Duchi et al., 2011, figure 1): steps become shorter the more a weight has moved.

    ``s = s + g^2``, ``w = w - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)``.

    >>> import tinygrad_lenet as tl
    >>> w = tl.tensor([1.0], requires_grad=True)
    >>> optimizer = tl.optim.Adagrad([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.detach().round(4)
    tensor([0.9])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
        }
        super().__init__(params, defaults)

    def update(self, w: Array, g: Array, state: Options, options: Options) -> None:
        """One step for one parameter."""
        g = _decayed(w, g, options)
        total, scratch = _buffer(state, "sum", w, options["initial_accumulator_value"]), state["scratch"]
        total += np.multiply(g, g, out=scratch)
        np.sqrt(total, out=scratch)
        scratch += options["eps"]
        np.divide(g, scratch, out=scratch)
        scratch *= options["lr"] / (1 + (state["step"] - 1) * options["lr_decay"])
        w -= scratch
