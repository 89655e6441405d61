"""The paper's printed scores beside trained ones, and how far they agree.

    made = runs([12], PAPER, most=None)                 # all that Table 12 needs, made if missing
    compare(12, made)                                   # cell by cell
    agreements(studies.records("untuned") + studies.records("by_language"), MINI)
    status(Store("_build/store"))                       # what of each table is done

Runs are a store, in which those of `replication.specs` are looked for, or records, of which any
with the same settings counts for the targets that it has. Printed scores are spBLEU with
`flores101` on FLORES: at another scale only orders, signs and quadrants compare.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd

from mlq_utils import experiments, paper, quadrants
from mlq_utils.experiments import clusters
from mlq_utils.experiments.executors import run_all
from mlq_utils.experiments.replication import OPEN, Cell, Score, Table, cells, scores, specs
from mlq_utils.experiments.scales import PAPER, Scale
from mlq_utils.experiments.spec import SHIPPED, Spec
from mlq_utils.experiments.store import Store, read_lines
from mlq_utils.quadrants import REFERENCE_TARGETS
from mlq_utils.scoring import intervals

Runs = Store | Sequence[Mapping[str, Any]]
_HOW: dict[str, Callable[[list[float]], float]] = {
    "mean": np.mean,
    "max": np.max,
    "difference": lambda values: values[0] - values[1],
}
_ABOUT_RUNS = ("cell", "specs", "targets", "derived", "reason")
_COLUMNS = ["printed", "printed_change", "trained", "trained_change", "low", "high", "spread"]
_QUADRANT_COLUMNS = ["trained", "bilingual_delta", "multilingual_delta", "seeds", "kept"]
_DEFAULTS = asdict(Spec())
FEWEST = 5
"""Cells from which on an agreement is told."""
_DIGITS = 6
"""Decimals that a difference keeps: binary floats leave a trace where there is none."""


def runs(
    tables: Iterable[Table] | None = None,
    scale: Scale = PAPER,
    store: Store | None = None,
    *,
    most: int | None = 0,
) -> list[dict[str, Any]]:
    """Return the records that there are of tables' runs, some of the missing ones made first.

    They are made where MLQ_CLUSTER says (`clusters.open_cluster`): on this machine if nothing.

    Args:
        tables: As in `replication.specs`.
        scale: Where the runs are made.
        store: As in `experiments.run`; of the records shipped, those count that have the same
            settings as a run and some of its targets.
        most: How many of the missing runs are made, in the order of the tables; all where None.

    Raises:
        ValueError: As `replication.specs`; or `most` is below 0.
        OSError: The store cannot be written to; or as `Scale.check`.
    """
    if most is not None and most < 0:
        raise ValueError(f"most must be 0 or more, or None for all, not {most}")
    store = store or experiments.default_store()
    wanted = list(dict.fromkeys([*specs(tables, scale), _untuned(scale)]))
    shipped = _shipped(scale)
    found = _find([*shipped, *_kept(wanted, store)], wanted)
    missing = [spec for spec in wanted if found.state(spec) != "done"][:most]
    if missing:
        scale.check()
        with clusters.open_cluster() as client:
            run_all(missing, store, client=client)
    return [*shipped, *_kept(wanted, store)]


def _kept(wanted: Iterable[Spec], store: Store) -> list[dict[str, Any]]:
    return list(filter(None, store.get_all(spec.identity() for spec in wanted).values()))


def _shipped(scale: Scale) -> list[dict[str, Any]]:
    """Return the records shipped with the package that are of a scale's base as it is now."""
    records = [r for file in SHIPPED.glob("*.jsonl") for r in read_lines(file).values()]
    return [
        record
        for record in records
        if record["spec"]["base"] == scale.base
        and experiments.spec_of(record).identity() == record["identity"]
    ]


def compare(table: Table, runs: Runs, scale: Scale = PAPER) -> pd.DataFrame:
    """Return each cell of a table as printed and as trained.

    Args:
        table: A key of `replication.OPEN`.
        runs: A store, or records.
        scale: Where the runs were made.

    Returns:
        A row a printed cell: the columns that name it, `printed`, `printed_change` (against the
        untuned scores of Table 9), `trained` (mean over seeds, missing where not yet run),
        `trained_change` (against the untuned model), `low` and `high` (95% over sentences, the
        mean of the seeds' bounds; for single scores only), `spread` (standard deviation over
        seeds), `seeds` (how many are done), `derived` and `reason`, as in `replication.cells`. An
        average, a best and a difference are computed anew from the same seed's scores, and
        missing where one of these is. All in spBLEU.

        For Table 2 the quadrants: `printed`, `trained` (by Equation 1, of the mean scores over
        seeds), `bilingual_delta`, `multilingual_delta`, `seeds`, `kept` (the share of seeds that
        by themselves give the same) and `reason`. T is the untuned model's mean over all languages
        of the test set; without it there are none.

    Raises:
        ValueError: There is no such table.
    """
    return _compare(table, _find(runs, [*specs([table], scale), _untuned(scale)]), scale)


def _compare(table: Table, found: "_Found", scale: Scale) -> pd.DataFrame:
    if str(table) == "2":
        return _compare_quadrants(found, scale)
    frame = cells(table, scale)
    rows = [
        _row(cell, printed, found, scale)
        for cell, printed in zip(frame["cell"], frame["printed"], strict=True)
    ]
    names = [name for name in frame if name not in ("printed", *_ABOUT_RUNS)]
    made = pd.DataFrame(rows, frame.index, columns=[*_COLUMNS, "seeds"]).astype({"seeds": int})
    return frame[names].join(made).join(frame[["derived", "reason"]])


def _compare_quadrants(found: "_Found", scale: Scale) -> pd.DataFrame:
    frame = cells(2, scale)
    untuned = _untuned(scale)
    before = {target: found.value(Score(untuned, target)) for target in untuned.targets}
    made = pd.DataFrame(columns=_QUADRANT_COLUMNS, dtype=float)
    if not np.isnan(list(before.values())).any():
        rows = [
            (frame.at[number, "dataset"], number, *row)
            for number, cell in frame["cell"].dropna().items()
            for row in _tuned(cell, found, scale)
        ]
        if rows:
            made = _quadrants(rows, before)
    names = ["dataset", "language", "printed"]
    made = frame[names].join(made).join(frame[["reason"]])
    for name in ("printed", "trained"):
        made[name] = made[name].astype(object).where(made[name].notna(), None)
    return made.astype({"seeds": "Int64"}).fillna({"seeds": 0})


def _tuned(cell: Cell, found: "_Found", scale: Scale) -> list[tuple[str, int, str, float]]:
    """Return language, seed, target and score where a seed has all that Equation 1 takes."""
    (model,) = {score.spec for score in scores(cell) if score.spec.languages}
    (language,) = model.languages
    targets = dict.fromkeys((language, *REFERENCE_TARGETS))
    by_seed = {
        seed: [(language, seed, t, found.value(Score(model, t), seed)) for t in targets]
        for seed in scale.seeds
    }
    return [
        row for rows in by_seed.values() if not any(np.isnan(r[-1]) for r in rows) for row in rows
    ]


def _quadrants(rows: list[tuple], before: Mapping[str, float]) -> pd.DataFrame:
    """Return the quadrant of each cell, by the cell's number."""
    columns = ["dataset", "cell", "tuned_on", "seed", "target", "spbleu"]
    frame = pd.DataFrame(rows, columns=columns)
    untuned = pd.DataFrame(list(before.items()), columns=["target", "spbleu"])
    level = quadrants.threshold(list(before.values()))
    by_seed = pd.concat(
        quadrants.trained(untuned, part).assign(dataset=dataset)
        for dataset, part in frame.groupby("dataset", sort=False)
    )
    numbers = frame.drop_duplicates("cell").rename(columns={"tuned_on": "language"})
    by_seed = by_seed.merge(numbers[["dataset", "language", "cell"]]).drop(columns="dataset")
    single = quadrants.assign(by_seed, level)
    means = by_seed.drop(columns=["language", "seed"]).groupby("cell").mean()
    made = quadrants.assign(means, level).rename(columns={"quadrant": "trained"})
    single["kept"] = single["quadrant"] == single["cell"].map(made["trained"])
    groups = single.groupby("cell")
    made = made.assign(seeds=groups.size(), kept=groups["kept"].mean())
    return made[_QUADRANT_COLUMNS]


def agreement(compared: pd.DataFrame) -> pd.DataFrame:
    """Measure how far trained scores agree with the printed ones.

    Args:
        compared: As `compare` returns it. Cells that are derived from others of the table, and
            those not yet run, do not count.

    Returns:
        A row a `measure`, with `value`, 95% interval over cells (`low`, `high`) and cells `n`:
        "rank correlation" of the scores; "same sign" (share of cells of tuned models that change
        in the same direction against the untuned model); for Table 2 "same quadrant" (share; a
        language counts once for each dataset).
        Values are missing below `FEWEST` cells, and a correlation where one side is constant.
    """
    both = compared.dropna(subset=["printed", "trained"])
    if "kept" in compared:
        return pd.DataFrame([_measure("same quadrant", both["printed"] == both["trained"])])
    both = both[~both["derived"]]
    changes = both[["printed_change", "trained_change"]].dropna()
    same = np.sign(changes).eq(np.sign(changes["printed_change"]), axis=0).all(axis=1)
    return pd.DataFrame(
        [
            _measure("rank correlation", both["printed"], both["trained"]),
            _measure("same sign", same),
        ]
    )


def _measure(name: str, *sides: pd.Series) -> dict[str, Any]:
    row = {"measure": name, "value": np.nan, "low": np.nan, "high": np.nan, "n": len(sides[0])}
    if len(sides[0]) < FEWEST or (len(sides) == 2 and any(side.nunique() < 2 for side in sides)):
        return row
    found = (intervals.rank_correlation if len(sides) == 2 else intervals.mean)(*sides)
    return row | {"value": found.iloc[0], "low": found["low"], "high": found["high"]}


def agreements(
    runs: Runs, scale: Scale = PAPER, tables: Iterable[Table] | None = None
) -> pd.DataFrame:
    """Return `agreement` for tables.

    Args:
        runs: A store, or records.
        scale: Where the runs were made.
        tables: Numbers of tables; all that print scores where None.

    Returns:
        The rows of `agreement`, with the `table` first.
    """
    tables = [t for t in OPEN if isinstance(t, int)] if tables is None else list(tables)
    found = _find(runs, [*specs(tables, scale), _untuned(scale)])
    rows = [agreement(_compare(table, found, scale)).assign(table=table) for table in tables]
    frame = pd.concat(rows, ignore_index=True)
    return frame[["table", *(name for name in frame if name != "table")]]


def status(runs: Runs, scale: Scale = PAPER) -> pd.DataFrame:
    """Return how much of each table is done.

    Args:
        runs: A store, or records.
        scale: Where the runs are made.

    Returns:
        A row a table, and one for all together, in which a run that serves several counts once:
        `cells` (printed or drawn), `without_run`, and the runs: `runs`, `done`, `failed`,
        `missing`.
    """
    every = specs(scale=scale)
    found = _find(runs, every)
    state = {spec: found.state(spec) for spec in every}
    rows = {}
    for table in OPEN:
        frame = cells(table, scale)
        rows[table] = {"cells": len(frame), "without_run": int(frame["cell"].isna().sum())}
        rows[table] |= _counts([state[spec] for spec in specs([table], scale)])
    totals = {name: sum(row[name] for row in rows.values()) for name in ("cells", "without_run")}
    rows["all"] = totals | _counts(list(state.values()))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("table")


def _counts(states: list[str]) -> dict[str, int]:
    kinds = ("done", "failed", "missing")
    return {"runs": len(states)} | {kind: states.count(kind) for kind in kinds}


@dataclass
class _Found:
    """Scores by settings, seed and target, and the settings and seeds of failed runs."""

    scores: dict[tuple[str, int, str], dict[str, Any]] = field(default_factory=dict)
    failed: set[tuple[str, int]] = field(default_factory=set)

    def row(self, score: Score, seed: int | None = None) -> Mapping[str, Any]:
        """Return a score's row of its record, empty where there is none. The base has no seed."""
        seed = score.spec.seed if seed is None or not score.spec.languages else seed
        return self.scores.get((_key(score.spec), seed, score.target), {})

    def value(self, score: Score, seed: int | None = None) -> float:
        return self.row(score, seed).get("spbleu", np.nan)

    def state(self, spec: Spec) -> str:
        if all(self.row(Score(spec, target)) for target in spec.targets):
            return "done"
        return "failed" if (_key(spec), spec.seed) in self.failed else "missing"


def _find(runs: "Runs | _Found", wanted: Iterable[Spec]) -> _Found:
    if isinstance(runs, _Found):
        return runs
    if isinstance(runs, Store):
        runs = _kept(wanted, runs)
    found = _Found()
    for record in runs:
        key, seed = _settings(record["spec"]), record["spec"]["seed"]
        if record["status"] == "failed":
            found.failed.add((key, seed))
        for row in record.get("scores", []):
            found.scores[key, seed, row["target"]] = row
    return found


@lru_cache(maxsize=8192)
def _key(spec: Spec) -> str:
    return _settings(asdict(spec))


def _settings(spec: Mapping[str, Any]) -> str:
    """Return what a run shares with those of other targets and seeds; older ones lack fields."""
    whole = _DEFAULTS | dict(spec)
    return json.dumps({k: v for k, v in whole.items() if k not in ("targets", "seed")})


@lru_cache
def _untuned(scale: Scale) -> Spec:
    return next(spec for spec in specs([9], scale) if not spec.languages)


def _row(cell: Cell | None, printed: float, found: _Found, scale: Scale) -> dict[str, Any]:
    row = dict.fromkeys(_COLUMNS, np.nan) | {"printed": printed, "seeds": 0}
    if cell is None:
        return row
    tuned = any(score.spec.languages for score in scores(cell))
    if tuned and _averages(cell):
        before = _value(cell, lambda score: _vanilla()[score.target])
        row["printed_change"] = round(printed - before, _DIGITS)
    values = {seed: _value(cell, partial(found.value, seed=seed)) for seed in scale.seeds}
    done = {seed: value for seed, value in values.items() if not np.isnan(value)}
    if not done:
        return row
    if not tuned:  # the base has no seed
        done = dict([*done.items()][:1])
    mean = float(np.mean([*done.values()]))
    row |= {"trained": round(mean, _DIGITS), "seeds": len(done)}
    if len(done) > 1:
        row["spread"] = round(np.std([*done.values()], ddof=1), _DIGITS)
    if tuned and _averages(cell):
        before = _value(cell, lambda score: found.value(Score(_untuned(scale), score.target)))
        row["trained_change"] = round(mean - before, _DIGITS)
    if isinstance(cell, Score):
        for side in ("low", "high"):
            row[side] = np.mean([found.row(cell, seed)[f"spbleu_{side}"] for seed in done])
    return row


@lru_cache
def _vanilla() -> dict[str, float]:
    return paper.table(9).set_index("target")["llama"].to_dict()


def _averages(cell: Cell) -> bool:
    """Say whether a cell is a score or an average of scores, which a change can be told of."""
    return isinstance(cell, Score) or (cell.how == "mean" and all(map(_averages, cell.of)))


def _value(cell: Cell, lookup: Callable[[Score], float]) -> float:
    if isinstance(cell, Score):
        return lookup(cell)
    return float(_HOW[cell.how]([_value(part, lookup) for part in cell.of]))
