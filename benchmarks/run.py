"""How fast, against whom: every row of the table in one interleaved run.

    python benchmarks/run.py [--quick] [--peers torch torch.compile ...] [--json FILE] [--plot FILE]

Each contender is a process of its own. Round by round they take turns, and those that wait are stopped (SIGSTOP), since
the thread pools of some spin while they wait and would take a core from the one that is measured. A ratio is our time
over theirs in the same round; quoted are the median of the rounds and, in brackets, the lower and upper quartile.
Starting weights and data are equal, and so must be the losses.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

OURS = "tinygrad_lenet"
PEERS = ["torch", "torch.compile", "jax", "tinygrad", "dezero", "autograd", "mygrad"]
HERE = Path(__file__).resolve().parent


class Row:
    """One line of the table: what is measured, and the ratio that we aim at."""

    def __init__(self, title: str, kind: str, model: str, size: int, goal: float, everybody: bool = False) -> None:
        self.title, self.kind, self.model, self.size, self.goal = title, kind, model, size, goal
        self.everybody = everybody  # else against PyTorch only

    @property
    def job(self) -> dict[str, Any]:
        return {"kind": self.kind, "model": self.model, "size": self.size}


TRAIN = (1, 8, 32, 64, 128, 256, 512)
ROWS = [
    *(Row(f"train LeNet-5, ReLU/max, batch {n}", "train", "lenet", n, 1.0, n in (8, 64, 256)) for n in TRAIN),
    *(Row(f"train LeNet-5, tanh/average, batch {n}", "train", "lenet tanh/avg", n, 1.0) for n in TRAIN),
    *(Row(f"inference LeNet-5, batch {n}", "infer", "lenet", n, 1.0) for n in (1, 64, 1024)),
    Row("train VGG-like on 32x32x3, batch 64", "train", "vgg", 64, 1.5),
    Row("train MLP 784-512-512-10, batch 128", "train", "mlp", 128, 1.0),
    Row("record and differentiate an op of 4 elements", "record", "", 64, 1.0),
]
NAMES = {"lenet": "ReLU, max pooling", "lenet tanh/avg": "tanh, average pooling"}
QUICK = [row for row in ROWS if row.size in (8, 64) and row.model != "vgg"]


class Contender:
    """A process that measures one library, stopped while others are measured."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, HERE / "contenders.py", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a group of its own: what it has started is stopped with it
        )
        hello = self._read()
        self.absent: str | None = hello.get("absent")
        self.version: str = hello.get("ready", "")
        self.failed: dict[str, str] = {}
        if self.absent is None:
            self._stop()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"absent": "its process ended", "error": "its process ended"}

    def _stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGSTOP)

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        os.killpg(self.process.pid, signal.SIGCONT)
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer = self._read()
        self._stop()
        return answer

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def quartiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)


def run_row(row: Row, contenders: list[Contender], rounds: int, seconds: float) -> dict[str, Any]:
    """Times and ratios of one row; contenders take turns within each round."""
    taking_part = [c for c in contenders if row.everybody or c.name in (OURS, "torch")]
    times: dict[str, list[float]] = {c.name: [] for c in taking_part}
    values: dict[str, list[float]] = {}
    errors: dict[str, str] = {}
    for number in range(rounds):
        turn = number % len(taking_part)
        for contender in taking_part[turn:] + taking_part[:turn]:
            if contender.name in errors:
                continue
            answer = contender.ask({**row.job, "seconds": seconds})
            if "error" in answer:
                errors[contender.name] = answer["error"]
                continue
            values.setdefault(contender.name, answer.get("values", []))
            times[contender.name].append(answer["seconds"])
    result: dict[str, Any] = {
        "title": row.title,
        "goal": row.goal,
        **row.job,
        "seconds": {},
        "ratios": {},
        "errors": errors,
    }
    for name, found in times.items():
        if not found or name in errors:
            continue
        result["seconds"][name] = statistics.median(found)
        if name != OURS:
            result["ratios"][name] = quartiles([a / b for a, b in zip(times[OURS], found, strict=True)])
            if row.kind == "train" and not np.allclose(values[OURS], values[name], rtol=2e-3):
                errors[name] = f"computes other losses: {values[name]}, ours are {values[OURS]}"
    return result


def line(result: dict[str, Any], units: int) -> str:
    ours = result["seconds"].get(OURS)
    cells = [f"{result['title']:<46}", f"{ours / units * 1e6:>10.1f} us" if ours else "    failed"]
    for name, (low, middle, high) in result["ratios"].items():
        mark = " " if middle <= result["goal"] else "!"
        cells.append(f"{name} {middle:.2f}{mark}[{low:.2f} {high:.2f}]")
    cells += [f"{name}: {error}" for name, error in result["errors"].items()]
    return "  ".join(cells)


def import_ratio(rounds: int) -> tuple[float, float, float]:
    """Time to import the package over time to import NumPy, each in a new interpreter."""
    code = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
    with tempfile.TemporaryDirectory() as compiled:
        # Compiled once, as an installed package is, also where the environment forbids it.
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": compiled}

        def once(name: str) -> float:
            command = [sys.executable, "-c", code.format(name)]
            return float(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)

        once(OURS)
        return quartiles([once(OURS) / once("numpy") for _ in range(2 * rounds + 1)])


def busy(contenders: list[Contender]) -> dict[str, float]:
    """How much slower a training step is while another process holds one of the cores."""
    job = {"kind": "train", "model": "lenet", "size": 64, "seconds": 1.0}
    alone = {c.name: c.ask(job)["seconds"] for c in contenders}
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        return {c.name: c.ask(job)["seconds"] / alone[c.name] for c in contenders}
    finally:
        other.kill()
        other.wait()


def learn(goal: float) -> dict[str, Any]:
    """How long LeNet-5 takes to reach an accuracy on MNIST's test set; epoch by epoch, they take turns."""
    contenders = [Contender(name) for name in (OURS, "torch")]
    spent = {c.name: 0.0 for c in contenders}
    reached: dict[str, Any] = {}
    ratios = []
    print(f"\ntime of training to {goal:.1%} on MNIST, LeNet-5, equal weights, batches of 64 and rates")
    for epoch in range(1, 9):
        if len(reached) == len(contenders):
            break
        seconds, cells = {}, []
        for contender in contenders[:: 1 if epoch % 2 else -1]:
            answer = contender.ask({"kind": "learn", "model": "lenet", "size": 64})
            if "error" in answer:
                sys.exit(f"{contender.name}: {answer['error']}")
            name = contender.name
            seconds[name] = answer["seconds"]
            spent[name] += answer["seconds"]
            cells.append(f"{name} {answer['accuracy']:.2%} after {spent[name]:.1f} s")
            if answer["accuracy"] >= goal and name not in reached:
                reached[name] = {"epoch": epoch, "seconds": spent[name]}
        ratios.append(seconds[OURS] / seconds["torch"])
        print(f"  epoch {epoch}: " + ",  ".join(cells), flush=True)
    for contender in contenders:
        contender.close()
    for name, found in reached.items():
        print(f"{name} reaches {goal:.1%} in epoch {found['epoch']}, after {found['seconds']:.1f} s of training")
    low, middle, high = quartiles(ratios)
    print(f"an epoch of ours over one of torch: {middle:.2f} [{low:.2f} {high:.2f}]")
    return {"reached": reached, "epoch_ratio": [low, middle, high]}


def distort() -> None:
    """How many images of MNIST's size are distorted in a second."""
    import time

    from tinygrad_lenet import data

    affine = data.RandomAffine(degrees=10, translate=0.07, scale=(0.9, 1.1), shear=10)
    transforms: dict[str, Any] = {
        "affine": affine,
        "elastic": data.ElasticDistortion(),
        "affine and elastic": data.Compose([affine, data.ElasticDistortion()]),
    }
    rng = np.random.default_rng(0)
    print("images of 28x28 distorted in a second, in batches of 64 and of 1,024: median of 15")
    for name, transform in transforms.items():
        rates = []
        for size in (64, 1024):
            images, times = rng.random((size, 1, 28, 28), np.float32), []
            for _ in range(15):
                start = time.perf_counter()
                for _ in range(2048 // size):
                    transform(images, rng)
                times.append(time.perf_counter() - start)
            rates.append(2048 / statistics.median(times))
        print(f"  {name:<20} {rates[0]:>10,.0f} {rates[1]:>10,.0f}")


def gemm_peak() -> float:
    """What one core and BLAS's default threads make of a 512×512 float32 product, FLOP/s."""
    import time

    a = np.ones((512, 512), np.float32)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * 512**3 / statistics.median(times)


def write(path: Path, content: Any) -> None:
    """Write a file as the package does: whole or not at all."""
    from tinygrad_lenet import files  # after all that is measured

    files.write(path, content)


def draw(results: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for model, style in (("lenet", "o-"), ("lenet tanh/avg", "s--")):
        rows = [r for r in results if r["kind"] == "train" and r["model"] == model and "torch" in r["ratios"]]
        sizes = [r["size"] for r in rows]
        low, middle, high = (np.array([r["ratios"]["torch"][i] for r in rows]) for i in range(3))
        axes.errorbar(sizes, middle, [middle - low, high - middle], fmt=style, capsize=3, label=NAMES[model])
    axes.axhline(1, color="black", lw=1)
    axes.set(
        xscale="log",
        xlabel="batch size",
        ylabel="our time / PyTorch's",
        title="Training step of LeNet-5, below 1 is faster than PyTorch",
    )
    axes.set_xticks(TRAIN, [str(n) for n in TRAIN])
    axes.set_ylim(bottom=0)
    axes.legend()
    axes.grid(alpha=0.3)
    write(path, lambda file: figure.savefig(file, format=path.suffix[1:] or "png", dpi=120))


def _scaled(batch: int, image: int, channels: int, depth: int) -> dict[str, Any]:
    return {"kind": "train", "model": f"scaled {image} {channels} {depth}", "size": batch}


# What grows: the batch, the side of the images, the channels, the layers, the length of a sequence.
GROWTH: dict[str, list[tuple[int, dict[str, Any]]]] = {
    "batch size": [(n, _scaled(n, 28, 16, 2)) for n in (4, 8, 16, 32, 64, 128, 256)],
    "pixels of an image": [(n * n, _scaled(32, n, 16, 2)) for n in (14, 20, 28, 40, 56, 80)],
    "channels": [(n, _scaled(32, 28, n, 2)) for n in (4, 8, 16, 32, 64)],
    "layers": [(n, _scaled(32, 28, 16, n)) for n in (1, 2, 4, 8, 16)],
    **{
        name: [(n, {"kind": "sequence", "model": model, "size": n}) for n in (125, 250, 500, 1000, 2000)]
        for name, model in (("length, LSTM", "lstm"), ("length, x[:, t]", "slices"))
    },
}


def growth(rounds: int, plot: Path | None) -> dict[str, Any]:
    """How time and memory of a training step grow, and the slopes of both on logarithmic axes."""
    results: dict[str, Any] = {}
    print("\nhow a training step grows: exponents of time and of memory beyond that of the empty process")
    for name, points in GROWTH.items():
        sizes, times, sizes_mb = [], [], []
        for size, job in points:
            ours = Contender(OURS)
            first = ours.ask({**job, "memory_steps": 3})
            times.append(min(ours.ask({**job, "seconds": 0.2})["seconds"] for _ in range(rounds)))
            ours.close()
            sizes.append(size)
            sizes_mb.append(max(first["late"] - first["base"], 0.1))
        # Small sizes cost what a call costs: the exponent is that of the larger half.
        half = len(sizes) // 2
        slopes = [float(np.polyfit(np.log(sizes[half:]), np.log(v[half:]), 1)[0]) for v in (times, sizes_mb)]
        results[name] = {"sizes": sizes, "seconds": times, "megabytes": sizes_mb, "slopes": slopes}
        print(f"  {name:<20} {sizes[0]} to {sizes[-1]}: time {slopes[0]:.2f}, memory {slopes[1]:.2f}", flush=True)
    if plot:
        draw_growth(results, plot)
    return results


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peers", nargs="*", default=PEERS, help="whom to compare with")
    parser.add_argument("--quick", action="store_true", help="fewer rows and rounds")
    parser.add_argument("--rounds", type=int, help="rounds for each row")
    parser.add_argument("--only", default="", help="rows whose title has this in it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="where to draw the ratios")
    parser.add_argument(
        "--growth", type=Path, metavar="FILE", help="where to draw how the cost grows; measured if given"
    )
    parser.add_argument("--learn", type=float, metavar="ACCURACY", help="only: time to this accuracy on MNIST, as 0.99")
    parser.add_argument("--distort", action="store_true", help="only: images distorted in a second")
    args = parser.parse_args()
    if args.distort:
        distort()
        return
    if args.learn:
        found = learn(args.learn)
        if args.json:
            write(args.json, json.dumps(found, indent=1).encode())
        return
    rounds = args.rounds or (5 if args.quick else 9)
    contenders = [Contender(name) for name in (OURS, *args.peers)]
    for contender in contenders:
        if contender.absent:
            print(f"{contender.name} is absent: {contender.absent}")
    present = [c for c in contenders if not c.absent]
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, NumPy {np.__version__}"
    )
    print(f"{date.today()}; {machine}; " + ", ".join(f"{c.name} {c.version}" for c in present))
    print("our time, and its ratio to theirs: median [quartiles] over the rounds; ! is above the goal\n", flush=True)
    results = []
    try:
        for row in QUICK if args.quick else ROWS:
            if args.only in row.title:
                results.append(run_row(row, present, rounds, 0.15 if args.quick else 0.3))
                print(line(results[-1], row.size if row.kind == "record" else 1), flush=True)
    finally:
        for contender in contenders:
            contender.close()
    relu = [
        r["ratios"]["torch"][1]
        for r in results
        if r["model"] == "lenet" and r["kind"] == "train" and "torch" in r["ratios"]
    ]
    summary: dict[str, Any] = {"date": str(date.today()), "machine": machine, "rows": results}
    if relu:
        summary["geometric_mean"] = statistics.geometric_mean(relu)
        print(f"\ngeometric mean over the batch sizes, ReLU/max: {summary['geometric_mean']:.2f} (goal 0.75)")
    if not args.only:
        summary["import"] = import_ratio(rounds)
        low, middle, high = summary["import"]
        print(f"import {OURS} over import numpy: {middle:.2f} [{low:.2f} {high:.2f}] (goal 1.15)")
        for name in [c.name for c in present if c.name in (OURS, "torch")]:
            fresh = Contender(name)
            found = fresh.ask(
                {"kind": "train", "model": "lenet", "size": 256, "memory_steps": 50 if args.quick else 500}
            )
            fresh.close()
            summary.setdefault("memory", {})[name] = found
            print(
                f"peak resident memory, LeNet-5 at batch 256, {name}: {found['late']:.0f} MB "
                f"(after 50 steps {found['early']:.0f} MB)"
            )
        pair = [Contender(c.name) for c in present if c.name in (OURS, "torch")]
        summary["busy"] = busy(pair)
        for contender in pair:
            contender.close()
            slower = summary["busy"][contender.name]
            print(f"one core busy elsewhere, LeNet-5 at batch 64, {contender.name}: {slower:.1f} times as long")
        peak = gemm_peak()
        for result in results:
            if result["kind"] == "train" and result["model"] == "lenet" and result["size"] in (64, 256):
                share = 1.9e6 * result["size"] / result["seconds"][OURS] / peak
                print(
                    f"share of the float32 matmul peak ({peak / 1e9:.0f} GFLOP/s), batch {result['size']}: {share:.0%}"
                )
    if args.growth:
        summary["growth"] = growth(3, args.growth)
    if args.json:
        write(args.json, f"{json.dumps(summary, indent=1)}\n".encode())
    if args.plot:
        draw(results, args.plot)


if __name__ == "__main__":
    main()
