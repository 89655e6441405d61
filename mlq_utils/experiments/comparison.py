"""The paper's printed scores beside trained ones, and how far they agree.

Example::

    made = records([12], PAPER, most=None)    # all that Table 12 needs; missing runs are made
    compare(12, made)                         # cell by cell
    agreements(made, PAPER, [12])             # rank correlation, and share of changes of one sign
    status(made)                              # what is done of each table

Any record counts whose settings are those of a run that stands for a cell, for the targets that it
has. Printed scores are spBLEU with `flores101` on FLORES. At another scale only orders, signs and
quadrants can be compared.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd

from mlq_utils import experiments, paper, quadrants
from mlq_utils.experiments.scales import PAPER, UNSCORED, Scale
from mlq_utils.experiments.spec import Spec, spec_of
from mlq_utils.experiments.store import Store
from mlq_utils.experiments.tables import TABLES, Cell, Combined, Score, Table, cells, scores, specs
from mlq_utils.quadrants import REFERENCE_TARGETS
from mlq_utils.scoring import intervals

Record = Mapping[str, Any]
MIN_CELLS = 5
"""Fewest cells for which agreement is reported."""
DIGITS = 6
"""Decimals that are kept, so that no rounding error of floats looks like a difference."""
_ROUNDED = ["printed_change", "trained", "trained_change", "spread"]
_COLUMNS = ["printed", *_ROUNDED[:3], "low", "high", "spread", "seeds"]
_QUADRANT_COLUMNS = ["trained", "bilingual_delta", "multilingual_delta", "seeds", "kept"]


def records(
    tables: Iterable[Table] | None = None,
    scale: Scale = PAPER,
    store: Store | None = None,
    *,
    most: int | None = 0,
) -> list[dict[str, Any]]:
    """Return the records that tables can be compared with, making some of the missing runs first.

    Runs are made on the cluster that MLQ_CLUSTER names, on this machine if it names none.

    Args:
        tables: Numbers and names of `tables.TABLES`. Defaults to all.
        scale: The scale at which runs are made. Defaults to the paper's.
        store: Where records are kept. Defaults to `default_store()`. Shipped records of the scale's
            base are returned too.
        most: Maximum number of missing runs to make, in the order of the tables; None for all.
            Defaults to 0.

    Raises:
        ValueError: A table is unknown, or `most` is below 0.
        OSError: The store cannot be written to, or `Scale.check` raises it.
    """
    if most is not None and most < 0:
        raise ValueError(f"most must be 0 or more, or None for all, not {most}")
    store = store or experiments.default_store()
    wanted = dict.fromkeys([*specs(tables, scale), _untuned(scale)])
    found = _found(wanted, scale, store)
    results = _Results(found)
    missing = [spec for spec in wanted if results.state(spec) != "done"][:most]
    if not missing:
        return found
    scale.check()
    experiments.run_all(missing, store, workers=None)
    return _found(wanted, scale, store)


def _found(wanted: Iterable[Spec], scale: Scale, store: Store) -> list[dict[str, Any]]:
    """Return the shipped records of the scale's base as it is now, and the wanted ones."""
    shipped = experiments.default_store().shipped_records.values()
    of_base = (record for record in shipped if record["spec"]["base"] == scale.untuned.base)
    valid = [record for record in of_base if spec_of(record).identity() == record["identity"]]
    return valid + list(filter(None, store.get_all(s.identity() for s in wanted).values()))


class _Results:
    """Scores of records by model and target."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._rows: dict[Score, Record] = {}
        self._failed: set[Spec] = set()
        for record in records:
            model = _model(spec_of(record))
            if record["status"] == "failed":
                self._failed.add(model)
            for row in record.get("scores", []):
                self._rows[Score(model, row["target"])] = row

    def values(self, score: Score, seeds: Iterable[int], column: str = "spbleu") -> np.ndarray:
        """Return a score with each seed, NaN if there is no record."""
        wanted = (Score(_with_seed(score.model, seed), score.target) for seed in seeds)
        return np.array([self._rows.get(one, {}).get(column, np.nan) for one in wanted])

    def state(self, spec: Spec) -> str:
        model = _model(spec)
        if all(Score(model, target) in self._rows for target in spec.targets):
            return "done"
        return "failed" if model in self._failed else "missing"


def _model(spec: Spec) -> Spec:
    return dataclasses.replace(spec, targets=UNSCORED)


@lru_cache(maxsize=8192)
def _with_seed(model: Spec, seed: int) -> Spec:
    return dataclasses.replace(model, seed=seed) if model.languages else model


def _untuned(scale: Scale) -> Spec:
    return next(spec for spec in specs([9], scale) if not spec.languages)


def compare(table: Table, records: Sequence[Record], scale: Scale = PAPER) -> pd.DataFrame:
    """Return each cell of a table as printed and as trained.

    Args:
        table: A number or name of `tables.TABLES`.
        records: Records, as `records` returns them.
        scale: The scale at which runs were made. Defaults to the paper's.

    Returns:
        One row per printed cell: the columns that name it; `printed`; `printed_change` (against the
        untuned scores of Table 9); `trained` (mean over seeds, missing until a run is made);
        `trained_change` (against the untuned model); `low` and `high` (95% interval over sentences,
        the mean of the seeds' bounds, for single scores only); `spread` (standard deviation over
        seeds); `seeds` (how many are done); `derived` and `reason`, as in `tables.cells`. An
        average, a best and a difference are computed anew from scores of the same seed, and are
        missing if one of these is. Scores are spBLEU.

        For Table 2, one row per language and dataset: `printed` and `trained` quadrants (the latter
        by Equation 1 from mean scores over seeds), `bilingual_delta`, `multilingual_delta`,
        `seeds`, `kept` (share of seeds that by themselves give the same quadrant) and `reason`. The
        threshold T is the untuned model's mean over all languages of the test set, so without that
        model there are no quadrants.

    Raises:
        ValueError: The table is unknown, or has no scores of trained models.
    """
    return _compare(table, _Results(records), scale)


def _compare(table: Table, results: _Results, scale: Scale) -> pd.DataFrame:
    frame = cells(table, scale)
    if str(table) == "2":
        return _compare_quadrants(frame, results, scale)
    pairs = zip(frame["cell"], frame["printed"], strict=True)
    rows = [_row(cell, printed, results, scale) for cell, printed in pairs]
    made = pd.DataFrame(rows, frame.index, columns=_COLUMNS).astype({"seeds": int})
    made[_ROUNDED] = made[_ROUNDED].astype(float).round(DIGITS)
    names = frame.columns[: frame.columns.get_loc("cell")].drop("printed")
    return frame[names].join(made).join(frame[["derived", "reason"]])


def _row(cell: Cell | None, printed: float, results: _Results, scale: Scale) -> dict[str, Any]:
    row = {"printed": printed, "seeds": 0}
    if cell is None:
        return row
    tuned = any(score.model.languages for score in scores(cell))
    seeds = scale.seeds if tuned else scale.seeds[:1]
    values = pd.Series(_value(cell, partial(results.values, seeds=seeds)))
    row |= {"trained": values.mean(), "spread": values.std(), "seeds": values.count()}
    if tuned and _is_average(cell):
        before = _value(cell, lambda score: _printed_untuned()[score.target])
        row["printed_change"] = printed - before
        before = _value(cell, lambda s: results.values(Score(scale.untuned, s.target), [0]))
        row["trained_change"] = values.mean() - before.item()
    if isinstance(cell, Score):
        for side in ("low", "high"):
            row[side] = pd.Series(results.values(cell, seeds, f"spbleu_{side}")).mean()
    return row


@cache
def _printed_untuned() -> dict[str, float]:
    return paper.table(9).set_index("target")["llama"].to_dict()


def _is_average(cell: Cell) -> bool:
    """Return whether a cell is a score or a mean of scores, so that it has a change."""
    return isinstance(cell, Score) or (cell.how == "mean" and all(map(_is_average, cell.of)))


def _value(cell: Cell, lookup: Callable[[Score], Any]) -> Any:
    """Return the value of a cell, a number or an array over seeds as `lookup` returns it."""
    if isinstance(cell, Score):
        return lookup(cell)
    values = [_value(part, lookup) for part in cell.of]
    if cell.how == "difference":
        return values[0] - values[1]
    return {"mean": np.mean, "max": np.max}[cell.how](values, axis=0)


def _compare_quadrants(frame: pd.DataFrame, results: _Results, scale: Scale) -> pd.DataFrame:
    targets = list(_untuned(scale).targets)
    before = [results.values(Score(scale.untuned, target), [0]).item() for target in targets]
    before = pd.Series(before, targets)
    made = pd.DataFrame(columns=_QUADRANT_COLUMNS, dtype=float)
    by_seed = _equation_1_scores(frame["cell"].dropna(), before, results, scale)
    if before.notna().all() and len(by_seed):
        level = quadrants.threshold(before)
        made = quadrants.assign(by_seed.groupby("cell").mean(), level)
        made = made.rename(columns={"quadrant": "trained"})
        single = quadrants.assign(by_seed, level)["quadrant"]
        kept = (single == made["trained"].reindex(single.index)).groupby("cell")
        made = made.assign(seeds=kept.size(), kept=kept.mean())[_QUADRANT_COLUMNS]
    made = frame[["dataset", "language", "printed"]].join(made).join(frame[["reason"]])
    for name in ("printed", "trained"):
        made[name] = made[name].astype(object).where(made[name].notna(), None)
    return made.astype({"seeds": "Int64"}).fillna({"seeds": 0})


def _equation_1_scores(
    found: pd.Series, before: pd.Series, results: _Results, scale: Scale
) -> pd.DataFrame:
    """Return the four scores of Equation 1 by cell, one row per seed that has all of them."""
    rows = []
    for number, cell in found.items():
        own = cell.of[0]
        others = Combined("mean", tuple(Score(own.model, t) for t in REFERENCE_TARGETS))
        sides = {"bilingual": own, "multilingual": others}
        row = {"cell": number}
        for side, part in sides.items():
            row[f"{side}_pre"] = _value(part, lambda score: before[score.target])
            row[f"{side}_post"] = _value(part, partial(results.values, seeds=scale.seeds))
        rows.append(row)
    posts = ["bilingual_post", "multilingual_post"]
    return (
        pd.DataFrame(rows)
        .explode(posts)
        .astype(dict.fromkeys(posts, float))
        .dropna()
        .set_index("cell")
    )


def agreement(compared: pd.DataFrame) -> pd.DataFrame:
    """Return how far trained scores agree with the printed ones.

    Args:
        compared: A table as `compare` returns it. Cells that are derived from others of the table,
            and cells without a trained score, do not count.

    Returns:
        One row per measure, with the columns `measure`, `value`, its 95% interval over cells (`low`
        and `high`) and the number of cells `n`. Measures are the "rank correlation" of the scores
        and "same sign" (share of tuned models' cells whose change against the untuned model has the
        printed direction); for Table 2 it is "same quadrant" (share; a language counts once per
        dataset). Values are missing below `MIN_CELLS` cells, and for correlations with a constant.
    """
    both = compared.dropna(subset=["printed", "trained"])
    if "kept" in compared:
        return pd.DataFrame([_measure("same quadrant", both["printed"] == both["trained"])])
    both = both[~both["derived"]]
    changes = np.sign(both[["printed_change", "trained_change"]].dropna())
    same = changes["printed_change"] == changes["trained_change"]
    correlation = _measure("rank correlation", both["printed"], both["trained"])
    return pd.DataFrame([correlation, _measure("same sign", same)])


def _measure(name: str, *sides: pd.Series) -> dict[str, Any]:
    row = {"measure": name, "value": np.nan, "low": np.nan, "high": np.nan, "n": len(sides[0])}
    if row["n"] < MIN_CELLS or (len(sides) == 2 and any(side.nunique() < 2 for side in sides)):
        return row
    found = (intervals.rank_correlation if len(sides) == 2 else intervals.mean)(*sides)
    return row | {"value": found.iloc[0], "low": found["low"], "high": found["high"]}


def agreements(records: Sequence[Record], scale: Scale, tables: Iterable[Table]) -> pd.DataFrame:
    """Return the rows of `agreement` for several tables, after a column `table`.

    Args:
        records: Records, as `records` returns them.
        scale: The scale at which runs were made.
        tables: Numbers of tables that print scores.
    """
    results = _Results(records)
    parts = {table: agreement(_compare(table, results, scale)) for table in tables}
    return pd.concat(parts, names=["table"]).reset_index("table").reset_index(drop=True)


def status(records: Sequence[Record], scale: Scale = PAPER) -> pd.DataFrame:
    """Return how much of each table is done.

    Args:
        records: Records, as `records` returns them.
        scale: The scale at which runs are made. Defaults to the paper's.

    Returns:
        One row per table, and one for all together, in which a run that serves several tables
        counts once. The columns are `cells` (printed or drawn), `without_run`, and the numbers of
        `runs`: `done`, `failed` and `missing`.
    """
    results = _Results(records)
    rows = {}
    for name, tables in ({table: [table] for table in TABLES} | {"all": list(TABLES)}).items():
        reasons = pd.concat([cells(table, scale)["reason"] for table in tables])
        runs = specs(tables, scale)
        states = Counter(map(results.state, runs))
        rows[name] = {"cells": len(reasons), "without_run": (reasons != "").sum()}
        rows[name] |= {"runs": len(runs)} | {s: states[s] for s in ("done", "failed", "missing")}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("table")
