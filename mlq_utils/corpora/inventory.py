"""What corpora there are, and how much of each is on this machine (Table 10, Appendix E).

python -m mlq_utils.corpora.inventory           # or with the names of corpora
"""

import argparse
import os
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from mlq_utils import languages, paper
from mlq_utils.corpora import loading as corpora
from mlq_utils.corpora import mc4, released
from mlq_utils.data import one_of, some_of

FEW = 10_000
"""Pairs below which the paper's Table 2 has no results by number of pairs."""
DATASETS = {
    "Lego-MT": ("Lego-MT", ("lego_mt",)),
    "Wikimatrix & Newscommentary": ("New", ("wikimatrix", "news_commentary")),
    "Ted": ("Ted", ("ted",)),
}
"""The datasets of Table 10, each with its name in Table 2 and its corpora."""


def overview() -> pd.DataFrame:
    """Return what there is: every corpus, its licence and origin, and how much it covers.

    Returns:
        A row a corpus: `corpus`, `description`, `splits`, `licence`, `origin`, `languages` (of the
        paper's 101, into which English is translated) and `here` (whether a folder of it is on
        this machine).
    """
    rows = [
        {
            "corpus": name,
            "description": corpus.description,
            "splits": ", ".join(corpus.splits),
            "licence": corpus.licence,
            "origin": corpus.origin,
            "languages": len(set(languages.codes(name)) - {"en"}),
            "here": corpus.find() is not None,
        }
        for name, corpus in corpora.CORPORA.items()
    ]
    rows.append(
        {
            "corpus": "mc4",
            "description": mc4.DESCRIPTION,
            "splits": "",
            "licence": mc4.LICENCE,
            "origin": "https://huggingface.co/datasets/allenai/c4",
            "languages": len(set(languages.codes("mc4")) - {"en"}),
            "here": mc4.find(None, corpora.cache_folder()) is not None,
        }
    )
    return pd.DataFrame(rows)


def datasets() -> pd.DataFrame:
    """Compare how many languages the paper's datasets have with what it prints (Table 10).

    Returns:
        A row a dataset: `dataset`, `corpora` (their names here), `languages` (of the 101, in any
        of them), `printed` (Table 10) and `in_table_2` (languages that have a quadrant there).
    """
    used = paper.table(2).groupby("dataset")["language"].nunique()
    rows = []
    for row in paper.table(10).itertuples():
        short, names = DATASETS[row.dataset]
        covered = {code for name in names for code in languages.codes(name)} - {"en"}
        rows.append((row.dataset, ", ".join(names), len(covered), row.n_languages, used[short]))
    columns = ["dataset", "corpora", "languages", "printed", "in_table_2"]
    return pd.DataFrame(rows, columns=columns)


def statistics(
    names: Iterable[str] | None = None, data: str | os.PathLike | None = None
) -> pd.DataFrame:
    """Count the training pairs of every language that lie on this machine (compare Table 10).

    Files are read once and nothing of them is kept but what tells repeated pairs apart, and that
    only up to `FEW` pairs: millions of lines take minutes, and little memory.

    Args:
        names: Corpora; all with a training split whose files are released, where None.
        data: As in `corpora.load`; nothing is downloaded.

    Returns:
        A row a corpus and language: `corpus`, `language`, `pairs` (as released; missing where its
        file is not here), `usable` (without repeated ones and those that occur in the FLORES-200
        devtest, as `corpora.training_pairs` has it; counted up to `FEW` only) and `few`, whether
        those are under `FEW`. `attrs["unlike"]` says whether the devtest was here.

    Raises:
        ValueError: Unknown name, or a damaged file.
    """
    rows = []
    devtest = corpora.find("flores200", data) is not None
    for name in [one_of("corpus", name, released.RELEASES) for name in names or corpora.TRAINING]:
        codes = [code for code in languages.codes(name) if code != "en"]
        counts: dict[str, tuple[int, int]] = {}
        for group, pairs in released.stream(name, codes, "train", data, corpora.cache_folder()):
            known = {
                code: corpora.evaluation_keys(code, data) if devtest else set() for code in group
            }
            counts |= _count(pairs, known)
        for code in codes:
            pairs, usable = counts.get(code, (None, None))
            rows.append({"corpus": name, "language": code, "pairs": pairs, "usable": usable})
    frame = pd.DataFrame(rows, columns=["corpus", "language", "pairs", "usable"])
    frame = frame.astype({"pairs": "Int64", "usable": "Int64"})
    frame = frame.assign(few=frame["usable"] < FEW)
    frame.attrs["unlike"] = ["flores200 devtest"] if devtest else []
    return frame


def found(counts: pd.DataFrame) -> str:
    """Say in a sentence or two how much of the counted corpora is here.

    Args:
        counts: As `statistics` returns them.
    """
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
    """Return the counts for readers, a language a row.

    Args:
        counts: As `statistics` returns them.

    Returns:
        `code`, `name` and a column a corpus: its pairs, followed by those that are usable
        where they are under `FEW`; "-" where its file is not here, empty where it lacks the
        language. Languages of which nothing is here have no row.
    """
    here = counts.groupby("language")["pairs"].transform("count") > 0
    cells = counts[here].copy()
    cells["shown"] = ["-" if pd.isna(row.pairs) else _shown(row) for row in cells.itertuples()]
    wide = cells.pivot(index="language", columns="corpus", values="shown").fillna("")
    wide = wide.reindex([c for c in languages.codes() if c in wide.index])
    wide = wide.reindex(columns=list(dict.fromkeys(cells["corpus"])))
    names = [languages.get(code).name for code in wide.index]
    wide.insert(0, "code", wide.index)
    wide.insert(1, "name", names)
    return wide.rename_axis(None, axis=1).reset_index(drop=True)


def _shown(row: Any) -> str:
    return f"{row.pairs:,} ({row.usable:,} usable)" if row.few else f"{row.pairs:,}"


def _count(
    pairs: Iterable[tuple[str, tuple[str, str]]], known: dict[str, set[str]]
) -> dict[str, tuple[int, int]]:
    """Count each language's pairs, and up to `FEW` of those that could be tuned on.

    Args:
        pairs: Pairs, each after its language.
        known: For each language the keys of sentences that must not be tuned on.
    """
    counts = dict.fromkeys(known, 0)
    distinct: dict[str, set[tuple[str, ...]]] = {code: set() for code in known}
    for code, pair in pairs:
        counts[code] += 1
        if len(distinct[code]) < FEW and known[code].isdisjoint(
            key := tuple(corpora.sentence_keys(pair))
        ):
            distinct[code].add(key)
    return {code: (count, len(distinct[code])) for code, count in counts.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print how many training pairs of each language are here, and which languages have few."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "corpora", nargs="*", help=f"some of {', '.join(corpora.TRAINING)}; all if none"
    )
    given = parser.parse_args(arguments)
    counts = statistics(some_of(parser, "corpus", given.corpora, corpora.TRAINING))
    for name, rows in counts.groupby("corpus", sort=False):
        known = rows.dropna(subset="pairs").set_index("language")
        print(f"{name}: {len(known)} of {len(rows)} languages here")
        for code, row in known.sort_values("pairs").iterrows():
            few = f"  {row['usable']:,} usable, under {FEW:,}" if row["few"] else ""
            print(f"  {code:7}{row['pairs']:>12,}{few}")


if __name__ == "__main__":
    main()
