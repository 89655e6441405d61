"""Downloads that break off, change, end short or meet a full disk: whole or not at all."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest

from mlq_utils.data import downloads as _downloads

CONTENT = np.random.default_rng(0).bytes(3_000_000)
OTHER = CONTENT[::-1]


class Server(ThreadingHTTPServer):
    """Serves one file as the test wants it.

    Attributes:
        content: The file.
        ranges: Whether parts of it are given.
        breaks: How many bytes of an answer are sent before the connection drops, one entry an
            answer; whole answers after these.
        announced: Bytes announced beyond those that there are.
        tagged: Whether the server tells versions of the file apart.
        asked: The Range header of each request, None where it had none.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.tagged = CONTENT, True, True
        self.breaks, self.announced, self.asked, self.encoding = [], 0, [], None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/file.bin"

    def handle_error(self, *arguments):
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server = self.server
        wanted = self.headers["Range"]
        server.asked.append(wanted)
        tag = f'"{hashlib.md5(server.content).hexdigest()}"'
        total = len(server.content)
        start = 0
        if wanted and server.ranges and self.headers["If-Range"] == tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total + server.announced}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{total - 1}/{total + server.announced}"
            )
        if server.tagged:
            self.send_header("ETag", tag)
        if server.encoding:
            self.send_header("Content-Encoding", server.encoding)
        self.send_header("Content-Length", str(total - start + server.announced))
        self.end_headers()
        sent = server.breaks.pop(0) if server.breaks else total
        self.wfile.write(server.content[start : start + sent])
        self.close_connection = True


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(_downloads, "PAUSE", 0)
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "file.bin"


def fetch(server, path, sha256=None):
    return _downloads.fetch(server.url, path, "The file", "put it there", sha256)


def files(path):
    """What is in the cache, the lock of other processes apart."""
    return sorted(p.name for p in path.parent.iterdir() if p.suffix != ".lock")


def test_what_breaks_off_is_continued_within_a_call(server, path):
    server.breaks = [1_000_000, 700_000]
    assert fetch(server, path, hashlib.sha256(CONTENT).hexdigest()).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000000-", "bytes=1700000-"]
    assert files(path) == ["file.bin"]


def test_what_breaks_off_is_continued_by_the_next_call(server, path):
    server.breaks = [500_000] * _downloads.TRIES
    server.content = CONTENT
    with pytest.raises(ConnectionError, match=r"What has come, 2,500,000 bytes, is kept"):
        fetch(server, path)
    assert files(path) == ["file.bin.part", "file.bin.part.etag"]
    assert not path.exists()
    server.asked.clear()
    assert fetch(server, path).read_bytes() == CONTENT
    assert server.asked == ["bytes=2500000-"]
    assert files(path) == ["file.bin"]
    assert fetch(server, path).read_bytes() == CONTENT and len(server.asked) == 1


def test_a_file_that_changed_meanwhile_begins_anew(server, path):
    server.breaks = [1_000_000, 0, 0, 0, 0]
    with pytest.raises(ConnectionError):
        fetch(server, path)
    server.content = OTHER
    server.breaks = []
    assert fetch(server, path).read_bytes() == OTHER


@pytest.mark.parametrize("setting", ["ranges", "tagged"])
def test_without_ranges_or_versions_it_begins_anew(server, path, setting):
    setattr(server, setting, False)
    server.breaks = [1_000_000, 2_000_000]
    assert fetch(server, path).read_bytes() == CONTENT
    assert files(path) == ["file.bin"]


def test_a_part_that_is_whole_already_is_taken(server, path):
    server.breaks = [0] * _downloads.TRIES
    with pytest.raises(ConnectionError):
        fetch(server, path)
    path.with_name("file.bin.part").write_bytes(CONTENT)  # a process was killed before the rename
    server.asked.clear()
    assert fetch(server, path).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_a_part_that_is_too_long_begins_anew(server, path):
    server.breaks = [0] * _downloads.TRIES
    with pytest.raises(ConnectionError):
        fetch(server, path)
    path.with_name("file.bin.part").write_bytes(CONTENT + b"more")
    assert fetch(server, path).read_bytes() == CONTENT


def test_less_than_announced_is_never_taken_for_whole(server, path):
    server.announced = 10
    with pytest.raises(ConnectionError, match=r"cannot be downloaded .*put it there"):
        fetch(server, path)
    assert not path.exists()


def test_a_part_of_another_file_is_found_by_the_checksum(server, path):
    server.breaks = [1_000_000] + [0] * (_downloads.TRIES - 1)
    with pytest.raises(ConnectionError):
        fetch(server, path)
    path.with_name("file.bin.part").write_bytes(b"\0" * 1_000_000)  # a disk's fault
    with pytest.raises(ValueError, match=r"does not match the known hash.*put it there"):
        fetch(server, path, hashlib.sha256(CONTENT).hexdigest())
    assert files(path) == []
    assert fetch(server, path, hashlib.sha256(CONTENT).hexdigest()).read_bytes() == CONTENT


def test_bytes_are_kept_as_they_come(server, path):
    """A server may call gzip an encoding what is the released file's own compression."""
    import gzip

    server.content = gzip.compress(CONTENT[:1000])
    server.encoding = "x-gzip"
    assert fetch(server, path).read_bytes() == server.content


def test_without_a_network_it_is_told_at_once(path):
    gone = SimpleNamespace(url="http://127.0.0.1:9/file.bin")
    with pytest.raises(ConnectionError, match=r"The file is not here .*put it there") as error:
        fetch(gone, path)
    assert error.value.__suppress_context__ and "kept" not in str(error.value)
    assert files(path) == []


def test_a_refusal_is_told_with_its_number(server, path, monkeypatch):
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.send_error(403))
    with pytest.raises(ConnectionError, match="the server answers 403"):
        fetch(server, path)
    assert files(path) == []


def test_a_disk_without_room_is_told_before_anything_is_written(server, path, monkeypatch):
    usage = SimpleNamespace(disk_usage=lambda folder: SimpleNamespace(free=1000))
    monkeypatch.setattr(_downloads, "shutil", usage)
    with pytest.raises(OSError, match=r"no room for The file.*XDG_CACHE_HOME") as error:
        fetch(server, path)
    assert error.value.errno == errno.ENOSPC and not isinstance(error.value, ConnectionError)
    assert not path.exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_disk_that_fills_up_is_told(server, path, monkeypatch):
    path.parent.mkdir()
    part = path.with_name("file.bin.part")
    opened = type(part).open

    def full(self, *arguments, **options):
        return opened(type(part)("/dev/full") if self == part else self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(part), "open", full)
        with pytest.raises(OSError, match="no room for The file") as error:
            fetch(server, path)
    assert error.value.errno == errno.ENOSPC
    assert fetch(server, path).read_bytes() == CONTENT


FETCH = (
    "from mlq_utils.data import downloads as _downloads; from pathlib import Path; import sys; "
    "_downloads.fetch(sys.argv[1], Path(sys.argv[2]), 'The file', 'put it there', sys.argv[3])"
)


def started(server, path):
    command = [sys.executable, "-c", FETCH, server.url, path, hashlib.sha256(CONTENT).hexdigest()]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def test_processes_at_once_fetch_it_once(server, path):
    both = [started(server, path) for _ in range(3)]
    for process in both:
        assert process.wait() == 0, process.stderr.read()
        process.stderr.close()
    assert path.read_bytes() == CONTENT and files(path) == ["file.bin"]
    assert server.asked == [None]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_process_leaves_a_part_that_is_continued(server, path, monkeypatch):
    whole, halfway = threading.Event(), threading.Event()

    def slow(self):
        self.server.asked.append(self.headers["Range"])
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.md5(CONTENT).hexdigest()}"')
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1_500_000])
        self.wfile.flush()
        halfway.set()
        whole.wait(30)

    with monkeypatch.context() as patch:
        patch.setattr(Handler, "do_GET", slow)
        process = started(server, path)
        assert halfway.wait(60)
        part = path.with_name("file.bin.part")
        while not part.is_file() or part.stat().st_size < 1_000_000:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
        whole.set()
    have = part.stat().st_size
    server.asked.clear()
    assert fetch(server, path, hashlib.sha256(CONTENT).hexdigest()).read_bytes() == CONTENT
    assert server.asked == [f"bytes={have}-"]
    shutil.rmtree(path.parent)
