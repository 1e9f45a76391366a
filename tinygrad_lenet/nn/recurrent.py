"""Recurrent networks, with PyTorch's names, arguments, parameters and initial values."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from .. import functional as F
from ..arguments import choice, flag, integer, listed, made, number, said
from ..errors import ShapeError
from ..ops.creation import Seed, generator_of
from ..ops.rearrange import flip
from ..ops.shape import concatenate, stack
from ..tensor import Tensor
from .module import Module, Parameter, tensor_of


class _Recurrent(Module):
    """Layers, directions and steps; what one step computes is the subclass's.

    Args:
        input_size: features of each step of the input.
        hidden_size: features of the state.
        num_layers: how many layers stand on top of each other.
        bias: whether there are biases.
        batch_first: whether input and output are (N, L, features), and not (L, N, features).
        dropout: the probability of :class:`Dropout` between layers, in training.
        bidirectional: whether each layer also runs backwards; the two outputs stand side by side.
        generator: for the initial values, and for dropout.
    """

    gates: ClassVar[int]  # how many blocks of hidden_size rows the weights have
    states: ClassVar[int] = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        generator: Seed = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.input_size = input_size = integer(name, "input_size", input_size, 1)
        self.hidden_size = hidden_size = integer(name, "hidden_size", hidden_size, 1)
        self.num_layers = num_layers = integer(name, "num_layers", num_layers, 1, 10_000)
        self.bias, self.batch_first = flag(name, "bias", bias), flag(name, "batch_first", batch_first)
        self.dropout = number(name, "dropout", dropout, "[0, 1]")
        self.bidirectional = bidirectional = flag(name, "bidirectional", bidirectional)
        self.generator = generator_of(generator, type(self).__name__)
        rows = self.gates * hidden_size
        bound = made(name, (rows, hidden_size), lambda shape: 1 / math.sqrt(shape[1]))
        for layer in range(num_layers):
            for suffix in self._suffixes(layer):
                width = input_size if layer == 0 else hidden_size * (1 + bidirectional)
                shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, width), "weight_hh": (rows, hidden_size)}
                shapes.update({"bias_ih": (rows,), "bias_hh": (rows,)} if self.bias else {})
                for kind, shape in shapes.items():
                    values = made(name, shape, lambda shape: self.generator.uniform(-bound, bound, shape))
                    setattr(self, kind + suffix, Parameter(values.astype(np.float32)))

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: 1 + self.bidirectional]

    def step(self, x: Tensor, state: list[Tensor], weight: Tensor, bias: Tensor | None) -> list[Tensor]:
        """The next state, from what the input contributes, (N, gates * hidden_size), and the state before."""
        raise NotImplementedError

    def forward(self, x: Any, state: Any = None) -> Any:
        """(L, N, input_size) to (L, N, hidden_size * directions), and the last state of each layer and direction.

        (N, L, ...) if ``batch_first``; (L, ...) without a batch. A state is (num_layers * directions, N, hidden_size),
        0 if none is given; of an LSTM a pair of them.
        """
        x = tensor_of(type(self).__name__, "x", x)
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            layout = "(N, L, " if self.batch_first else "(L, N, "
            raise ShapeError(
                f"{type(self).__name__}({self.extra_repr()}): expected input of shape {layout}{self.input_size}) or "
                f"(L, {self.input_size}), got {x.shape}"
            )
        single = x.ndim == 2
        x = x.unsqueeze(1) if single else x.transpose(0, 1) if self.batch_first else x
        initial = self._initial(x, state, single)
        ends: list[list[Tensor]] = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = F.dropout(x, self.dropout, self.training, self.generator)
            outputs = []
            for suffix in self._suffixes(layer):
                backwards = suffix.endswith("reverse")
                steps, last = self._run(flip(x, 0) if backwards else x, [s[len(ends)] for s in initial], suffix)
                outputs.append(flip(steps, 0) if backwards else steps)
                ends.append(last)
            x = concatenate(outputs, -1) if len(outputs) > 1 else outputs[0]
        found = [stack([end[i] for end in ends]) for i in range(self.states)]
        x = x.squeeze(1) if single else x.transpose(0, 1) if self.batch_first else x
        found = [s.squeeze(1) for s in found] if single else found
        return x, (tuple(found) if self.states > 1 else found[0])

    def _initial(self, x: Tensor, state: Any, single: bool) -> list[Tensor]:
        count = self.num_layers * (1 + self.bidirectional)
        shape = (count, x.shape[1], self.hidden_size)
        if state is None:
            return [Tensor(np.zeros(shape, x.dtype))] * self.states
        name = type(self).__name__
        given = [
            tensor_of(name, "state", s)
            for s in (listed(name, "state", state, "a pair") if self.states > 1 else [state])
        ]
        given = [s.unsqueeze(1) if single and s.ndim == 2 else s for s in given]
        if [s.shape for s in given] != [shape] * self.states:
            raise ShapeError(
                f"{name}: expected {self.states} state(s) of shape {shape}, got {said([s.shape for s in given])}"
            )
        return given

    def _run(self, x: Tensor, state: list[Tensor], suffix: str) -> tuple[Tensor, list[Tensor]]:
        """One layer in one direction."""
        weights = [getattr(self, kind + suffix) for kind in ("weight_ih", "weight_hh")]
        biases = [getattr(self, kind + suffix) if self.bias else None for kind in ("bias_ih", "bias_hh")]
        through = F.linear(x, weights[0], biases[0])  # of all steps at once: one large product
        outputs = []
        for t in range(len(x)):
            state = self.step(through[t], state, weights[1], biases[1])
            outputs.append(state[0])
        if not outputs:
            raise ShapeError(f"{type(self).__name__}: a sequence must have at least one step, got shape {x.shape}")
        return stack(outputs), state

    def extra_repr(self) -> str:
        """Sizes, and what is not the default."""
        options = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        said = [f"{name}={getattr(self, name)}" for name, default in options.items() if getattr(self, name) != default]
        return ", ".join([f"{self.input_size}, {self.hidden_size}", *said])


class RNN(_Recurrent):
    """Elman's recurrent network (*Finding structure in time*, 1990): ``h = tanh(W_ih x + b_ih + W_hh h + b_hh)``.

    ``nonlinearity``, before ``bias`` as in PyTorch, is ``"tanh"`` or ``"relu"``; the other arguments are those of
    :class:`GRU`.

    Raises:
        ArgumentError: a size below 1, a ``dropout`` that is no probability, or an unknown nonlinearity.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> output, h = nn.RNN(3, 4, generator=0)(tl.zeros(5, 2, 3))
    >>> output.shape, h.shape
    ((5, 2, 4), (1, 2, 4))
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        generator: Seed = None,
    ) -> None:
        self.nonlinearity = choice("RNN", "nonlinearity", nonlinearity, ("tanh", "relu"))
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, generator)

    def step(self, x: Tensor, state: list[Tensor], weight: Tensor, bias: Tensor | None) -> list[Tensor]:
        """See the class."""
        return [(F.tanh if self.nonlinearity == "tanh" else F.relu)(x + F.linear(state[0], weight, bias))]


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber, 1997, with the forget gate of Gers et al., 2000).

    ``i, f, g, o = W_ih x + b_ih + W_hh h + b_hh``; ``c = sigmoid(f) c + sigmoid(i) tanh(g)``;
    ``h = sigmoid(o) tanh(c)``. Arguments are those of :class:`GRU`; the state is a pair ``(h, c)``.

    Raises:
        ArgumentError: a size below 1, or a ``dropout`` that is no probability.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> output, (h, c) = nn.LSTM(3, 4, batch_first=True, generator=0)(tl.zeros(2, 5, 3))
    >>> output.shape, h.shape, c.shape
    ((2, 5, 4), (1, 2, 4), (1, 2, 4))
    """

    gates = 4
    states = 2

    def step(self, x: Tensor, state: list[Tensor], weight: Tensor, bias: Tensor | None) -> list[Tensor]:
        """See the class."""
        h, c = state
        both, n = x + F.linear(h, weight, bias), self.hidden_size
        gate = F.sigmoid(both)  # of all four: one call on more elements is faster than three
        c = gate[:, n : 2 * n] * c + gate[:, :n] * F.tanh(both[:, 2 * n : 3 * n])
        return [gate[:, 3 * n :] * F.tanh(c), c]


class GRU(_Recurrent):
    """Gated recurrent units (Cho et al., 2014), with the reset gate behind the product, as in PyTorch.

    ``r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)``; ``z`` likewise; ``n = tanh(W_in x + b_in + r (W_hn h + b_hn))``;
    ``h = (1 - z) n + z h``.

    Args:
        input_size: features of each step of the input.
        hidden_size: features of the state.
        num_layers: how many layers stand on top of each other.
        bias: whether there are biases.
        batch_first: whether input and output are (N, L, features), and not (L, N, features).
        dropout: the probability of dropout between layers, in training.
        bidirectional: whether each layer also runs backwards; the two outputs stand side by side.
        generator: for the initial values, U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)), and for dropout.

    Raises:
        ArgumentError: a size below 1, or a ``dropout`` that is no probability.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> output, h = nn.GRU(3, 4, num_layers=2, bidirectional=True, generator=0)(tl.zeros(5, 2, 3))
    >>> output.shape, h.shape
    ((5, 2, 8), (4, 2, 4))
    """

    gates = 3

    def step(self, x: Tensor, state: list[Tensor], weight: Tensor, bias: Tensor | None) -> list[Tensor]:
        """See the class."""
        (h,), n = state, self.hidden_size
        own = F.linear(h, weight, bias)
        gate = F.sigmoid(x[:, : 2 * n] + own[:, : 2 * n])
        new = F.tanh(x[:, 2 * n :] + gate[:, :n] * own[:, 2 * n :])
        return [new + gate[:, n:] * (h - new)]
