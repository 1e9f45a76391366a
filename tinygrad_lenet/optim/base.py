"""The base of the optimisers: groups of parameters with their options, and a state that belongs to each parameter."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Mapping
from functools import partial
from inspect import Parameter, Signature
from typing import Any, ClassVar, TypeAlias, TypeVar, dataclass_transform

import numpy as np
from numpy.typing import NDArray

from ..checks import Check, checks_of, entries, instance, integer, listed, number, said
from ..core.modes import user_line
from ..core.signature import checked
from ..core.tensor import Tensor
from ..core.values import narrowed
from ..errors import ArgumentError, DTypeError, GradientError, TinygradLenetError, named

Array: TypeAlias = NDArray[Any]
Options: TypeAlias = dict[str, Any]
T = TypeVar("T", bound="Optimizer")
_EITHER_WAY = Parameter.POSITIONAL_OR_KEYWORD


class Optimizer:
    """Base of the optimisers: keeps groups of parameters with their options, and a state for each parameter.

    Args:
        params: the Tensors to learn; or a list of dicts, each with ``params`` and the options that differ for them.
        defaults: the options of groups that do not say otherwise.

    ``param_groups[0]["lr"]`` and the other options may be changed at any time; schedules do so. The lists of parameters
    may change too. ``state`` maps each parameter to its state, so a parameter keeps its momentum when the lists change.

    Float16 parameters are updated in float32 and rounded after each step. Their state is float32 and has a
    ``master_weight``, which adds up steps that are too small for float16 (Micikevicius et al., *Mixed precision
    training*, 2018).

    Raises:
        ArgumentError: no parameters, one of them twice, or an option outside its range; the latter two also from
            :meth:`step`, which has then changed nothing.
        DTypeError: something that is not a Tensor; a set of them; an option that is no number.
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

    # The options that mean the same in every optimiser; :func:`declared` adds those of a class.
    _checks: ClassVar[dict[str, Check]] = dict.fromkeys(
        ("lr", "initial_lr", "weight_decay", "momentum"), partial(number, interval="[0, inf)")
    )
    _defaults: ClassVar[Options] = {}

    @checked
    def __init__(self, params: Iterable[Any], defaults: Options) -> None:
        if isinstance(params, (set, frozenset)):
            params = [{"params": params}]  # which add_param_group refuses
        if not isinstance(params, Iterable) or isinstance(params, (str, bytes, Mapping, np.ndarray)):
            raise DTypeError(
                f"params must be Tensors, got a {type(params).__name__}; pass model.parameters(), or a list of dicts"
            )
        self.defaults = self._plain(defaults)
        given = [params] if isinstance(params, Tensor) else list(params)
        if not given:
            raise ArgumentError("got no parameters; pass model.parameters()")
        groups: list[Any] = given if isinstance(given[0], Mapping) else [{"params": given}]
        if not all(isinstance(group, Mapping) for group in groups):
            raise DTypeError("got a mixture of groups and Tensors; make each group a dict with 'params'")
        self.param_groups: list[Options] = []
        self.state: dict[Tensor, Options] = {}
        self._members: list[Tensor] = []  # the parameters of all groups at the last check
        self._checked: dict[int, Options] = {}  # the groups at the last check, by number
        for group in groups:
            self.add_param_group(group)

    @checked
    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters to learn from now on.

        Args:
            param_group: a dict with ``params``, one Tensor or a list of them, and the options that differ from the
                defaults of the optimiser.

        The parameters begin without momentum or other state. A schedule that was made before changes the new group from
        its next step on, beginning with the rate the group has.

        Raises:
            ArgumentError: no ``params``, a parameter that the optimiser has already, or an option outside its range.
            DTypeError: not a dict; ``params`` without an order, such as a set; something that is not a Tensor.
            GradientError: a Tensor that does not require a gradient.

        >>> import tinygrad_lenet as tl
        >>> first, second = (tl.tensor([1.0], requires_grad=True) for _ in range(2))
        >>> optimizer = tl.optim.SGD([first], lr=0.5)
        >>> optimizer.add_param_group({"params": second, "lr": 0.1})
        >>> [group["lr"] for group in optimizer.param_groups]
        [0.5, 0.1]
        """
        if not isinstance(param_group, Mapping):
            raise DTypeError(f"a group must be a dict with 'params', got {said(param_group)}")
        if "params" not in param_group:
            raise ArgumentError("each group must have 'params', and may have the options that differ for them")
        given = param_group["params"]
        if isinstance(given, (set, frozenset)):
            raise DTypeError("params is a set, whose order changes from run to run; pass a list")
        new = [given] if isinstance(given, Tensor) else listed("params", given, "Tensors")
        members = self._check([*self._listed_members(), *new])
        self.param_groups.append({**self._plain({**self.defaults, **param_group}), "params": new})
        self._members = members

    def _plain(self, options: Mapping[str, Any]) -> Options:
        """The options of a group, checked: as Python's numbers, which do not make float32 wider."""
        return {name: self._checks[name](name, v) if name in self._checks else v for name, v in options.items()}

    def _checked_groups(self) -> list[Options]:
        """The groups with their options checked; only groups that have changed are checked again."""
        for i, group in enumerate(self.param_groups):
            try:
                same = group == self._checked[i]
            except Exception:  # a new group; an option that cannot be compared
                same = False
            if not same:
                if not isinstance(group.get("params"), (list, tuple)):  # a generator would be empty at the second look
                    raise DTypeError(
                        f"each group must have 'params', a list of Tensors, got {said(group.get('params'))}"
                    )
                missing = [name for name in self.defaults if name not in group]
                if missing:
                    raise ArgumentError(f"group {i} lacks {', '.join(missing)}; add it by add_param_group")
                self._checked[i] = self._plain(group)
        return [self._checked[i] for i in range(len(self.param_groups))]

    def _listed_members(self) -> list[Any]:
        """The parameters of all groups, as they are listed."""
        try:
            return [p for group in self.param_groups for p in group["params"]]
        except (KeyError, TypeError):
            raise DTypeError("each group must have 'params', a list of Tensors") from None

    def _check(self, members: list[Any]) -> list[Tensor]:
        """Parameters, each once; those that are new must be able to learn."""
        seen, known = set[int](), set(map(id, self._members))
        for p in members:
            if not isinstance(p, Tensor):
                raise DTypeError(f"params must be Tensors, got {type(p).__name__}; pass model.parameters()")
            if id(p) not in known and not (p.requires_grad and p.is_leaf):
                raise GradientError(f"a parameter of shape {p.shape} is not a leaf that requires a gradient")
            if not p._data.flags.writeable:
                raise ArgumentError(f"a parameter of shape {p.shape} is a read-only view; make it a clone()")
            if id(p) in seen:
                raise ArgumentError(f"a parameter of shape {p.shape} was given twice")
            seen.add(id(p))
        return members

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for group in self.param_groups:
            for p in group["params"]:
                p._grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        line = user_line()
        try:  # all is checked before anything changes
            groups, members = self._checked_groups(), self._listed_members()
            if len(members) != len(self._members) or any(map(operator.is_not, members, self._members)):
                self._members = self._check(members)
        except TinygradLenetError as error:
            raise named(error, f"{type(self).__name__}.step")  # noqa: B904  # it is the same error
        for group, options in zip(self.param_groups, groups, strict=True):
            for p in group["params"]:
                if p._grad is not None:
                    state = self.state.get(p)
                    if state is None:
                        state = self.state[p] = _fresh(p)
                    state["step"] += 1
                    # A change in place: a graph that saved the old value must not use it.
                    p._version[:] = p._version[0] + 1, line
                    w, g = p._data, p._grad._data
                    if w.itemsize > 2:
                        self.update(w, g, state, options)
                    else:  # float16
                        wide = _master(w, state)
                        self.update(wide, g.astype(np.float32), state, options)
                        w[...] = wide

    def update(self, w: Array, g: Array, state: Options, options: Options) -> None:
        """Change ``w`` in place, given its gradient ``g``, which must be left as it is.

        Both are arrays of the parameter's shape and dtype; for float16 parameters they are float32.

        ``state`` is the dict of this parameter. It has ``step``, the number of this step, and ``scratch``, an array
        like ``w`` for intermediate results, which is not saved. What a subclass adds is saved with the rest.
        """
        raise NotImplementedError

    @checked
    def state_dict(self) -> Options:
        """Everything that a later run needs to go on with the same bits: numbers and copies of arrays, no Tensors.

        Parameters are numbered through all groups, as in PyTorch's files.
        """
        state = {
            i: {k: copy.deepcopy(v) for k, v in self.state[p].items() if k != "scratch"}
            for i, p in enumerate(self._listed_members())
            if p in self.state
        }
        start, groups = 0, []
        for group in self.param_groups:
            stop = start + len(group["params"])
            groups.append({**group, "params": list(range(start, stop))})
            start = stop
        return {"state": state, "param_groups": groups}

    @checked
    def load_state_dict(self, state_dict: Options) -> None:
        """Go on where :meth:`state_dict` was taken; the parameters must be the same, in number, order and shape.

        Arrays of the parameter's shape are converted to its dtype (float32 for float16): float64 values lose digits in
        float32. Numbers and other arrays, which an optimiser of your own may keep, stay as they are.

        Raises:
            ArgumentError: the state does not fit; nothing is changed then.
            DTypeError: not numbers, or numbers that the dtype cannot hold. Likewise.
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
            text = isinstance(key, str) and key.isdecimal()  # as JSON has it
            i = integer("the number of a parameter", int(key) if text else key)
            if not 0 <= i < len(params):
                raise ArgumentError(f"the state is of parameter {said(i)}, this has {len(params)}")
            values = instance(f"the state of parameter {i}", values, Mapping)  # type: ignore[type-abstract]
            own_state = state[params[i]] = _fresh(params[i])
            for name, value in values.items():
                what = f"{name} of parameter {i}"
                own_state[name] = (
                    integer(what, value, 0, 2**53) if name == "step" else self._loaded(what, value, params[i])
                )
            entries(values, "step")
        updates = [self._plain({name: group[name] for name in group if name != "params"}) for group in groups]
        missing = [name for new in updates for name in self.defaults if name not in new]
        if missing:
            raise ArgumentError(f"the state lacks {', '.join(missing)}; is it of another kind of optimiser?")
        self.state = state
        for group, new in zip(self.param_groups, updates, strict=True):
            group.update(new)

    def _loaded(self, what: str, value: Any, p: Tensor) -> Any:
        """Copy a value of a loaded state. Optimisers of this package save only arrays of the parameter's shape."""
        custom = not type(self).__module__.startswith(__package__)
        if custom and isinstance(value, (bool, int, float, np.ndarray)) and np.shape(value) != p.shape:
            return copy.copy(value)
        return _like(what, value, p)

    def __setstate__(self, attributes: Options) -> None:
        vars(self).update(attributes)
        self._members = self._listed_members()
        for key in [key for key in self.state if isinstance(key, int)]:  # pickles of earlier versions: by number
            p, values = self._members[key], vars(self)["state"].pop(key)
            self.state[p] = {k: v.astype(_working(p)) if isinstance(v, np.ndarray) else v for k, v in values.items()}

    def __repr__(self) -> str:
        options = [
            ", ".join(f"{k}={v}" for k, v in group.items() if k not in ("params", "initial_lr"))
            for group in self.param_groups
        ]
        return f"{type(self).__name__}({'; '.join(options)})"


@dataclass_transform()
def declared(cls: type[T]) -> type[T]:
    """Make the constructor of an optimiser: its annotated attributes are its options, as in a dataclass.

    ``InitVar`` tells type checkers that they are arguments, not attributes: each group has its own ``lr``. They are
    checked by their annotations when a group is added, and again after it has changed.
    """
    words = {name: word.removeprefix("InitVar[").removesuffix("]") for name, word in cls.__annotations__.items()}
    cls.__annotations__ = words
    own = {name: value for name, value in vars(cls).items() if name in words}
    for name in own:
        delattr(cls, name)
    defaults = cls._defaults = cls._defaults | own
    cls._checks = cls._checks | checks_of(cls)
    for base in cls.__mro__[1:]:
        words = vars(base).get("__annotations__", {}) | words
    options = [Parameter("self", _EITHER_WAY), Parameter("params", _EITHER_WAY, annotation=words["params"])]
    options += [Parameter(name, _EITHER_WAY, default=value, annotation=words[name]) for name, value in defaults.items()]
    signature = Signature(options, return_annotation="None")

    def __init__(*args: Any, **kwargs: Any) -> None:
        try:
            call = signature.bind(*args, **kwargs)
        except TypeError as error:
            verb = "" if str(error).startswith(("missing", "got")) else "got "  # too many arguments
            raise TypeError(f"{type(args[0]).__name__}() {verb}{error}") from None
        call.apply_defaults()
        self, params, *values = call.arguments.values()
        Optimizer.__init__(self, params, dict(zip(defaults, values, strict=True)))

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    __init__.__module__, __init__.__qualname__ = cls.__module__, f"{cls.__qualname__}.__init__"
    cls.__init__ = __init__  # type: ignore[method-assign]
    return cls


def _fresh(p: Tensor) -> Options:
    """The state of a parameter before its first step."""
    return {"step": 0, "scratch": np.empty_like(p._data, _working(p))}


def _working(p: Tensor) -> np.dtype[Any]:
    """The dtype of a parameter's state and arithmetic: squares of float16 gradients do not fit into float16."""
    return np.dtype(np.float32) if p.dtype == np.float16 else p.dtype


def _master(w: Array, state: Options) -> Array:
    """The float32 weights of a float16 parameter. Where the parameter was changed elsewhere, its value counts."""
    wide: Array = state.setdefault("master_weight", w.astype(np.float32))
    with np.errstate(over="ignore"):
        np.copyto(wide, w, where=wide.astype(np.float16) != w)
    return wide


def _like(name: str, value: Any, p: Tensor) -> Array:
    """A private copy of what a state has for a parameter, in its shape and the dtype of its arithmetic."""
    try:
        array = np.array(value.numpy() if isinstance(value, Tensor) else value)
    except Exception as error:  # whatever an object of the user's own raises
        raise DTypeError(f"{name} must be an array of numbers ({error})") from None
    if array.dtype.kind not in "fiu":
        raise DTypeError(f"{name} must be an array of numbers, got {said(array)}")
    if array.shape != p.shape:
        raise ArgumentError(f"{name} has shape {array.shape}, expected {p.shape}")
    return narrowed(name, array, _working(p))


def _buffer(state: Options, name: str, w: Array, value: float = 0.0) -> Array:
    if name not in state:
        state[name] = np.full_like(w, value)
    array: Array = state[name]
    return array
