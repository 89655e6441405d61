"""What corpora there are, and how much of each is here."""

import gzip
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlq_utils import corpora, languages, paper
from mlq_utils.corpora import inventory, loading, readers


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = text.encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


@pytest.fixture(autouse=True)
def nothing_local(no_local_data):
    pass


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A few files: TED with all columns, WikiMatrix and News-Commentary in one language each."""
    columns = sorted({*languages.table()["ted"]} - {"", "en", "ro", "fr"})
    none = "\t__NULL__" * len(columns)
    rows = ["talk_name\ten\tro\tfr\t" + "\t".join(columns)]
    for english, romanian, french in (
        ("Thank you .", "Mulțumesc .", "__NULL__"),
        ("Thank you !", "Mulțumesc !", "Merci !"),  # repeated, but for punctuation
        ("It 's late .", "E târziu .", "Il est tard ."),
        ("__NULL__", "Ceva .", "Chose ."),
    ):
        rows.append(f"a_talk\t{english}\t{romanian}\t{french}{none}")
    write(tmp_path / "data/ted_talks/all_talks_train.tsv", "\n".join(rows) + "\n")
    text = "1.2\tIt rained.\tA plouat.\n1.1\tIt rained.\tA plouat.\n1.0\tNo.\tNu.\n"
    write(tmp_path / "data/WikiMatrix/WikiMatrix.en-ro.tsv.gz", text)
    many = "".join(f"Row {n}.\tСтрока {n}.\n" for n in range(inventory.FEW + 7))
    write(tmp_path / "data/news-commentary/news-commentary-v18.en-ru.tsv.gz", many)
    monkeypatch.setenv("MLQ_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_pairs_are_counted_and_those_that_can_be_tuned_on(here):
    counts = inventory.statistics()
    some = counts[counts["pairs"].gt(0).fillna(False)].set_index(["corpus", "language"])
    assert some["pairs"].to_dict() == {
        ("ted", "ro"): 3,
        ("ted", "fr"): 2,
        ("wikimatrix", "ro"): 2,
        ("news_commentary", "ru"): inventory.FEW + 7,
    }
    assert some["usable"].tolist() == [2, 2, 1, inventory.FEW]
    assert some["few"].tolist() == [True, True, True, False]
    assert counts.attrs["devtest"] is False
    ted = counts[counts["corpus"] == "ted"].set_index("language")["pairs"]
    assert ted["de"] == 0 and len(ted) == len(languages.codes("ted")) - 1
    matrix = counts[counts["corpus"] == "wikimatrix"].set_index("language")
    assert matrix["pairs"].isna().sum() == len(matrix) - 1
    assert matrix["few"].isna().sum() == len(matrix) - 1


def test_sentences_of_the_devtest_do_not_count(here):
    for split, count in readers.FLORES_SENTENCES.items():
        for record in map(languages.get, languages.codes("flores200")):
            lines = [f"{record.code} {n}" for n in range(count)]
            if record.code == "en":
                lines[5] = "It’s late!"
            path = here / f"flores200_dataset/{split}/{record.flores}.{split}"
            write(path, "\n".join(lines) + "\n")
    counts = inventory.statistics(["ted"])
    found = counts.set_index("language").loc[["ro", "fr"]]
    assert found["usable"].tolist() == [1, 1] and found["pairs"].tolist() == [3, 2]
    assert counts.attrs["devtest"] is True
    drawn = corpora.training_pairs("ted", "ro", 100)
    assert len(drawn) == found["usable"]["ro"]


def test_ted_is_read_once_for_all_languages(here, monkeypatch):
    reads = Counter()
    lines = readers.lines

    def counted(path, *strict):
        reads[path.name] += 1
        return lines(path, *strict)

    monkeypatch.setattr(readers, "lines", counted)
    inventory.statistics()
    assert reads["all_talks_train.tsv"] == 1 and set(reads.values()) == {1}


sentences = st.text("aA b.", min_size=1, max_size=3).filter(str.strip)


@given(
    rows=st.lists(st.tuples(sentences, sentences), max_size=30),
    known=st.lists(sentences, max_size=3),
    few=st.integers(1, 40),
)
def test_what_is_counted_is_what_training_pairs_would_leave(rows, known, few):
    keys = loading.sentence_keys
    forbidden = set(filter(None, keys(known)))
    left = {tuple(keys(pair)) for pair in rows if not forbidden & set(keys(pair))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inventory, "FEW", few)
        counted = inventory._count((("ro", pair) for pair in rows), {"ro": forbidden})
    assert counted == {"ro": (len(rows), min(few, len(left)))}


def test_what_a_page_says_of_it(here):
    counts = inventory.statistics()
    said = inventory.found(counts)
    assert said.startswith("10,014 pairs in 52 languages") and "of its devtest are counted" in said
    assert "in 53 of 54 cases" in said
    shown = inventory.by_language(counts).set_index("code")
    assert list(shown.columns) == ["name", "ted", "wikimatrix", "news_commentary", "lego_mt"]
    assert shown.loc["ro"].tolist() == ["Romanian", "3 (2 usable)", "2 (1 usable)", "", "-"]
    assert shown.loc["ru"].tolist() == ["Russian", "0 (0 usable)", "-", "10,007", "-"]
    assert "km" not in shown.index
    nothing = inventory.statistics(["lego_mt"])
    assert inventory.found(nothing).startswith("None of the corpora")
    assert inventory.by_language(nothing).empty


def test_the_counts_as_text(here):
    lines = inventory.report(("ted", "news_commentary")).splitlines()
    assert lines[0].split() == ["code", "name", "ted", "news_commentary"]
    assert "ro Romanian 3 (2 usable)" in [" ".join(line.split()) for line in lines]
    assert "ru Russian 0 (0 usable) 10,007" in [" ".join(line.split()) for line in lines]
    assert lines[-1].startswith("10,012 pairs in 52 languages")
    with pytest.raises(ValueError, match=r"Did you mean ted\?"):
        inventory.report(("teddy",))


def test_nothing_is_here(capsys):
    counts = inventory.statistics()
    assert counts["pairs"].isna().all() and counts["few"].isna().all()
    assert set(counts["corpus"]) == set(corpora.TRAINING)
    with pytest.raises(ValueError, match=r"unknown corpus 'ntrexx'.*lego_mt"):
        inventory.statistics(["ntrexx"])


def test_a_damaged_file_is_named(here):
    path = here / "WikiMatrix/WikiMatrix.en-ro.tsv.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="truncated or damaged") as error:
        inventory.statistics(["wikimatrix"])
    assert str(path) in str(error.value)


def test_the_overview_names_every_corpus(here):
    table = inventory.overview().set_index("corpus")
    assert set(table.index) == {*corpora.NAMES, "mc4"}
    assert set(table.index[(table == "").any(axis=1)]) == {"mc4"}  # which has no splits
    assert table["languages"]["flores101"] == table["languages"]["flores200"] == 101
    assert table["here"].to_dict() == dict.fromkeys(table.index, False) | {
        "cldr": True,
        "ted": True,
        "wikimatrix": True,
        "news_commentary": True,
    }


def test_datasets_are_those_of_table_10():
    table = inventory.datasets().set_index("dataset")
    printed = paper.table(10).set_index("dataset")["n_languages"]
    assert table["printed"].to_dict() == printed.to_dict()
    assert table["in_table_2"].to_dict() == {
        name: paper.table(2).query("dataset == @short")["language"].nunique()
        for name, (short, _) in inventory.DATASETS.items()
    }
    both = set(languages.codes("wikimatrix")) | set(languages.codes("news_commentary"))
    assert table["languages"]["Wikimatrix & Newscommentary"] == len(both - {"en"})
