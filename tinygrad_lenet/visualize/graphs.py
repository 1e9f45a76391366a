"""A picture of the recorded graph as SVG, in plain Python."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from .. import files
from ..checks import File, instance
from ..core.graph import Vertex, ancestors
from ..core.hooks import Hook
from ..core.signature import checked
from ..core.tensor import Tensor
from ..errors import ArgumentError, GradientError
from ..nn import Module
from ..nn.inspection import _Text as Text
from ..nn.module import Model

_COLOURS = {"op": "#dbe9f6", "parameter": "#fde9c9", "input": "#e2f0d9", "output": "#f8d7da"}
_GAP = 12  # between boxes of a row
_HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right:.0f} {bottom:.0f}" width="{right:.0f}" \
height="{bottom:.0f}" font-family="Helvetica, Arial, sans-serif" font-size="11">
<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">\
<path d="M0 0L8 4L0 8z" fill="#555"/></marker></defs>
<rect width="{right:.0f}" height="{bottom:.0f}" fill="white"/>"""


@dataclass
class Node:
    """An op or a leaf of a drawing."""

    kind: str  # a key of _COLOURS
    title: str
    shape: tuple[int, ...]
    dtype: str
    leaf: Tensor | None  # None for an op
    norm: float | None = None  # of an op's gradient, after a backward pass

    def note(self, gradient: Any) -> Any:
        """Keep the norm of a gradient: a hook of the recorded graph."""
        self.norm = _norm(gradient)
        return gradient

    def lines(self) -> list[str]:
        """The text: the op or name, the shape and dtype, and the norm of the gradient if there is one."""
        norm = _norm(self.leaf.grad) if self.leaf is not None and self.leaf.grad is not None else self.norm
        shape = "x".join(map(str, self.shape)) or "scalar"
        return [self.title, f"{shape} {self.dtype}", *([] if norm is None else [f"|gradient| {norm:.3g}"])]


def _norm(gradient: Any) -> float:
    values = gradient.numpy() if isinstance(gradient, Tensor) else gradient
    return float(np.sqrt(np.sum(np.square(values, dtype=np.float64))))


class _Box:
    """The rectangle of a node in the picture; x and y are its centre."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.width = max(map(len, lines)) * 6.2 + 16
        self.height = 13.0 * len(lines) + 8
        self.x = self.y = 0.0


def _place(boxes: list[_Box], widths: list[float], left: float, y: float) -> None:
    """Put boxes beside each other, each in the middle of a column."""
    for box, width in zip(boxes, widths, strict=False):
        box.x, box.y = left + width / 2, y
        left += width + _GAP


class GraphView:
    """A drawing of the graph that a tensor was computed from: shown by a notebook, written by :meth:`save`.

    Every later backward pass through the graph updates the norms of the gradients.
    """

    def __init__(self, output: Tensor, model: Module | None) -> None:
        if output._node is None:
            raise GradientError("no graph was recorded; make an input with requires_grad=True, and leave no_grad()")
        names = {id(p): name for name, p in (model.named_parameters() if model else ())}
        numbers: dict[Vertex, int] = {}
        self.nodes: list[Node] = []
        self.edges: list[tuple[int, int]] = []
        for node in reversed(ancestors([output._node])):
            if node.saved is None:
                raise GradientError("a backward pass has freed this graph; draw it before, or pass retain_graph=True")
            for leaf in node.parents:
                if leaf not in numbers:  # a leaf indeed: parents that are nodes come first
                    name = names.get(id(leaf))
                    numbers[leaf] = self._add(leaf, "parameter" if name else "input", name or "input")
            kind = "output" if node is output._node else "op"
            numbers[node] = self._add(node, kind, node.plan.op.name.lstrip("_"))
            self.edges += [(numbers[parent], numbers[node]) for parent in node.parents]

    def _add(self, vertex: Vertex, kind: str, title: str) -> int:
        """Add a node to the drawing and return its number."""
        leaf = vertex if isinstance(vertex, Tensor) else None
        self.nodes.append(Node(kind, title, vertex.shape, str(vertex.dtype), leaf))
        if not isinstance(vertex, Tensor):
            if vertex._hooks is None:
                vertex._hooks = []
            Hook(vertex._hooks, self.nodes[-1].note)
        return len(self.nodes) - 1

    def _layout(self) -> list[_Box]:
        """The boxes of the nodes: each op in a row below its parents, leaves to the right of the ops."""
        boxes, rank = [_Box(node.lines()) for node in self.nodes], [0] * len(self.nodes)
        for a, b in self.edges:  # in the order of the ops
            rank[b] = max(rank[b], rank[a] + 1)
        rows: list[tuple[list[_Box], list[_Box]]] = [([], []) for _ in range(max(rank) + 1)]  # ops, leaves
        for i, node in enumerate(self.nodes):
            if node.leaf is not None:  # one row above the first op that uses it
                rank[i] = min(rank[b] for a, b in self.edges if a == i) - 1
            rows[rank[i]][node.leaf is not None].append(boxes[i])
        # Ops are centred at 0. Leaves begin to the right of them, in columns that are as wide as their widest leaf.
        half = [sum(box.width + _GAP for box in ops) / 2 for ops, _ in rows]
        edge = max((h for h, (_, leaves) in zip(half, rows, strict=True) if leaves), default=0.0)
        columns = [max(box.width for box in column if box) for column in zip_longest(*(leaves for _, leaves in rows))]
        top = 10.0
        for h, (ops, leaves) in zip(half, rows, strict=True):
            tallest = max(box.height for box in ops + leaves)
            _place(ops, [box.width for box in ops], -h, top + tallest / 2)
            _place(leaves, columns, edge, top + tallest / 2)
            top += tallest + 26
        shift = 10 - min(box.x - box.width / 2 for box in boxes)
        for box in boxes:
            box.x += shift
        return boxes

    def svg(self) -> str:
        """The graph as a picture: each op in a row below its parents, leaves to the right of the ops."""
        boxes = self._layout()
        right = max(box.x + box.width / 2 for box in boxes) + 10
        bottom = max(box.y + box.height / 2 for box in boxes) + 26
        parts = [_HEAD.format(right=right, bottom=bottom)]
        for first, last in self.edges:
            a, b = boxes[first], boxes[last]
            start, end = a.y + a.height / 2, b.y - b.height / 2
            middle, to = (start + end) / 2, b.x + np.clip((a.x - b.x) / 4, -0.42 * b.width, 0.42 * b.width)
            path = f"M{a.x:.1f} {start:.1f}C{a.x:.1f} {middle:.1f} {to:.1f} {middle:.1f} {to:.1f} {end:.1f}"
            parts.append(f'<path d="{path}" fill="none" stroke="#555" marker-end="url(#end)"/>')
        for node, box in zip(self.nodes, boxes, strict=True):
            fill, above = _COLOURS[node.kind], box.y - box.height / 2
            radius = box.height / 2 if node.leaf is not None else 3
            parts.append(
                f'<rect x="{box.x - box.width / 2:.1f}" y="{above:.1f}" width="{box.width:.1f}" '
                f'height="{box.height:.1f}" rx="{radius:.1f}" fill="{fill}" stroke="#555"/>'
            )
            for k, line in enumerate(box.lines):
                place = f'x="{box.x:.1f}" y="{above + 15 + 13 * k:.1f}" text-anchor="middle"'
                weight = "" if k else ' font-weight="bold"'
                parts.append(f"<text {place}{weight}>{html.escape(line)}</text>")
        return Text("\n".join([*parts, "</svg>", ""]))

    _repr_svg_ = svg

    def __repr__(self) -> str:
        return f"GraphView({len(self.nodes)} nodes; save('graph.svg') writes a picture)"

    @checked
    def save(self, path: File) -> None:
        """Write the graph to a file whose name ends in ``.svg``.

        Raises:
            ArgumentError: the name has another ending.
            DataError: the file cannot be written, or is not a regular file. An existing file is left unchanged.
        """
        if os.path.splitext(path)[1] != ".svg":
            raise ArgumentError(f"path must end in .svg, got {path}")
        files.write(path, self.svg().encode())


@checked
def graph(tensor: Tensor, model: Model | None = None) -> GraphView:
    """The recorded graph that a tensor was computed from, as a drawing.

    Args:
        tensor: the result of a computation outside of ``no_grad``.
        model: a module; its parameters are labelled with their names.

    Returns:
        An object that a notebook displays; ``.save("graph.svg")`` writes a file. After a backward pass each node also
        shows the norm of its gradient. Inputs that do not require a gradient are not recorded, and so not drawn.

    Raises:
        GradientError: nothing was recorded, or a backward pass has freed the graph.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> model = nn.Linear(2, 1, generator=0)
    >>> loss = model(tl.ones(1, 2)).tanh().sum()
    >>> view = tl.visualize.graph(loss, model)
    >>> [node.title for node in view.nodes]
    ['weight', 'bias', 'linear', 'tanh', 'sum']
    >>> loss.backward()
    >>> view.nodes[-1].lines()
    ['sum', 'scalar float32', '|gradient| 1']
    """
    instance("tensor", tensor, Tensor)
    return GraphView(tensor, model)
