"""Fuzzing: files that are not what they claim to be, for all that reads files.

    python tests/tools/fuzz.py FORMAT [--runs N] [--seed S] [--engine mutate|atheris] [--only I] [--keep FOLDER]

FORMAT is ``idx``, ``npz``, ``safetensors``, ``checkpoint``, ``onnx`` or ``all``. Each input is read once. Right is data
that an independent reader reads as well, or an error of the package that names the file; a fault is everything else:
another exception, a message (of its causes and notes too) that is long or holds control characters, other data, more
than two seconds of work, more memory than the file accounts for, anything executed, another file opened. Prints what
came out, the slowest and the most memory; a fault's input is kept, and the exit code is 1.

``mutate`` makes files with wrong fields behind right checksums (``fuzz_files.py``), and damages bytes: input I of seed
S is always the same, and ``--only I`` runs it alone. ``atheris``, to be installed, is led by the readers' coverage.
"""

import argparse
import collections
import contextlib
import hashlib
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import tracemalloc
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "tools")]

SECONDS = 2.0
SECRET = b"what stands outside of the folder"
ROOM = 256 << 20  # address space beyond what the process has before the first input: a larger claim would not fit


def room(content):
    """Bytes of memory that reading an input may take: what its bytes can unpack to, twice, and a little."""
    return (4 << 20) + 2100 * len(content)


class Fault(BaseException):
    """What must not happen. Not an Exception, so that nothing takes it for damage of the file."""


class Watch:
    """Says what a reader does outside of its file. Hooks stay for ever, so there is one for the process."""

    OTHER = ("os.", "shutil.", "socket.", "subprocess.", "pickle.", "ctypes.", "marshal.", "tempfile.", "urllib.")
    HARMLESS = ("os.listdir", "os.scandir", "marshal.loads", "marshal.load")  # what an import does
    LIBRARIES = tuple({sys.prefix, sys.base_prefix, os.path.realpath(sys.prefix), str(ROOT), "<frozen"})

    def __init__(self):
        self.path, self.seen = None, []
        sys.addaudithook(self.hear)

    def hear(self, event, args):
        if self.path is None:
            return
        if event == "open":
            path, mode, flags = args
            # "<string>" is where Python's tokenizer looks for the line of an error, in a header of NumPy's.
            own = path in (self.path, "<string>") or isinstance(path, int)
            library = isinstance(path, str) and path.startswith(self.LIBRARIES) and path.endswith((".py", ".pyc"))
            writes = (mode or "r")[0] != "r" or (flags or 0) & (os.O_WRONLY | os.O_RDWR)
            if not (own or library) or writes:
                self.seen.append(f"open{(path, mode)}")
        elif event == "exec":
            if not getattr(args[0], "co_filename", "").startswith(self.LIBRARIES):
                self.seen.append(f"exec of {args[0]}")
        elif event.startswith(self.OTHER) and event not in self.HARMLESS:
            self.seen.append(f"{event}{args[:2]}")


def address_space(extra):
    """Limit the memory of the process to what it has, and so much."""
    if sys.platform.startswith("linux"):
        import resource

        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + extra, resource.RLIM_INFINITY))


def peak():
    """The most memory that the process had, in bytes; where it can be known."""
    if not sys.platform.startswith("linux"):
        return 0
    # Not getrusage, which begins with what the parent had.
    return int(re.search(rb"VmHWM:\s*(\d+)", Path("/proc/self/status").read_bytes())[1]) * 1024


class Runner:
    """Reads inputs of one format, and keeps the count."""

    def __init__(self, target, folder, alarm=True):
        self.target, self.alarm = target, alarm and hasattr(signal, "setitimer")
        self.folder = Path(folder, "in")
        self.folder.mkdir()
        Path(folder, "secret").write_bytes(SECRET)
        self.path = str(self.folder / f"case{target.ending}")
        self.watch = Watch()
        self.outcomes, self.runs = collections.Counter(), 0
        self.slowest = self.most = self.largest = 0
        if self.alarm:
            signal.signal(signal.SIGALRM, self._late)

    @staticmethod
    def _late(*_):
        raise Fault(f"took more than {SECONDS} seconds")

    def __call__(self, content):
        """Read one input; raises Fault."""
        with open(self.path, "wb") as file:
            file.write(content)
        self.runs += 1
        traced, before = self.runs % 16 == 1, peak()
        if traced:
            tracemalloc.start()
        if self.alarm:
            signal.setitimer(signal.ITIMER_REAL, 10 * SECONDS)  # whatever it waits for
        start, self.watch.path = time.process_time(), self.path
        try:
            found, outcome = self.target.read(self.path), "data"
        except self.target.refusals as error:
            found, outcome = error, type(error).__name__
        except Exception as error:
            raise Fault(f"{type(error).__name__}: {error}") from error
        finally:
            took, self.watch.path = time.process_time() - start, None
            if self.alarm:
                signal.setitimer(signal.ITIMER_REAL, 0)
            used = max(tracemalloc.get_traced_memory()[1] if traced else 0, peak() - before)
            tracemalloc.stop()
        self.slowest, self.most = max(self.slowest, took), max(self.most, used)
        self.largest = max(self.largest, len(content))
        if took > SECONDS:
            self._late()
        if used > room(content):
            raise Fault(f"took {used} bytes of memory for a file of {len(content)}")
        if self.watch.seen:
            raise Fault(f"reached beyond its file: {', '.join(self.watch.seen[:3])}")
        if os.listdir(self.folder) != [os.path.basename(self.path)]:
            raise Fault(f"left files: {os.listdir(self.folder)}")
        if outcome == "data":
            self._compare(found, content)
        else:
            self._explained(found)
        self.outcomes[outcome] += 1

    def _explained(self, error):
        from hostile_text import check_message

        text, cause = str(error), error
        try:
            check_message(error)
        except AssertionError as why:
            raise Fault(f"a message that shows what it must not: {why}") from error
        while cause is not None:
            if isinstance(cause, MemoryError) and "nested" not in text and "Parser" not in str(cause):
                raise Fault("wanted more memory than there is") from error
            cause = cause.__cause__ or cause.__context__
        if self.path not in text or len(text) < len(self.path) + 15:
            raise Fault(f"an error that does not say what is wrong with which file: {text!r}")

    def _compare(self, found, content):
        from fuzz_files import same

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = self.target.oracle(self.path)
        except Exception as error:
            raise Fault(f"data, where another reader says {type(error).__name__}: {error}") from error
        if not same(expected, found):
            raise Fault(f"data {str(found)[:200]}, expected {str(expected)[:200]}")
        if SECRET[:16] in b"".join(self.target.bytes_of(found)):
            raise Fault("data from a file outside of the folder")

    def report(self, engine, seconds):
        outcomes = ", ".join(f"{name} {n:,}" for name, n in self.outcomes.most_common())
        print(
            f"{self.target.name}, {engine}: {self.runs:,} inputs of up to {self.largest:,} bytes in {seconds:.0f} s: "
            f"{outcomes}; slowest {self.slowest * 1000:.0f} ms, most memory {self.most / 1e6:.1f} MB",
            flush=True,
        )


def case(target, seed, i):
    """Input ``i`` of a seed."""
    rng = random.Random((seed << 40) + i)
    content = target.make(rng)
    return damage(rng, content) if rng.random() < 0.4 else content


NUMBERS = [0, 1, 2, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62]
NUMBERS += [2**63 - 1, 2**63, 2**64 - 1]


def damage(rng, content):
    """Some bytes changed, removed, doubled, or replaced by a number that programs stumble over."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 6])):
        at = rng.randrange(len(content) + 1)
        span = min(rng.choice([1, 2, 4, 8, 30, 500]), len(content) - at)
        kind = rng.randrange(7)
        if kind == 0 and at < len(content):
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del content[at:]
        elif kind == 2:
            del content[at : at + span]
        elif kind == 3:
            content[at:at] = content[at : at + span] * rng.choice([1, 1, 2, 50])
        elif kind == 4:
            width = rng.choice([1, 2, 4, 8])
            number = (rng.choice(NUMBERS) % (1 << 8 * width)).to_bytes(width, rng.choice(["big", "little"]))
            content[at : at + width] = number
        elif kind == 5:
            content[at : at + span] = rng.randbytes(span)
        else:
            content += rng.randbytes(rng.choice([1, 4, 22, 300]))
    return bytes(content[:20_000])


class Led(random.Random):
    """Random numbers that are bytes of an input: so a fuzzer that changes a byte changes a choice of the maker."""

    def __init__(self, data):
        super().__init__(0)
        self.data, self.at = data, 0

    def getrandbits(self, k):
        size = (k + 7) // 8
        taken, self.at = self.data[self.at : self.at + size], self.at + size
        if len(taken) < size:  # zeros for ever would be drawn for ever where two have to differ
            return super().getrandbits(k)
        return int.from_bytes(taken, "big") >> (8 * size - k)

    def random(self):
        return self.getrandbits(16) / 2**16


def fault(runner, content, why, where, keep):
    folder = Path(keep)
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{runner.target.name}-{hashlib.sha256(content).hexdigest()[:12]}{runner.target.ending}"
    kept.write_bytes(content)
    print(f"FAULT {runner.target.name}, {where}: {why}\n  kept as {kept}", flush=True)
    runner.outcomes["FAULT"] += 1


def mutate(target, args, folder):
    """Inputs that are made; returns the number of faults."""
    runner, start = Runner(target, folder), time.perf_counter()
    warm_up(runner)
    chosen = range(args.runs) if args.only is None else [args.only]
    for i in chosen:
        content = case(target, args.seed, i)
        try:
            runner(content)
        except Fault as why:
            fault(runner, content, why, f"seed {args.seed}, input {i}", args.keep)
            runner.watch.seen.clear()
            if runner.outcomes["FAULT"] >= 20:
                break
    runner.report(f"mutate, seed {args.seed}", time.perf_counter() - start)
    return runner.outcomes["FAULT"]


def warm_up(runner):
    """Files that are right must be read; and all is imported then."""
    for content in runner.target.seeds:
        with contextlib.suppress(*runner.target.refusals):  # an import may be heard
            Path(runner.path).write_bytes(content)
            runner.target.read(runner.path)
    for _ in range(2):
        for content in runner.target.seeds:
            runner(content)
    if runner.outcomes["data"] != runner.runs:
        raise SystemExit(f"files that are right are refused: {runner.outcomes}")
    runner.outcomes.clear()
    runner.runs = runner.slowest = runner.most = runner.largest = 0
    address_space(ROOM)


def guided(target, args, folder):
    """Inputs led by coverage; does not return."""
    import atheris

    runner = Runner(target, folder, alarm=False)
    warm_up(runner)
    corpus, start = Path(folder, "corpus"), time.perf_counter()
    corpus.mkdir()
    rng, ways = random.Random(args.seed), [lambda data: data, target.wrap, lambda data: target.make(Led(data))]
    seeds = [b"\0" + content for content in target.seeds] + [b"\1" + inner for inner in target.inner]
    for i, seed in enumerate([*seeds, *(b"\2" + rng.randbytes(n) for n in (30, 100, 300))]):
        (corpus / str(i)).write_bytes(seed)

    def one(data):
        content = ways[data[0] % 3](data[1:]) if data else b""
        try:
            runner(content)
        except Fault as why:
            fault(runner, content, why, "atheris", args.keep)
            runner.watch.seen.clear()
        if runner.runs >= args.runs or runner.outcomes["FAULT"] >= 20:
            runner.report(f"atheris, seed {args.seed}", time.perf_counter() - start)
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(bool(runner.outcomes["FAULT"]))

    options = [
        f"-seed={args.seed + 1}",
        "-max_len=4096",
        "-len_control=20",
        "-timeout=60",
        "-rss_limit_mb=0",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


FORMATS = ["idx", "npz", "safetensors", "checkpoint", "onnx"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("format", choices=[*FORMATS, "all"])
    parser.add_argument("--runs", type=int, default=100_000, help="how many inputs of each format (100,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=["mutate", "atheris"], default="mutate")
    parser.add_argument("--only", type=int, help="the number of one input")
    parser.add_argument("--keep", default="fuzz-faults", help="folder for inputs with a fault (fuzz-faults)")
    args = parser.parse_args()
    if args.engine == "atheris":
        import atheris

        if args.format == "all":
            parser.error("atheris takes one format")
        for name in [n for n in sys.modules if n.partition(".")[0] in ("zipfile", "json", "gzip")]:
            del sys.modules[name]
        with atheris.instrument_imports(include=["tinygrad_lenet", "zipfile", "json", "gzip", "onnx"]):
            import fuzz_files

            if args.format == "onnx":
                import tinygrad_lenet.onnx.model  # noqa: F401  # imported when it is wanted, and then too late
    else:
        import fuzz_files
    warnings.simplefilter("ignore")
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    faults = 0
    for name in FORMATS if args.format == "all" else [args.format]:
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            engine = guided if args.engine == "atheris" else mutate
            faults += engine(fuzz_files.TARGETS[name](), args, os.path.realpath(folder))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
