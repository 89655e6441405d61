"""The paper's printed scores beside trained ones, and how far they agree.

Example::

    made = records([12], PAPER, most=None)    # all that Table 12 needs; missing runs are made
    beside = Comparison(made, PAPER)
    beside.compare(12)                        # cell by cell
    beside.agreements([12])                   # rank correlation, and share of changes of one sign
    beside.status()                           # what is done of each table

Printed scores are spBLEU with `flores101` on FLORES. At another scale only orders, signs and
quadrants can be compared.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd

from mlq_utils import experiments, paper, quadrants
from mlq_utils.experiments.scales import PAPER, UNSCORED, Scale
from mlq_utils.experiments.spec import Spec, spec_of
from mlq_utils.experiments.tables import TABLES, Cell, Score, Table, cells, scores, specs
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
    tables: Iterable[Table] | None = None, scale: Scale = PAPER, *, most: int | None = 0
) -> list[dict[str, Any]]:
    """Return the records that tables can be compared with, making some of the missing runs first.

    Runs are made on the cluster that MLQ_CLUSTER names, on this machine if it names none. Shipped
    records are returned too, since they count for the targets that they have.

    Args:
        tables: Numbers and names of `tables.TABLES`. Defaults to all.
        scale: The scale at which runs are made. Defaults to the paper's.
        most: Maximum number of missing runs to make, in the order of the tables; None for all.
            Defaults to 0.

    Raises:
        ValueError: A table is unknown, or `most` is below 0.
        OSError: The store cannot be written to, or `Scale.check` raises it.
    """
    if most is not None and most < 0:
        raise ValueError(f"most must be 0 or more, or None for all, not {most}")
    store = experiments.default_store()
    untuned = dataclasses.replace(scale.untuned, targets=tuple(scale.scorable()))
    wanted = dict.fromkeys([*specs(tables, scale), untuned])
    shipped = [r for key, r in store.shipped_records.items() if spec_of(r).identity() == key]

    def found() -> list[dict[str, Any]]:
        known = store.get_all(spec.identity() for spec in wanted)
        return shipped + [record for record in known.values() if record]

    done = Comparison(found(), scale)
    missing = [spec for spec in wanted if done.state(spec) != "done"][:most]
    if missing:
        scale.check()
        experiments.run_all(missing, store, workers=None)
    return found()


@lru_cache(maxsize=8192)
def _model(spec: Spec, seed: int) -> Spec:
    """Return what tells a model from others: its specification, whatever it is scored on."""
    return dataclasses.replace(spec, targets=UNSCORED, seed=seed if spec.languages else spec.seed)


class Comparison:
    """The scores that a list of records has for the paper's cells at one scale.

    Any record counts whose settings are those of a run that stands for a cell, for the targets that
    it has.
    """

    def __init__(self, records: Iterable[Record], scale: Scale = PAPER) -> None:
        """Collect the scores.

        Args:
            records: Records, as the function `records` returns them.
            scale: The scale at which runs are made. Defaults to the paper's.
        """
        self._scale = scale
        self._rows: dict[Score, Record] = {}
        self._failed: set[Spec] = set()
        for record in records:
            spec = spec_of(record)
            model = _model(spec, spec.seed)
            if record["status"] == "failed":
                self._failed.add(model)
            for row in record.get("scores", []):
                self._rows[Score(model, row["target"])] = row

    def compare(self, table: Table) -> pd.DataFrame:
        """Return each cell of a table as printed and as trained.

        Args:
            table: A number or name of `tables.TABLES`.

        Returns:
            One row per printed cell: the columns that name it; `printed`; `printed_change` (against
            the untuned scores of Table 9); `trained` (mean over seeds, missing until a run is
            made); `trained_change` (against the untuned model); `low` and `high` (95% interval over
            sentences, the mean of the seeds' bounds, for single scores only); `spread` (standard
            deviation over seeds); `seeds` (how many are done); `derived` and `reason`, as in
            `tables.cells`. An average, a best and a difference are computed anew from scores of the
            same seed, and are missing if one of these is. Scores are spBLEU.

            For Table 2, one row per language and dataset: `printed` and `trained` quadrants (the
            latter by Equation 1 from mean scores over seeds), `bilingual_delta`,
            `multilingual_delta`, `seeds`, `kept` (share of seeds that by themselves give the same
            quadrant) and `reason`. The threshold T is the untuned model's mean over all languages
            of the test set, so without that model there are no quadrants.

        Raises:
            ValueError: The table is unknown, or has no scores of trained models.
        """
        frame = cells(table, self._scale)
        if str(table) == "2":
            return self._quadrants(frame)
        rows = map(self._row, frame["cell"], frame["printed"])
        made = pd.DataFrame(rows, frame.index, columns=_COLUMNS).astype({"seeds": int})
        made[_ROUNDED] = made[_ROUNDED].astype(float).round(DIGITS)
        names = frame.columns[: frame.columns.get_loc("cell")].drop("printed")
        return frame[names].join(made).join(frame[["derived", "reason"]])

    def agreements(self, tables: Iterable[Table]) -> pd.DataFrame:
        """Return the rows of `agreement` for several tables that print scores, by `table`."""
        parts = {table: agreement(self.compare(table)) for table in tables}
        return pd.concat(parts, names=["table"]).reset_index("table").reset_index(drop=True)

    def status(self) -> pd.DataFrame:
        """Return how much of each table is done.

        Returns:
            One row per table, and one for all together, in which a run that serves several tables
            counts once. The columns are `cells` (printed or drawn), `without_run`, and the numbers
            of `runs`: `done`, `failed` and `missing`.
        """
        rows = {}
        for name, tables in ({table: [table] for table in TABLES} | {"all": list(TABLES)}).items():
            reasons = pd.concat([cells(table, self._scale)["reason"] for table in tables])
            runs = specs(tables, self._scale)
            states = Counter(map(self.state, runs))
            rows[name] = {"cells": len(reasons), "without_run": (reasons != "").sum()}
            rows[name] |= {"runs": len(runs)} | {
                s: states[s] for s in ("done", "failed", "missing")
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("table")

    def state(self, spec: Spec) -> str:
        """Return whether a run is "done", with all its targets, has "failed" or is "missing"."""
        model = _model(spec, spec.seed)
        if all(Score(model, target) in self._rows for target in spec.targets):
            return "done"
        return "failed" if model in self._failed else "missing"

    def _values(self, score: Score, seeds: Iterable[int], column: str = "spbleu") -> np.ndarray:
        """Return a score with each seed, NaN if there is no record."""
        wanted = (Score(_model(score.model, seed), score.target) for seed in seeds)
        return np.array([self._rows.get(one, {}).get(column, np.nan) for one in wanted])

    def _before(self, score: Score) -> float:
        """Return the untuned model's score on the target of a score."""
        return self._values(Score(self._scale.untuned, score.target), [0]).item()

    def _row(self, cell: Cell | None, printed: float) -> dict[str, Any]:
        row = {"printed": printed, "seeds": 0}
        if cell is None:
            return row
        tuned = any(score.model.languages for score in scores(cell))
        seeds = self._scale.seeds if tuned else self._scale.seeds[:1]
        values = pd.Series(_value(cell, partial(self._values, seeds=seeds)))
        row |= {"trained": values.mean(), "spread": values.std(), "seeds": values.count()}
        if tuned and _is_average(cell):
            row["printed_change"] = printed - _value(cell, lambda s: _printed_untuned()[s.target])
            row["trained_change"] = values.mean() - _value(cell, self._before)
        if isinstance(cell, Score):
            for side in ("low", "high"):
                row[side] = pd.Series(self._values(cell, seeds, f"spbleu_{side}")).mean()
        return row

    def _quadrants(self, frame: pd.DataFrame) -> pd.DataFrame:
        every = (Score(self._scale.untuned, target) for target in self._scale.scorable())
        before = pd.Series(map(self._before, every))
        found = frame["cell"].dropna()
        by_seed = pd.concat([self._equation_1(cell) for cell in found], keys=found.index).dropna()
        made = pd.DataFrame(columns=_QUADRANT_COLUMNS, dtype=float)
        if before.notna().all() and len(by_seed):
            level, by_seed = quadrants.threshold(before), by_seed.droplevel(1)
            made = quadrants.assign(by_seed.groupby(level=0).mean(), level)
            made = made.rename(columns={"quadrant": "trained"})
            single = quadrants.assign(by_seed, level)["quadrant"]
            kept = (single == made["trained"].reindex(single.index)).groupby(level=0)
            made = made.assign(seeds=kept.size(), kept=kept.mean())[_QUADRANT_COLUMNS]
        made = frame[["dataset", "language", "printed"]].join(made).join(frame[["reason"]])
        for name in ("printed", "trained"):
            made[name] = made[name].astype(object).where(made[name].notna(), None)
        return made.astype({"seeds": "Int64"}).fillna({"seeds": 0})

    def _equation_1(self, cell: Cell) -> pd.DataFrame:
        """Return the four scores of Equation 1, one row per seed."""
        own, *others = cell.of[: 1 + len(quadrants.REFERENCE_TARGETS)]
        sides = {"bilingual": [own], "multilingual": others}
        row = {}
        for side, parts in sides.items():
            row[f"{side}_pre"] = np.mean([self._before(score) for score in parts])
            posts = [self._values(score, self._scale.seeds) for score in parts]
            row[f"{side}_post"] = np.mean(posts, axis=0)
        return pd.DataFrame(row)


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


def agreement(compared: pd.DataFrame) -> pd.DataFrame:
    """Return how far trained scores agree with the printed ones.

    Args:
        compared: A table as `Comparison.compare` returns it. Cells that are derived from others of
            the table, and cells without a trained score, do not count.

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
