"""A picture of the recorded graph as DOT, Mermaid or SVG, in plain Python."""

from __future__ import annotations

import html
import os
from collections.abc import Callable
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

# For each kind of node: fill colour, shape in DOT, brackets in Mermaid.
_LOOKS = {
    "op": ("#dbe9f6", "box", ("[", "]")),
    "parameter": ("#fde9c9", "ellipse", ("([", "])")),
    "input": ("#e2f0d9", "ellipse", ("([", "])")),
    "output": ("#f8d7da", "box", ("[[", "]]")),
}
_GAP = 12  # between boxes of a row


def _norm(values: Any) -> float:
    return float(np.sqrt(np.sum(np.square(values, dtype=np.float64))))


class GraphView:
    """A drawing of the graph that a tensor was computed from, for a notebook or :meth:`save`.

    Every backward pass through the graph updates the gradient norms, also after this object was made.
    """

    def __init__(self, output: Tensor, model: Module | None) -> None:
        if output._node is None:
            raise GradientError(
                "this tensor was computed from nothing that requires a gradient, so no graph was "
                "recorded; make an input with requires_grad=True, or draw a model's output outside of no_grad()"
            )
        names = {id(p): name for name, p in (model.named_parameters() if model else ())}
        numbers: dict[Vertex, int] = {}
        self.nodes: list[dict[str, Any]] = []
        self.edges: list[tuple[int, int]] = []
        for node in reversed(ancestors([output._node])):
            if node.saved is None:
                raise GradientError(
                    "a backward pass has freed this graph; draw it before backward(), or pass retain_graph=True to that"
                )
            for leaf in node.parents:
                if leaf not in numbers:  # a leaf indeed: parents that are nodes come first
                    name = names.get(id(leaf))
                    numbers[leaf] = self._add(leaf, "parameter" if name else "input", name or "input")
            kind = "output" if node is output._node else "op"
            numbers[node] = self._add(node, kind, node.plan.op.name.lstrip("_"))
            self.edges += [(numbers[parent], numbers[node]) for parent in node.parents]

    def _add(self, vertex: Vertex, kind: str, title: str) -> int:
        """Add a node to the drawing and return its number."""
        shape, dtype = vertex.shape, str(vertex.dtype)
        entry: dict[str, Any] = {"kind": kind, "title": title, "shape": shape, "dtype": dtype, "norm": None}
        self.nodes.append(entry)
        if isinstance(vertex, Tensor):
            entry["leaf"] = vertex
            return len(self.nodes) - 1

        def note(gradient: Any) -> Any:
            entry["norm"] = _norm(gradient.numpy() if isinstance(gradient, Tensor) else gradient)
            return gradient

        if vertex._hooks is None:
            vertex._hooks = []
        Hook(vertex._hooks, note)
        return len(self.nodes) - 1

    def _lines(self, entry: dict[str, Any]) -> list[str]:
        """The text of a node: its op or name, its shape and dtype, and the norm of its gradient if there is one."""
        leaf = entry.get("leaf")
        norm = entry["norm"] if leaf is None or leaf.grad is None else _norm(leaf.grad.numpy())
        shape = "×".join(map(str, entry["shape"])) or "scalar"
        lines = [entry["title"], f"{shape} {entry['dtype']}"]
        return lines if norm is None else [*lines, f"‖gradient‖ {norm:.3g}"]

    def dot(self) -> str:
        """The graph in the language of Graphviz."""
        lines = ["digraph {", '  rankdir=TB; ranksep=0.25; nodesep=0.2; fontname="Helvetica"']
        lines.append('  node [style=filled, fontname="Helvetica", fontsize=10, height=0.3, margin="0.1,0.04"]')
        for i, entry in enumerate(self.nodes):
            fill, shape, _ = _LOOKS[entry["kind"]]
            text = "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in self._lines(entry))
            lines.append(f'  n{i} [label="{text}", fillcolor="{fill}", shape={shape}]')
        lines += [f"  n{a} -> n{b}" for a, b in self.edges]
        return "\n".join([*lines, "}", ""])

    def mermaid(self) -> str:
        """The graph in the language of Mermaid, which GitHub draws in Markdown files."""
        lines = ["flowchart TB"]
        for i, entry in enumerate(self.nodes):
            first, last = _LOOKS[entry["kind"]][2]
            text = "<br/>".join(html.escape(line) for line in self._lines(entry))
            lines.append(f'  n{i}{first}"{text}"{last}:::{entry["kind"]}')
        lines += [f"  n{a} --> n{b}" for a, b in self.edges]
        lines += [f"  classDef {kind} fill:{fill},stroke:#555,color:#000" for kind, (fill, _, _) in _LOOKS.items()]
        return "\n".join([*lines, ""])

    def _places(self, width: list[float], height: list[float]) -> tuple[list[float], list[float]]:
        """The centres of the boxes: each op in a row below its parents, leaves to the right of them."""
        rank = [0] * len(self.nodes)
        for a, b in self.edges:  # in the order of the ops
            rank[b] = max(rank[b], rank[a] + 1)
        rows: list[tuple[list[int], list[int]]] = [([], []) for _ in range(max(rank) + 1)]  # ops, leaves
        for i, entry in enumerate(self.nodes):
            if "leaf" in entry:  # one row above the first op that uses it
                rank[i] = min(rank[b] for a, b in self.edges if a == i) - 1
            rows[rank[i]]["leaf" in entry].append(i)
        # Ops are centred at 0. Leaves begin to the right of them, in columns that are as wide as their widest leaf.
        half = [sum(width[i] + _GAP for i in ops) / 2 for ops, _ in rows]
        edge = max((h for h, (_, leaves) in zip(half, rows, strict=True) if leaves), default=0.0)
        columns = [max(width[i] for i in column if i is not None) for column in zip_longest(*(row[1] for row in rows))]
        x, y, top = [0.0] * len(rank), [0.0] * len(rank), 10.0
        for h, (ops, leaves) in zip(half, rows, strict=True):
            tallest = max(height[i] for i in ops + leaves)
            for left, boxes in ((-h, [(i, width[i]) for i in ops]), (edge, zip(leaves, columns, strict=False))):
                for i, room in boxes:
                    x[i], y[i] = left + room / 2, top + tallest / 2
                    left += room + _GAP
            top += tallest + 26
        shift = 10 - min(a - w / 2 for a, w in zip(x, width, strict=True))
        return [a + shift for a in x], y

    def svg(self) -> str:
        """The graph as a picture: each op in a row below its parents, leaves to the right."""
        texts = [self._lines(entry) for entry in self.nodes]
        width = [max(len(line) for line in lines) * 6.2 + 16 for lines in texts]
        height = [13.0 * len(lines) + 8 for lines in texts]
        x, y = self._places(width, height)
        right = max(a + w / 2 for a, w in zip(x, width, strict=True)) + 10
        bottom = max(b + h / 2 for b, h in zip(y, height, strict=True)) + 26
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right:.0f} {bottom:.0f}" width="{right:.0f}" '
            f'height="{bottom:.0f}" font-family="Helvetica, Arial, sans-serif" font-size="11">',
            '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0L8 4L0 8z" fill="#555"/></marker></defs>',
            f'<rect width="{right:.0f}" height="{bottom:.0f}" fill="white"/>',
        ]
        for a, b in self.edges:
            start, end = y[a] + height[a] / 2, y[b] - height[b] / 2
            to = x[b] + max(-0.42 * width[b], min(0.42 * width[b], (x[a] - x[b]) / 4))
            middle = (start + end) / 2
            path = f"M{x[a]:.1f} {start:.1f}C{x[a]:.1f} {middle:.1f} {to:.1f} {middle:.1f} {to:.1f} {end:.1f}"
            parts.append(f'<path d="{path}" fill="none" stroke="#555" marker-end="url(#end)"/>')
        for i, lines in enumerate(texts):
            fill, shape, _ = _LOOKS[self.nodes[i]["kind"]]
            radius = height[i] / 2 if shape == "ellipse" else 3
            above = y[i] - height[i] / 2
            parts.append(
                f'<rect x="{x[i] - width[i] / 2:.1f}" y="{above:.1f}" width="{width[i]:.1f}" '
                f'height="{height[i]:.1f}" rx="{radius:.1f}" fill="{fill}" stroke="#555"/>'
            )
            for k, line in enumerate(lines):
                place = f'x="{x[i]:.1f}" y="{above + 15 + 13 * k:.1f}" text-anchor="middle"'
                weight = "" if k else ' font-weight="bold"'
                parts.append(f"<text {place}{weight}>{html.escape(line)}</text>")
        return "\n".join([*parts, "</svg>", ""])

    _repr_svg_ = svg

    def _repr_html_(self) -> str:
        return f"<div>{self.svg()}</div>"

    @checked
    def save(self, path: File) -> None:
        """Write the graph to a file whose name ends in ``.svg``, ``.dot`` or ``.md`` (Mermaid in Markdown).

        Raises:
            ArgumentError: the name has another ending.
            DataError: the file cannot be written, or is not a regular file. An existing file is left unchanged.
        """
        formats: dict[str, Callable[[], str]] = {".svg": self.svg, ".dot": self.dot, ".md": self.mermaid}
        ending = os.path.splitext(path)[1]
        if ending not in formats:
            raise ArgumentError(f"path must end in .svg, .dot or .md, got {path}")
        text = formats[ending]()
        if ending == ".md":
            text = f"```mermaid\n{text}```\n"
        files.write(path, text.encode())


@checked
def graph(tensor: Tensor, model: Module | None = None) -> GraphView:
    """The recorded graph that a tensor was computed from, as a drawing.

    Args:
        tensor: the result of a computation outside of ``no_grad``.
        model: a module; its parameters are labelled with their names.

    Returns:
        An object that a notebook displays. ``.save("graph.svg")`` writes a file; ``".dot"`` and ``".md"`` (Mermaid)
        work as well. After a backward pass each node also shows the norm of its gradient. Inputs that do not require a
        gradient are not recorded, and so not drawn.

    Raises:
        GradientError: nothing was recorded, or a backward pass has freed the graph.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> model = nn.Linear(2, 1, generator=0)
    >>> loss = model(tl.ones(1, 2)).tanh().sum()
    >>> view = tl.visualize.graph(loss, model)
    >>> [node["title"] for node in view.nodes]
    ['weight', 'bias', 'linear', 'tanh', 'sum']
    >>> loss.backward()
    >>> print(view.mermaid().splitlines()[5])
      n4[["sum<br/>scalar float32<br/>‖gradient‖ 1"]]:::output
    """
    instance("tensor", tensor, Tensor)
    if model is not None:
        instance("model", model, Module)
    return GraphView(tensor, model)
