"""Downloading the files of a data set from mirrors that may fail in many ways."""

import contextlib
import errno
import gzip
import http.server
import os
import re
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from idx_files import FILES, IMAGES, LABELS, REPOSITORY, SUMS, Tiny, encode, pack

from tinygrad_lenet.data import download as module
from tinygrad_lenet.errors import DownloadError

NAMES = {name + ".gz" for name in FILES}
IMAGES_GZ = "t10k-images-idx3-ubyte.gz"
GOOD = {name + ".gz": pack(content) for name, content in FILES.items()}


def download(*arguments, timeout=30.0, most=1 << 26):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_TIMEOUT", timeout)
        patch.setattr(module, "_MOST", most)
        return module.download(*arguments)


class Mirror(http.server.ThreadingHTTPServer):
    """Serves ``files``; breaks off the first ``cuts`` answers half-way."""

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cuts = files, 0
        self.asked = []
        self.half_way = self.begin = lambda: None
        self.url = f"http://127.0.0.1:{self.server_port}/"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, name = self.server, self.path[1:]
        server.asked.append(name)
        if name not in server.files:
            return self.send_error(404)
        server.begin()
        content = server.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        half = len(content) // 2
        self.wfile.write(content[:half])
        self.wfile.flush()
        server.half_way()
        if server.cuts:
            server.cuts -= 1
        else:
            self.wfile.write(content[half:])
        return None

    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("TINYGRAD_LENET_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))


@pytest.fixture
def mirror():
    with Mirror(dict(GOOD)) as server:
        yield server


def fetch(*mirrors, root=None):
    return type("Tiny", (Tiny,), {"mirrors": tuple(m.url for m in mirrors)})(root, train=False)


def assert_tiny(data, folder):
    np.testing.assert_array_equal(data.images, IMAGES)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert {path.name for path in folder.iterdir()} == NAMES  # the final names, whole, and nothing else
    assert {gzip.decompress(path.read_bytes()) for path in folder.iterdir()} == set(FILES.values())


def test_download_once(mirror, tmp_path):
    assert_tiny(fetch(mirror, root=tmp_path / "data"), tmp_path / "data" / "tiny")
    assert_tiny(fetch(mirror, root=tmp_path / "data"), tmp_path / "data" / "tiny")
    assert sorted(mirror.asked) == sorted(NAMES)


def test_download_to_the_cache(mirror, tmp_path):
    assert_tiny(fetch(mirror), tmp_path / "cache" / "tinygrad_lenet" / "tiny")


@pytest.mark.parametrize("wrong", [b"", b"<html>", pack(b"<html>"), pack(encode(IMAGES[::-1])), GOOD[IMAGES_GZ][:-9]])
def test_the_next_mirror_helps_where_one_is_wrong(mirror, tmp_path, wrong):
    with Mirror(GOOD | {IMAGES_GZ: wrong}) as first:
        assert_tiny(fetch(first, mirror, root=tmp_path), tmp_path / "tiny")
        assert mirror.asked == [IMAGES_GZ]


def test_a_broken_download_is_tried_again(mirror, tmp_path):
    mirror.cuts = 1
    seen = []
    mirror.half_way = lambda: seen.append(os.listdir(tmp_path / "tiny"))
    assert_tiny(fetch(mirror, root=tmp_path), tmp_path / "tiny")
    assert [name for name in mirror.asked if name == IMAGES_GZ] == [IMAGES_GZ] * 2
    assert IMAGES_GZ not in seen[0] + seen[1]  # no half file under the final name


def test_a_mirror_that_always_breaks_is_asked_twice(mirror, tmp_path):
    mirror.cuts = 100
    with pytest.raises(DownloadError, match=f"{mirror.url}{IMAGES_GZ}: is damaged.*end-of-stream marker"):
        fetch(mirror, root=tmp_path)
    assert mirror.asked == [IMAGES_GZ] * 2
    assert not list((tmp_path / "tiny").iterdir())


def test_when_all_mirrors_fail_the_error_says_why_and_how_to_go_on(mirror, tmp_path):
    mirror.files = {}
    with Mirror({IMAGES_GZ: pack(b"what?")}) as other, pytest.raises(DownloadError) as caught:
        fetch(mirror, other, root=tmp_path)
    message = str(caught.value)
    assert f"{mirror.url}{IMAGES_GZ}: HTTP Error 404" in message
    assert f"{other.url}{IMAGES_GZ}: is damaged, or not an IDX file (ValueError: found a start of b'what'" in message
    assert f"Put the file into {tmp_path / 'tiny'}" in message
    assert "root=" in message
    assert not list((tmp_path / "tiny").iterdir())


def test_a_mirror_that_is_not_there_or_no_address(tmp_path):
    with Mirror({}) as gone:
        pass
    with pytest.raises(DownloadError, match=r"refused[^\n]*\n[^\n]*unknown url type"):
        download(IMAGES_GZ, "0" * 64, [gone.url, "nonsense:"], str(tmp_path))
    with pytest.raises(DownloadError, match="none is known"):
        download(IMAGES_GZ, "0" * 64, [], str(tmp_path))


def test_a_silent_mirror_is_given_up(mirror, tmp_path):
    wake = threading.Event()
    mirror.half_way = lambda: wake.wait(10)
    try:
        with pytest.raises(DownloadError, match="timed out"):
            download(IMAGES_GZ, "0" * 64, [mirror.url], str(tmp_path), timeout=0.05)
    finally:
        wake.set()


def test_an_endless_download_meets_the_limit(mirror, tmp_path):
    with pytest.raises(DownloadError, match="end-of-stream marker"):
        download(IMAGES_GZ, "0" * 64, [mirror.url], str(tmp_path), most=20)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(mirror, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DownloadError, match=r"cannot write to .*pass another folder"):
        fetch(mirror, root=tmp_path / "file")
    assert not mirror.asked


# Mirrors that break the rules of HTTP.


class Raw(socketserver.ThreadingTCPServer):
    """Reads a request, and sends the given answer: bytes, or a function that sends them."""

    daemon_threads, block_on_close = True, False

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), None)
        self.answer, self.over = answer, threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def finish_request(self, request, client_address):
        with contextlib.suppress(OSError):  # the client may have given up
            asked = request.recv(65536)
            if callable(self.answer):
                self.answer(self, request, asked)
            else:
                request.sendall(self.answer)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.over.set()
        self.shutdown()
        self.server_close()


BODY = GOOD[IMAGES_GZ]


def answer(head=b"", body=BODY, status=b"200 OK"):
    return b"HTTP/1.1 " + status + b"\r\n" + head + b"\r\n" + body


def length(value):
    return answer(b"Content-Length: %b\r\n" % value)


def chunks(*parts):
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return answer(b"Transfer-Encoding: chunked\r\n", body)


def silent(start):
    def send(server, connection, asked):
        connection.sendall(start)
        server.over.wait(20)

    return send


def redirect(to):
    return answer(b"Location: %b\r\n" % to, b"", b"302 Found")


def round_and_round(server, connection, asked):
    connection.sendall(redirect(server.url.encode() + IMAGES_GZ.encode()))


@pytest.mark.parametrize(
    "sent",
    [
        answer(),
        length(b"%d" % len(BODY)),
        length(b"-5"),
        length(b"many"),
        length(b""),
        chunks(BODY, b""),
        chunks(BODY[:5], BODY[5:], b""),
    ],
)
def test_the_content_counts_not_its_length(tmp_path, sent):
    with Raw(sent) as server:
        path = download(IMAGES_GZ, SUMS[IMAGES_GZ[:-3]], [server.url], str(tmp_path), timeout=5)
    assert gzip.decompress(Path(path).read_bytes()) == FILES[IMAGES_GZ[:-3]]
    assert os.listdir(tmp_path) == [IMAGES_GZ]


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"", "Remote end closed|reset"),
        (b"garbage\r\n\r\n", "garbage"),
        (b"\x16\x03\x01\x02\x00\x1b[31m red\r\n\r\n", r"\?.*red"),  # nothing that a terminal would obey
        (b"HTTP/1.1 999999 Strange\r\n\r\n", "999999"),
        (b"HTTP/1.1 200 " + b"x" * 70_000, "line"),
        (answer(b"X: y\r\n" * 200), "headers"),
        (answer(b"", b"", b"404 Not Found"), "404"),
        (answer(b"", b"", b"403 Forbidden"), "403"),
        (answer(b"", b"", b"503 Service Unavailable"), "503"),
        (answer(b"", b""), "found a start of b''"),
        (length(b"9"), "end-of-stream marker"),  # less than there is
        (length(b"0"), "found a start of b''"),
        (answer(b"", BODY[:-4]), "end-of-stream marker"),
        (answer(b"", BODY + b"more"), "Not a gzipped file"),
        (answer(b"", pack(pack(FILES[IMAGES_GZ[:-3]]))), "start of"),  # packed twice
        (answer(b"", pack(b"<html>")), "start of"),
        (answer(b"", pack(encode(IMAGES[::-1]))), "SHA-256"),
        (answer(b"", os.urandom(500)), "found a start"),
        (chunks(BODY), "IncompleteRead"),  # without an end
        (answer(b"Transfer-Encoding: chunked\r\n", b"what?\r\n"), "IncompleteRead|invalid literal|found"),
        (answer(b"Transfer-Encoding: chunked\r\n", b"-5\r\n" + BODY[:-3]), "Error|Incomplete|found|chunk|non-negative"),
        (redirect(b"file:///etc/passwd"), "not allowed"),
        (redirect(b"data:text/plain,x"), "not allowed"),
        (redirect(b"javascript:1"), "not allowed"),
        (redirect(b"http://127.0.0.1:99999/"), "port|0-65535|refused"),
        (redirect(b"http://[::1/"), "Invalid IPv6"),
        (redirect(b"http:///"), "no host given|infinite loop"),
        (redirect(b""), "30[12]|loop"),
        (answer(b"", b"", b"302 Found"), "302"),
        (round_and_round, "infinite loop"),
        (silent(b""), "timed out"),
        (silent(b"HTTP/1.1 200 OK\r\nContent-"), "timed out"),
        (silent(answer(b"", BODY[:30])), "timed out"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mirror_that_does_wrong_is_named_with_the_reason_and_the_next_one_helps(mirror, tmp_path, sent, why):
    timeout = 0.15 if "timed out" in why else 10
    with Raw(sent) as server:
        start = time.monotonic()
        with pytest.raises(DownloadError) as caught:
            download(IMAGES_GZ, SUMS[IMAGES_GZ[:-3]], [server.url], str(tmp_path), timeout=timeout)
        assert time.monotonic() - start < 10
        (line,) = [line for line in str(caught.value).splitlines() if line.startswith("  ")]
        assert line.startswith(f"  {server.url}{IMAGES_GZ}: ")
        assert re.search(why, line.partition(IMAGES_GZ)[2]), line
        assert line.isprintable()
        assert len(line) < 400
        assert not os.listdir(tmp_path)
        if timeout == 10:  # enough for one that does right
            mirrors = [server.url, mirror.url]
            path = download(IMAGES_GZ, SUMS[IMAGES_GZ[:-3]], mirrors, str(tmp_path), timeout=timeout)
            assert Path(path).read_bytes() == BODY
            assert os.listdir(tmp_path) == [IMAGES_GZ]


def test_a_redirect_leads_to_the_file(mirror, tmp_path):
    with Raw(redirect(mirror.url.encode() + IMAGES_GZ.encode())) as server:
        path = download(IMAGES_GZ, SUMS[IMAGES_GZ[:-3]], [server.url], str(tmp_path))
    assert Path(path).read_bytes() == BODY


def test_a_slow_mirror_that_goes_on_is_not_given_up(mirror, tmp_path):
    mirror.half_way = lambda: time.sleep(0.5)
    path = download(IMAGES_GZ, SUMS[IMAGES_GZ[:-3]], [mirror.url], str(tmp_path), timeout=5)
    assert Path(path).read_bytes() == BODY
    assert len(mirror.asked) == 1


DOWNLOAD = f"""if True:
    import sys
    from tinygrad_lenet.data.download import download
    try:
        print(download({IMAGES_GZ!r}, {SUMS[IMAGES_GZ[:-3]]!r}, sys.argv[2:], sys.argv[1]))
    except OSError as error:
        print(error)
"""


def test_of_two_processes_one_is_killed_half_way(mirror, tmp_path):
    half_way, go_on = threading.Semaphore(0), threading.Event()

    def wait():
        half_way.release()
        go_on.wait(30)

    mirror.half_way = wait
    command = [sys.executable, "-c", DOWNLOAD, str(tmp_path), mirror.url]
    runs = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for _ in runs:
        assert half_way.acquire(timeout=60)
    runs[0].kill()
    runs[0].communicate()
    assert IMAGES_GZ not in os.listdir(tmp_path)
    go_on.set()
    assert runs[1].communicate(timeout=60)[0] == f"{tmp_path / IMAGES_GZ}\n"
    assert (tmp_path / IMAGES_GZ).read_bytes() == BODY
    download(IMAGES_GZ, SUMS[IMAGES_GZ[:-3]], [mirror.url], str(tmp_path))
    assert os.listdir(tmp_path) == [IMAGES_GZ]  # this one removed the temporary file of the killed process


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the size of files as Linux does")
def test_a_full_disk_is_named_and_nothing_is_left(mirror, tmp_path):
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))\n" + DOWNLOAD
    run = subprocess.run(
        [sys.executable, "-c", limited, str(tmp_path), mirror.url],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert "File too large" in run.stdout, run.stdout
    assert "root=" in run.stdout
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_cache_that_takes_no_file_is_named(mirror, tmp_path, monkeypatch, error):
    def refuse(*_, **__):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("tinygrad_lenet.files.open", refuse, raising=False)
    with pytest.raises(DownloadError, match=rf"cannot write to .*{os.strerror(error)}.*root="):
        download(IMAGES_GZ, SUMS[IMAGES_GZ[:-3]], [mirror.url], str(tmp_path))
    assert not mirror.asked
    monkeypatch.undo()
    monkeypatch.setattr("os.replace", refuse)
    (tmp_path / IMAGES_GZ).write_bytes(b"old")
    with pytest.raises(DownloadError, match=rf"cannot write .*{os.strerror(error)}.*root="):
        download(IMAGES_GZ, SUMS[IMAGES_GZ[:-3]], [mirror.url], str(tmp_path))
    assert os.listdir(tmp_path) == [IMAGES_GZ]


def test_a_folder_where_the_file_should_be(mirror, tmp_path):
    (tmp_path / IMAGES_GZ).mkdir()
    with pytest.raises(DownloadError, match="cannot write"):
        download(IMAGES_GZ, SUMS[IMAGES_GZ[:-3]], [mirror.url], str(tmp_path))
    assert os.listdir(tmp_path) == [IMAGES_GZ]


def test_two_processes_may_fill_one_cache(mirror, tmp_path):
    both = threading.Barrier(2, timeout=30)
    mirror.begin = lambda: both.wait()  # each file is asked for twice, and served only then
    code = f"""if True:
        from tinygrad_lenet.data import MNIST
        class Tiny(MNIST):
            folder, mirrors, checksums = "tiny", ({mirror.url!r},), {SUMS!r}
        print(Tiny({str(tmp_path)!r}, train=False))"""
    command = [sys.executable, "-W", "error", "-c", code]
    runs = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [run.communicate(timeout=60)[0] for run in runs] == ["Tiny(7 test images of 5x3 pixels)\n"] * 2
    assert len(mirror.asked) == 4
    assert_tiny(Tiny(tmp_path, train=False, download=False), tmp_path / "tiny")
