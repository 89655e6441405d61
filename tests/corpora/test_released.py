"""Released corpora, on small files in the formats of the releases, and what is drawn from them."""

import gzip
import hashlib
import json
import tarfile
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlq_utils import corpora, languages, paper
from mlq_utils.corpora import loading
from mlq_utils.modeling import prompts

TED = """\
talk_name\ten\tro\tfr\tzh-cn
a_talk\tThank you so much .\tVă mulțumesc mult .\t__NULL__\t非常 谢谢 。
a_talk\tIt 's late .\tE târziu .\tIl est tard .\t_ _ NULL _ _
a_talk\t__NULL__\tCeva .\tChose .\t什么
a_talk\tIt 's late .\tE târziu .\tIl est tard .\t
a_talk\tA\u2028B "c\tD\u0085E\tF\tG
"""
WIKIMATRIX = """\
1.2381\tIt rained.\tA plouat.
1.0400\tThe sea is deep.\tMarea e adâncă.
1.0399\tNo match.\tAltceva.
"""
NTREX = "NTREX-128/newstest2019-ref.ron.txt"
TALKS = "ted_talks/all_talks_train.tsv"
MATRIX = "WikiMatrix/WikiMatrix.en-ro.tsv.gz"
NEWS = """\
The vote is over.\tVotul s-a încheiat.
\t
Prices rose.\tPrețurile au crescut.
\tNumai o parte.
"""


def ted(text=TED):
    """The same with a column for every language, as released."""
    rows = [line.split("\t") for line in text.split("\n")[:-1]]
    others = sorted({*languages.table()["ted"]} - {"", *rows[0]})
    rest = [others, *[["__NULL__"] * len(others)] * (len(rows) - 1)]
    return "".join("\t".join(row + more) + "\n" for row, more in zip(rows, rest, strict=True))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = text.encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


@pytest.fixture(autouse=True)
def nothing_local(no_local_data):
    pass


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Every corpus, small."""
    folder = tmp_path / "data"
    for name, side in (("src.eng", "Sentence"), ("ref.ron", "Propoziția"), ("ref.zho-TW", "句子")):
        text = "".join(f"{side} {n}.\n" for n in range(1997))
        write(folder / f"NTREX-128/newstest2019-{name}.txt", text)
    write(folder / "ted_talks/all_talks_train.tsv", ted())
    write(folder / "WikiMatrix/WikiMatrix.en-ro.tsv.gz", WIKIMATRIX)
    turned = [line.split("\t") for line in WIKIMATRIX.splitlines()]
    write(
        folder / "WikiMatrix/WikiMatrix.bg-en.tsv.gz",
        "".join(f"{margin}\t{target}\t{source}\n" for margin, source, target in turned),
    )
    write(folder / "news-commentary/news-commentary-v18.en-ru.tsv.gz", NEWS)
    write(folder / "lego-mt/km/train.en", "One.\nTwo.\n\nFour.\n")
    write(folder / "lego-mt/km/train.km", "មួយ\nពីរ\nបី\nបួន\n")
    monkeypatch.setenv("MLQ_DATA", str(folder))
    return folder


def pairs(*arguments, **options):
    return list(corpora.load(*arguments, **options).itertuples(index=False, name=None))


def test_ntrex(data):
    frame = corpora.load("ntrex", "zhtrad", "test")
    assert frame.shape == (1997, 2)
    assert tuple(frame.iloc[7]) == ("Sentence 7.", "句子 7.")
    assert (frame.attrs["corpus"], frame.attrs["licence"]) == ("ntrex", "CC-BY-SA-4.0")
    content = (data / "NTREX-128/newstest2019-ref.zho-TW.txt").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert frame.attrs["files"]["newstest2019-ref.zho-TW.txt"] == digest
    english = corpora.load("ntrex", "en", "test")
    assert english.source.equals(english.target)


def test_ted_leaves_out_what_one_side_lacks(data):
    assert pairs("ted", "ro", "train") == [
        ("Thank you so much .", "Vă mulțumesc mult ."),
        ("It 's late .", "E târziu ."),
        ("It 's late .", "E târziu ."),
        ('A\u2028B "c', "D\u0085E"),  # neither ends a line, a quotation mark quotes nothing
    ]
    assert pairs("ted", "zh", "train") == [
        ("Thank you so much .", "非常 谢谢 。"),
        ('A\u2028B "c', "G"),
    ]


def test_wikimatrix_has_english_on_either_side_and_a_margin(data):
    wanted = [("It rained.", "A plouat."), ("The sea is deep.", "Marea e adâncă.")]
    assert pairs("wikimatrix", "ro", "train") == pairs("wikimatrix", "bg", "train") == wanted


def test_news_commentary_leaves_out_what_parts_documents(data):
    assert pairs("news_commentary", "ru", "train") == [
        ("The vote is over.", "Votul s-a încheiat."),
        ("Prices rose.", "Prețurile au crescut."),
    ]


def test_lego_mt_is_read_from_a_folder(data):
    assert pairs("lego_mt", "km", "train") == [("One.", "មួយ"), ("Two.", "ពីរ"), ("Four.", "បួន")]
    with pytest.raises(FileNotFoundError, match=r"only a person.*lego-mt in the folder MLQ_DATA"):
        corpora.load("lego_mt", "ro", "train")


# The languages that the corpora cover are those that the paper reports.


def test_coverage_is_that_of_table_2():
    used = paper.table(2).groupby("dataset")["language"].agg(set)
    ted, news = set(languages.codes("ted")), set(languages.codes("news_commentary"))
    assert ted - used["Ted"] == {"en", "no", "zhtrad"} and used["Ted"] <= ted
    assert (set(languages.codes("wikimatrix")) | news) - used["New"] == {"ceb"}
    assert used["New"] <= set(languages.codes("wikimatrix")) | news
    assert used["Lego-MT"] <= set(languages.codes("lego_mt"))


@pytest.mark.parametrize("column", ["ntrex", "ted", "wikimatrix", "news_commentary"])
def test_a_code_is_of_one_language(column):
    codes = languages.table()[column]
    assert codes[codes != ""].is_unique


# Bad files and bad arguments.


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (NTREX, lambda b: b[: len(b) // 2], "lines where 1997 are"),
        (NTREX, lambda b: b"\xef\xbb\xbf" + b, "line 1: a byte-order mark"),
        (NTREX, lambda b: b.replace(b"3.\n", b"\0\n", 1), "line 4: a NUL"),
        (TALKS, lambda b: b[:-12], r"line 6: \d+ columns instead of"),
        (TALKS, lambda b: b.replace(b"\tro\t", b"\trr\t"), "no column 'ro'"),
        (TALKS, lambda b: b"", "no column 'en'"),
        (MATRIX, lambda b: b[:-12], "truncated or damaged"),
        (MATRIX, lambda b: b"not gzip", "truncated or damaged"),
        (MATRIX, lambda b: gzip.compress(b"1.1\tx\n"), "2 columns instead of 3"),
        (MATRIX, lambda b: gzip.compress(b"1.1\tx\t\xff\n"), "line 1: not UTF-8"),
        (MATRIX, lambda b: gzip.compress(b"high\tx\ty\n"), "line 1: no number: 'high'"),
        (MATRIX, lambda b: gzip.compress(b""), "no pairs of English and Romanian"),
        (MATRIX, lambda b: gzip.compress(b"1.1\tx\ty\0\n"), "line 1: a NUL"),
        (MATRIX, lambda b: b[:40] + bytes(8) + b[48:], "truncated or damaged|line 1: "),
        (TALKS, lambda b: b.replace(b"mult .", b"mult \xff"), "line 2: not UTF-8"),
        (TALKS, lambda b: b"\xef\xbb\xbf" + b, "line 1: a byte-order mark"),
    ],
)
def test_a_damaged_file_is_named(data, file, change, message):
    path = data / file
    path.write_bytes(change(path.read_bytes()))
    name = {"NTREX-128": "ntrex", "ted_talks": "ted", "WikiMatrix": "wikimatrix"}[path.parent.name]
    split = "test" if name == "ntrex" else "train"
    with pytest.raises(ValueError, match=message) as error:
        corpora.load(name, "ro", split)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xef\xbb\xbfa\nb\nc\nd\n", "line 1: a byte-order mark"),
        (b"a\nb\nc\0\nd\n", "line 3: a NUL"),
        (b"a\nb\nc\nd\xe1\n", "line 4: not UTF-8"),
    ],
)
def test_a_damaged_side_is_named(data, content, message):
    path = data / "lego-mt/km/train.km"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        corpora.load("lego_mt", "km", "train")
    assert str(path) in str(error.value)


def test_what_only_looks_like_a_mark_or_a_line_end_is_kept(data):
    write(data / "lego-mt/km/train.km", "ក\ufeffខ\nគ\u2028ឃ\n\nង\u0085ច\n")
    assert pairs("lego_mt", "km", "train") == [
        ("One.", "ក\ufeffខ"),
        ("Two.", "គ\u2028ឃ"),
        ("Four.", "ង\u0085ច"),
    ]


def test_sides_of_unequal_length(data):
    write(data / "lego-mt/km/train.en", "One.\nTwo.\n")
    with pytest.raises(ValueError, match=r"train\.en has 2 lines where 4 are expected.*train\.km"):
        corpora.load("lego_mt", "km", "train")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ted", "km", "train"), "unknown language of ted 'km'"),
        (("ntrex", "ro", "train"), "unknown split of ntrex 'train'"),
        (("wikimatrics", "ro", "train"), "Did you mean wikimatrix"),
    ],
)
def test_what_there_is_not(data, arguments, message):
    with pytest.raises(ValueError, match=message):
        corpora.load(*arguments)


def test_an_incomplete_local_folder_is_no_reason_to_download(data):
    with pytest.raises(FileNotFoundError, match=r"en-fr\.tsv\.gz is missing"):
        corpora.load("wikimatrix", "fr", "train")


# Downloads.


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(data, monkeypatch):
    """The files of the fixture, served; nothing is local."""
    monkeypatch.delenv("MLQ_DATA")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=data)) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def replaced(monkeypatch, name, **changes):
    monkeypatch.setitem(corpora.CORPORA, name, replace(corpora.CORPORA[name], **changes))


def test_single_files_are_fetched_once(server, data, monkeypatch, no_local_data):
    replaced(monkeypatch, "wikimatrix", url=server + "/WikiMatrix/{file}")
    first = corpora.load("wikimatrix", "ro", "train")
    assert [p.name for p in (no_local_data / "WikiMatrix").glob("W*")] == [
        "WikiMatrix.en-ro.tsv.gz"
    ]
    (data / "WikiMatrix/WikiMatrix.en-ro.tsv.gz").unlink()
    assert corpora.load("wikimatrix", "ro", "train").equals(first)
    assert len(corpora.load("wikimatrix", "bg", "train")) == 2  # another file, into the same folder


def test_an_archive_is_fetched_and_unpacked(server, data, monkeypatch, no_local_data):
    with tarfile.open(data / "ted_talks.tar.gz", "w:gz") as tar:
        tar.add(data / "ted_talks/all_talks_train.tsv", "all_talks_train.tsv")
    digest = hashlib.sha256((data / "ted_talks.tar.gz").read_bytes()).hexdigest()
    replaced(monkeypatch, "ted", url=server + "/ted_talks.tar.gz", sha256=digest)
    assert len(corpora.load("ted", "ro", "train")) == 4
    assert (no_local_data / "ted_talks/all_talks_train.tsv").is_file()


@pytest.mark.parametrize("name", ["ntrex", "ted", "wikimatrix", "news_commentary"])
def test_without_a_network_one_error_says_what_to_place_where(name, monkeypatch, tmp_path):
    file = corpora.CORPORA[name].url.rpartition("/")[2]
    replaced(monkeypatch, name, url=f"http://127.0.0.1:9/{file}")
    code, split = ("ru", "test" if name == "ntrex" else "train")
    folder = corpora.CORPORA[name].folder
    with pytest.raises(ConnectionError, match=f"{name} is not here.*{folder}") as error:
        corpora.load(name, code, split)
    assert "MLQ_DATA" in str(error.value)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.suffix == ".lock" for path in left)


# Alpaca.


@pytest.fixture
def tasks(data):
    rows = [
        {"instruction": f"Do {n}.", "input": "" if n % 2 else f"Text {n}", "output": f"Done {n}."}
        for n in range(30)
    ]
    rows += [rows[0], rows[1] | {"output": "  "}]
    write(data / "alpaca/alpaca_data.json", json.dumps(rows))
    write(data / "alpaca/alpaca_data_ro.json", json.dumps([rows[3] | {"output": "Gata."}]))
    return data


def test_alpaca_is_drawn_in_the_skeleton_of_all_prompts(tasks):
    frame = prompts.alpaca(100, seed=1)
    assert len(frame) == 30 and frame["prompt"].is_unique  # less the repeated and the unanswered
    assert frame.attrs["pairs"] == {"en": 30} and set(frame["language"]) == {"en"}
    assert prompts.prompt("Do 4.", "Text 4") in set(frame["prompt"])
    assert prompts.prompt("Do 5.", "") in set(frame["prompt"])
    assert prompts.alpaca(7, seed=1).equals(frame[:7])
    assert not prompts.alpaca(7, seed=2).equals(frame[:7])
    assert prompts.alpaca(5, language="ro")["target"].tolist() == ["Gata."]


def test_a_translation_of_alpaca_is_not_downloaded(tasks):
    with pytest.raises(FileNotFoundError, match=r"alpaca_data_fr\.json is missing.*MLQ_DATA"):
        prompts.alpaca(5, language="fr")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "truncated or no list of instructions"),
        ("{}", "no list of instructions"),
        ("[]", "an empty list of instructions"),
        ('[{"instruction": "a", "input": "b"}]', "entry 0 output: Field required"),
        ('[{"instruction": "a", "input": "", "output": ""}]', "no answered instruction"),
    ],
)
def test_a_damaged_alpaca_is_named(tasks, content, message):
    write(tasks / "alpaca/alpaca_data.json", content)
    with pytest.raises(ValueError, match=message):
        prompts.alpaca(5)


# Drawing.


@pytest.fixture
def flores(data):
    for split, count in corpora.CORPORA["flores200"].sentences.items():
        for code in ("eng_Latn", "ron_Latn", "bul_Cyrl"):
            lines = [f"{code} {n}" for n in range(count)]
            if code == "eng_Latn":
                lines[5] = "It’s late."
            write(data / f"flores200_dataset/{split}/{code}.{split}", "\n".join(lines) + "\n")
    return data


def test_pairs_of_the_devtest_and_repeated_ones_are_left_out_and_counted(flores):
    write(
        flores / "ted_talks/all_talks_train.tsv", ted(TED.replace("It 's late .", "It ’ s LATE ."))
    )
    drawn = corpora.training_pairs("ted", "ro", 10)
    assert set(drawn["source"]) == {"Thank you so much .", 'A\u2028B "c'}
    counts = {"read": 4, "repeated": 1, "in_evaluation": 1, "size": 10, "pairs": 2}
    assert {name: drawn.attrs[name] for name in counts} == counts


def test_corpora_together(flores):
    both = corpora.training_pairs(("wikimatrix", "ted"), "ro", 100)
    assert both.attrs["corpus"] == "wikimatrix+ted" and len(both) == 2 + 2
    alone = corpora.training_pairs(("wikimatrix", "news_commentary"), "bg", 100)
    assert alone.attrs["corpus"] == "wikimatrix"  # the other has no Bulgarian


def test_nothing_to_draw(flores):
    with pytest.raises(ValueError, match="ted have no Khmer"):
        corpora.training_pairs("ted", "km", 10)
    with pytest.raises(ValueError, match="size must be 1 or more"):
        corpora.training_pairs("ted", "ro", 0)
    with pytest.raises(ValueError, match="unknown split of ntrex 'train'"):
        corpora.training_pairs("ntrex", "ro", 10)


def test_the_embedded_corpus_is_drawn_from_in_the_same_way(flores):
    drawn = corpora.training_pairs("cldr", "ro", 50, seed=3)
    composed = corpora.load("cldr", "ro", "train", size=50, seed=3)
    assert set(drawn["source"]) == set(composed["source"]) and drawn.attrs["in_evaluation"] == 0


sentences = st.text("aA bé.១", min_size=1, max_size=3).filter(str.strip)


@given(
    rows=st.lists(st.tuples(sentences, sentences), min_size=1, max_size=30),
    known=st.lists(sentences, max_size=3),
    size=st.integers(1, 40),
    seed=st.integers(0, 3),
)
def test_what_is_drawn(rows, known, size, seed):
    """Against a plain account of the same, pair by pair."""
    frame = pd.DataFrame(rows, columns=["source", "target"])
    test = pd.DataFrame({"source": known, "target": known})
    loaded = {"train": frame, "devtest": test}

    def key(sentences):
        return loading.sentence_keys(pd.Series(sentences, dtype=str)).tolist()

    left = {}
    for pair in rows:
        if not set(filter(None, key(pair))) & set(filter(None, key(known))):
            left.setdefault(tuple(key(pair)), pair)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load", lambda name, code, split, **_: loaded[split].copy())
        draw = partial(corpora.training_pairs, "cldr", "ro", seed=seed)
        if not left:
            with pytest.raises(ValueError, match="no pair of cldr"):
                draw(size)
            return
        found = list(draw(size).itertuples(index=False, name=None))
        more = list(draw(size + 5).itertuples(index=False, name=None))
    assert len(found) == min(size, len(left))
    assert set(found) <= set(left.values()) and len(set(found)) == len(found)
    assert more[: len(found)] == found
