"""The paper's printed scores beside trained ones, and how far they agree.

    made = records([12], PAPER, most=None)    # all that Table 12 needs; missing runs are made
    compare(12, made)                         # cell by cell
    agreements(made, tables=[12])             # rank correlation, and share of changes of one sign
    status(made)                              # what is done of each table

Any record counts whose settings are those of a run that stands for a cell, for the targets that it
has. Printed scores are spBLEU with `flores101` on FLORES. At another scale only orders, signs and
quadrants can be compared.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd

from mlq_utils import experiments, paper, quadrants
from mlq_utils.data import PACKAGE_DATA
from mlq_utils.experiments.scales import PAPER, UNSCORED, Scale
from mlq_utils.experiments.spec import Spec, spec_of
from mlq_utils.experiments.store import Store, read_lines
from mlq_utils.experiments.tables import TABLES, Cell, Score, Table, cells, scores, specs
from mlq_utils.quadrants import REFERENCE_TARGETS
from mlq_utils.scoring import intervals

Record = Mapping[str, Any]
MIN_CELLS = 5
"""Fewest cells for which agreement is reported."""
DIGITS = 6
"""Decimals that are kept, so that no rounding error of floats looks like a difference."""
_COLUMNS = ["printed", "printed_change", "trained", "trained_change", "low", "high", "spread"]
_QUADRANT_COLUMNS = ["trained", "bilingual_delta", "multilingual_delta", "seeds", "kept"]
_HOW: dict[str, Callable[[list[float]], float]] = {
    "mean": np.mean,
    "max": np.max,
    "difference": lambda values: values[0] - values[1],
}


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
    wanted = list(dict.fromkeys([*specs(tables, scale), _untuned(scale)]))
    shipped = _shipped(scale)
    results = _Results([*shipped, *_kept(wanted, store)])
    missing = [spec for spec in wanted if results.state(spec) != "done"][:most]
    if missing:
        scale.check()
        experiments.run_all(missing, store, workers=None)
    return [*shipped, *_kept(wanted, store)]


def _kept(wanted: Iterable[Spec], store: Store) -> list[dict[str, Any]]:
    return list(filter(None, store.get_all(spec.identity() for spec in wanted).values()))


def _shipped(scale: Scale) -> list[dict[str, Any]]:
    """Return the shipped records of a scale's base as it is now."""
    files = sorted((PACKAGE_DATA / "runs").glob("*.jsonl"))
    return [
        record
        for file in files
        for record in read_lines(file).values()
        if record["spec"]["base"] == scale.base and spec_of(record).identity() == record["identity"]
    ]


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

    def row(self, score: Score, seed: int) -> Record:
        """Return the row of a score in its record, empty if there is no record."""
        return self._rows.get(Score(_with_seed(score.model, seed), score.target), {})

    def spbleu(self, score: Score, seed: int) -> float:
        return self.row(score, seed).get("spbleu", np.nan)

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


@lru_cache
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
    rows = [
        _row(cell, printed, results, scale)
        for cell, printed in zip(frame["cell"], frame["printed"], strict=True)
    ]
    made = pd.DataFrame(rows, frame.index, columns=[*_COLUMNS, "seeds"]).astype({"seeds": int})
    names = frame.columns[: frame.columns.get_loc("cell")].drop("printed")
    return frame[names].join(made).join(frame[["derived", "reason"]])


def _row(cell: Cell | None, printed: float, results: _Results, scale: Scale) -> dict[str, Any]:
    row = dict.fromkeys(_COLUMNS, np.nan) | {"printed": printed, "seeds": 0}
    if cell is None:
        return row
    tuned = any(score.model.languages for score in scores(cell))
    changes = tuned and _is_average(cell)
    if changes:
        before = _value(cell, lambda score: _printed_untuned()[score.target])
        row["printed_change"] = round(printed - before, DIGITS)
    seeds = scale.seeds if tuned else scale.seeds[:1]
    values = {seed: _value(cell, partial(results.spbleu, seed=seed)) for seed in seeds}
    done = [seed for seed, value in values.items() if not np.isnan(value)]
    if not done:
        return row
    found = [values[seed] for seed in done]
    row |= {"trained": round(np.mean(found), DIGITS), "seeds": len(done)}
    if len(done) > 1:
        row["spread"] = round(np.std(found, ddof=1), DIGITS)
    if changes:
        untuned = scale.untuned()
        before = _value(cell, lambda score: results.spbleu(Score(untuned, score.target), 0))
        row["trained_change"] = round(np.mean(found) - before, DIGITS)
    if isinstance(cell, Score):
        for side in ("low", "high"):
            row[side] = np.mean([results.row(cell, seed)[f"spbleu_{side}"] for seed in done])
    return row


@cache
def _printed_untuned() -> dict[str, float]:
    return paper.table(9).set_index("target")["llama"].to_dict()


def _is_average(cell: Cell) -> bool:
    """Return whether a cell is a score or a mean of scores, so that it has a change."""
    return isinstance(cell, Score) or (cell.how == "mean" and all(map(_is_average, cell.of)))


def _value(cell: Cell, lookup: Callable[[Score], float]) -> float:
    if isinstance(cell, Score):
        return lookup(cell)
    return float(_HOW[cell.how]([_value(part, lookup) for part in cell.of]))


def _compare_quadrants(frame: pd.DataFrame, results: _Results, scale: Scale) -> pd.DataFrame:
    untuned = _untuned(scale)
    pairs = [(t, results.spbleu(Score(_model(untuned), t), 0)) for t in untuned.targets]
    before = pd.DataFrame(pairs, columns=["target", "spbleu"])
    made = pd.DataFrame(columns=_QUADRANT_COLUMNS, dtype=float)
    tuned = _equation_1_scores(frame, results, scale)
    if before["spbleu"].notna().all() and len(tuned):
        level = quadrants.threshold(before["spbleu"])
        by_seed = {d: quadrants.trained(before, part) for d, part in tuned.groupby("dataset")}
        by_seed = pd.concat(by_seed, names=["dataset"]).reset_index("dataset")
        by_seed = by_seed.merge(frame[["dataset", "language"]].reset_index(names="cell"))
        by_seed = by_seed.set_index("cell").drop(columns=["dataset", "language", "seed"])
        made = quadrants.assign(by_seed.groupby("cell").mean(), level)
        made = made.rename(columns={"quadrant": "trained"})
        single = quadrants.assign(by_seed, level)["quadrant"]
        kept = (single == made["trained"].reindex(single.index)).groupby("cell")
        made = made.assign(seeds=kept.size(), kept=kept.mean())[_QUADRANT_COLUMNS]
    made = frame[["dataset", "language", "printed"]].join(made).join(frame[["reason"]])
    for name in ("printed", "trained"):
        made[name] = made[name].astype(object).where(made[name].notna(), None)
    return made.astype({"seeds": "Int64"}).fillna({"seeds": 0})


def _equation_1_scores(frame: pd.DataFrame, results: _Results, scale: Scale) -> pd.DataFrame:
    """Return what Equation 1 takes of each tuned model, for each seed that has all of it."""
    rows = []
    for number, cell in frame["cell"].dropna().items():
        model = next(score.model for score in scores(cell) if score.model.languages)
        own = frame.at[number, "language"]
        for seed in scale.seeds:
            targets = dict.fromkeys((own, *REFERENCE_TARGETS))
            found = {t: results.spbleu(Score(model, t), seed) for t in targets}
            if not np.isnan([*found.values()]).any():
                place = (frame.at[number, "dataset"], own, seed)
                rows += [(*place, *pair) for pair in found.items()]
    return pd.DataFrame(rows, columns=["dataset", "tuned_on", "seed", "target", "spbleu"])


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


def agreements(
    records: Sequence[Record], scale: Scale = PAPER, tables: Iterable[Table] | None = None
) -> pd.DataFrame:
    """Return `agreement` for several tables.

    Args:
        records: Records, as `records` returns them.
        scale: The scale at which runs were made. Defaults to the paper's.
        tables: Numbers of tables. Defaults to all that print scores.

    Returns:
        The rows of `agreement`, with the `table` as the first column.
    """
    tables = [t for t in TABLES if isinstance(t, int)] if tables is None else list(tables)
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
    state = {spec: results.state(spec) for spec in specs(scale=scale)}
    rows = {}
    for table in TABLES:
        reasons = cells(table, scale)["reason"]
        rows[table] = {"cells": len(reasons), "without_run": int((reasons != "").sum())}
        rows[table] |= _counts([state[spec] for spec in specs([table], scale)])
    totals = {name: sum(row[name] for row in rows.values()) for name in ("cells", "without_run")}
    rows["all"] = totals | _counts(list(state.values()))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("table")


def _counts(states: list[str]) -> dict[str, int]:
    kinds = ("done", "failed", "missing")
    return {"runs": len(states)} | {kind: states.count(kind) for kind in kinds}
