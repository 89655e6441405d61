"""What corpora there are, and how much of each is on this machine (Table 10, Appendix E)."""

import os
from collections.abc import Iterable, Iterator
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


def statistics(
    names: Iterable[str] | None = None, data: str | os.PathLike | None = None
) -> pd.DataFrame:
    """Count the training pairs per language that are on this machine (compare Table 10).

    Each file is read once, and at most `FEW` pairs per language are kept to recognise repeated
    ones. Millions of lines take minutes, but little memory.

    Args:
        names: Some of `TRAINING`. Defaults to all.
        data: Folder searched before `MLQ_DATA` and the cache. Nothing is downloaded.

    Returns:
        One row per corpus and language: `corpus`, `language`, `pairs` (as released, missing if the
        file is not here), `usable` (without repeated pairs and those in the FLORES-200 devtest, as
        in `corpora.training_pairs`, counted up to `FEW` only) and `few` (whether `usable` is below
        `FEW`). `attrs["unlike"]` says whether the devtest was here.

    Raises:
        ValueError: A name is unknown, or a file is damaged.
    """
    rows = []
    devtest = releases.find("flores200", data) is not None
    for name in [one_of("corpus", name, TRAINING) for name in names or TRAINING]:
        counts: dict[str, tuple[int, int]] = {}
        for codes, pairs in _local_pairs(name, data):
            known = {code: loading.evaluation_keys(code, data) if devtest else () for code in codes}
            counts |= _count(pairs, known)
        for code in _codes(name):
            pairs, usable = counts.get(code, (None, None))
            rows.append({"corpus": name, "language": code, "pairs": pairs, "usable": usable})
    frame = pd.DataFrame(rows).astype({"pairs": "Int64", "usable": "Int64"})
    frame = frame.assign(few=frame["usable"] < FEW)
    frame.attrs["unlike"] = ["flores200 devtest"] if devtest else []
    return frame


def _local_pairs(
    name: str, data: str | os.PathLike | None
) -> Iterator[tuple[list[str], Iterator[Row]]]:
    """Yield the languages of each file on this machine, and its pairs after their languages."""
    folder = releases.find(name, data)
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    for code in _codes(name):
        files = releases.file_names(name, code, "train")
        groups.setdefault(files, {})[releases.code_in(name, code)] = code
    for files, group in groups.items():
        paths = [folder / file for file in files] if folder else []
        if paths and all(path.is_file() for path in paths):
            rows = getattr(readers, CORPORA[name].reader)(paths, list(group))
            yield list(group.values()), ((group[own], pair) for own, pair in rows)


def _count(pairs: Iterable[Row], known: dict[str, Iterable[str]]) -> dict[str, tuple[int, int]]:
    """Count each language's pairs, and up to `FEW` usable ones, with no key in `known`."""
    counts = dict.fromkeys(known, 0)
    forbidden = {code: frozenset(keys) for code, keys in known.items()}
    distinct: dict[str, set[tuple[str, ...]]] = {code: set() for code in known}
    for code, pair in pairs:
        counts[code] += 1
        if len(distinct[code]) < FEW and forbidden[code].isdisjoint(
            key := tuple(loading.sentence_keys(pair))
        ):
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
    left = " and of the FLORES-200 devtest" if counts.attrs["unlike"] else ""
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
    here = counts.groupby("language")["pairs"].transform("count") > 0
    cells = counts[here].copy()
    cells["shown"] = ["-" if pd.isna(row.pairs) else _shown(row) for row in cells.itertuples()]
    wide = cells.pivot(index="language", columns="corpus", values="shown").fillna("")
    wide = wide.reindex([code for code in languages.codes() if code in wide.index])
    wide = wide.reindex(columns=list(dict.fromkeys(cells["corpus"])))
    wide.insert(0, "code", wide.index)
    wide.insert(1, "name", [languages.get(code).name for code in wide.index])
    return wide.rename_axis(None, axis=1).reset_index(drop=True)


def _shown(row: Any) -> str:
    return f"{row.pairs:,} ({row.usable:,} usable)" if row.few else f"{row.pairs:,}"


def report(names: tuple[str, ...] = (), /) -> str:
    """Count the training pairs per language on this machine, see `by_language`.

    Args:
        names: Names of training corpora. Defaults to all.

    Returns:
        The counts as text, one line per language, and a summary.
    """
    counts = statistics(names or None)
    return f"{by_language(counts).to_string(index=False)}\n{found(counts)}"
