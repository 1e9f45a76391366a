"""Files are written whole or not at all, whatever is at the path and whatever happens; only regular ones are read."""

import errno
import importlib.util
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import test_download

import tinygrad_lenet as tl
from tinygrad_lenet import files, nn
from tinygrad_lenet.data import read_idx
from tinygrad_lenet.errors import ArgumentError, DataError, DownloadError

ROOT = Path(__file__).parents[1]
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX has such files")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the process as Linux does")


def graph():
    return tl.visualize.graph(tl.ones(2, requires_grad=True).sum())


# All that writes a file, with the ending that it wants. Each is given a path and a number to write.
WRITERS = {
    ".ckpt": lambda path, n: tl.save_checkpoint(path, {"n": n, "array": np.full(3000, n)}),
    ".npz": lambda path, n: tl.save(path, {"n": np.array(n), "array": np.full(3000, n)}),
    ".txt": lambda path, n: files.write(path, lambda file: file.write(b"%d" % n * 3000)),
    ".svg": lambda path, n: graph().save(path),
    ".dot": lambda path, n: graph().save(path),
    ".md": lambda path, n: graph().save(path),
}
if importlib.util.find_spec("safetensors"):
    WRITERS[".safetensors"] = lambda path, n: tl.save(path, {"array": np.full(3000, n)})
if importlib.util.find_spec("onnx"):
    WRITERS[".onnx"] = lambda path, n: tl.onnx.export(nn.Linear(2, 300, generator=n), tl.zeros(1, 2), path)
READERS = {
    ".ckpt": tl.load_checkpoint,
    ".npz": tl.load,
    ".safetensors": tl.load,
    ".onnx": lambda path: tl.onnx.load(path),
    ".idx": read_idx,
    ".gz": read_idx,
}
READERS = {ending: read for ending, read in READERS.items() if ending in WRITERS or read is read_idx}
every_writer = pytest.mark.parametrize(("ending", "save"), WRITERS.items(), ids=WRITERS)
every_reader = pytest.mark.parametrize(("ending", "load"), READERS.items(), ids=READERS)


@pytest.fixture(params=["as the system can", "named"])
def either_way(request, monkeypatch):
    """New files have no name at first, or one where the system has no others."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)


# What others left


@posix
def test_only_what_a_dead_writer_left_is_removed(tmp_path, either_way):
    """A live writer's file, which has a name while it is written, and a user's own are left alone."""
    own = [".tinygrad_lenet-notes.tmp", "a.tmp", ".tinygrad_lenet-0123456789abcdef.tmp"]
    for name in own:
        (tmp_path / name).write_text("mine")
    dead = tmp_path / f".tinygrad_lenet-{'0' * 32}.tmp"
    dead.write_text("half")
    handle = os.open(tmp_path / f".tinygrad_lenet-{'1' * 32}.tmp", os.O_CREAT | os.O_RDWR)
    assert files._lock(handle)
    during = []

    def content(file):
        files.write(tmp_path / "a", b"inner")
        during.extend(os.listdir(tmp_path))
        file.write(b"outer")

    files.write(tmp_path / "a", content)
    assert dead.name not in during
    assert sorted(os.listdir(tmp_path)) == sorted(["a", f".tinygrad_lenet-{'1' * 32}.tmp", *own])
    assert (tmp_path / "a").read_bytes() == b"outer"
    os.close(handle)
    files.write(tmp_path / "a", content)
    assert sorted(os.listdir(tmp_path)) == sorted(["a", *own])
    assert {(tmp_path / name).read_text() for name in own} == {"mine"}


# What stands at the path


@posix
@every_writer
def test_a_link_beside_the_file_is_not_followed_and_a_file_of_the_user_stays(tmp_path, ending, save):
    (tmp_path / "secret").write_text("secret")
    path = tmp_path / f"a{ending}"
    (tmp_path / f"a{ending}.tmp").symlink_to(tmp_path / "secret")
    save(path, 1)
    (tmp_path / f"a{ending}.tmp").unlink()
    (tmp_path / f"a{ending}.tmp").write_text("mine")
    save(path, 2)
    assert (tmp_path / "secret").read_text() == "secret"
    assert (tmp_path / f"a{ending}.tmp").read_text() == "mine"
    assert len(os.listdir(tmp_path)) == 3


@posix
@every_writer
def test_the_mode_stays_and_a_new_file_has_that_of_any_other(tmp_path, ending, save, either_way):
    path, old = tmp_path / f"a{ending}", os.umask(0o027)
    try:
        save(path, 1)
        (tmp_path / "other").write_text("")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o640
    for mode in (0o600, 0o644, 0o666, 0o400, 0o755, 0o604):
        path.chmod(mode)
        save(path, 2)
        assert stat.S_IMODE(path.stat().st_mode) == mode


@posix
def test_nobody_else_can_read_what_becomes_a_private_file(tmp_path, either_way):
    path = tmp_path / "a"
    path.touch(0o600)
    path.chmod(0o600)
    modes = []
    files.write(path, lambda file: modes.append(stat.S_IMODE(os.fstat(file.fileno()).st_mode)))
    assert modes == [0o600]


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs to be root")
def test_the_owner_stays(tmp_path):
    path = tmp_path / "a"
    path.touch()
    os.chown(path, 1234, 5678)
    path.chmod(0o640)
    files.write(path, b"new")
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 5678, 0o640)


@linux
def test_an_access_list_stays_and_the_group_gets_no_rights_of_it(tmp_path, either_way):
    path, user, group, mask = tmp_path / "a", (2, 6, 1234), (4, 0, 2**32 - 1), (16, 6, 2**32 - 1)
    path.touch()
    entries = ((1, 6, 2**32 - 1), user, group, mask, (32, 0, 2**32 - 1))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("the file system has no access lists")
    files.write(path, b"new")
    assert os.getxattr(path, "system.posix_acl_access") == acl


@posix
@pytest.mark.parametrize("kept", [True, False])
def test_a_group_that_cannot_stay_gives_its_rights_to_no_other(tmp_path, monkeypatch, kept):
    path = tmp_path / "a"
    path.touch()
    path.chmod(0o2664)
    here, real = path.stat(), os.stat

    def foreign(file, **options):
        found = real(file, **options)
        return os.stat_result([*found[:4], here.st_uid + 1, here.st_gid + 1, *found[6:]])

    def refuse(handle, owner, group):
        if owner != -1 or not kept:
            raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr("os.stat", foreign)
    monkeypatch.setattr("os.fchown", refuse)
    files.write(str(path), b"new")
    monkeypatch.undo()
    assert stat.S_IMODE(path.stat().st_mode) == (0o664 if kept else 0o644)


@posix
@every_writer
def test_a_link_is_followed_and_stays(tmp_path, ending, save):
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    target, link = tmp_path / "there" / f"a{ending}", tmp_path / "here" / f"b{ending}"
    (tmp_path / "here" / f"c{ending}").symlink_to(Path("..", "there", f"a{ending}"))
    link.symlink_to(f"c{ending}")  # one link after the other
    save(link, 1)  # to nothing yet: as open() does it, the file is made
    first = target.read_bytes()
    target.chmod(0o600)
    save(link, 2)
    assert link.is_symlink()
    assert os.listdir(tmp_path / "there") == [f"a{ending}"]
    assert len(os.listdir(tmp_path / "here")) == 2
    assert len(first) == len(target.read_bytes())
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    circle = tmp_path / f"circle{ending}"
    circle.symlink_to(circle)
    nowhere = tmp_path / f"nowhere{ending}"
    nowhere.symlink_to(tmp_path / "no" / "such")
    for path in (circle, nowhere):
        with pytest.raises(DataError, match=f"{path.name} cannot be written.*there was none before"):
            save(path, 1)
        assert path.is_symlink()


@pytest.fixture
def strange(tmp_path):
    """What is not a regular file, and how it is called."""
    (tmp_path / "folder").mkdir()
    found = {"folder": "a folder"}
    if os.name == "posix":
        os.mkfifo(tmp_path / "pipe")
        with socket.socket(socket.AF_UNIX) as listener:
            os.chdir(tmp_path)  # whose path is too long for a socket
            listener.bind("socket")
        (tmp_path / "link to a pipe").symlink_to("pipe")
        try:
            os.mknod(
                tmp_path / "zero", stat.S_IFCHR | 0o666, os.stat("/dev/zero").st_rdev
            )  # root could replace that one
        except PermissionError:
            (tmp_path / "zero").symlink_to("/dev/zero")
        found |= {"pipe": "a pipe", "socket": "a socket", "link to a pipe": "a pipe", "zero": "a device"}
    return found


@every_writer
def test_what_is_not_a_regular_file_is_refused_by_all_that_writes(tmp_path, monkeypatch, ending, save, strange):
    monkeypatch.chdir(tmp_path)
    for name, kind in strange.items():
        path = tmp_path / f"{name}{ending}"
        (tmp_path / name).rename(path) if name != "pipe" else path.symlink_to("pipe")
        before = path.lstat()
        with pytest.raises(DataError, match=f"cannot be written: it is {kind}, expected a regular file"):
            save(path, 1)
        assert os.path.samestat(before, path.lstat())
    assert len(os.listdir(tmp_path)) == len(strange) + ("pipe" in strange)
    if os.path.exists("/dev/fd"):
        with open("gone", "w") as file:
            os.unlink("gone")
            for _ in range(2):
                with pytest.raises(DataError, match="cannot be written"):
                    files.write(f"/dev/fd/{file.fileno()}", b"")
                Path("gone (deleted)").write_text("mine")  # which is how Linux calls the other one
        assert Path("gone (deleted)").read_text() == "mine"
    for path in ("/dev/null", "/dev/stdout", "/dev/full"):
        if hasattr(os, "geteuid") and os.geteuid() and os.path.exists(path) and not os.path.isfile(path):
            with pytest.raises(DataError, match="cannot be written: it is a "):
                files.write(path, b"")


@posix
def test_a_download_follows_a_link_and_replaces_no_pipe(tmp_path):
    name = test_download.IMAGES_GZ
    sha256 = test_download.SUMS[name.removesuffix(".gz")]
    (tmp_path / "there").mkdir()
    (tmp_path / name).symlink_to(tmp_path / "there" / "a.gz")
    with test_download.Mirror(test_download.GOOD) as mirror:
        test_download.download(name, sha256, [mirror.url], str(tmp_path))
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "there" / "a.gz").read_bytes() == test_download.GOOD[name]
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
        with pytest.raises(DownloadError, match=r"cannot write .*it is a pipe"):
            test_download.download(name, sha256, [mirror.url], str(tmp_path))
    assert (tmp_path / name).is_fifo()
    assert len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize("place", ["new/", "a/", "folder/", "no/such/a", ".", ".."])
def test_paths_that_name_no_file_are_refused(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    Path("a").write_text("old")
    Path("folder").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        files.write(place, b"new")
    assert sorted(os.listdir()) == ["a", "folder"]
    assert Path("a").read_text() == "old"


def test_every_spelling_of_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    long = "n" * 255
    for name in ("a", b"b", Path("c"), "./d", long, "\u4e16\u754c", ".e", "f.tmp"):
        for content in (b"old", b"new"):
            files.write(name, content)
        with files.opened(os.fsdecode(name)) as file:
            assert file.read() == b"new"
    assert sorted(os.listdir()) == sorted(["a", "b", "c", "d", long, "\u4e16\u754c", ".e", "f.tmp"])


@pytest.mark.parametrize("ending", WRITERS)
def test_a_name_that_the_system_cannot_write_is_refused(tmp_path, ending):
    path = f"{tmp_path}/\ud83d{ending}"
    for use in (lambda: WRITERS[ending](path, 1), *([lambda: READERS[ending](path)] if ending in READERS else [])):
        with pytest.raises(ArgumentError, match=r"cannot be written by the system as a file name, '.*\\ud83d"):
            use()
    assert not os.listdir(tmp_path)


@posix
def test_another_hard_link_keeps_the_old_content(tmp_path):
    (tmp_path / "a").write_text("old")
    os.link(tmp_path / "a", tmp_path / "b")
    files.write(tmp_path / "a", b"new")
    assert [(tmp_path / name).read_text() for name in "ab"] == ["new", "old"]


# Errors and interrupts


class Stop(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError("no"), MemoryError(), KeyboardInterrupt(), Stop()])
def test_what_the_content_raises_leaves_the_old_file(tmp_path, error, either_way):
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
def test_an_interrupt_at_any_line_leaves_the_old_file_or_the_new_one(tmp_path, either_way):
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
from test_files import WRITERS, DataError
for ending, save in WRITERS.items():
    path = os.path.join(sys.argv[2], "a" + ending)
    save(path, 1)
    before = open(path, "rb").read()
    for room in (0, len(before) // 2):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        try:
            save(path, 2)
        except DataError as error:
            assert f"{path} cannot be written: File too large; the one that stands there is as it was" in str(error)
        else:
            raise AssertionError("there was no room")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert open(path, "rb").read() == before
assert sorted(os.listdir(sys.argv[2])) == sorted("a" + ending for ending in WRITERS)
"""


@linux
def test_a_full_disk_leaves_the_old_file_whoever_writes(tmp_path):
    command = [sys.executable, "-B", "-c", FULL, str(ROOT / "tests"), str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
    assert len(os.listdir(tmp_path)) == len(WRITERS)


@posix
@pytest.mark.parametrize("step", ["link", "fcntl.flock", "fsync of the folder", "listdir"])
def test_what_a_system_may_lack(tmp_path, monkeypatch, either_way, step):
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
    for name in ("0", "1"):
        (tmp_path / f".tinygrad_lenet-{name * 32}.tmp").touch()
    os.utime(tmp_path / f".tinygrad_lenet-{'0' * 32}.tmp", (0, 0))
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
    assert sorted(os.listdir(tmp_path)) == [f".tinygrad_lenet-{'1' * 32}.tmp", "a"]  # it could be alive


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_takes_no_file(tmp_path):
    (tmp_path / "a").write_text("old")
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match=r"Permission denied.*as it was.*choose a folder that can be written to"):
        files.write(tmp_path / "a", b"new")
    tmp_path.chmod(0o700)
    assert (tmp_path / "a").read_text() == "old"


# Reading


@every_reader
def test_what_is_not_a_regular_file_is_refused_by_all_that_reads(tmp_path, monkeypatch, ending, load, strange):
    monkeypatch.chdir(tmp_path)
    if "zero" in strange:
        (tmp_path / "endless").symlink_to("/dev/zero")
        strange["endless"] = "a device"
    for name, kind in strange.items():
        path = tmp_path / f"{name}{ending}"
        (tmp_path / name).rename(path) if name != "pipe" else path.symlink_to("pipe")
        if hasattr(signal, "alarm"):
            signal.alarm(20)  # ends a test that would wait for ever
        with pytest.raises(DataError, match=f"{path.name} cannot be read: it is {kind}, expected a regular file"):
            load(path)
        if hasattr(signal, "alarm"):
            signal.alarm(0)


@posix
@every_reader
def test_a_link_to_a_regular_file_is_read(tmp_path, ending, load):
    path = tmp_path / f"a{ending}"
    if load is read_idx:
        path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 6]))
    else:
        WRITERS[ending](path, 1)
    (tmp_path / f"b{ending}").symlink_to(path.name)
    assert load(tmp_path / f"b{ending}") is not None


@posix
def test_a_pipe_that_comes_between_two_looks_does_not_block(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    regular, real = os.stat(tmp_path / "file"), os.stat
    monkeypatch.setattr("os.stat", lambda path, **options: regular if "pipe" in str(path) else real(path, **options))
    signal.alarm(20)
    with pytest.raises(DataError, match="it is a pipe"):
        files.opened(str(tmp_path / "pipe"))
    signal.alarm(0)
