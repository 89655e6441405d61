"""The paper's tables as lists of runs: which run, and which of its scores, stands for each cell.

    cells(12)                              # the runs behind Table 12, cell by cell
    run_all(specs([12]))                   # make them: LLaMA-7B on TED
    run_all(specs(scale=MINI), workers=2)  # all tables, with the packaged base on CLDR

A model that several tables need is one run, scored on all that any table asks of it, whichever
tables are asked for. A cell that no run stands for is listed with the reason. What the paper leaves
open, and what is taken for it, is in `OPEN`. Printed beside trained: `outcomes`.
"""

import dataclasses
from collections.abc import Iterable
from functools import lru_cache

import pandas as pd

from mlq_utils import languages, paper
from mlq_utils.data import one_of
from mlq_utils.experiments.cells import (
    CELLS,
    OPEN,
    ROWS,
    Cell,
    Combined,
    Score,
    Table,
    printed,
    scores,
)
from mlq_utils.experiments.scales import DATASETS, PAPER, Scale
from mlq_utils.experiments.spec import Spec

__all__ = ["OPEN", "Cell", "Combined", "Score", "Table", "cells", "coverage", "scores", "specs"]


def cells(table: Table, scale: Scale = PAPER) -> pd.DataFrame:
    """Return what stands for each cell of a table.

    Args:
        table: A key of `OPEN`: a table's number, or a figure whose scores are drawn, not printed.
        scale: Where the runs are made.

    Returns:
        A row a printed cell: the columns that name it in `paper.table` (Table 9's models in a
        column `model`); `printed` (missing for figures, and for languages that Table 2 leaves
        out); `cell` (None where no run stands for it), with its runs, each once, in `specs`, for
        the first seed, and the `targets` meant; `derived`, whether it is made of what has cells of
        its own here; and `reason` (why there is no run, else empty). `attrs` has
        `open`.

    Raises:
        ValueError: There is no such table.
    """
    known = {str(name): name for name in OPEN}
    return _complete(scale)[known[one_of("table of trained scores", str(table), known)]].copy()


def specs(tables: Iterable[Table] | None = None, scale: Scale = PAPER) -> list[Spec]:
    """Return the runs that tables need, with every seed, each once.

    Args:
        tables: Keys of `OPEN`; all where None.
        scale: Where the runs are made.

    Raises:
        ValueError: There is no such table.
    """
    found = [
        spec for table in tables or OPEN for row in cells(table, scale)["specs"] for spec in row
    ]
    return [one for spec in dict.fromkeys(found) for one in scale.seeded(spec)]


def coverage(scale: Scale = PAPER) -> pd.DataFrame:
    """Return which languages each dataset has, beside what the paper prints.

    Returns:
        A row a dataset, by its name in Table 2: `corpora`, `languages` (that they have), `printed`
        (languages in Table 2), `counted` (in Table 10), and the codes `lacking` (printed, and
        not there) and `beyond` (there, and not printed).
    """
    printed = paper.table(2).groupby("dataset")["language"].agg(list)
    rows = {}
    for name, counted in zip(DATASETS, paper.table(10)["n_languages"], strict=True):
        have = scale.trainable(name)
        rows[name] = {
            "corpora": " + ".join(scale.datasets.get(name, ())),
            "languages": len(have),
            "printed": len(printed[name]),
            "counted": counted,
            "lacking": " ".join(code for code in printed[name] if code not in have),
            "beyond": " ".join(code for code in have if code not in printed[name]),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("dataset")


@lru_cache(maxsize=8)
def _complete(scale: Scale) -> dict[Table, pd.DataFrame]:
    """Return `cells` of every table: only all together tell what a model is scored on."""
    made = {table: _made(table, scale) for table in OPEN}
    targets: dict[Spec, set[str]] = {}
    for frame in made.values():
        for cell in frame["cell"].dropna():
            for score in scores(cell):
                targets.setdefault(score.spec, set()).add(score.target)
    order = languages.codes()
    final = {
        model: dataclasses.replace(model, targets=tuple(sorted(found, key=order.index)))
        for model, found in targets.items()
    }
    return {table: _finished(frame, final) for table, frame in made.items()}


def _made(table: Table, scale: Scale) -> pd.DataFrame:
    """Return the cells of a table with models that are not scored yet."""
    frame = ROWS.get(table, printed)(table, scale)
    found = []
    scorable = set(scale.scorable())
    for row in frame.to_dict("records"):
        try:
            cell = CELLS[table](scale, row)
            if lacking := sorted({score.target for score in scores(cell)} - scorable):
                names = " or ".join(languages.get(code).name for code in lacking)
                raise ValueError(f"{scale.test[0]}: no {names}")
            found.append((cell, ""))
        except ValueError as error:
            found.append((None, str(error)))
    made, reasons = zip(*found, strict=True)
    frame = frame.assign(cell=pd.Series(made, frame.index, dtype=object), reason=reasons)
    frame.attrs = {"open": OPEN[table]}
    return frame


def _finished(frame: pd.DataFrame, final: dict[Spec, Spec]) -> pd.DataFrame:
    """Return cells with the specifications of their runs."""
    made = [cell and _with(cell, final) for cell in frame["cell"]]
    parts = [list(scores(cell)) if cell else [] for cell in made]
    known = set(made)
    columns = {
        "cell": made,
        "specs": [tuple(dict.fromkeys(score.spec for score in part)) for part in parts],
        "targets": [tuple(dict.fromkeys(score.target for score in part)) for part in parts],
        "derived": [isinstance(cell, Combined) and set(cell.of) <= known for cell in made],
    }
    columns = {name: pd.Series(v, frame.index, dtype=object) for name, v in columns.items()}
    frame = frame.assign(**columns).astype({"derived": bool})
    return frame[[name for name in frame if name != "reason"] + ["reason"]]


def _with(cell: Cell, final: dict[Spec, Spec]) -> Cell:
    if isinstance(cell, Score):
        return Score(final[cell.spec], cell.target)
    return Combined(cell.how, tuple(_with(part, final) for part in cell.of))
