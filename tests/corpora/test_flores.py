"""FLORES-101 beside FLORES-200: the same reader, other names of files."""

from dataclasses import replace

import pytest

from mlq_utils import corpora, languages

SENTENCES = corpora.CORPORA["flores200"].sentences
CODES = ("en", "ro", "km", "ku", "zh", "zhtrad", "ms", "lv")


@pytest.fixture
def release(tmp_path, monkeypatch, no_local_data):
    """FLORES-101 in small: `<language> <number>`, in the files of the release."""
    for split, count in SENTENCES.items():
        folder = tmp_path / "flores101_dataset" / split
        folder.mkdir(parents=True)
        for code in CODES:
            text = "".join(f"{code} {n}\n" for n in range(count))
            (folder / f"{languages.get(code).flores101}.{split}").write_text(text)
    monkeypatch.setenv("MLQ_DATA", str(tmp_path))
    return tmp_path


def test_files_bear_the_names_of_the_release(release):
    files = {path.name for path in (release / "flores101_dataset/dev").iterdir()}
    assert files == {
        "eng.dev", "ron.dev", "khm.dev", "ckb.dev", "zho_simpl.dev", "zho_trad.dev", "msa.dev",
        "lav.dev",
    }  # fmt: skip
    assert languages.table()["flores101"].is_unique


@pytest.mark.parametrize("split", SENTENCES)
@pytest.mark.parametrize("code", CODES)
def test_every_language_is_loaded_as_from_flores200(release, code, split):
    frame = corpora.load("flores101", code, split)
    assert frame["target"].tolist() == [f"{code} {n}" for n in range(SENTENCES[split])]
    assert frame["source"][3] == "en 3"
    assert frame.attrs["corpus"] == "flores101"
    assert frame.attrs["version"] == "flores101_dataset.tar.gz"
    assert len(set(frame.attrs["files"].values())) == (1 if code == "en" else 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw[:-9], "line 1011: a last line without an end"),
        (lambda raw: raw.replace(b"ro 40\n", b"\0\n"), "line 41: a NUL"),
        (lambda raw: raw.replace(b"ro 41\n", b"\xff\n"), "line 42: not UTF-8"),
        (lambda raw: b"\xef\xbb\xbf" + raw, "line 1: a byte-order mark"),
        (lambda raw: raw.replace(b"ro 42\n", b"\n"), "line 43: a blank line"),
    ],
)
def test_its_files_are_checked_as_strictly(release, change, message):
    path = release / "flores101_dataset/devtest/ron.devtest"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as error:
        corpora.load("flores101", "ro", "devtest")
    assert str(path) in str(error.value)


def test_a_line_separator_within_a_sentence_shifts_nothing(release):
    path = release / "flores101_dataset/dev/ron.dev"
    path.write_text(path.read_text().replace("ro 9\n", "ro\u20289\n"), encoding="utf-8")
    frame = corpora.load("flores101", "ro", "dev")
    assert frame["target"].tolist()[9:11] == ["ro\u20289", "ro 10"]


def test_each_release_is_looked_for_by_its_own_name(release, monkeypatch):
    assert corpora.find("flores101") == release / "flores101_dataset"
    assert corpora.find("flores200") is None
    monkeypatch.delenv("MLQ_DATA")
    gone = replace(corpora.CORPORA["flores101"], url="http://127.0.0.1:9/flores101_dataset.tar.gz")
    monkeypatch.setitem(corpora.CORPORA, "flores101", gone)
    with pytest.raises(ConnectionError, match=r"flores101 is not here.*flores101_dataset/dev"):
        corpora.load("flores101", "ro", "dev")


def test_the_real_sentences_under_the_names_of_flores101(data, tmp_path, monkeypatch):
    """FLORES-200 holds the sentences of FLORES-101: renamed, they load all the same."""
    if not (real := corpora.find("flores200")):
        pytest.skip("no FLORES-200 in the data folder")
    for split in SENTENCES:
        folder = tmp_path / "flores101_dataset" / split
        folder.mkdir(parents=True)
        for row in languages.table().itertuples():
            (folder / f"{row.flores101}.{split}").symlink_to(real / split / f"{row.flores}.{split}")
    (tmp_path / "flores200_dataset").symlink_to(real)
    monkeypatch.setenv("MLQ_DATA", str(tmp_path))
    for split in SENTENCES:
        for code in languages.codes("flores101"):
            renamed = corpora.load("flores101", code, split)
            if code in ("ro", "zhtrad", "ku"):
                assert renamed.equals(corpora.load("flores200", code, split))
