"""A file is written whole or not at all: after errors, interrupts, full disks and kills, and with several writers."""

import contextlib
import errno
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from file_kinds import WRITERS
from hypothesis import settings

import tinygrad_lenet as tl
from tinygrad_lenet import files
from tinygrad_lenet.errors import DataError

THOROUGH = settings().max_examples >= 1000
ROOT = Path(__file__).parents[1]
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX has such files")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the process as Linux does")


# Errors and interrupts


class Stop(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError("no"), MemoryError(), KeyboardInterrupt(), Stop()])
def test_what_the_content_raises_leaves_the_old_file(tmp_path, error):
    (tmp_path / "a").write_text("old")

    def content(file):
        file.write(b"n" * 10**6)
        raise error

    for name in "ab":
        with pytest.raises(type(error)):
            files.write(tmp_path / name, content)
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # a file that was about to be returned
def test_an_interrupt_at_any_line_leaves_the_old_file_or_the_new_one(tmp_path):
    path, line, outcomes = tmp_path / "a", 0, []
    while not outcomes or outcomes[-1] != "done":
        path.write_text("old")
        line, left = line + 1, line + 1

        def trace(frame, event, _):
            nonlocal left
            left -= event == "line" and frame.f_code.co_filename == files.__file__
            if not left:
                sys.settrace(None)
                raise KeyboardInterrupt
            return trace if frame.f_code.co_filename == files.__file__ else None

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            files.write(path, b"new")
            outcomes.append("done")
        except KeyboardInterrupt:
            outcomes.append(path.read_text())
        finally:
            sys.settrace(before)
        left_over = [name for name in os.listdir(tmp_path) if name != "a"]
        assert len(left_over) <= 1  # if the interrupt met the removal itself
        assert path.read_text() in ("old", "new")
    assert {"old", "new"} <= {*outcomes}
    files.write(path, b"newer")
    assert os.listdir(tmp_path) == ["a"]


FULL = """
import os, resource, sys
sys.path.insert(0, sys.argv[1])
from file_kinds import WRITERS
from tinygrad_lenet.errors import DataError
for ending, save in WRITERS.items():
    path = os.path.join(sys.argv[2], "a" + ending)
    save(path, 1)
    before = open(path, "rb").read()
    for room in (0, len(before) // 2):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        try:
            save(path, 2)
        except DataError as error:
            assert f"{path} cannot be written: File too large; the old file is unchanged" in str(error)
        else:
            raise AssertionError("there was no room")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert open(path, "rb").read() == before
assert sorted(os.listdir(sys.argv[2])) == sorted("a" + ending for ending in WRITERS)
"""


@linux
def test_a_full_disk_leaves_the_old_file(tmp_path):
    command = [sys.executable, "-B", "-c", FULL, str(ROOT / "tests" / "tools"), str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
    assert len(os.listdir(tmp_path)) == len(WRITERS)


@posix
@pytest.mark.parametrize("step", ["fcntl.flock", "fsync of the folder", "listdir"])
def test_what_a_system_may_lack(tmp_path, monkeypatch, step):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, "not permitted")

    real = os.fsync
    (tmp_path / "a").write_text("old")
    if step == "fcntl.flock":
        monkeypatch.setattr(step, refuse)
    elif step == "fsync of the folder":
        monkeypatch.setattr("os.fsync", lambda file: refuse() if stat.S_ISDIR(os.fstat(file).st_mode) else real(file))
    else:
        monkeypatch.setattr(f"os.{step}", refuse)
    files.write(str(tmp_path / "a"), lambda file: file.write(b"new" * 10**6))
    monkeypatch.undo()
    assert (tmp_path / "a").read_bytes() == b"new" * 10**6
    assert os.listdir(tmp_path) == ["a"]


@posix
def test_as_windows_has_it(tmp_path, monkeypatch):
    leftover = tmp_path / f".tinygrad_lenet-{'0' * 32}.tmp"
    leftover.touch()
    path = str(tmp_path / "a")
    for name in ("O_TMPFILE", "O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "fchown", "fchmod"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr("os.name", "nt")
    for content in (b"old", b"new"):
        files.write(path, content)
    with files.opened(path) as file:
        assert file.read() == b"new"
    monkeypatch.undo()
    assert sorted(os.listdir(tmp_path)) == [leftover.name, "a"]  # without locks, its writer may be alive


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_takes_no_file(tmp_path):
    (tmp_path / "a").write_text("old")
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match=r"Permission denied.*unchanged.*choose a folder that can be written to"):
        files.write(tmp_path / "a", b"new")
    tmp_path.chmod(0o700)
    assert (tmp_path / "a").read_text() == "old"


# Other writers


@posix
def test_only_what_a_dead_writer_left_is_removed(tmp_path):
    """A live writer's file, which has a name while it is written, and a user's own are left alone."""
    own = [".tinygrad_lenet-notes.tmp", "a.tmp", ".tinygrad_lenet-0123456789abcdef.tmp"]
    for name in own:
        (tmp_path / name).write_text("mine")
    dead = tmp_path / f".tinygrad_lenet-{'0' * 32}.tmp"
    dead.write_text("half")
    alive = open(tmp_path / f".tinygrad_lenet-{'1' * 32}.tmp", "xb")  # noqa: SIM115  # closed below
    assert files._lock(alive)
    during = []

    def content(file):
        files.write(tmp_path / "a", b"inner")
        during.extend(os.listdir(tmp_path))
        file.write(b"outer")

    files.write(tmp_path / "a", content)
    assert dead.name not in during
    assert sorted(os.listdir(tmp_path)) == sorted(["a", f".tinygrad_lenet-{'1' * 32}.tmp", *own])
    assert (tmp_path / "a").read_bytes() == b"outer"
    alive.close()
    files.write(tmp_path / "a", content)
    assert sorted(os.listdir(tmp_path)) == sorted(["a", *own])
    assert {(tmp_path / name).read_text() for name in own} == {"mine"}


@posix
def test_a_writer_that_is_late_removes_no_file_but_the_leftover_it_has_opened(tmp_path, monkeypatch):
    """Two writers take the new file of a third for a leftover. One removes it; one has it open and acts later."""
    lock, late = files._lock, []

    def slow(file, wait=True):
        if not late:
            late.append(open(file.name, "rb"))  # noqa: SIM115  # closed below
            os.unlink(file.name)
        return lock(file, wait)

    def content(file):
        file.write(b"new")
        assert lock(late[0], wait=False)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(late[0].name)
        late[0].close()

    monkeypatch.setattr(files, "_lock", slow)
    files.write(tmp_path / "a", content)
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"new"


WRITE = """
import os, sys, signal
import numpy as np
import tinygrad_lenet as tl
path, start, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
save = tl.save if path.endswith("npz") else tl.save_checkpoint
for n in range(start, start + count):
    save(path, {"n": np.array(n), "array": np.full(3000, n)})
    if n == start:
        print("begun", flush=True)
"""


def writing(path, start, count):
    command = [sys.executable, "-c", WRITE, str(path), str(start), str(count)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check(path):
    """The number of a whole file."""
    found = (tl.load if path.suffix == ".npz" else tl.load_checkpoint)(path)
    assert (found["array"] == found["n"]).all()
    return int(found["n"])


@pytest.mark.parametrize("name", ["a.ckpt", "a.npz", "link.ckpt"])
def test_three_writers_and_a_reader_do_not_disturb_each_other(tmp_path, name):
    path, count = tmp_path / name, 2000 if THOROUGH else 100
    if name == "link.ckpt":
        path.symlink_to(tmp_path / "target")
    writers = [writing(path, start, count) for start in (0, 10**4, 10**5)]
    begun = [writer.stdout.readline() for writer in writers]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        check(path)
        reads += 1
    errors = [writer.communicate()[1] for writer in writers]
    assert (begun, errors, [writer.returncode for writer in writers]) == (["begun\n"] * 3, [""] * 3, [0] * 3)
    assert reads > 3
    assert check(path) in {start + count - 1 for start in (0, 10**4, 10**5)}
    assert os.listdir(tmp_path) == [name] or path.is_symlink()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(os.name != "posix", reason="Windows locks open files")
def test_a_writer_that_is_killed_leaves_a_whole_file_and_the_next_one_tidies_up(tmp_path):
    path, rng = tmp_path / "a.ckpt", np.random.default_rng(0)
    lasting = writing(path, 0, 10**9)  # beside it, others come and are killed
    assert lasting.stdout.readline() == "begun\n", lasting.communicate()[1]
    for i in range(200 if THOROUGH else 4):
        other = writing(path, 10**6 * (i + 1), 10**5)
        assert other.stdout.readline() == "begun\n", other.communicate()[1]
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
