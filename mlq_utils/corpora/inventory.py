"""What corpora there are, and how much of each is on this machine (Table 10, Appendix E)."""

import pandas as pd

from mlq_utils import languages, paper
from mlq_utils.corpora import loading, releases
from mlq_utils.corpora.releases import CORPORA, TRAINING
from mlq_utils.data import one_of

FEW = 10_000
"""Number of pairs below which the paper's Table 2 has no results by number of pairs."""
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
            "here": releases.find(name) is not None,
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


def statistics(*names: str) -> pd.DataFrame:
    """Count the training pairs per language that are on this machine (compare Table 10).

    Nothing is downloaded. Without FLORES-200, whose devtest is left out of all training, nothing is
    counted. The files are read once per language, which takes minutes for millions of lines.

    Args:
        names: Some of `TRAINING`. Defaults to all.

    Returns:
        One row per corpus and language whose file is here: `corpus`, `code`, `name`, `pairs` (as
        released), `usable` (those that `corpora.training_pairs` would leave, counted up to `FEW`
        only) and `few` (whether `usable` is below `FEW`).

    Raises:
        ValueError: A name is unknown, or a file is damaged.
    """
    rows = []
    for name in [one_of("corpus", name, TRAINING) for name in names or TRAINING]:
        for code in _codes(name) if releases.find("flores200") else ():
            if releases.is_here(name, code, "train"):
                counts = loading.training_pairs(name, code, FEW).attrs
                spoken = languages.get(code).name
                rows.append((name, code, spoken, counts["read"], counts["pairs"]))
    frame = pd.DataFrame(rows, columns=["corpus", "code", "name", "pairs", "usable"])
    return frame.assign(few=frame["usable"] < FEW)


def report(names: tuple[str, ...] = (), /) -> str:
    """Count the training pairs per language on this machine.

    Args:
        names: Names of training corpora. Defaults to all.

    Returns:
        The counts as text, one line per corpus and language.
    """
    counts = statistics(*names)
    if counts.empty:
        return (
            "FLORES-200 and a corpus to tune on are not both on this machine, so that nothing can "
            "be counted: put their files into the folder that MLQ_DATA names."
        )
    return counts.to_string(index=False)
