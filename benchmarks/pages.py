"""The figures of run.py as the tables and pictures of the READMEs, which nobody edits by hand."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np

OURS, COMPILED = "tinygrad_lenet", "tl.compile"
HERE = Path(__file__).resolve().parent
COMMAND = "python benchmarks/run.py --write"
NAMES = {"lenet": "ReLU, max pooling", "lenet tanh/avg": "tanh, average pooling"}


def write(path: Path, content: Any) -> None:
    """Write a file as the package does: whole or not at all."""
    from tinygrad_lenet import files  # after all that is measured

    files.write(path, content)


def units(row: dict[str, Any]) -> int:
    """The number of things that a step of this row does one after the other."""
    return int(row["size"]) if row["kind"] == "record" else 1


def share(row: dict[str, Any], name: str, peak: float) -> float:
    """The share of the peak of the matrix product in a training step of LeNet-5."""
    return 1.9e6 * float(row["size"]) / (float(row["seconds"][name]) * peak)


def mean(rows: list[dict[str, Any]], name: str) -> float | None:
    """The geometric mean of the ratios to PyTorch over LeNet-5's batch sizes."""
    found = [r["ratios"][name]["torch"][1] for r in _lenet(rows, "lenet", name)]
    return statistics.geometric_mean(found) if found else None


def _lenet(rows: list[dict[str, Any]], model: str, name: str) -> list[dict[str, Any]]:
    return [
        r
        for r in rows
        if (r["kind"], r["model"], r["busy"]) == ("train", model, False) and "torch" in r["ratios"].get(name, {})
    ]


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-4 else f"{1e6 * seconds:.3g} &micro;s"


def _ratio(row: dict[str, Any], name: str, other: str = "torch", quartiles: bool = False) -> str:
    if row["busy"]:
        return "busy"
    if other not in row["ratios"][name]:
        return ""
    low, middle, high = row["ratios"][name][other]
    return f"{middle:.2f} [{low:.2f} {high:.2f}]" if quartiles else f"{middle:.2f}"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [*(f"| {' | '.join(cells)} |" for cells in lines), ""]


def tables(all_cores: dict[str, Any], one_thread: dict[str, Any]) -> list[str]:
    """The tables of benchmarks/README.md."""
    versions = ", ".join(f"{name} {version}" for name, version in all_cores["versions"].items())
    lines = [f"{all_cores['date']}, {all_cores['machine']}, {versions}.", ""]
    head = ["", "eager", "over PyTorch's", "compiled", "over PyTorch's"]
    head += ["one thread: eager over PyTorch's", "compiled over PyTorch's", "compiled over eager"]
    rows = []
    singles = {row["title"]: row for row in one_thread["rows"]}
    for row in all_cores["rows"]:
        single = singles.get(row["title"])
        cells = [row["title"]]
        for name in (OURS, COMPILED):
            time = row["seconds"].get(name)
            cells.append("" if time is None or row["busy"] else _time(time / units(row)))
            cells.append(_ratio(row, name, quartiles=True))
        if single:
            cells += [_ratio(single, OURS), _ratio(single, COMPILED), _ratio(single, COMPILED, OURS)]
        rows.append(cells + [""] * (len(head) - len(cells)))
    means = [f"{found:.2f}" if found else "" for s in (all_cores, one_thread) for found in s["means"].values()]
    rows.append(["*geometric mean, LeNet-5, ReLU/max*", "", means[0], "", means[1], *means[2:], ""])
    lines += _table(head, rows)

    shown = [row for row in all_cores["rows"] if len(row["ratios"][OURS]) > 1]
    others = [name for name in all_cores["versions"] if name not in (OURS, COMPILED, "torch")]
    if shown and others:
        head = ["our time over theirs, eager and compiled", *(row["title"] for row in shown)]
        pairs = [[f"{_ratio(row, OURS, name)}, {_ratio(row, COMPILED, name)}" for row in shown] for name in others]
        lines += _table(head, [[name, *cells] for name, cells in zip(others, pairs, strict=True)])
    return lines + _facts(all_cores, one_thread)


def _facts(all_cores: dict[str, Any], one_thread: dict[str, Any]) -> list[str]:
    """The figures that are measured once: memory, a busy core, the first steps, the largest ratio."""
    names = (OURS, COMPILED, "torch")
    rows = []
    if "memory" in all_cores:
        peaks = [f"{all_cores['memory'][n]['late']:.0f} MB" if n in all_cores["memory"] else "" for n in names]
        rows.append(["peak resident memory, LeNet-5 at batch 256, 300 steps", *peaks])
    if all_cores.get("busy"):
        slower = [f"{all_cores['busy'][n]:.1f} times as long" if n in all_cores["busy"] else "" for n in names]
        rows.append(["a step at batch 64 while another process holds one of the two cores", *slower])
    for row in all_cores["rows"]:
        if (row["kind"], row["model"], row["size"]) == ("train", "lenet", 64):
            who = [n for n in (*names, "torch.compile", "jax") if n in row["first"]]
            firsts = {n: ", ".join(f"{1e3 * t:.3g}" for t in row["first"][n]) for n in who}
            rows.append(["the first three steps at batch 64, ms", *(firsts.get(n, "") for n in names)])
            rest = "; ".join(f"{n}: {firsts[n]}" for n in who if n not in names)
            rows += [[f"the same of others, ms: {rest}", "", "", ""]] if rest else []
            if "peak" in all_cores and not row["busy"]:
                shares = [f"{share(row, n, all_cores['peak']):.0%}" if n in row["seconds"] else "" for n in names]
                rows.append([f"share of the matmul peak ({all_cores['peak'] / 1e9:.0f} GFLOP/s) at batch 64", *shares])
    if "import" in all_cores:
        low, middle, high = all_cores["import"]
        rows.append(["`import` over `import numpy`", f"{middle:.2f} [{low:.2f} {high:.2f}]", "", ""])
    if "slowest" in one_thread:
        found, title = one_thread["slowest"]
        rows.append([f"compiled over eager, one thread, the largest ratio: {title}", "", f"{found:.2f}", ""])
    return _table(["", "eager", "compiled", "PyTorch"], rows)


def summary(all_cores: dict[str, Any], one_thread: dict[str, Any]) -> list[str]:
    """The sentence of the front page; on one thread if the cores were not free."""
    free = not any(row["busy"] for row in all_cores["rows"])
    chosen, where = (all_cores, "on the same cores") if free else (one_thread, "on one thread, in CPU time")
    rows = {(r["kind"], r["model"], r["size"]): r for r in chosen["rows"]}
    pairs = [[f"{chosen['means'][name] or 0:.2f}" for name in (OURS, COMPILED)]]
    for key in (("train", "lenet", 64), ("infer", "lenet", 64)):
        pairs.append([_ratio(rows[key], name) for name in (OURS, COMPILED)] if key in rows else ["", ""])
    (eager, compiled), train, infer = pairs
    return [
        f"Training LeNet-5 takes {eager} of eager PyTorch's time {where}, {compiled} with `tl.compile` "
        "(geometric means, batches of 1 to 512);",
        f"at batch 64 {' and '.join(train)}, inference {' and '.join(infer)}.",
    ]


def rewrite(all_cores: dict[str, Any], one_thread: dict[str, Any]) -> None:
    """Put the figures into the READMEs, between their marks, and draw the ratios."""
    _put(HERE / "README.md", "figures", ["", *tables(all_cores, one_thread)])
    _put(HERE.parent / "README.md", "speed", summary(all_cores, one_thread))
    draw([found for found in (all_cores, one_thread) if found["means"][OURS]], HERE / "ratios.png")


def _put(path: Path, name: str, lines: list[str]) -> None:
    text = path.read_text()
    start, end = f"<!-- {name}: {COMMAND} -->\n", f"<!-- end of {name} -->"
    head, rest = text.split(start)
    write(path, (head + start + "\n".join(lines) + "\n" + end + rest.split(end)[1]).encode())


def draw(summaries: list[dict[str, Any]], path: Path) -> None:
    """Our time over PyTorch's by batch size; a panel for each summary."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 6 * len(summaries), 4.5), layout="constrained")
    for axes, found in zip(figure.subplots(1, len(summaries), squeeze=False, sharey=True)[0], summaries, strict=True):
        for model, style in (("lenet", "o"), ("lenet tanh/avg", "s")):
            for name, way, color in ((OURS, "eager", "tab:blue"), (COMPILED, "tl.compile", "tab:orange")):
                rows = _lenet(found["rows"], model, name)
                sizes = [r["size"] for r in rows]
                low, middle, high = (np.array([r["ratios"][name]["torch"][i] for r in rows]) for i in range(3))
                label = f"{way}: {NAMES[model]}"
                line = style + ("-" if model == "lenet" else "--")
                axes.errorbar(sizes, middle, [middle - low, high - middle], fmt=line, c=color, capsize=3, label=label)
        axes.axhline(1, color="black", lw=1)
        where = "one thread, CPU time" if found["one_thread"] else "all cores"
        axes.set(xscale="log", xlabel="batch size", ylabel="our time / eager PyTorch's", title=f"LeNet-5, {where}")
        sizes = sorted({r["size"] for r in found["rows"] if r["kind"] == "train" and r["model"] == "lenet"})
        axes.set_xticks(sizes, [str(n) for n in sizes])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    write(path, lambda file: figure.savefig(file, format=path.suffix[1:] or "png", dpi=100))


def draw_growth(results: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(19, 6), layout="constrained")
    grid = figure.subplots(2, len(results))
    for column, (name, found) in enumerate(results.items()):
        for row, (key, label) in enumerate((("seconds", "time of a step (s)"), ("megabytes", "memory (MB)"))):
            axes = grid[row][column]
            axes.loglog(found["sizes"], found[key], "o-")
            axes.set(xlabel=name, ylabel=label if column == 0 else "", title=f"exponent {found['slopes'][row]:.2f}")
            axes.set_xticks(found["sizes"], [str(size) for size in found["sizes"]])
            axes.minorticks_off()
            ticks = [n * 10.0**e for e in range(-4, 4) for n in (1, 2, 5)]
            axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.set_ylim(0.8 * min(found[key]), 1.25 * max(found[key]))
            axes.grid(alpha=0.3)
    figure.suptitle("A training step of 3x3 convolutions, and a pass over a sequence: how time and memory grow")
    write(path, lambda file: figure.savefig(file, format=path.suffix[1:] or "png", dpi=100))
