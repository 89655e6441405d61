"""The store: whole records or none, whatever happens, whoever else writes, wherever it lies."""

import json
import multiprocessing
import os
import pathlib
import random
import sys
import time
import uuid
import warnings
from concurrent.futures import ProcessPoolExecutor

import fsspec
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mlq_utils.experiments import Store, write_lines
from mlq_utils.experiments import store as stores

TEXTS = ["joi, 9 ianuarie", "", "NA", 'a "quoted", one', "two\nlines", "ភាសាខ្មែរ \u2028 x", "\r"]
PLACES = ["local", "memory", "s3"]
BUSY, BROKEN = ("503 Slow Down", "SlowDown"), ("500 Internal Server Error", "InternalError")
DENIED = ("403 Forbidden", "AccessDenied")
CONFLICT = ("409 Conflict", "ConditionalRequestConflict")
LOST = ("lost", "")


class ObjectStore:
    """A fake of S3 on this machine, in a process of its own, that can be made to refuse.

    Refusals stand before moto: a list of answers, one a write of a file whose name has `at` in it.
    """

    def __init__(self):
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.refusals, self.at, self.delay, self.asked = [], "", 0.0, []
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _answer(self, environ, start_response):
        time.sleep(self.delay)
        self.asked.append(environ["REQUEST_METHOD"])
        writes = environ["REQUEST_METHOD"] == "PUT" and self.at in environ["PATH_INFO"]
        if writes and self.refusals:
            status, code = self.refusals.pop(0)
            if status == "lost":  # done, but the answer is not that it was
                b"".join(self._app(environ, lambda *_: None))
                status, code = "500 Internal Server Error", "InternalError"
            start_response(status, [("Content-Type", "application/xml")])
            return [f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()]
        return self._app(environ, start_response)

    def __enter__(self):
        import threading

        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()


@pytest.fixture(scope="session")
def s3():
    """An object store with the bucket `mlq`, where the environment of this process has it."""
    pytest.importorskip("s3fs", reason="no s3fs: pip install 'mlq_utils[s3]'")
    pytest.importorskip("moto.server", reason="no moto[s3,server], the fake object store")
    found = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with ObjectStore() as fake, pytest.MonkeyPatch.context() as patch:
        for name, value in (found | {"AWS_ENDPOINT_URL": fake.url}).items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").mkdir("mlq")
        yield fake


@pytest.fixture(scope="session")
def fresh(request, tmp_path_factory):
    """Makes stores of a kind, each in a place of its own."""

    def make(kind):
        if kind == "s3":
            request.getfixturevalue("s3")
            return Store(f"s3://mlq/{uuid.uuid4().hex}")
        if kind == "memory":
            return Store(f"memory://{uuid.uuid4().hex}")
        return Store(tmp_path_factory.mktemp("store") / "store")

    return make


@pytest.fixture(params=PLACES)
def store(request, fresh):
    return fresh(request.param)


@pytest.fixture
def local(fresh):
    return fresh("local")


@pytest.fixture
def frame():
    return pd.DataFrame({"target": "ro", "hypothesis": TEXTS})


def files(store):
    """All files of a store by name, whatever their kind, as another program sees them."""
    system, root = fsspec.core.url_to_fs(store.url, skip_instance_cache=True)
    found = system.find(root) if system.exists(root) else []
    return {path.removeprefix(root).lstrip("/"): system.cat_file(path) for path in found}


def write_file(store, name, content):
    system, root = fsspec.core.url_to_fs(store.url)
    system.pipe_file(f"{root}/{name}", content)


def same(one, other):
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


def left_over(store):
    return [name for name in files(store) if name.startswith(".")]


def test_what_is_put_is_got(store, frame):
    record = {"spec": {"languages": ("ro", "af")}, "scores": [1.5, None], "text": "ភាសា"}
    put = store.put("a", record, frame)
    assert put == store.get("a") | {}
    assert put["spec"] == {"languages": ["ro", "af"]}  # as JSON has it
    assert store.hypotheses("a")["hypothesis"].tolist() == TEXTS
    assert list(store.keys()) == ["a"] and left_over(store) == []
    assert store.get("b") is None and Store(f"{store.url}/nowhere").get("a") is None
    assert list(Store(f"{store.url}/nowhere").keys()) == []
    store.put("b", {"n": 1})
    assert store.get_all(["b", "c", "a", "b"]) == {"b": store.get("b"), "c": None, "a": put}
    assert Store(store.url).get("a") == put  # what is passed to another process


# Whatever UTF-8 can hold: what a model writes is not always fit to print.
ODD = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.mark.parametrize("kind", PLACES)
@settings(max_examples=30)
@given(texts=st.lists(ODD, max_size=4), word=ODD)
@example(texts=["a\rb", "\r\n", "\x00", '"', "\u2028\x85", "", " x ", "1e5", "\ufeff"], word="\x00")
def test_odd_text_comes_back(fresh, kind, texts, word):
    assume(word not in ("sha256", "hypotheses"))  # the store's own
    store = fresh(kind)
    frame = pd.DataFrame({"source": texts, "hypothesis": texts, "n": range(len(texts))})
    kept = store.put("a", {"word": word, word: [texts]}, frame)
    assert store.get("a") == kept and kept[word] == [texts]
    found = store.hypotheses("a")
    assert found["hypothesis"].tolist() == found["source"].tolist() == texts
    assert found["n"].tolist() == list(range(len(texts)))


def test_the_first_record_is_kept(store, frame):
    store.put("a", {"n": 1}, frame)
    before = files(store)
    assert store.put("a", {"n": 2}, frame.head(1)) == store.get("a")
    assert store.get("a")["n"] == 1 and files(store) == before


@pytest.mark.parametrize("kind", ["local", "memory"])
@given(at=st.integers(0, 10**6), damage=st.sampled_from(["cut", "flip", "append"]))
def test_a_damaged_record_counts_as_none(fresh, kind, at, damage):
    store = fresh(kind)
    texts = pd.DataFrame({"hypothesis": TEXTS})
    store.put("a", {"score": 91.25, "text": "joi"}, texts)
    whole = files(store)["a.json"]
    n = at % len(whole)
    changed = {
        "cut": whole[:n],
        "flip": whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :],
        "append": whole + b"x",
    }[damage]
    write_file(store, "a.json", changed)
    assume(not same(changed, whole))  # a bit in the white space between two values
    with pytest.warns(UserWarning, match="the record a is damaged"):
        assert store.get("a") is None
    with pytest.raises(FileNotFoundError, match="no hypotheses of a"):
        store.hypotheses("a")
    assert list(store.keys()) == ["a"] and left_over(store) == []  # who reads writes nothing
    store.put("a", {"score": 91.25, "text": "joi"}, texts)  # sets the damaged one aside
    assert changed in files(store).values() and list(store.keys()) == ["a"]
    assert store.get("a")["score"] == 91.25


def test_a_damaged_object_is_set_aside(fresh, frame):
    store = fresh("s3")
    store.put("a", {"n": 1}, frame)
    write_file(store, "a.json", b'{"n": 1')
    with pytest.warns(UserWarning, match="is damaged"):
        assert store.get("a") is None
    assert store.put("a", {"n": 2}, frame)["n"] == 2
    assert store.get("a")["n"] == 2 and b'{"n": 1' in files(store).values()
    assert list(store.keys()) == ["a"]


def test_an_empty_object_is_damaged(fresh):
    store = fresh("s3")
    write_file(store, "a.json", b"")
    with pytest.warns(UserWarning, match="is damaged"):
        assert store.get("a") is None


def test_a_record_takes_few_requests(fresh, s3, frame):
    """Each is a round trip of a tenth of a second and more, where the store is far."""
    store = fresh("s3")
    asked = s3.asked
    for call, requests in (
        (lambda: store.get("a"), ["GET"]),
        (lambda: store.put("a", {"n": 1}, frame), ["PUT"]),
        (lambda: store.get("a"), ["GET"]),
    ):
        asked.clear()
        call()
        assert asked == requests


@pytest.mark.parametrize("call", ["fsync", "mkdir", "link", "dumps"])
def test_a_write_that_fails_leaves_nothing(local, frame, monkeypatch, call):
    local.put("other", {"n": 0})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    owner = {"mkdir": pathlib.Path, "dumps": json}.get(call, os)
    with monkeypatch.context() as patched:
        patched.setattr(owner, call, full)
        with pytest.raises(OSError, match="No space left"):
            local.put("a", {"n": 1}, frame)
    assert local.get("a") is None and left_over(local) == []
    assert local.get("other")["n"] == 0
    assert local.put("a", {"n": 1}, frame)["n"] == 1


def put_forever(url):
    """Write records until this process is killed."""
    store = Store(url)
    texts = pd.DataFrame({"hypothesis": ["y"] * 500})
    for n in range(10**6):
        store.put(f"{n}", {"n": n, "filler": "x" * 20_000}, texts)


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_killed_writer_leaves_whole_records(fresh, kind, recwarn, monkeypatch):
    """Two writers, killed at different moments of a write."""
    spawn = multiprocessing.get_context("spawn")
    for records in (1, 4):
        store = fresh(kind)
        writer = spawn.Process(target=put_forever, args=(store.url,))
        writer.start()
        while len(list(store.keys())) < records:
            time.sleep(0.003)
        time.sleep(random.random() * 0.005)
        writer.kill()
        writer.join()
        for key in list(store.keys()):
            assert store.get(key)["n"] == int(key)
            assert len(store.hypotheses(key)) == 500
        assert not [w for w in recwarn if "damaged" in str(w.message)]
        assert store.put("after", {"n": -1})["n"] == -1
        monkeypatch.setattr(stores, "LEFTOVER_SECONDS", -1)
        store.check()
        assert left_over(store) == []


def test_old_leftovers_of_killed_writers_are_cleared(local):
    """Once they are an hour old, and nothing else."""
    root = pathlib.Path(local.url)
    number = "0123456789abcdef" * 2
    left = [f".a-ro.json.{number}", f".a.{number}", f".removed-{number}", f".check.{number}"]
    left.append(f"..check.{number}.{number}")
    others = [".git", ".damaged-a-01234567.json", f".old.json.{number}x", "b.json"]
    for name in left + others:
        root.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / f".b.json.{number}").touch()
    local.check()
    assert len(list(root.iterdir())) == 10
    for path in root.iterdir():
        os.utime(path, (0, 0))
    local.check()
    assert sorted(path.name for path in root.iterdir()) == sorted(others)


def write(arguments):
    url, writer = arguments
    store = Store(url)
    texts = pd.DataFrame({"hypothesis": [f"by {writer}"]})
    return [store.put(str(key), {"key": key, "writer": writer}, texts) for key in range(20)]


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_two_writers_agree_on_each_record(fresh, kind):
    store = fresh(kind)
    assert list(store.keys()) == []  # a listing that is kept would stay empty
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        one, other = pool.map(write, [(store.url, 1), (store.url, 2)])
    assert one == other
    assert [store.get(str(key)) for key in range(20)] == one
    assert sorted(store.keys()) == sorted(map(str, range(20)))
    for record in one:
        text = store.hypotheses(str(record["key"]))["hypothesis"].item()
        assert text == f"by {record['writer']}"
    assert left_over(store) == [] and len(files(store)) == 20  # nothing of the slower is left


def test_records_without_hypotheses_say_so(store):
    store.put("a", {"n": 1})
    for key in ("a", "b"):
        with pytest.raises(FileNotFoundError):
            store.hypotheses(key)


def test_shipped_records_stand_behind_a_store(tmp_path, frame):
    first = Store(tmp_path / "first")
    records = [first.put(n, {"identity": n, "score": 1.5, "text": "ភាសា"}, frame) for n in "ba"]
    write_lines(tmp_path / "shipped/runs.jsonl", records)
    lines = (tmp_path / "shipped/runs.jsonl").read_text("utf8").splitlines()
    assert [json.loads(line)["identity"] for line in lines] == ["a", "b"]
    store = Store(tmp_path / "second", tmp_path / "shipped")
    assert store.get("a") == {"identity": "a", "score": 1.5, "text": "ភាសា"}
    assert store.get("c") is None and list(store.keys()) == []
    with pytest.raises(FileNotFoundError):
        store.hypotheses("a")
    assert store.put("a", {"identity": "a", "score": 2.5})["score"] == 2.5  # its own comes first
    assert store.get("a")["score"] == 2.5
    assert Store(tmp_path / "second", tmp_path / "nowhere").get("b") is None


@given(at=st.integers(0, 10**6))
def test_a_damaged_line_is_left_out(tmp_path_factory, at):
    path = tmp_path_factory.mktemp("shipped") / "runs.jsonl"
    records = [{"identity": str(n), "score": n} for n in range(3)]
    write_lines(path, records)
    text = bytearray(path.read_bytes())
    at %= len(text) - 1  # not the last line's end, which nothing hangs on
    joins = text[at] == ord("\n")
    text[at] = ord("#")
    path.write_bytes(text)
    with pytest.warns(UserWarning, match=r"damaged records: \['runs.jsonl:\d'\]"):
        found = Store(path.parent / "store", path.parent).shipped_records
    assert len(found) == (1 if joins else 2)
    assert all(found[key] == {"identity": key, "score": int(key)} for key in found)


def test_a_removed_record_is_gone(store, frame):
    store.put("a", {"n": 1}, frame)
    store.remove("a")
    assert store.get("a") is None and files(store) == {}
    with pytest.raises(FileNotFoundError):
        store.remove("a")


def test_check_leaves_nothing(store):
    store.put("a", {"n": 1})
    before = files(store)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.check()
    assert files(store) == before


def test_check_says_what_is_wrong_here(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"the store .*/file cannot be used: .*a directory"):
        Store(tmp_path / "file").check()


def test_check_says_what_is_wrong_elsewhere(fresh, s3, monkeypatch):
    with pytest.raises(
        OSError, match=r"the store s3://no-such-bucket/runs .*bucket does not exist"
    ):
        Store("s3://no-such-bucket/runs").check()
    s3.at, s3.refusals = "", [DENIED]
    with pytest.raises(OSError, match=r"cannot be used: .*AccessDenied"):
        fresh("s3").check()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(fsspec.get_filesystem_class("s3"), "retries", 1)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(OSError, match=r"cannot be used: .*127\.0\.0\.1:9"):
        Store("s3://mlq/elsewhere").check()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_check_warns_of_a_store_that_writes_over(fresh, monkeypatch):
    memory = fsspec.get_filesystem_class("memory")
    whatever = memory.pipe_file
    monkeypatch.setattr(memory, "pipe_file", lambda s, p, d, mode=None: whatever(s, p, d))
    with pytest.warns(UserWarning, match="overwrites records"):
        fresh("memory").check()


@pytest.mark.parametrize("refusals", [[BUSY, BROKEN], [CONFLICT, CONFLICT], [LOST]])
def test_a_refusal_that_passes_costs_nothing(fresh, s3, frame, refusals):
    store = fresh("s3")
    s3.at, s3.refusals = "a.json", list(refusals)
    kept = store.put("a", {"n": 1}, frame)
    assert s3.refusals == [] and kept["n"] == 1
    assert store.get("a") == kept and len(files(store)) == 1
    assert store.hypotheses("a")["hypothesis"].tolist() == TEXTS


@pytest.mark.parametrize("refusals", [[DENIED], [CONFLICT] * (1 + len(stores.CONFLICT_PAUSES))])
def test_a_refusal_that_stays_is_an_error_and_leaves_nothing(
    fresh, s3, frame, refusals, monkeypatch
):
    store = fresh("s3")
    monkeypatch.setattr(stores, "CONFLICT_PAUSES", [0] * len(stores.CONFLICT_PAUSES))
    s3.at, s3.refusals = "a.json", list(refusals)
    with pytest.raises(OSError, match=refusals[0][1]):
        store.put("a", {"n": 1}, frame)
    assert s3.refusals == [] and store.get("a") is None and files(store) == {}
    assert store.put("a", {"n": 2}, frame)["n"] == 2


def test_records_are_read_several_at_a_time(fresh, s3, monkeypatch):
    store = fresh("s3")
    keys = [f"{n}" for n in range(8)]
    for key in keys:
        store.put(key, {"n": int(key)})
    monkeypatch.setattr(s3, "delay", 0.3)
    start = time.monotonic()
    found = store.get_all(keys)
    assert [found[key]["n"] for key in keys] == list(range(8))
    assert time.monotonic() - start < 8 * 0.3  # one after another: each at least that long


def test_places_that_cannot_be_are_refused_at_once(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"the store what://x cannot be opened: .*what"):
        Store("what://x")
    with pytest.raises(ValueError, match="pass it as a string"):
        Store(pathlib.Path("s3://bucket/prefix"))
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ImportError, match=r"the store gs://b/p cannot be opened: .*gcsfs"):
        Store("gs://b/p")


def test_a_path_may_be_given_as_a_url(tmp_path):
    assert Store(f"file://{tmp_path}").url == Store(tmp_path).url == str(tmp_path)


def test_a_relative_path_stays_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store("runs")
    monkeypatch.chdir("/")
    assert store.url == str(tmp_path / "runs")
    store.put("a", {"n": 1})
    assert (tmp_path / "runs/a.json").is_file()
