"""Reading and writing paths that are links or not regular files; modes and owners of written files."""

import errno
import os
import signal
import socket
import stat
from pathlib import Path

import pytest
import test_download
from file_kinds import READERS, WRITERS, every_reader, every_writer

from tinygrad_lenet import files
from tinygrad_lenet.data import read_idx
from tinygrad_lenet.errors import ArgumentError, DataError, DownloadError

ROOT = Path(__file__).parents[1]
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX has such files")


# Links, modes and owners


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
def test_the_mode_stays_and_a_new_file_has_that_of_any_other(tmp_path, ending, save):
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
def test_nobody_else_can_read_what_becomes_a_private_file(tmp_path):
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
