"""What corpora there are, and how much of each is on this machine (Table 10, Appendix E)."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from mlq_utils import languages, paper
from mlq_utils.corpora import loading, readers, releases
from mlq_utils.corpora.readers import Row
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


def statistics(names: Iterable[str] | None = None) -> pd.DataFrame:
    """Count the training pairs per language that are on this machine (compare Table 10).

    Nothing is downloaded. Each file is read once, and at most `FEW` pairs per language are kept to
    recognise repeated ones. Millions of lines take minutes, but little memory.

    Args:
        names: Some of `TRAINING`. Defaults to all.

    Returns:
        One row per corpus and language: `corpus`, `language`, `pairs` (as released, missing if the
        file is not here), `usable` (without repeated pairs and those in the FLORES-200 devtest, as
        in `corpora.training_pairs`, counted up to `FEW` only) and `few` (whether `usable` is below
        `FEW`). `attrs["devtest"]` says whether the devtest was here.

    Raises:
        ValueError: A name is unknown, or a file is damaged.
    """
    rows = []
    devtest = releases.find("flores200") is not None
    for name in [one_of("corpus", name, TRAINING) for name in names or TRAINING]:
        counts = dict.fromkeys(_codes(name), (None, None))
        for codes, pairs in _local_pairs(name):
            known = {code: loading.evaluation_keys(code) if devtest else set() for code in codes}
            counts |= _count(pairs, known)
        rows += [(name, code, *counted) for code, counted in counts.items()]
    frame = pd.DataFrame(rows, columns=["corpus", "language", "pairs", "usable"])
    frame = frame.astype({"pairs": "Int64", "usable": "Int64"})
    frame = frame.assign(few=frame["usable"] < FEW)
    frame.attrs["devtest"] = devtest
    return frame


def _local_pairs(name: str) -> Iterator[tuple[list[str], Iterator[Row]]]:
    """Yield the languages of each file on this machine, and its pairs after their languages."""
    folder = releases.find(name)
    groups: dict[tuple[Path, ...], dict[str, str]] = {}
    for code in _codes(name) if folder else ():
        paths = tuple(folder / file for file in releases.file_names(name, code, "train"))
        if all(path.is_file() for path in paths):
            groups.setdefault(paths, {})[releases.code_in(name, code)] = code
    for paths, group in groups.items():
        rows = getattr(readers, CORPORA[name].reader)(paths, list(group))
        yield list(group.values()), ((group[own], pair) for own, pair in rows)


def _count(pairs: Iterable[Row], known: dict[str, set[str]]) -> dict[str, tuple[int, int]]:
    """Count each language's pairs, and up to `FEW` usable ones, with no key in `known`."""
    counts = dict.fromkeys(known, 0)
    distinct: dict[str, set[tuple[str, ...]]] = {code: set() for code in known}
    for code, pair in pairs:
        counts[code] += 1
        if len(distinct[code]) < FEW:
            key = tuple(loading.sentence_keys(pair))
            if known[code].isdisjoint(key):
                distinct[code].add(key)
    return {code: (count, len(distinct[code])) for code, count in counts.items()}


def found(counts: pd.DataFrame) -> str:
    """Say in a sentence or two how many pairs `statistics` has counted."""
    here = counts.dropna(subset="pairs")
    if here.empty:
        return (
            "None of the corpora to tune on is on this machine, so that nothing can be counted: "
            "put their files into the folder that MLQ_DATA names."
        )
    left = " and of the FLORES-200 devtest" if counts.attrs["devtest"] else ""
    without = "" if left else " FLORES-200 is not here: sentences of its devtest are counted too."
    return (
        f"{here['pairs'].sum():,} pairs in {here['language'].nunique()} languages are on this "
        f"machine. Under {FEW:,} are left without repeated ones{left} in {here['few'].sum()} of "
        f"{len(here)} cases.{without}"
    )


def by_language(counts: pd.DataFrame) -> pd.DataFrame:
    """Return the result of `statistics` for readers, one row per language that is here.

    Returns:
        A frame with columns `code`, `name` and one per corpus: its pairs, followed by the usable
        ones if these are under `FEW`; "-" if its file is not here, empty if it lacks the language.
    """

    def shown(row: Any) -> str:
        if pd.isna(row.pairs):
            return "-"
        return f"{row.pairs:,} ({row.usable:,} usable)" if row.few else f"{row.pairs:,}"

    cells = counts[counts.groupby("language")["pairs"].transform("count") > 0]
    cells = cells.assign(shown=[shown(row) for row in cells.itertuples()])
    wide = cells.pivot(index="language", columns="corpus", values="shown").fillna("")
    names = languages.table().set_index("code")["name"]
    codes = [code for code in names.index if code in wide.index]
    wide = wide.loc[codes, cells["corpus"].unique()].rename_axis(index="code", columns=None)
    wide.insert(0, "name", names[codes])
    return wide.reset_index()


def report(names: tuple[str, ...] = (), /) -> str:
    """Count the training pairs per language on this machine, see `by_language`.

    Args:
        names: Names of training corpora. Defaults to all.

    Returns:
        The counts as text, one line per language, and a summary.
    """
    counts = statistics(names or None)
    return f"{by_language(counts).to_string(index=False)}\n{found(counts)}"
