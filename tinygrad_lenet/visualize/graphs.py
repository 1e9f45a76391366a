"""The recorded graph as a picture: DOT, Mermaid, SVG, in plain Python.

See :func:`tinygrad_lenet.visualize.graph`.
"""

from __future__ import annotations

import html
import os
from importlib import import_module
from itertools import zip_longest
from typing import Any

import numpy as np

from .. import checks, files
from ..core.graph import Node, ancestors
from ..core.hooks import Hook
from ..core.signature import checked
from ..core.tensor import Tensor
from ..errors import ArgumentError, GradientError
from ..nn import Module

__all__ = ["GraphView", "graph"]

# Of nodes by kind: fill colour, shape in DOT, brackets in Mermaid.
_LOOKS = {
    "op": ("#dbe9f6", "box", ("[", "]")),
    "parameter": ("#fde9c9", "ellipse", ("([", "])")),
    "input": ("#e2f0d9", "ellipse", ("([", "])")),
    "output": ("#f8d7da", "box", ("[[", "]]")),
}


class GraphView:
    """What a tensor was computed from, to look at: in a notebook, or by :meth:`save`.

    Gradient norms are noted whenever a backward pass goes through the graph, also after this object was made.
    """

    def __init__(self, output: Tensor, model: Module | None) -> None:
        if output._node is None:
            raise GradientError(
                "this tensor was computed from nothing that requires a gradient, so no graph was "
                "recorded; make an input with requires_grad=True, or draw a model's output outside of no_grad()"
            )
        names = {id(p): name for name, p in (model.named_parameters() if model else ())}
        order = ancestors([output._node])[::-1]
        numbers: dict[Any, int] = {}
        self.nodes: list[dict[str, Any]] = []
        self.edges: list[tuple[int, int]] = []
        self._hooks: list[Hook] = []

        def add(vertex: Any, kind: str, title: str) -> int:
            if vertex not in numbers:
                numbers[vertex] = len(self.nodes)
                self.nodes.append(
                    {"kind": kind, "title": title, "shape": vertex.shape, "dtype": str(vertex.dtype), "norm": None}
                )
                if isinstance(vertex, Tensor):
                    self.nodes[-1]["leaf"] = vertex
                else:
                    self._watch(vertex, self.nodes[-1])
            return numbers[vertex]

        for node in order:
            if node.saved is None:
                raise GradientError(
                    "a backward pass has freed this graph; draw it before backward(), or pass retain_graph=True to that"
                )
            parents = []
            for parent in node.parents:
                if isinstance(parent, Node):
                    parents.append(numbers[parent])
                else:
                    name = names.get(id(parent))
                    parents.append(add(parent, "parameter" if name else "input", name or "input"))
            number = add(node, "output" if node is output._node else "op", node.plan.op.name.lstrip("_"))
            self.edges += [(parent, number) for parent in parents]

    def _watch(self, node: Node, entry: dict[str, Any]) -> None:
        """Note the norm of the gradient whenever it comes by."""

        def note(gradient: Any) -> Any:
            values = gradient.numpy() if isinstance(gradient, Tensor) else gradient
            entry["norm"] = float(np.sqrt(np.sum(np.square(values, dtype=np.float64))))
            return gradient

        if node._hooks is None:
            node._hooks = []
        self._hooks.append(Hook(node._hooks, note))

    def _lines(self, entry: dict[str, Any]) -> list[str]:
        """What stands in a node: the op or name; shape and dtype; the norm of the gradient."""
        norm = entry["norm"]
        leaf = entry.get("leaf")
        if leaf is not None and leaf.grad is not None:
            norm = float(np.sqrt(np.sum(np.square(leaf.grad.numpy(), dtype=np.float64))))
        shape = "×".join(map(str, entry["shape"])) or "scalar"
        lines = [entry["title"], f"{shape} {entry['dtype']}"]
        return lines if norm is None else [*lines, f"‖gradient‖ {norm:.3g}"]

    def dot(self) -> str:
        """The graph in Graphviz's language."""
        lines = ["digraph {", '  rankdir=TB; ranksep=0.25; nodesep=0.2; fontname="Helvetica"']
        lines.append('  node [style=filled, fontname="Helvetica", fontsize=10, height=0.3, margin="0.1,0.04"]')
        for i, entry in enumerate(self.nodes):
            fill, shape, _ = _LOOKS[entry["kind"]]
            text = "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in self._lines(entry))
            lines.append(f'  n{i} [label="{text}", fillcolor="{fill}", shape={shape}]')
        lines += [f"  n{a} -> n{b}" for a, b in self.edges]
        return "\n".join([*lines, "}", ""])

    def mermaid(self) -> str:
        """The graph in Mermaid's language, which GitHub draws in a Markdown file."""
        lines = ["flowchart TB"]
        for i, entry in enumerate(self.nodes):
            first, last = _LOOKS[entry["kind"]][2]
            text = "<br/>".join(html.escape(line) for line in self._lines(entry))
            lines.append(f'  n{i}{first}"{text}"{last}:::{entry["kind"]}')
        lines += [f"  n{a} --> n{b}" for a, b in self.edges]
        lines += [f"  classDef {kind} fill:{fill},stroke:#555,color:#000" for kind, (fill, _, _) in _LOOKS.items()]
        return "\n".join([*lines, ""])

    def svg(self) -> str:
        """The graph as a picture: laid out by Graphviz if the package and the program are there, else in plain rows."""
        try:
            graphviz = import_module("graphviz")
        except ModuleNotFoundError:
            return self._rows()
        try:
            return str(graphviz.Source(self.dot()).pipe(format="svg", encoding="utf-8"))
        except graphviz.ExecutableNotFound:
            return self._rows()

    def _rows(self) -> str:
        """A picture in rows: each op below all that it is computed from, parameters beside the op before."""
        rank = [0] * len(self.nodes)
        for a, b in self.edges:  # in the order of the ops
            if "leaf" not in self.nodes[a]:
                rank[b] = max(rank[b], rank[a] + 1)
            else:
                rank[b] = max(rank[b], 1)
        for a, _ in self.edges:
            if "leaf" in self.nodes[a]:
                users = [rank[v] for u, v in self.edges if u == a]
                rank[a] = min(users) - 1
        texts = [self._lines(entry) for entry in self.nodes]
        wide = [max(len(line) for line in lines) * 6.2 + 16 for lines in texts]
        tall = [13.0 * len(lines) + 8 for lines in texts]
        rows: list[tuple[list[int], list[int]]] = [([], []) for _ in range(max(rank) + 1)]  # ops, and what they need
        for i, entry in enumerate(self.nodes):
            rows[rank[i]]["leaf" in entry].append(i)
        # Ops stand in the middle, what they need to their right: in columns, of which each is as wide as it must be.
        edge = max((sum(wide[i] + 12 for i in ops) / 2 for ops, leaves in rows if leaves), default=0.0)
        columns = [max(wide[i] for i in column if i is not None) for column in zip_longest(*(row[1] for row in rows))]
        x, y, top = [0.0] * len(rank), [0.0] * len(rank), 10.0
        for ops, leaves in rows:
            height = max(tall[i] for i in ops + leaves)
            left = -sum(wide[i] + 12 for i in ops) / 2
            for i, width in [(i, wide[i]) for i in ops] + list(zip(leaves, columns, strict=False)):
                left = max(left, edge) if "leaf" in self.nodes[i] else left
                x[i], y[i] = left + width / 2, top + height / 2
                left += width + 12
            top += height + 26
        shift = 10 - min(a - w / 2 for a, w in zip(x, wide, strict=True))
        x = [a + shift for a in x]
        width = max(a + w / 2 for a, w in zip(x, wide, strict=True)) + 10
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {top:.0f}" width="{width:.0f}" '
            f'height="{top:.0f}" font-family="Helvetica, Arial, sans-serif" font-size="11">',
            '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0L8 4L0 8z" fill="#555"/></marker></defs>',
            f'<rect width="{width:.0f}" height="{top:.0f}" fill="white"/>',
        ]
        for a, b in self.edges:
            start, end = y[a] + tall[a] / 2, y[b] - tall[b] / 2
            to = x[b] + max(-0.42 * wide[b], min(0.42 * wide[b], (x[a] - x[b]) / 4))
            middle = (start + end) / 2
            path = f"M{x[a]:.1f} {start:.1f}C{x[a]:.1f} {middle:.1f} {to:.1f} {middle:.1f} {to:.1f} {end:.1f}"
            parts.append(f'<path d="{path}" fill="none" stroke="#555" marker-end="url(#end)"/>')
        for i, lines in enumerate(texts):
            fill, shape, _ = _LOOKS[self.nodes[i]["kind"]]
            round_ = tall[i] / 2 if shape == "ellipse" else 3
            parts.append(
                f'<rect x="{x[i] - wide[i] / 2:.1f}" y="{y[i] - tall[i] / 2:.1f}" width="{wide[i]:.1f}" '
                f'height="{tall[i]:.1f}" rx="{round_:.1f}" fill="{fill}" stroke="#555"/>'
            )
            for k, line in enumerate(lines):
                at, weight = y[i] - tall[i] / 2 + 15 + 13 * k, ' font-weight="bold"' if k == 0 else ""
                parts.append(
                    f'<text x="{x[i]:.1f}" y="{at:.1f}" text-anchor="middle"{weight}>{html.escape(line)}</text>'
                )
        return "\n".join([*parts, "</svg>", ""])

    def _repr_svg_(self) -> str:
        return self.svg()

    def _repr_html_(self) -> str:
        return f"<div>{self.svg()}</div>"

    @checked
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph to a file that ends in ``.svg``, ``.dot`` or ``.md`` (Mermaid in Markdown).

        Raises:
            ArgumentError: another ending.
            DataError: the file cannot be written, or is not a regular file; the old one is as it was.
        """
        path = checks.path("path", path)
        ending = os.path.splitext(path)[1]
        if ending not in (".svg", ".dot", ".md"):
            raise ArgumentError(f"path must end in .svg, .dot or .md, got {path}")
        if ending == ".svg":
            text = self.svg()
        else:
            text = self.dot() if ending == ".dot" else f"```mermaid\n{self.mermaid()}```\n"
        files.write(path, text.encode())


@checked
def graph(tensor: Tensor, model: Module | None = None) -> GraphView:
    """The recorded graph that a tensor hangs on, to look at.

    Args:
        tensor: what was computed, outside of ``no_grad``.
        model: whose parameters shall stand there by their names.

    Returns:
        An object that a notebook shows; ``.save("graph.svg")``, ``".dot"`` or ``".md"`` (Mermaid) writes a file. After
        a backward pass each node also shows the norm of its gradient. Inputs that require no gradient are not recorded,
        and so are not there.

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
    checks.instance("tensor", tensor, Tensor)
    if model is not None:
        checks.instance("model", model, Module)
    return GraphView(tensor, model)
