"""The numbers behind the pages as files: every table and record, as CSV and as Parquet.

`mlq book` writes them into the site, where the page of downloads links them; the ledger of claims
is on its own page. `columns.yaml` in the package data says what each column holds.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from mlq_utils import languages, paper, quadrants, tokenization
from mlq_utils.book.pages import column_words
from mlq_utils.experiments import family, studies

FOLDER = "_static/downloads"
"""Where the files lie in the site."""
_OURS = "MIT"


class Download(NamedTuple):
    """A frame that readers can download: what it is, its licence, and what reads it."""

    title: str
    licence: str
    read: Callable[[], pd.DataFrame]


def _runs() -> pd.DataFrame:
    """Return the scores of all recorded runs of the toy, with the study that they belong to."""
    found = pd.concat({name: studies.scores(name) for name in studies.STUDIES}, names=["study"])
    found = found.reset_index("study").dropna(axis="columns", how="all")
    return found.assign(found=found["found"].map(json.dumps, na_action="ignore"))


def _worlds() -> pd.DataFrame:
    """Return the scores of the worlds, bases of the toy's kind."""
    scores = {
        (r["spec"]["high"], r["spec"]["seed"]): pd.DataFrame(r["scores"]) for r in family.records()
    }
    return pd.concat(scores, names=["high", "base_seed"]).reset_index(["high", "base_seed"])


DOWNLOADS = {
    f"table_{n:02d}": Download(f"Table {n}", "figures of the paper", partial(paper.table, n))
    for n in range(1, 17)
} | {
    "constants": Download("Numbers in the paper's text", "figures of the paper", paper.constants),
    "checks": Download("What the paper says twice, compared", _OURS, paper.checks),
    "contradictions": Download(
        "Where the paper disagrees with itself", _OURS, paper.contradictions
    ),
    "quadrants": Download(
        "The quadrants of TED, recomputed",
        _OURS,
        lambda: quadrants.assign(quadrants.published(), quadrants.threshold()),
    ),
    "languages": Download("The languages: names, families, corpora", _OURS, languages.table),
    "systems": Download(
        "What 18 systems score from English, by LLaMAX", "MIT", paper.published_scores
    ),
    "understanding": Download(
        "LLaMA-7B on understanding tasks, by lm-evaluation-harness", "MIT", paper.harness_scores
    ),
    "token_counts": Download(
        "Tokens of FLORES-200 by 27 tokenizers, by Petrov and others", "MIT", paper.token_counts
    ),
    "fertility": Download(
        "Six tokenizers on FLORES-200, measured here",
        _OURS,
        partial(tokenization.recorded, "fertility"),
    ),
    "shortening": Download(
        "Byte sequences shortened, measured here",
        _OURS,
        partial(tokenization.recorded, "shortening"),
    ),
    "worlds": Download("Worlds, bases of the toy's kind: their scores", _OURS, _worlds),
    "toy_runs": Download("The toy: scores of all recorded runs", _OURS, _runs),
}
"""What can be downloaded, by the name of the files."""


def catalogue() -> pd.DataFrame:
    """Return one row per download: `name`, `what`, `rows`, `columns` and `licence`."""
    rows = []
    for name, download in DOWNLOADS.items():
        frame = download.read()
        what = download.title
        if name.startswith("table_"):  # not read before, since a table may be damaged
            what += f": {frame.attrs['title']}"
        rows.append((name, what, len(frame), len(frame.columns), download.licence))
    return pd.DataFrame(rows, columns=["name", "what", "rows", "columns", "licence"])


def dictionary() -> pd.DataFrame:
    """Return what each column holds, in words: `column` and `meaning`."""
    return pd.DataFrame(column_words()["meanings"].items(), columns=["column", "meaning"])


def write(folder: Path) -> None:
    """Write all downloads into a folder, as `name.csv` and `name.parquet`."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = {name: download.read() for name, download in DOWNLOADS.items()}
    for name, frame in (frames | {"columns": dictionary()}).items():
        frame.to_csv(folder / f"{name}.csv", index=False)
        frame.to_parquet(folder / f"{name}.parquet", index=False)
