"""One interface for every corpus, and FLORES-200 as released."""

import hashlib
import os
import tarfile
import tempfile
import threading
import time
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlq_utils import corpora, languages
from mlq_utils.corpora import cldr

DATA = Path(os.environ.get("MLQ_DATA") or Path(__file__).parents[3] / "shared" / "data")
SENTENCES = corpora.CORPORA["flores200"].sentences
CODES = ("eng_Latn", "ron_Latn", "khm_Khmr")


@pytest.fixture(autouse=True)
def nothing_local(monkeypatch, no_local_data):
    """No local copy and an empty cache, unless a test makes one; no address beyond this machine."""
    served(monkeypatch, url="http://127.0.0.1:9/flores200_dataset.tar.gz")


def served(monkeypatch, **changes):
    """Let FLORES-200 come from elsewhere."""
    release = replace(corpora.CORPORA["flores200"], **changes)
    monkeypatch.setitem(corpora.CORPORA, "flores200", release)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder with a release of three languages."""
    for split, count in SENTENCES.items():
        folder = tmp_path / "data" / "flores200_dataset" / split
        folder.mkdir(parents=True)
        for code in CODES:
            lines = (f"{code} sentence {n}\n" for n in range(1, count + 1))
            (folder / f"{code}.{split}").write_text("".join(lines), encoding="utf-8", newline="")
    monkeypatch.setenv("MLQ_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def edit(data, change, code="ron_Latn", split="devtest"):
    path = data / "flores200_dataset" / split / f"{code}.{split}"
    path.write_bytes(change(path.read_bytes()))


@pytest.fixture
def release(data, tmp_path, monkeypatch):
    """The same as an archive in the official form, served on this machine; gives the server."""
    monkeypatch.delenv("MLQ_DATA")
    folder = tmp_path / "served"
    folder.mkdir()
    archive = folder / "flores200_dataset.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(data / "flores200_dataset", "./flores200_dataset")
    handler = partial(QuietHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
        served(monkeypatch, url=url, sha256=hashlib.sha256(archive.read_bytes()).hexdigest())
        yield server
        server.shutdown()


def found(cache):
    """What is in the cache, besides the lock that keeps other processes off."""
    return [path.name for path in cache.glob("*") if path.suffix != ".lock"]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        self.server.requests = getattr(self.server, "requests", 0) + 1


# One interface.


@pytest.mark.parametrize("name, split, count", [("flores200", "dev", 997), ("cldr", "test", 200)])
def test_every_corpus_gives_the_same_frame(data, name, split, count):
    frame = corpora.load(name, "ro", split)
    assert list(frame.columns) == ["source", "target"]
    assert list(frame.index) == list(range(count))
    assert frame.map(lambda text: isinstance(text, str) and text != "").all().all()
    provenance = {"corpus": name, "language": "ro", "split": split, "pairs": count}
    assert provenance.items() <= frame.attrs.items()
    assert {"description", "version", "licence"} <= set(frame.attrs)
    assert not any(str(data) in str(value) for value in frame.attrs.values())


@pytest.mark.parametrize("name, split", [("flores200", "devtest"), ("cldr", "test")])
def test_english_is_its_own_translation(data, name, split):
    frame = corpora.load(name, "en", split)
    assert frame.source.equals(frame.target)


def test_options_reach_the_corpus():
    frame = corpora.load("cldr", "ro", "train", size=7, seed=3)
    assert frame.equals(cldr.pairs("ro", "train", 7, seed=3))
    assert (frame.attrs["size"], frame.attrs["seed"]) == (7, 3)
    assert frame.attrs["licence"] == "Unicode-3.0"


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        (("flores", "ro", "dev"), {}, "unknown corpus 'flores'.*flores200.*cldr"),
        (("cldr", "rom", "test"), {}, "unknown language 'rom'.*ro"),
        (("cldr", "umb", "test"), {}, "unknown language of cldr 'umb'.*There are: hy"),
        (("flores200", "ro", "test"), {}, "unknown split of flores200 'test'.*dev, devtest"),
        (("cldr", "ro", "dev"), {}, "unknown split of cldr 'dev'.*train, test"),
        (("cldr", "ro", "test"), {"seeds": 1}, "unknown option of cldr 'seeds'.*seed"),
        (("flores200", "ro", "dev"), {"size": 1}, "unknown option of flores200 'size'"),
    ],
)
def test_what_does_not_exist_is_one_error_that_says_what_does(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        corpora.load(*arguments, **options)


# Where FLORES-200 is found.


def test_find_never_downloads(data, monkeypatch):
    assert corpora.find("flores200") == data / "flores200_dataset"
    monkeypatch.delenv("MLQ_DATA")
    assert corpora.find("flores200") is None
    assert corpora.find("cldr").is_dir()
    with pytest.raises(ValueError, match="unknown corpus 'teddy'"):
        corpora.find("teddy")


def test_a_folder_that_does_not_exist_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("MLQ_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"nowhere.*MLQ_DATA"):
        corpora.find("flores200")
    with pytest.raises(FileNotFoundError, match=r"nowhere.*MLQ_DATA"):
        corpora.load("flores200", "ro", "dev")


# What a damaged file gives.


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda raw: raw[: raw.rindex(b"ron_Latn")], "1011 lines where 1012 are expected"),
        (lambda raw: raw[:-3], "line 1012: a last line without an end"),
        (lambda raw: raw + b"one more\n", "1013 lines where 1012"),
        (lambda raw: b"", "0 lines"),
        (lambda raw: b"\xef\xbb\xbf" + raw, "line 1: a byte-order mark"),
        (lambda raw: raw.replace(b"sentence 40\n", b"sent\0nce\n"), "line 40: a NUL"),
        (lambda raw: raw.replace(b"sentence 41\n", b"\xff\n"), "line 41: not UTF-8"),
        (lambda raw: raw.replace(b"sentence 42\n", b"\xed\xa0\x80\n"), "line 42: not UTF-8"),
        (lambda raw: raw.replace(b"\n", b"\r\n"), "line 1: a carriage return"),
        (lambda raw: raw.replace(b"ron_Latn sentence 43\n", b" \n"), "line 43: a blank line"),
        (lambda raw: raw.decode().encode("utf-16"), "line 1: "),
    ],
)
@pytest.mark.parametrize("code", ["ron_Latn", "eng_Latn"])
def test_damage_is_named_with_file_and_line(data, change, message, code):
    edit(data, lambda raw: change(raw.replace(code.encode(), b"ron_Latn")), code)
    with pytest.raises(ValueError, match=message) as error:
        corpora.load("flores200", "ro", "devtest")
    assert f"{code}.devtest" in str(error.value)


def test_a_missing_file_is_named_and_not_downloaded(data):
    (data / "flores200_dataset" / "devtest" / "ron_Latn.devtest").unlink()
    with pytest.raises(FileNotFoundError, match=r"ron_Latn.devtest is missing"):
        corpora.load("flores200", "ro", "devtest")
    assert len(corpora.load("flores200", "ro", "dev")) == 997


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085", "\v", "\f", "\x1c"])
def test_what_looks_like_a_line_end_within_a_sentence_shifts_nothing(data, mark):
    edit(data, lambda raw: raw.replace(b"sentence 9\n", f"sen{mark}tence 9\n".encode()))
    frame = corpora.load("flores200", "ro", "devtest")
    assert frame.target[8] == f"ron_Latn sen{mark}tence 9"
    assert frame.target[9] == "ron_Latn sentence 10"
    assert frame.source[1011] == "eng_Latn sentence 1012"


@settings(deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_characters="\n\r\0\ufeff", codec="utf-8"), min_size=1).filter(
            str.strip
        ),
        max_size=10,
    )
)
def test_any_sentences_are_read_as_they_were_written(lines):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.dev")
        path.write_bytes("".join(line + "\n" for line in lines).encode())
        assert list(corpora.lines(path, strict=True)) == lines


# The download.


def test_the_release_is_downloaded_once_and_checked(
    release, no_local_data, tmp_path, data, capfd, monkeypatch
):
    frame = corpora.load("flores200", "km", "devtest")
    with monkeypatch.context() as patch:
        patch.setenv("MLQ_DATA", str(data))
        assert frame.equals(corpora.load("flores200", "km", "devtest"))
    assert release.requests == 1
    release.shutdown()
    assert len(corpora.load("flores200", "ro", "dev")) == 997
    assert corpora.find("flores200") == no_local_data / "flores200_dataset"
    out, err = capfd.readouterr()
    assert str(tmp_path) not in out + err  # pooch would name the cache
    assert "100%" in err


def test_without_a_network_one_error_says_what_to_place_where(no_local_data):
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=r"MLQ_DATA.*flores200_dataset/dev/ron_Latn.dev") as e:
        corpora.load("flores200", "ro", "dev")
    assert time.monotonic() - start < 5
    assert e.value.__suppress_context__  # one error, not three
    assert not found(no_local_data)


def test_a_server_without_the_file_is_the_same_error(release, monkeypatch):
    url = corpora.CORPORA["flores200"].url
    served(monkeypatch, url=url.replace("flores200_dataset", "moved"))
    with pytest.raises(ConnectionError, match="MLQ_DATA"):
        corpora.load("flores200", "ro", "dev")


def test_a_wrong_checksum_leaves_nothing(release, no_local_data, monkeypatch):
    served(monkeypatch, sha256="0" * 64)
    with pytest.raises(ValueError, match="does not match the known hash"):
        corpora.load("flores200", "ro", "dev")
    assert not found(no_local_data)


# The real thing.


@pytest.mark.skipif(not (DATA / "flores200_dataset").is_dir(), reason="no local copy of FLORES-200")
@pytest.mark.parametrize("split", ["dev", "devtest"])
def test_all_languages_of_the_real_release_load(split, monkeypatch):
    monkeypatch.setenv("MLQ_DATA", str(DATA))
    english = corpora.load("flores200", "en", split)
    for code in languages.codes("flores200"):
        frame = corpora.load("flores200", code, split)
        assert len(frame) == SENTENCES[split]
        assert frame.source.equals(english.source)
        assert code == "en" or not frame.target.equals(english.source)
    if split == "devtest":
        digest = "612e9fbe87997617c0fa8fa8929654a4f49b728d96738112c2b86ef6a1d78d88"
        assert english.attrs["files"] == {"eng_Latn.devtest": digest}
