"""What corpora there are, and in how many languages (Table 10)."""

import pandas as pd

from mlq_utils import languages, paper
from mlq_utils.corpora.releases import CORPORA, find

DATASETS = {
    "Lego-MT": ("Lego-MT", ("lego_mt",)),
    "Wikimatrix & Newscommentary": ("New", ("wikimatrix", "news_commentary")),
    "Ted": ("Ted", ("ted",)),
}
"""The datasets of Table 10, each with its name in Table 2 and its corpora."""


def overview() -> pd.DataFrame:
    """Return one row per corpus: what it is, and how many languages it covers.

    Returns:
        A frame with columns `corpus`, `description`, `splits`, `licence`, `origin`, `languages`
        (how many of the paper's 101) and `here` (whether its folder is on this machine).
    """
    rows = [
        {
            "corpus": name,
            "description": corpus.description,
            "splits": ", ".join(corpus.splits),
            "licence": corpus.licence,
            "origin": corpus.origin or corpus.url,
            "languages": len(_codes(name)),
            "here": find(name) is not None,
        }
        for name, corpus in CORPORA.items()
        if name in languages.COVERAGE
    ]
    return pd.DataFrame(rows)


def _codes(name: str) -> list[str]:
    """Return the languages of a corpus into which English is translated."""
    return [code for code in languages.codes(name) if code != "en"]


def datasets() -> pd.DataFrame:
    """Compare how many languages the paper's datasets have with what it prints (Table 10).

    Returns:
        One row per dataset: `dataset`, `corpora` (their names here), `languages` (of the 101, in
        any of them), `printed` (Table 10) and `in_table_2` (languages with a quadrant there).
    """
    used = paper.table(2).groupby("dataset")["language"].nunique()
    rows = []
    for row in paper.table(10).itertuples():
        short, names = DATASETS[row.dataset]
        covered = {code for name in names for code in _codes(name)}
        rows.append((row.dataset, ", ".join(names), len(covered), row.n_languages, used[short]))
    columns = ["dataset", "corpora", "languages", "printed", "in_table_2"]
    return pd.DataFrame(rows, columns=columns)
