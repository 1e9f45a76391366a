"""Several processes that write one file, read it, and are killed: there is always a whole file."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

import tinygrad_lenet as tl

THOROUGH = settings().max_examples >= 1000
ROOT = Path(__file__).parents[1]

WRITE = """
import os, sys, signal
import numpy as np
import tinygrad_lenet as tl
path, start, count, way = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
if way == "named" and hasattr(os, "O_TMPFILE"):
    del os.O_TMPFILE
save = tl.save if path.endswith("npz") else tl.save_checkpoint
for n in range(start, start + count):
    save(path, {"n": np.array(n), "array": np.full(3000, n)})
    if n == start:
        print("begun", flush=True)
"""


def writing(path, start, count, way="any"):
    command = [sys.executable, "-c", WRITE, str(path), str(start), str(count), way]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check(path):
    """The number of a whole file."""
    found = (tl.load if path.suffix == ".npz" else tl.load_checkpoint)(path)
    assert (found["array"] == found["n"]).all()
    return int(found["n"])


@pytest.mark.parametrize(
    ("name", "way"), [("a.ckpt", "any"), ("a.npz", "any"), ("a.ckpt", "named"), ("link.ckpt", "any")]
)
def test_three_writers_and_a_reader_do_not_disturb_each_other(tmp_path, name, way):
    path, count = tmp_path / name, 2000 if THOROUGH else 100
    if name == "link.ckpt":
        path.symlink_to(tmp_path / "target")
    writers = [writing(path, start, count, way) for start in (0, 10**4, 10**5)]
    assert [writer.stdout.readline() for writer in writers] == ["begun\n"] * 3
    reads = 0
    while any(writer.poll() is None for writer in writers):
        check(path)
        reads += 1
    assert [writer.communicate()[1] for writer in writers] == [""] * 3
    assert [writer.returncode for writer in writers] == [0] * 3
    assert reads > 3
    assert check(path) in {start + count - 1 for start in (0, 10**4, 10**5)}
    assert os.listdir(tmp_path) == [name] or path.is_symlink()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(os.name != "posix", reason="Windows locks open files")
@pytest.mark.parametrize("way", ["any", "named"])
def test_a_writer_that_is_killed_leaves_a_whole_file_and_the_next_one_tidies_up(tmp_path, way):
    path, rng = tmp_path / "a.ckpt", np.random.default_rng(0)
    lasting = writing(path, 0, 10**9, way)  # beside it, others come and are killed
    lasting.stdout.readline()
    for i in range(200 if THOROUGH else 4):
        other = writing(path, 10**6 * (i + 1), 10**5, way)
        assert other.stdout.readline() == "begun\n"
        time.sleep(rng.uniform(0, 0.02))
        other.kill()
        other.communicate()
        check(path)
    assert lasting.poll() is None, lasting.communicate()[1]
    lasting.kill()
    lasting.communicate()
    check(path)
    tl.save_checkpoint(path, {})
    assert os.listdir(tmp_path) == ["a.ckpt"]
