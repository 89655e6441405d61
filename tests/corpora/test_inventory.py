"""What corpora there are, and how much of each is here."""

import gzip
import shutil

import pytest

from mlq_utils import corpora, languages, paper
from mlq_utils.corpora import inventory, readers


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
    rows = ["talk_name\ten\tro\tfr\t" + "\t".join(columns)]
    for english, romanian, french, others in (
        ("Thank you .", "Mulțumesc .", "__NULL__", "Thanks ."),
        ("Thank you !", "Mulțumesc !", "Merci !", "__NULL__"),  # repeated, but for punctuation
        ("It 's late .", "E târziu .", "Il est tard .", "__NULL__"),
        ("__NULL__", "Ceva .", "Chose .", "__NULL__"),
    ):
        rows.append(f"a_talk\t{english}\t{romanian}\t{french}" + f"\t{others}" * len(columns))
    write(tmp_path / "data/ted_talks/all_talks_train.tsv", "\n".join(rows) + "\n")
    text = "1.2\tIt rained.\tA plouat.\n1.1\tIt rained.\tA plouat.\n1.0\tNo.\tNu.\n"
    write(tmp_path / "data/WikiMatrix/WikiMatrix.en-ro.tsv.gz", text)
    many = "".join(f"Row {n}.\tСтрока {n}.\n" for n in range(inventory.FEW + 7))
    write(tmp_path / "data/news-commentary/news-commentary-v18.en-ru.tsv.gz", many)
    for split, count in readers.FLORES_SENTENCES.items():
        for record in map(languages.get, languages.codes("flores200")):
            lines = [f"{record.code} {n}" for n in range(count)]
            path = tmp_path / f"data/flores200_dataset/{split}/{record.flores}.{split}"
            write(path, "\n".join(lines) + "\n")
    monkeypatch.setenv("MLQ_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_pairs_are_counted_and_those_that_can_be_tuned_on(here):
    counts = inventory.statistics().set_index(["corpus", "code"])
    some = counts[counts["name"].isin(["Romanian", "French", "Russian"])]
    assert some["pairs"].to_dict() == {
        ("ted", "ro"): 3,
        ("ted", "fr"): 2,
        ("ted", "ru"): 1,
        ("wikimatrix", "ro"): 2,
        ("news_commentary", "ru"): inventory.FEW + 7,
    }
    assert some["usable"].to_dict() == {
        ("ted", "ro"): 2,
        ("ted", "fr"): 2,
        ("ted", "ru"): 1,
        ("wikimatrix", "ro"): 1,
        ("news_commentary", "ru"): inventory.FEW,
    }
    assert some["few"].tolist() == [True, True, True, True, False]
    assert len(counts.loc["ted"]) == len(languages.codes("ted")) - 1
    assert len(counts.loc["wikimatrix"]) == len(counts.loc["news_commentary"]) == 1


def test_sentences_of_the_devtest_do_not_count(here):
    path = here / "flores200_dataset/devtest/eng_Latn.devtest"
    path.write_text(path.read_text().replace("en 5\n", "It’s late!\n"))
    found = inventory.statistics("ted").set_index("code").loc[["ro", "fr"]]
    assert found["usable"].tolist() == [1, 1] and found["pairs"].tolist() == [3, 2]
    drawn = corpora.training_pairs("ted", "ro", 100)
    assert len(drawn) == found["usable"]["ro"]


def test_the_counts_as_text(here):
    lines = inventory.report(("ted", "news_commentary")).splitlines()
    assert lines[0].split() == ["corpus", "code", "name", "pairs", "usable", "few"]
    rows = [" ".join(line.split()) for line in lines]
    assert "ted ro Romanian 3 2 True" in rows
    assert "news_commentary ru Russian 10007 10000 False" in rows
    with pytest.raises(ValueError, match=r"Did you mean ted\?"):
        inventory.report(("teddy",))


@pytest.mark.parametrize("missing", ["flores200_dataset", "WikiMatrix"])
def test_nothing_is_counted_without_the_devtest_or_the_corpus(here, missing):
    shutil.rmtree(here / missing)
    assert inventory.statistics("wikimatrix").empty


def test_nothing_is_here():
    assert inventory.statistics().empty
    assert inventory.report().startswith("FLORES-200 and a corpus to tune on are not both")
    with pytest.raises(ValueError, match=r"unknown corpus 'ntrexx'.*lego_mt"):
        inventory.statistics("ntrexx")


def test_a_damaged_file_is_named(here):
    path = here / "WikiMatrix/WikiMatrix.en-ro.tsv.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="truncated or damaged") as error:
        inventory.statistics("wikimatrix")
    assert str(path) in str(error.value)


def test_the_overview_names_every_corpus(here):
    table = inventory.overview().set_index("corpus")
    assert set(table.index) == {*corpora.NAMES, "mc4"}
    assert set(table.index[(table == "").any(axis=1)]) == {"mc4"}  # which has no splits
    assert table["languages"]["flores101"] == table["languages"]["flores200"] == 101
    assert table["here"].to_dict() == dict.fromkeys(table.index, False) | {
        "cldr": True,
        "flores200": True,
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
