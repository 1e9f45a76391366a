"""Optimisers: PyTorch's names, defaults and semantics, each update rule a few lines of NumPy in place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError, DTypeError, GradientError
from ..graph import user_line
from ..tensor import Tensor

Array: TypeAlias = NDArray[Any]
Options: TypeAlias = dict[str, Any]


class Optimizer:
    """Base of the optimisers: keeps groups of parameters with their options, and a state for each parameter.

    Args:
        params: the Tensors to learn; or a list of dicts, each with ``params`` and the options that differ for them.
        defaults: the options of groups that do not say otherwise.

    ``param_groups[0]["lr"]`` and the other options may be changed at any time; schedules do so.

    Raises:
        ArgumentError: no parameters, one of them twice, or an option outside its range.
        DTypeError: something that is not a Tensor.
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
        self.defaults = defaults
        kind = type(self).__name__
        if not isinstance(params, Iterable):
            raise DTypeError(
                f"{kind}: parameters must be Tensors, got {type(params).__name__}; pass model.parameters()"
            )
        given = [params] if isinstance(params, Tensor) else list(params)
        if not given:
            raise ArgumentError(f"{kind}: got no parameters; pass model.parameters()")
        groups: list[Any] = given if isinstance(given[0], Mapping) else [{"params": given}]
        if not all(isinstance(group, Mapping) for group in groups):
            raise DTypeError(f"{kind}: got a mixture of groups and Tensors; make each group a dict with 'params'")
        if not all("params" in group for group in groups):
            raise ArgumentError(f"{kind}: each group must have 'params', and may have the options that differ for them")
        self.param_groups: list[Options] = []
        self.state: dict[int, Options] = {}  # by the number of the parameter, counted through all groups
        seen: set[int] = set()
        for group in groups:
            members = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
            for p in members:
                self._check(p, seen)
            options = {**defaults, **group, "params": members}
            for name in ("lr", "weight_decay", "momentum", "eps", "lr_decay", "initial_accumulator_value"):
                if not options.get(name, 0) >= 0:  # NaN neither
                    raise ArgumentError(f"{kind}: {name} must be 0 or more, got {options[name]}")
            betas = options.get("betas", (0, 0))
            if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
                raise ArgumentError(f"{kind}: betas must be two numbers in [0, 1), got {betas}")
            if not 0 <= options.get("alpha", 0) <= 1:
                raise ArgumentError(f"{kind}: alpha must lie in [0, 1], got {options['alpha']}")
            self.param_groups.append(options)

    def _check(self, p: Any, seen: set[int]) -> None:
        name = type(self).__name__
        if not isinstance(p, Tensor):
            raise DTypeError(f"{name}: parameters must be Tensors, got {type(p).__name__}; pass model.parameters()")
        if not p.requires_grad or not p.is_leaf:
            raise GradientError(f"{name}: a parameter of shape {p.shape} is not a leaf that requires a gradient")
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
        for group in self.param_groups:
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
        groups = state_dict["param_groups"]
        own = [len(group["params"]) for group in self.param_groups]
        given = [len(group["params"]) for group in groups]
        if own != given:
            raise ArgumentError(
                f"{type(self).__name__}: the state is of groups with {given} parameters, this optimiser has {own}"
            )
        params = [p for group in self.param_groups for p in group["params"]]
        state: dict[int, Options] = {}
        for i, values in state_dict["state"].items():
            if not 0 <= int(i) < len(params):
                raise ArgumentError(f"{type(self).__name__}: the state is of parameter {i}, this has {len(params)}")
            p = params[int(i)]
            state[int(i)] = {"scratch": np.empty_like(p._data)}
            for name, value in values.items():
                array = value if name == "step" else np.array(value, p.dtype)
                if name != "step" and array.shape != p.shape:
                    raise ArgumentError(
                        f"{type(self).__name__}: {name} of parameter {i} has shape {array.shape}, expected {p.shape}"
                    )
                state[int(i)][name] = array
        self.state = state
        for group, new in zip(self.param_groups, groups, strict=True):
            group.update({name: value for name, value in new.items() if name != "params"})

    def __repr__(self) -> str:
        options = [
            ", ".join(f"{k}={v}" for k, v in group.items() if k not in ("params", "initial_lr"))
            for group in self.param_groups
        ]
        return f"{type(self).__name__}({'; '.join(options)})"


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
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ArgumentError(
                f"SGD: nesterov needs momentum above 0 and no dampening, got momentum={momentum}, dampening={dampening}"
            )
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


class StochasticDiagonalLM(Optimizer):
    """The stochastic diagonal Levenberg-Marquardt method, with which LeNet-5 was trained in 1998 (LeCun et al.,
    *Gradient-based learning applied to document recognition*, appendix C).

    ``w = w - lr / (mu + h) * g``, where ``h`` estimates the second derivative with respect to each weight; give it to
    :meth:`set_curvature`, as the paper does before each pass. It is 0 until then.

    Raises:
        ArgumentError: ``mu`` is not above 0; or as :class:`Optimizer`.

    >>> import tinygrad_lenet as tl
    >>> w = tl.tensor([1.0, 1.0], requires_grad=True)
    >>> optimizer = tl.optim.StochasticDiagonalLM([w], lr=0.1, mu=0.5)
    >>> optimizer.set_curvature([[0.0, 0.5]])
    >>> w.sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.8, 0.9], requires_grad=True)
    """

    def __init__(self, params: Iterable[Any], lr: float = 5e-4, mu: float = 0.02) -> None:
        if not mu > 0:
            raise ArgumentError(f"StochasticDiagonalLM: mu must be above 0, got {mu}")
        super().__init__(params, {"lr": lr, "mu": mu})

    def set_curvature(self, curvature: Iterable[Any]) -> None:
        """For each parameter, in order, an array of its shape: 0 or more in each element."""
        params = [p for group in self.param_groups for p in group["params"]]
        arrays = [np.array(h, p.dtype) for h, p in zip(curvature, params, strict=True)]
        for i, (h, p) in enumerate(zip(arrays, params, strict=True)):
            if h.shape != p.shape or not (h >= 0).all():
                raise ArgumentError(
                    f"StochasticDiagonalLM: the curvature of parameter {i} must be 0 or more, of shape {p.shape}; got "
                    f"shape {h.shape}" + (f", least element {h.min()}" if h.size else "")
                )
            state = self.state.setdefault(i, {"step": 0, "scratch": np.empty_like(p._data)})
            state["curvature"] = h

    def update(self, w: Array, g: Array, state: Options, options: Options) -> None:
        """One step for one parameter."""
        h, scratch = _buffer(state, "curvature", w), state["scratch"]
        np.divide(g, np.add(h, options["mu"], out=scratch), out=scratch)
        w -= np.multiply(scratch, options["lr"], out=scratch)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients together so that their norm, as of one long vector, is at most ``max_norm``.

    Returns the norm before. ``norm_type`` may be ``inf``. Parameters without a gradient are skipped.

    Raises:
        GradientError: the norm is NaN or infinite, with ``error_if_nonfinite``.

    >>> import tinygrad_lenet as tl
    >>> w = tl.tensor([3.0, 4.0], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> tl.optim.clip_grad_norm_(w, 1.0)
    tensor(10.)
    >>> print(w.grad.numpy().round(3))
    [0.6 0.8]
    """
    params = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    grads = [p.grad for p in params if p.grad is not None]
    if not grads:
        return Tensor(0.0)
    norms = [np.linalg.norm(g.numpy().reshape(-1), norm_type) for g in grads]
    total = np.linalg.norm(np.stack(norms), norm_type)
    if error_if_nonfinite and not np.isfinite(total):
        raise GradientError(f"clip_grad_norm_: the norm of the gradients is {total}; look for the op that made it so")
    factor = max_norm / (float(total) + 1e-6)
    if factor < 1:
        for g in grads:
            g *= factor
    return Tensor(total)
