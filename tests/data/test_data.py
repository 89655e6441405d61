"""Files are fetched, unpacked and written whole or not at all."""

import errno
import gzip
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest

from mlq_utils import data
from mlq_utils.data import fetch, find_folder, unpack

CONTENT = np.random.default_rng(0).bytes(3_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves one file as the test wants it.

    Attributes:
        content: The file.
        breaks: How many bytes of an answer are sent before the connection drops, one entry per
            answer; whole answers after these.
        announced: Bytes announced beyond those that there are.
        encoding: The Content-Encoding header, if any.
        slow: Set by the test to let the second half of an answer go out.
        asked: Number of requests.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.breaks, self.announced, self.encoding = CONTENT, [], 0, None
        self.asked, self.halfway, self.slow = 0, threading.Event(), None

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
        server.asked += 1
        total = len(server.content)
        self.send_response(200)
        if server.encoding:
            self.send_header("Content-Encoding", server.encoding)
        self.send_header("Content-Length", str(total + server.announced))
        self.end_headers()
        sent = server.breaks.pop(0) if server.breaks else total
        self.wfile.write(server.content[: sent // 2])
        self.wfile.flush()
        server.halfway.set()
        if server.slow:
            server.slow.wait(30)
        self.wfile.write(server.content[sent // 2 : sent])
        self.close_connection = True


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "file.bin"


def get(server, path, sha256=None):
    fetch(server.url, path, "The file", "put it there", sha256)
    return path.read_bytes()


def files(path):
    """What is in the cache, apart from the lock that keeps other processes off."""
    return sorted(p.name for p in path.parent.iterdir() if p.suffix != ".lock")


def test_a_file_is_fetched_once(server, path, capfd):
    assert get(server, path, DIGEST) == CONTENT
    assert get(server, path, DIGEST) == CONTENT and get(server, path) == CONTENT
    assert server.asked == 1 and files(path) == ["file.bin"]
    out, err = capfd.readouterr()
    assert str(path.parent) not in out + err  # pooch would name the cache
    assert "100%" in err


@pytest.mark.parametrize("sent", [0, 500_000])
def test_what_breaks_off_leaves_nothing_and_is_fetched_by_the_next_call(server, path, sent):
    server.breaks = [sent]
    with pytest.raises(ConnectionError, match=r"The file is not here .*put it there"):
        get(server, path)
    assert files(path) == []
    assert get(server, path) == CONTENT
    assert files(path) == ["file.bin"]


def test_less_than_announced_is_never_taken_for_whole(server, path):
    server.announced = 10
    with pytest.raises(ConnectionError, match=r"cannot be downloaded .*put it there"):
        get(server, path)
    assert files(path) == []


def test_another_file_is_found_by_the_checksum(server, path):
    server.content = CONTENT[::-1]
    with pytest.raises(ValueError, match=r"does not match the known hash.*put it there"):
        get(server, path, DIGEST)
    assert files(path) == []
    server.content = CONTENT
    assert get(server, path, DIGEST) == CONTENT


def test_a_damaged_file_in_the_cache_is_fetched_again(server, path):
    path.parent.mkdir()
    path.write_bytes(CONTENT[:-1])
    assert get(server, path, DIGEST) == CONTENT


def test_bytes_are_kept_as_they_come(server, path):
    """A server may call gzip an encoding what is the released file's own compression."""
    server.content = gzip.compress(CONTENT[:1000])
    server.encoding = "x-gzip"
    assert get(server, path) == server.content


def test_without_a_network_it_is_told_at_once(path):
    gone = SimpleNamespace(url="http://127.0.0.1:9/file.bin")
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=r"The file is not here .*put it there") as error:
        get(gone, path)
    assert time.monotonic() - start < 5
    assert error.value.__suppress_context__  # one error, not three
    assert files(path) == []


def test_a_refusal_is_told_with_its_number(server, path, monkeypatch):
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.send_error(403))
    with pytest.raises(ConnectionError, match="the server answers 403"):
        get(server, path)
    assert files(path) == []


def test_a_disk_without_room_is_told_before_anything_is_written(server, path, monkeypatch):
    usage = SimpleNamespace(disk_usage=lambda folder: SimpleNamespace(free=1000))
    monkeypatch.setattr(data, "shutil", usage)
    with pytest.raises(OSError, match=r"no room for The file.*XDG_CACHE_HOME") as error:
        get(server, path)
    assert error.value.errno == errno.ENOSPC and not isinstance(error.value, ConnectionError)
    assert files(path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_disk_that_fills_up_is_told(server, path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(data, "open", lambda *arguments: io.FileIO("/dev/full", "w"), raising=False)
        with pytest.raises(OSError, match="no room for The file") as error:
            get(server, path)
    assert error.value.errno == errno.ENOSPC
    assert get(server, path) == CONTENT


FETCH = (
    "from mlq_utils.data import fetch; from pathlib import Path; import sys; "
    "fetch(sys.argv[1], Path(sys.argv[2]), 'The file', 'put it there', sys.argv[3])"
)


def started(server, path):
    command = [sys.executable, "-c", FETCH, server.url, path, DIGEST]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TQDM_DISABLE": "1"}
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def test_processes_at_once_fetch_it_once(server, path):
    for process in [started(server, path) for _ in range(3)]:
        assert process.wait() == 0, process.stderr.read()
        assert process.stderr.read() == ""  # the progress bar can be switched off
        process.stderr.close()
    assert path.read_bytes() == CONTENT and files(path) == ["file.bin"]
    assert server.asked == 1


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_process_leaves_nothing_to_be_mistaken(server, path):
    server.slow = threading.Event()
    process = started(server, path)
    assert server.halfway.wait(60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    server.slow.set()
    assert not path.exists()
    assert get(server, path, DIGEST) == CONTENT


def test_local_folders_come_in_order(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    for name in ("named", "kept/mlq_utils"):
        (tmp_path / name / "x").mkdir(parents=True)
    monkeypatch.setenv("MLQ_DATA", str(tmp_path / "named"))
    assert find_folder("x").parent.name == "named"
    monkeypatch.delenv("MLQ_DATA")
    assert find_folder("x").parent.name == "mlq_utils"
    assert find_folder("y") is None


# Archives.


def archive_of(path, members):
    """Write a tar archive; a member is a name and its bytes, or a TarInfo."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = info.size or len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def link(kind, name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "member, message",
    [
        ("../outside", "leads outside"),
        ("release/../../outside", "leads outside"),
        ("/tmp/outside", "leads outside"),
        ("release\\..\\..\\outside", "leads outside"),
        (link(tarfile.SYMTYPE, "release/link", "/etc/passwd"), "no plain file"),
        (link(tarfile.LNKTYPE, "release/link", "../../x"), "no plain file"),
        (link(tarfile.FIFOTYPE, "release/pipe", ""), "no plain file"),
        (link(tarfile.CHRTYPE, "release/device", ""), "no plain file"),
    ],
)
def test_an_archive_that_reaches_outside_is_refused(tmp_path, member, message):
    archive = archive_of(tmp_path / "a.tar.gz", [("release/dev/ok", b"x"), (member, b"")])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message):
        unpack(archive, tmp_path / "release", "dev/ok")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_archive_of_absurd_size_is_refused_before_it_is_read(tmp_path):
    # The header announces what would fill the disk; there is nothing behind it.
    huge = tarfile.TarInfo("release/dev/huge")
    huge.size = data.ARCHIVE_BYTES + 1
    path = tmp_path / "a.tar"
    path.write_bytes(huge.tobuf())
    with pytest.raises(ValueError, match="unpacks to over 2,147,483,648 bytes"):
        unpack(path, tmp_path / "release", "dev/huge")
    assert list(tmp_path.iterdir()) == [path]


def test_another_archive_is_refused(tmp_path):
    archive = archive_of(tmp_path / "a.tar.gz", [("other/file", b"x")])
    with pytest.raises(ValueError, match="holds no release/dev/ok"):
        unpack(archive, tmp_path / "release", "dev/ok")
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize("within", ["release/", "./release/", "", "./"])
def test_an_archive_may_hold_the_folder_or_its_contents(tmp_path, within):
    archive = archive_of(tmp_path / "a.tar.gz", [(f"{within}dev/ok", b"x")])
    folder = tmp_path / "release"
    assert unpack(archive, folder, "dev/ok") == folder
    assert [p.relative_to(folder).as_posix() for p in folder.rglob("*")] == ["dev", "dev/ok"]
    assert (folder / "dev/ok").read_bytes() == b"x"
    assert unpack(archive, folder, "dev/ok") == folder  # another process was faster
    assert not list(tmp_path.glob("unpacking-*"))


def test_a_disk_that_is_full_leaves_nothing_half_unpacked(tmp_path, monkeypatch):
    archive = archive_of(tmp_path / "a.tar.gz", [("release/a", b"x"), ("release/b", b"x")])
    copies = []

    def full_disk(*arguments, **options):
        copies.append(arguments)
        if len(copies) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "copyfileobj", full_disk)
        with pytest.raises(OSError, match="No space left"):
            unpack(archive, tmp_path / "release", "a")
    assert list(tmp_path.iterdir()) == [archive]
    assert (unpack(archive, tmp_path / "release", "a") / "b").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_kill_while_unpacking_leaves_nothing_to_be_mistaken(tmp_path):
    archive = archive_of(tmp_path / "a.tar.gz", [("release/a", b"x")])
    code = (
        "from mlq_utils.data import unpack; from pathlib import Path; import os, sys, tarfile; "
        "tarfile.copyfileobj = lambda *_, **__: os.kill(os.getpid(), 9); "
        "unpack(*map(Path, sys.argv[1:]), 'a')"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code, archive, tmp_path / "release"], env=env)
    assert run.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2  # what it left is under another name
    assert not (tmp_path / "release").exists()
    assert (unpack(archive, tmp_path / "release", "a") / "a").read_bytes() == b"x"
