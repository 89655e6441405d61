"""The store: whole records or none, whatever happens, whoever else writes."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlq_utils.store import HYPOTHESES, RECORD, Store, read_lines, write_lines

TEXTS = ["joi, 9 ianuarie", "", "NA", 'a "quoted", one', "two\nlines", "ភាសាខ្មែរ \u2028 x"]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def frame():
    return pd.DataFrame({"target": "ro", "hypothesis": TEXTS})


def left_over(store):
    return [p.name for p in store.folder.glob(".*")]


def test_what_is_put_is_got(store, frame):
    record = {"spec": {"languages": ("ro", "af")}, "scores": [1.5, None], "text": "ភាសា"}
    put = store.put("a", record, frame)
    assert put == store.get("a") | {}
    assert put["spec"] == {"languages": ["ro", "af"]}  # as JSON has it
    assert store.hypotheses("a")["hypothesis"].tolist() == TEXTS
    assert list(store.keys()) == ["a"] and left_over(store) == []
    assert store.get("b") is None and Store(store.folder / "nowhere").get("a") is None


def test_the_first_record_is_kept(store, frame):
    store.put("a", {"n": 1}, frame)
    assert store.put("a", {"n": 2}) == store.get("a")
    assert store.get("a")["n"] == 1 and left_over(store) == []


@given(at=st.integers(0, 10**6), damage=st.sampled_from(["cut", "flip", "append"]))
def test_a_damaged_record_counts_as_none(tmp_path_factory, at, damage):
    store = Store(tmp_path_factory.mktemp("store"))
    store.put("a", {"score": 91.25, "text": "joi"}, pd.DataFrame({"hypothesis": TEXTS}))
    for name in (RECORD, HYPOTHESES):
        path = store.folder / "a" / name
        whole = path.read_bytes()
        n = at % len(whole)
        changed = {
            "cut": whole[:n],
            "flip": whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :],
            "append": whole + b"x",
        }[damage]
        path.write_bytes(changed)
        with pytest.warns(UserWarning, match="the record a is damaged"):
            assert store.get("a") is None
        assert any(n.startswith(".damaged-a-") for n in left_over(store))
        assert store.put("a", {"score": 91.25, "text": "joi"}, pd.DataFrame({"hypothesis": TEXTS}))
        assert store.get("a")["score"] == 91.25


@pytest.mark.parametrize("call", ["fsync", "mkdir", "rename", "dumps"])
def test_a_write_that_fails_leaves_nothing(store, frame, monkeypatch, call):
    import pathlib

    store.put("other", {"n": 0})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    owner = {"fsync": os, "dumps": json}.get(call, pathlib.Path)
    with monkeypatch.context() as patched:
        patched.setattr(owner, call, full)
        with pytest.raises(OSError, match="No space left"):
            store.put("a", {"n": 1}, frame)
    assert store.get("a") is None and left_over(store) == []
    assert store.get("other")["n"] == 0
    assert store.put("a", {"n": 1}, frame)["n"] == 1


WRITER = """
import sys
import pandas as pd
from mlq_utils.store import Store
store = Store(sys.argv[1])
print("ready", flush=True)
for n in range(10**6):
    store.put(f"{n}", {"n": n, "filler": "x" * 20_000}, pd.DataFrame({"hypothesis": ["y"] * 500}))
"""


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.13])
def test_a_killed_writer_leaves_whole_records(store, seconds, recwarn):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, store.folder], stdout=subprocess.PIPE, text=True
    )
    writer.stdout.readline()
    time.sleep(seconds)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    for key in list(store.keys()):
        assert store.get(key)["n"] == int(key)
    assert not [w for w in recwarn if "damaged" in str(w.message)]
    assert store.put("after", {"n": -1})["n"] == -1


def write(arguments):
    folder, writer = arguments
    store = Store(folder)
    return [
        store.put(str(key), {"key": key, "writer": writer}, pd.DataFrame({"hypothesis": ["x"]}))
        for key in range(40)
    ]


def test_two_writers_agree_on_each_record(store):
    with ProcessPoolExecutor(2) as pool:
        one, other = pool.map(write, [(store.folder, 1), (store.folder, 2)])
    assert one == other
    assert [store.get(str(key)) for key in range(40)] == one
    assert left_over(store) == []


def test_a_folder_without_a_record_is_set_aside(store):
    store.put("a", {"n": 1})
    (store.folder / "a" / RECORD).unlink()
    with pytest.warns(UserWarning, match="it has no record.json"):
        assert store.get("a") is None
    assert store.put("a", {"n": 2})["n"] == 2


def test_records_without_hypotheses_say_so(store):
    store.put("a", {"n": 1})
    with pytest.raises(FileNotFoundError):
        store.hypotheses("a")


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
    with pytest.warns(UserWarning, match=r"lines \[\d\] are damaged"):
        found = read_lines(path)
    assert len(found) == (1 if joins else 2)
    assert all(found[key] == {"identity": key, "score": int(key)} for key in found)


def test_a_removed_record_is_gone(store, frame):
    store.put("a", {"n": 1}, frame)
    store.remove("a")
    assert store.get("a") is None and left_over(store) == []
