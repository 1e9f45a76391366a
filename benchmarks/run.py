"""How fast, against whom: every row of the table in one interleaved run.

    python benchmarks/run.py [--one-thread] [--quick] [--peers torch torch.compile ...] [--json FILE] [--plot FILE]
    python benchmarks/run.py --write    measures all cores and one thread, and writes the tables of the READMEs

Ours takes part twice: eager, and with each step compiled by ``tl.compile``. Each contender is a process of its own.
Round by round they take turns, and those that wait are stopped (SIGSTOP), since the thread pools of some spin while
they wait and would take a core from the one that is measured. A ratio is our time over theirs in the same round; quoted
are the median of the rounds and, in brackets, the lower and upper quartile. A "!" marks a ratio above its goal.
Starting weights and data are equal, and so must be the losses.

Figures of all cores are wall time, and mean something only on a quiet machine: where other processes take more than
0.15 of a core, a row says "busy" instead. ``--one-thread`` gives each contender one thread and measures CPU time, which
a busy machine too repeats within a few per cent.
"""

from __future__ import annotations

import argparse
import json
import math
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
import pages
from pages import COMPILED, OURS
from rows import MEANS, QUICK, ROWS, Row

PEERS = ["torch", "torch.compile", "jax", "tinygrad", "dezero", "autograd", "mygrad"]
HERE = Path(__file__).resolve().parent


BUSY = 0.15  # cores: how much other processes may take
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")} | {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
}


class Contender:
    """A process that measures one library, stopped while others are measured."""

    def __init__(self, name: str, one_thread: bool = False) -> None:
        self.name = name
        self.clock = "process_time" if one_thread else "perf_counter"
        self.process = subprocess.Popen(
            [sys.executable, HERE / "contenders.py", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(ONE_THREAD if one_thread else {})},
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
        self.process.stdin.write(json.dumps({**job, "clock": self.clock}) + "\n")
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
    taking_part = [c for c in contenders if row.everybody or c.name in (OURS, COMPILED, "torch")]
    times: dict[str, list[float]] = {c.name: [] for c in taking_part}
    values: dict[str, list[float]] = {}
    others: list[float] = []
    errors: dict[str, str] = {}
    first: dict[str, list[float]] = {}
    one_thread = taking_part[0].clock == "process_time"
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
            first.setdefault(contender.name, answer.get("first", []))
            times[contender.name].append(answer["seconds"])
            others.append(answer["others"])
    result: dict[str, Any] = {
        "title": row.title,
        "goals": (row.goals[0], row.goals[1 if one_thread else 2]),
        **row.job,
        "seconds": {},
        "ratios": {OURS: {}, COMPILED: {}},  # our times over those of the others
        "first": first,
        "errors": errors,
        "others": statistics.median(others) if others else 0.0,
        "busy": not one_thread and bool(others) and statistics.median(others) > BUSY,
    }
    for name, found in times.items():
        if found and name not in errors and not np.allclose(values[OURS], values[name], rtol=2e-3, atol=1e-6):
            errors[name] = f"computes other losses: {values[name]}, ours are {values[OURS]}"
        if not found or name in errors:
            continue
        result["seconds"][name] = statistics.median(found)
        for ours, ratios in result["ratios"].items():
            if name not in (ours, COMPILED) and len(times.get(ours, ())) == len(found):
                ratios[name] = quartiles([a / b for a, b in zip(times[ours], found, strict=True)])
    return result


def line(result: dict[str, Any]) -> str:
    if result["busy"]:
        return f"{result['title']:<46}  busy: other processes take {result['others']:.2f} of a core"
    cells = [f"{result['title']:<46}"]
    for (ours, ratios), goal in zip(result["ratios"].items(), result["goals"], strict=True):
        found = result["seconds"].get(ours)
        cells.append(f"{1e6 * found / pages.units(result):>9.1f} us" if found else "      failed")
        low, middle, high = ratios.get("torch", (math.nan,) * 3)
        mark = "!" if middle > goal else " "
        aim = f"{goal:.2f}" if math.isfinite(goal) else "  - "
        cells.append(f"{middle:.2f} [{low:.2f} {high:.2f}] {aim}{mark}" if "torch" in ratios else 24 * " ")
    if OURS in result["ratios"][COMPILED]:
        cells.append(f"{result['ratios'][COMPILED][OURS][1]:.2f}")
    for name, (_, middle, _) in result["ratios"][OURS].items():
        if name != "torch":
            compiled = result["ratios"][COMPILED].get(name, (0, math.nan, 0))[1]
            cells.append(f"{name} {middle:.2f} {compiled:.2f}")
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
    contenders = [Contender(name) for name in (OURS, COMPILED, "torch")]
    spent = {c.name: 0.0 for c in contenders}
    reached: dict[str, Any] = {}
    ratios: dict[str, list[float]] = {OURS: [], COMPILED: []}
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
        for name, some in ratios.items():
            some.append(seconds[name] / seconds["torch"])
        print(f"  epoch {epoch}: " + ",  ".join(cells), flush=True)
    for contender in contenders:
        contender.close()
    for name, found in reached.items():
        print(f"{name} reaches {goal:.1%} in epoch {found['epoch']}, after {found['seconds']:.1f} s of training")
    for name, some in ratios.items():
        low, middle, high = quartiles(some)
        print(f"an epoch of {name} over one of torch: {middle:.2f} [{low:.2f} {high:.2f}]")
    return {"reached": reached, "epoch_ratios": {name: quartiles(some) for name, some in ratios.items()}}


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


def gemm_peak(one_thread: bool) -> float:
    """The speed of a 512×512 float32 product with BLAS's default threads, or of one core, FLOP/s."""
    import time

    now = time.process_time if one_thread else time.perf_counter
    a = np.ones((512, 512), np.float32)
    times = []
    for _ in range(50):
        start = now()
        a @ a
        times.append(now() - start)
    return 2 * 512**3 / statistics.median(times)


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
        pages.draw_growth(results, plot)
    return results


def conclude(summary: dict[str, Any]) -> None:
    """The results over all rows: means, the worst case of compiling, and the time until it pays."""
    rows, kinds = summary["rows"], (OURS, COMPILED)
    summary["means"] = {name: pages.mean(rows, name) for name in kinds}
    goals = dict(zip(kinds, (MEANS[0], MEANS[1 if summary["one_thread"] else 2]), strict=True))
    for name, found in summary["means"].items():
        if found:
            print(f"geometric mean over the batch sizes, ReLU/max, {name}: {found:.2f} (goal {goals[name]})")
    slower = [(r["ratios"][COMPILED][OURS][1], r["title"]) for r in rows if OURS in r["ratios"][COMPILED]]
    if slower:
        summary["slowest"] = max(slower)
        print("compiled over eager, the largest ratio: {:.2f}, {} (goal 1)".format(*max(slower)))
    for row in rows:
        if row["kind"] == "train" and row["size"] in (8, 64) and row["model"] == "lenet":
            cells = [f"{name} {' '.join(f'{1e3 * t:.3g}' for t in times)}" for name, times in row["first"].items()]
            print(f"the first three steps, batch {row['size']}, ms: {';  '.join(cells)}")


def write_pages() -> None:
    """Measure all cores, then one thread, each in a run of its own; write the READMEs."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("all.json", "one.json")]
        for path, options in zip(paths, ([], ["--one-thread", "--peers", "torch"]), strict=True):
            subprocess.run([sys.executable, __file__, *options, "--json", path], check=True)
        pages.rewrite(*(json.loads(path.read_text()) for path in paths))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peers", nargs="*", default=PEERS, help="whom to compare with")
    parser.add_argument("--one-thread", action="store_true", help="one thread each, and CPU time")
    parser.add_argument("--quick", action="store_true", help="fewer rows and rounds")
    parser.add_argument("--rounds", type=int, help="rounds for each row")
    parser.add_argument("--only", default="", help="rows whose title has this in it")
    parser.add_argument("--write", action="store_true", help="measure twice, and write the READMEs' tables and picture")
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
            pages.write(args.json, json.dumps(found, indent=1).encode())
        return
    if args.write:
        write_pages()
        return
    rounds = args.rounds or (5 if args.quick else 7)
    contenders = [Contender(name, args.one_thread) for name in (OURS, COMPILED, *args.peers)]
    for contender in contenders:
        if contender.absent:
            print(f"{contender.name} is absent: {contender.absent}")
    present = [c for c in contenders if not c.absent]
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, NumPy {np.__version__}"
    )
    print(f"{date.today()}; {machine}; " + ", ".join(f"{c.name} {c.version}" for c in present))
    what = "CPU time on one thread" if args.one_thread else "time"
    print(f"our {what}, eager and compiled; over eager PyTorch's: median [quartiles] of {rounds} rounds, and the goal;")
    print("then compiled over eager, and both over the others")
    print(f"{'':<46}  {'eager':>12}  {'over torch':<24}  {COMPILED:>12}  {'over torch':<24}  over eager\n", flush=True)
    results = []
    try:
        for row in QUICK if args.quick else ROWS:
            if args.only in row.title:
                results.append(run_row(row, present, rounds, 0.15 if args.quick else 0.2))
                print(line(results[-1]), flush=True)
    finally:
        for contender in contenders:
            contender.close()
    summary: dict[str, Any] = {
        "date": str(date.today()),
        "machine": machine,
        "versions": {c.name: c.version for c in present},
        "one_thread": args.one_thread,
        "rounds": rounds,
        "rows": results,
    }
    print()
    conclude(summary)
    if not args.only:
        summary["import"] = import_ratio(rounds)
        low, middle, high = summary["import"]
        print(f"import {OURS} over import numpy: {middle:.2f} [{low:.2f} {high:.2f}] (goal 1.2)")
        for name in [c.name for c in present if c.name in (OURS, COMPILED, "torch")]:
            fresh = Contender(name, args.one_thread)
            found = fresh.ask(
                {"kind": "train", "model": "lenet", "size": 256, "memory_steps": 50 if args.quick else 250}
            )
            fresh.close()
            summary.setdefault("memory", {})[name] = found
            print(
                f"peak resident memory, LeNet-5 at batch 256, {name}: {found['late']:.0f} MB "
                f"(after 50 steps {found['early']:.0f} MB{'; goal 90' if name == COMPILED else ''})"
            )
        pair = [Contender(c.name) for c in present if c.name in (OURS, COMPILED, "torch") and not args.one_thread]
        summary["busy"] = busy(pair)
        for contender in pair:
            contender.close()
            slower = summary["busy"][contender.name]
            print(f"one core busy elsewhere, LeNet-5 at batch 64, {contender.name}: {slower:.1f} times as long")
        summary["peak"] = peak = gemm_peak(args.one_thread)
        for result in results:
            if result["kind"] == "train" and result["model"] == "lenet" and result["size"] in (64, 256):
                shares = (f"{pages.share(result, name, peak):.0%}" for name in (OURS, COMPILED))
                print(
                    f"share of the float32 matmul peak ({peak / 1e9:.0f} GFLOP/s), batch {result['size']}, "
                    f"eager and compiled: {', '.join(shares)}"
                )
    if args.growth:
        summary["growth"] = growth(3, args.growth)
    if args.json:
        pages.write(args.json, f"{json.dumps(summary, indent=1)}\n".encode())
    if args.plot:
        pages.draw([summary], args.plot)


if __name__ == "__main__":
    main()
