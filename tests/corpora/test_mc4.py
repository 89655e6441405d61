"""mC4: as much as is asked for, from a folder or as it streams, and never half of it."""

import dataclasses
import functools
import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mlq_utils import corpora, languages, modeling
from mlq_utils.corpora.texts import mc4_files
from mlq_utils.modeling import extension


def shard(texts):
    """A file of mC4: a page a line."""
    page = {"timestamp": "2018-02-20T06:49:42Z", "url": "http://example.org"}
    lines = [json.dumps({"text": text} | page, ensure_ascii=False) for text in texts]
    return gzip.compress("".join(line + "\n" for line in lines).encode())


def pages(number):
    """The pages of a file: two lines and a blank one each."""
    return [f"file {number} page {n}\n\n  second line {n} \n" for n in range(50)]


@pytest.fixture(autouse=True)
def nothing_local(monkeypatch, no_local_data):
    served(monkeypatch, "http://127.0.0.1:9/{file}")


def served(monkeypatch, url):
    mc4 = dataclasses.replace(corpora.CORPORA["mc4"], url=url)
    monkeypatch.setitem(corpora.CORPORA, "mc4", mc4)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """All eight files of Lao."""
    folder = tmp_path / "data" / "mc4"
    folder.mkdir(parents=True)
    for n in range(8):
        (folder / f"c4-lo.tfrecord-{n:05d}-of-00008.json.gz").write_bytes(shard(pages(n)))
    monkeypatch.setenv("MLQ_DATA", str(folder.parent))
    return folder


class Handler(BaseHTTPRequestHandler):
    """Serves the folder; sends `breaks` bytes of an answer where the list has an entry for it."""

    def __init__(self, *arguments, folder, breaks, asked):
        self.folder, self.breaks, self.asked = folder, breaks, asked
        super().__init__(*arguments)

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.asked.append(self.path.strip("/"))
        path = self.folder / self.path.strip("/")
        if not path.is_file():
            return self.send_error(404)
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: self.breaks.pop(0) if self.breaks else None])


@pytest.fixture
def server(folder, monkeypatch):
    """The same files on a server, and none of them local; gives what was asked of it."""
    monkeypatch.delenv("MLQ_DATA")
    asked, breaks = [], []
    handler = functools.partial(Handler, folder=folder, breaks=breaks, asked=asked)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.handle_error = lambda *arguments: None
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        served(monkeypatch, f"http://127.0.0.1:{server.server_port}/{{file}}")
        server.asked, server.breaks = asked, breaks
        yield server
        server.shutdown()


def load(size=10, seed=0):
    return corpora.monolingual("mc4", "lo", size, seed)


def test_lines_come_page_by_page_from_files_in_a_drawn_order(folder):
    text = load(250)
    first, second, third = (int(name[15:20]) for name in mc4_files("lo", 0)[:3])
    expected = [
        line
        for n in (first, second, third)
        for page in range(50)
        for line in (f"file {n} page {page}", f"second line {page}")
    ]
    assert text.tolist() == expected[:250]
    assert text.name == "text" and list(text.index) == list(range(250))
    assert text.attrs["corpus"] == "mc4" and text.attrs["language"] == "lo"
    assert (
        text.attrs["licence"] == "ODC-BY"
        and text.attrs["version"] == corpora.CORPORA["mc4"].version
    )
    assert (text.attrs["lines"], text.attrs["size"], text.attrs["seed"]) == (250, 250, 0)
    assert load(30).tolist() == text.tolist()[:30]
    assert load(30, seed=1).tolist() != text.tolist()[:30]


def test_all_there_are_where_more_is_asked_for(folder):
    text = load(10_000)
    assert len(text) == text.attrs["lines"] == 8 * 50 * 2 and text.attrs["size"] == 10_000


def test_of_a_folder_with_some_files_these_are_read(folder):
    names = mc4_files("lo", 0)
    for name in names[1:]:
        (folder / name).unlink()
    assert len(load(10_000)) == 100
    (folder / names[0]).unlink()
    with pytest.raises(FileNotFoundError, match=rf"no file of 'lo', such as {re.escape(names[0])}"):
        load()


def test_no_more_is_asked_of_the_server_than_needed(server, folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("MLQ_DATA", str(folder.parent))
        local = load(120)
    downloaded = load(120)
    assert server.asked == mc4_files("lo", 0)[:2]
    assert downloaded.equals(local) and downloaded.attrs == local.attrs
    assert load(120).equals(downloaded) and len(server.asked) == 2  # kept
    served(monkeypatch, "http://127.0.0.1:9/{file}")
    assert load(120).attrs == downloaded.attrs
    with pytest.raises(ConnectionError):
        load(201)
    with pytest.raises(ConnectionError):
        load(20, seed=1)


def test_a_connection_that_breaks_off_leaves_nothing(server, no_local_data):
    server.breaks += [20]
    with pytest.raises(ConnectionError, match=r"mc4 is not here.*mc4 in the folder MLQ_DATA") as e:
        load(120)
    assert e.value.__suppress_context__
    assert not list(no_local_data.glob("**/*.gz"))
    assert len(load(120)) == 120


def test_without_a_network_it_is_told_at_once(no_local_data):
    with pytest.raises(ConnectionError, match=r"downloaded \(ConnectionError\).*MLQ_DATA"):
        load()
    assert not list(no_local_data.glob("**/*.gz"))


def test_a_file_that_the_server_lacks(server, folder):
    (folder / mc4_files("lo", 0)[0]).unlink()
    with pytest.raises(ConnectionError, match="the server answers 404"):
        load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw[:-12], "truncated or damaged after line"),
        (lambda raw: b"<html></html>", "truncated or damaged after line 0"),
        (lambda raw: raw[:40] + b"\0\0\0\0" + raw[44:], "truncated or damaged|no page of mC4"),
        (lambda raw: gzip.compress(b'{"text": "a"}\n{"text": '), "line 2: no page of mC4"),
        (lambda raw: gzip.compress(b'{"url": "a"}\n'), "line 1: no page of mC4"),
        (lambda raw: gzip.compress(b"[1]\n"), "line 1: no page of mC4"),
        (lambda raw: gzip.compress(b'{"text": 7}\n'), "line 1: no page of mC4"),
        (lambda raw: gzip.compress(b'{"text": "\xff"}\n'), "line 1: not UTF-8"),
    ],
)
@pytest.mark.parametrize("where", ["folder", "server"])
def test_a_damaged_file_is_named(request, folder, change, message, where):
    path = folder / mc4_files("lo", 0)[0]
    path.write_bytes(change(path.read_bytes()))
    if where == "server":
        request.getfixturevalue("server")
    with pytest.raises(ValueError, match=message) as error:
        load(100)
    assert path.name in str(error.value)


def test_files_without_text(folder):
    for path in folder.iterdir():
        path.write_bytes(shard(["", " \n \n"]))
    with pytest.raises(ValueError, match="mC4 has no text in 'lo'"):
        load()


def test_what_is_no_text_is_left_out_and_odd_line_ends_divide_nothing(server, folder):
    for path in folder.iterdir():
        path.write_bytes(gzip.compress(b'{"text": "a\\u0000b\\u2028c\\u0085d\\ud800\\n\\u0000"}\n'))
    expected = ["ab\u2028c\u0085d"] * 3
    assert load(3).tolist() == expected  # downloaded
    assert load(3).tolist() == expected  # kept


def test_damage_to_what_is_kept_is_named(server, no_local_data):
    load(20)
    (kept,) = no_local_data.glob("**/*.gz")
    kept.write_bytes(kept.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"damaged .*delete it") as error:
        load(200)
    assert str(kept) in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mc4", "hr", 5), "unknown language of mc4 'hr'"),
        (("mc4", "ku", 5), "unknown language of mc4 'ku'"),  # mC4's is in Latin script
        (("mc4", "zhtrad", 5), "unknown language of mc4 'zhtrad'"),
        (("mc4", "xx", 5), "unknown language 'xx'"),
        (("c4", "km", 5), "unknown file or source of text 'c4'.*mc4, cldr"),
        (("ntrex", "km", 5), "unknown file or source of text 'ntrex'"),
        (("mc4", "km", 0), "size must be 1 or more, not 0"),
    ],
)
def test_what_there_is_not(arguments, message):
    with pytest.raises(ValueError, match=message):
        corpora.monolingual(*arguments)


def test_codes_are_those_of_mc4():
    assert languages.get("he").mc4 == "iw" and languages.get("tl").mc4 == "fil"
    codes = languages.table()["mc4"]
    assert codes[codes != ""].is_unique
    for code in languages.codes("mc4"):
        names = mc4_files(languages.get(code).mc4, 3)
        assert len(names) == len(set(names)) == int(names[0][-13:-8])
        assert mc4_files(languages.get(code).mc4, 3) == names


# Other sources of text.


def test_cldr_is_text_too():
    text = corpora.monolingual("cldr", "km", 40, 1)
    composed = corpora.load("cldr", "km", "train", size=40, seed=1)["target"]
    assert text.tolist() == composed.tolist() and text.attrs["lines"] == 40
    assert "pairs" not in text.attrs


def test_the_dev_set_of_flores_is_text_too(data, monkeypatch):
    monkeypatch.setenv("MLQ_DATA", str(data))
    if corpora.find("flores200") is None:
        pytest.skip("no FLORES-200 in the data folder")
    text = corpora.monolingual("flores200", "km", 10_000)
    dev = corpora.load("flores200", "km", "dev")["target"]
    assert sorted(text) == sorted(dev) and text.attrs["split"] == "dev"
    assert corpora.monolingual("flores200", "km", 5).tolist() == text.tolist()[:5]


@pytest.mark.parametrize("method", extension.METHODS)
def test_a_vocabulary_is_learned_from_it(folder, method):
    base = modeling.load("mini")
    phrases = corpora.load("cldr", "lo", "train", size=1600, seed=1)["target"].tolist()
    for n, path in enumerate(sorted(folder.iterdir())):
        text = ["\n".join(phrases[k : k + 8]) for k in range(n, 1600, 64)]
        path.write_bytes(shard([*text, "ສະບາຍດີ" * 5000]))  # a paragraph of 105,000 bytes
    lines = load(5000).tolist()
    pieces = extension.learn(method, lines, 40, base.tokenizer)
    bigger = extension.extend(base, pieces, "mean", True)
    assert len(set(pieces)) == 40 and len(bigger.tokenizer) == 3072 + 40
