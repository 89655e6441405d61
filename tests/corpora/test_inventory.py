"""What corpora there are, and which are here."""

from mlq_utils import corpora, languages, paper
from mlq_utils.corpora import inventory


def test_the_overview_names_every_corpus(no_local_data, tmp_path, monkeypatch):
    for folder in ("ted_talks", "WikiMatrix", "news-commentary"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    monkeypatch.setenv("MLQ_DATA", str(tmp_path / "data"))
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
