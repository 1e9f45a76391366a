"""The base of the optimisers: groups of parameters with options, and a state for each parameter."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeAlias, TypeVar, dataclass_transform

import numpy as np
from numpy.typing import NDArray

from ..checks import entries, function, instance, integer, listed, number
from ..core.accumulation import clear
from ..core.modes import effect, enable_grad, tracer, user_line
from ..core.python_object import numbers
from ..core.signature import Signature, checked
from ..core.tensor import Tensor
from ..core.values import narrowed
from ..errors import ArgumentError, DTypeError, GradientError, TinygradLenetError, brief, named

__all__ = ["Optimizer"]

Array: TypeAlias = NDArray[Any]
Options: TypeAlias = dict[str, Any]
T = TypeVar("T")
_HALF = np.dtype(np.float16)


class Optimizer:
    """Base of the optimisers: groups of parameters with their options, and a state for each parameter.

    Args:
        params: the Tensors to learn; or a list of dicts, each with ``params`` and the options that differ for them.
        defaults: the options of a group that does not set its own.

    ``param_groups[0]["lr"]`` and the other options may be changed at any time; schedules do so. Parameters may be added
    to a group or removed from it. The others keep their momentum, since ``state`` maps each parameter to its own state.

    Float16 parameters are updated in float32 and rounded after each step. Their state is float32 and includes
    ``master_weight``, which accumulates steps that are too small for float16 (Micikevicius et al., *Mixed precision
    training*, 2018).

    Raises:
        ArgumentError: no parameters, a parameter given twice, or an option outside its range. :meth:`step` raises the
            last two as well, and then changes nothing.
        DTypeError: something that is not a Tensor, parameters in a set, or an option that is not a number.
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

    # The checks of options, by name: here those that mean the same in every optimiser. ``declared`` adds a class's own.
    _checks: ClassVar[dict[str, Callable[[Any], Any]]] = {
        name: partial(number, name, interval="[0, inf)") for name in ("lr", "initial_lr", "weight_decay", "momentum")
    }

    __dataclass_fields__: ClassVar[Options]

    @checked
    def __init__(self, params: Iterable[Any], defaults: Options) -> None:
        given = _ordered(params)
        if not given:
            raise ArgumentError("got no parameters in params; pass model.parameters()")
        self.defaults = self._plain(defaults)
        self.param_groups: list[Options] = []
        self.state: dict[Tensor, Options] = {}
        self._members: list[Tensor] = []  # the parameters of all groups at the last check
        for group in given if isinstance(given[0], Mapping) else [{"params": given}]:
            self.add_param_group(group)

    def __post_init__(self, *arguments: Any) -> None:
        """Receive the arguments of a constructor that :func:`declared` made."""
        params, *options = arguments
        Optimizer.__init__(self, params, dict(zip([*self.__dataclass_fields__][1:], options, strict=True)))

    @checked
    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add a group of parameters. They begin without momentum or other state.

        Args:
            param_group: a dict with ``params``, one Tensor or a list of them, and the options that differ from the
                defaults of the optimiser.

        From its next step on, an existing schedule changes the rate of the new group too. It starts from the rate that
        the group has.

        Raises:
            ArgumentError: ``param_group`` is not a dict with ``params``, the optimiser already has one of the
                parameters, or an option is outside its range.
            DTypeError: the ``params`` are a set or not Tensors.
            GradientError: a Tensor that does not require a gradient.

        >>> import tinygrad_lenet as tl
        >>> first, second = (tl.tensor([1.0], requires_grad=True) for _ in range(2))
        >>> optimizer = tl.optim.SGD([first], lr=0.5)
        >>> optimizer.add_param_group({"params": second, "lr": 0.1})
        >>> [group["lr"] for group in optimizer.param_groups]
        [0.5, 0.1]
        """
        if not isinstance(param_group, Mapping) or "params" not in param_group:
            raise ArgumentError(f"a group must be a dict with 'params', got {brief(param_group)}")
        new = _ordered(param_group["params"])
        members = self._check([*self._listed_members(), *new])
        self.param_groups.append({**self._plain({**self.defaults, **param_group}), "params": new})
        self._members = members

    def _plain(self, options: Mapping[str, Any]) -> Options:
        """The options, checked, as Python numbers: NumPy's would widen float32."""
        return {name: self._checks[name](v) if name in self._checks else v for name, v in options.items()}

    def _checked_groups(self) -> list[Options]:
        """The groups with checked options."""
        for i, group in enumerate(self.param_groups):
            missing = [name for name in self.defaults if name not in group]
            if missing:
                raise ArgumentError(f"group {i} lacks {', '.join(missing)}; add it by add_param_group")
        return [self._plain(group) for group in self.param_groups]

    def _listed_groups(self) -> list[Options]:
        """The groups, each with a list of parameters."""
        for group in self.param_groups:
            if not isinstance(group.get("params"), list):  # a generator would be empty the second time
                group["params"] = _ordered(group.get("params"))
        return self.param_groups

    def _listed_members(self) -> list[Any]:
        """The parameters of all groups, in order."""
        return [p for group in self._listed_groups() for p in group["params"]]

    def _check(self, members: list[Any]) -> list[Tensor]:
        """Return the members. Raise if one occurs twice, or if a new one cannot be trained."""
        given, before = [*map(id, members)], [*map(id, self._members)]
        if given == before:
            return self._members
        seen, known = set[int](), set(before)
        for p in members:
            if not isinstance(p, Tensor):
                raise DTypeError(f"params must be Tensors, got {type(p).__name__}; pass model.parameters()")
            if id(p) not in known and not (p.requires_grad and p.is_leaf):
                raise GradientError(f"a parameter of shape {p.shape} is not a leaf that requires a gradient")
            if id(p) in seen:
                raise ArgumentError(f"a parameter of shape {p.shape} was given twice")
            seen.add(id(p))
        return members

    @checked
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients of all parameters to None, or to zeros with ``set_to_none=False``."""
        clear(self._listed_members(), set_to_none)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        A ``closure`` computes the loss and its gradients first. Its result is returned.

        >>> import tinygrad_lenet as tl
        >>> w = tl.tensor([1.0], requires_grad=True)
        >>> optimizer = tl.optim.SGD([w], lr=0.1)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = (w * w).sum()
        ...     loss.backward()
        ...     return loss
        >>> optimizer.step(closure).item(), w.detach()
        (1.0, tensor([0.8]))
        """
        result = None
        if closure is not None:
            with enable_grad():
                result = function("closure", closure)()
        try:
            groups = self._listed_groups()
        except TinygradLenetError as error:
            raise named(error, f"{type(self).__name__}.step")  # noqa: B904  # it is the same error
        grad = "_grad" if tracer() is None else "grad"  # which a trace hears
        params = [[p for p in group["params"] if getattr(p, grad, None) is not None] for group in groups]
        _optimizer_step(self, params, [[p._grad._data for p in some] for some in params])
        return result

    def update(self, w: Array, g: Array, state: Options, options: Options) -> None:
        """Change ``w`` in place. The gradient ``g`` must not be changed.

        Both are arrays of the parameter's shape and dtype, or float32 arrays for a float16 parameter.

        ``state`` is the dict of this parameter. It has ``step``, the number of this step starting at 1, and
        ``scratch``, an array like ``w`` for intermediate results, which is not saved. Entries that a subclass adds are
        saved.
        """
        raise NotImplementedError

    @checked
    def state_dict(self) -> Options:
        """The options and the state, as numbers and copies of arrays; a run that loads them continues bit for bit.

        Parameters are numbered across all groups, as in PyTorch's files.
        """
        state = {
            i: {k: copy.deepcopy(v) for k, v in self.state[p].items() if k != "scratch"}
            for i, p in enumerate(self._listed_members())
            if p in self.state
        }
        numbering = itertools.count()
        groups = [{**group, "params": [next(numbering) for _ in group["params"]]} for group in self.param_groups]
        return {"state": state, "param_groups": groups}

    @checked
    def load_state_dict(self, state_dict: Options) -> None:
        """Continue from a state of :meth:`state_dict`. The parameters must agree in number, order and shape.

        Arrays of the parameter's shape are converted to its dtype (float32 for float16), so float64 values are rounded
        in float32. Numbers and other arrays, which your own optimiser may keep, are not converted.

        Raises:
            ArgumentError: the state does not fit.
            DTypeError: values that are not numbers, or that the dtype cannot hold. An error changes nothing.
        """
        groups, states = entries(state_dict, "param_groups", "state")
        groups = listed("param_groups", groups, "a list of dicts")
        own = [len(group["params"]) for group in self.param_groups]
        given = [len(listed("params", entries(group, "params")[0], "a list of numbers")) for group in groups]
        if own != given:
            raise ArgumentError(f"the state is of groups with {given} parameters, this optimiser has {own}")
        params = self._listed_members()
        state: dict[Tensor, Options] = {}
        for key, values in instance("state", states, Mapping).items():  # type: ignore[type-abstract]
            i = integer("the number of a parameter", key, 0, len(params) - 1)
            entries(values, "step")
            loaded = {name: self._loaded(name, value, i, params[i]) for name, value in values.items()}
            state[params[i]] = _fresh(params[i]) | loaded
        for group in groups:
            entries({"maximize": False, **group}, *self.defaults)  # earlier versions only minimised
        updates = [self._plain({name: group[name] for name in group if name != "params"}) for group in groups]
        self.state = state
        for group, new in zip(self.param_groups, updates, strict=True):
            group.update(new)

    def _loaded(self, name: str, value: Any, i: int, p: Tensor) -> Any:
        """A copy of a value from the state of parameter ``i``, in the dtype of its state."""
        what = f"{name} of parameter {i}"
        if name == "step":
            return integer(what, value, 0, 2**53)
        custom = not type(self).__module__.startswith(__package__)  # the package's own keep arrays of p's shape only
        if custom and isinstance(value, (bool, int, float, np.ndarray)) and np.shape(value) != p.shape:
            return copy.copy(value)
        array = numbers(what, value)
        if array.shape != p.shape:
            raise ArgumentError(f"{what} has shape {array.shape}, expected {p.shape}")
        return np.array(narrowed(what, array, _working(p)))

    def __setstate__(self, attributes: Options) -> None:
        vars(self).update(attributes)
        self._members = self._listed_members()
        for key in [key for key in self.state if isinstance(key, int)]:  # older pickles
            p, values = self._members[key], vars(self)["state"].pop(key)
            self.state[p] = {k: v.astype(_working(p)) if isinstance(v, np.ndarray) else v for k, v in values.items()}

    def __repr__(self) -> str:
        options = [[f"{k}={v}" for k, v in g.items() if k not in ("params", "initial_lr")] for g in self.param_groups]
        return f"{type(self).__name__}({'; '.join(map(', '.join, options))})"


@effect
def _optimizer_step(optimizer: Optimizer, params: list[list[Tensor]], grads: list[list[Array]]) -> None:
    """Update some parameters of each group by their gradients."""
    try:  # check everything before anything changes
        groups = optimizer._checked_groups()
        optimizer._members = optimizer._check(optimizer._listed_members())
    except TinygradLenetError as error:
        raise named(error, f"{type(optimizer).__name__}.step")  # noqa: B904  # it is the same error
    line = user_line()
    for options, some, arrays in zip(groups, params, grads, strict=True):
        for p, g in zip(some, arrays, strict=True):
            state = optimizer.state.get(p)
            if state is None:
                state = optimizer.state[p] = _fresh(p)
            w = p._data
            wide = _master(w, state) if w.dtype == _HALF else w
            if state.get("scratch", wide).dtype != wide.dtype:  # the parameter has another dtype than before
                held = {k: v for k, v in state.items() if np.shape(v) == p.shape and k != "step"}
                state.update((k, v.astype(wide.dtype, copy=False)) for k, v in held.items())
            state["step"] += 1
            # A change in place: a graph that saved the old value must refuse to use it.
            p._version[:] = p._version[0] + 1, line
            optimizer.update(wide, np.asarray(-g if options.get("maximize") else g, wide.dtype), state, options)
            if wide is not w:
                w[...] = wide


@dataclass_transform()
def declared(cls: type[T]) -> type[T]:
    """Make the constructor of an optimiser or a schedule from its annotated attributes, as a dataclass does.

    The annotations also check the arguments, and the options of groups (``_checks``). ``InitVar`` tells type checkers
    that the options of an optimiser are not its attributes: each group has its own ``lr``.
    """
    made: Any = dataclass(eq=False, repr=cls.__repr__ is not Optimizer.__repr__)(cls)
    init = made.__init__
    for name in vars(cls).keys() & init.__annotations__:
        delattr(made, name)  # a default is not an attribute of the class
    for name, word in init.__annotations__.items():
        init.__annotations__[name] = re.sub(r"^InitVar\[(.*)\]$", r"\1", str(word))
    made.__init__ = checked(init)
    made._checks = getattr(cls, "_checks", {}) | {option.name: option.admit for option in Signature(init).options}
    return cls


def _ordered(params: Any) -> list[Any]:
    """One or several parameters as a list."""
    if isinstance(params, (set, frozenset)):
        raise DTypeError("params is a set, whose order changes from run to run; pass a list")
    if isinstance(params, Tensor):
        return [params]
    return listed("params", params, "Tensors, as model.parameters() gives them, or a list of dicts")


def _fresh(p: Tensor) -> Options:
    """The state of a parameter before its first step."""
    return {"step": 0, "scratch": np.empty_like(p._data, _working(p))}


def _working(p: Tensor) -> np.dtype[Any]:
    """The dtype of a parameter's state and arithmetic: float32 for float16, in which squares of gradients overflow."""
    return np.dtype(np.float32) if p.dtype == _HALF else p.dtype


def _master(w: Array, state: Options) -> Array:
    """The float32 copy of a float16 parameter. Elements that were changed elsewhere are read again."""
    wide: Array = state.setdefault("master_weight", w.astype(np.float32))
    with np.errstate(over="ignore"):
        np.copyto(wide, w, where=wide.astype(np.float16) != w)
    return wide


def _buffer(state: Options, name: str, w: Array, value: float = 0.0) -> Array:
    """The array ``name`` of a state. The first step creates it in the shape of ``w``, filled with ``value``."""
    if name not in state:
        state[name] = np.full_like(w, value)
    array: Array = state[name]
    return array
