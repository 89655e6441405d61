"""Your own pairs: kinds of files, what is refused, and what is left out."""

import dataclasses
import gzip
import json

import pandas as pd
import pytest

from mlq_utils import corpora
from mlq_utils.corpora import Pairs, own

ROWS = [("one house", "etxe bat"), ('a "big" one', "handi bat, eta gehiago"), ("NA", "null")]


def written(folder, name, rows=ROWS, names=None):
    path = folder / name
    table = [*([names] if names else []), *rows]
    if name.endswith(".parquet"):
        pd.DataFrame(rows, columns=names or ["a", "b"]).to_parquet(path)
    elif name.endswith(".jsonl"):
        names = names or ["a", "b"]
        path.write_text(
            "".join(json.dumps(dict(zip(names, r, strict=True))) + "\n" for r in rows), "utf8"
        )
    elif name.endswith(".csv"):
        pd.DataFrame(table).to_csv(path, header=False, index=False)
    else:
        text = "".join("\t".join(row) + "\n" for row in table).encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return str(path)


@pytest.mark.parametrize("name", ["p.tsv", "p.tsv.gz", "p.csv", "p.jsonl", "p.parquet"])
def test_each_kind_of_file_gives_the_same_pairs(tmp_path, name):
    pairs = Pairs(written(tmp_path, name))
    assert list(pairs.read().itertuples(index=False, name=None)) == ROWS
    swapped = [(b, "7", a) for a, b in ROWS]
    named = written(tmp_path, f"named-{name}", swapped, ["eu", "number", "en"])
    named = Pairs(named, columns=("en", "eu"))
    assert named.read().equals(pairs.read())
    assert named.sha256 == pairs.sha256  # the content, not the file


def test_two_aligned_files(tmp_path):
    for side, name in enumerate(("text.en", "text.eu")):
        lines = "".join(f"{row[side]}\n" for row in ROWS)
        (tmp_path / name).write_text(lines, "utf8")
    pairs = Pairs(str(tmp_path / "text.en"), str(tmp_path / "text.eu"))
    assert list(pairs.read().itertuples(index=False, name=None)) == ROWS
    (tmp_path / "text.eu").write_text("etxe bat\n", "utf8")
    with pytest.raises(ValueError, match=r"text.en has 3 lines and \S*text.eu 1: they are not"):
        Pairs(str(tmp_path / "text.en"), str(tmp_path / "text.eu"))


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        (b"a\tb\nc\n", None, "no table of pairs: row 2 has 1 columns"),
        (b"a\tb\nc\td\te\n", None, "row 2 has 3 columns, and row 1 2"),
        (b"a\nb\n", None, "has one column"),
        (b"", None, "has no table of pairs|has one column|no pairs"),
        (b"a\t\nb\t \n", None, "holds no translations: the column is empty"),
        (b"en\teu\na\tb\n", None, "begins with a header: name the columns, en and eu"),
        (b"en\teu\na\tb\n", ("en", "es"), "unknown column of .* 'es'. There are: en, eu"),
        (b"a\tb\n\xe9\tc\n", None, "line 2: not UTF-8"),
        (b"\xef\xbb\xbfa\tb\n", None, "byte-order mark"),
        ("a\tb\n".encode("utf-16"), None, "line 1: a NUL"),
    ],
)
def test_what_is_no_table_of_pairs_is_one_line(tmp_path, content, columns, message):
    path = tmp_path / "pairs.tsv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        Pairs(str(path), columns=columns)
    assert "\n" not in str(caught.value) and "pairs.tsv" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", '{"en": "a", "eu": "b"}\n{"en": "c"}\n', "row 2: nan stands"),
        ("p.jsonl", '{"en": "a", "eu": 7}\n', "row 1: 7 stands where text"),
        ("p.jsonl", "no json\n", "no table of pairs"),
        ("p.parquet", "no parquet", "no table of pairs"),
        ("p.docx", "", "unknown kind of file with pairs '.docx'"),
    ],
)
def test_other_files_that_hold_no_pairs(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, "utf8")
    with pytest.raises(ValueError, match=message):
        Pairs(str(tmp_path / name))


@pytest.mark.parametrize("name", ["none.tsv", "none.parquet"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="none"):
        Pairs(str(tmp_path / name))


def test_a_file_that_changes_is_noticed(tmp_path):
    pairs = Pairs(written(tmp_path, "p.tsv"))
    again = dataclasses.replace(pairs)
    written(tmp_path, "p.tsv", ROWS[:2])
    with pytest.raises(ValueError, match=r"p.tsv has changed since"):
        again.read()
    assert Pairs(pairs.file).sha256 != pairs.sha256


def test_each_pair_is_left_out_for_one_reason():
    rows = [
        ("keep", "gorde"),
        ("Keep!", "gorde."),
        ("", "huts"),
        ("same", "same"),
        ("long", "luze " * own.LONGEST),
        ("Cyrillic", "дом дом etxe"),
        ("Test it", "probatu"),
        ("probed", "Probatu 7"),
        ("number", "7"),
    ]
    tested = pd.DataFrame({"source": ["test it."], "target": ["probatu 7"]})
    left = corpora.clean(pd.DataFrame(rows, columns=["source", "target"]), "Latn", tested)
    assert left["target"].tolist() == ["gorde", "7"]
    reasons = ["empty", "identical", "too_long", "wrong_script"]
    assert left.attrs["read"] == 9
    assert left.attrs["left_out"] == dict.fromkeys(reasons, 1) | {"in_test": 2, "repeated": 1}


def test_scripts_of_chinese_and_japanese_are_one():
    frame = pd.DataFrame({"source": ["seven", "word"], "target": ["七", "ことば"]})
    assert len(corpora.clean(frame, "Hant")) == 2
    assert own.main_script("12, 3") is None
