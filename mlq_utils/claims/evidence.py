"""How the claims are measured: `select` takes rows of a frame, and `measure` numbers from them.

`claims.yaml` gives the arguments of both for every test of a claim.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mlq_utils.claims import frames
from mlq_utils.data import one_of
from mlq_utils.scoring import intervals

REDUCTIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "mean": intervals.means,
    "sum": lambda values, times: times @ values,
    "count": lambda values, times: times.sum(axis=1),
    "rank correlation": intervals.agreements,
    "agreement": intervals.agreements,
}
"""How the values in the rows of a source become one number in each sample."""
_EXACT = {name: getattr(pd.Series, name) for name in ("min", "max", "median", "nunique")}
"""Reductions for the words: the same in all samples."""


def select(
    frame: str,
    rows: str = "",
    add: Mapping[str, str] | None = None,
    by: str | Sequence[str] = (),
    columns: str = "",
    value: str = "spbleu",
    then: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return rows of a frame, or means over groups of rows.

    Args:
        frame: The name of the frame: a table of the paper ("table 15"), a study with the columns
            that `frames` adds to it, or another key of `frames.FRAMES`.
        rows: A query that the rows must meet, after `add`. Defaults to all rows.
        add: Columns to add first, each an expression over the other columns.
        by: One or several columns. If given, rows that agree in them become one row of means.
        columns: A column whose values become columns themselves, which hold the means of `value`.
        value: The column whose means are taken if `columns` is given. If it holds text, the first
            text is taken.
        then: Columns to add last, to the groups.
    """
    found = _evaluated(frames.frame(frame), add)
    if rows:
        found = found.query(rows, engine="python")
    by = [by] if isinstance(by, str) else list(by)
    if columns:
        how = "mean" if pd.api.types.is_numeric_dtype(found[value]) else "first"
        found = found.pivot_table(index=by, columns=columns, values=value, aggfunc=how)
        found = found.rename(columns=str).reset_index()
    elif by:
        found = found.groupby(by, dropna=False).mean(numeric_only=True).reset_index()
    return _evaluated(found, then)


def _evaluated(found: pd.DataFrame, expressions: Mapping[str, str] | None) -> pd.DataFrame:
    for name, expression in (expressions or {}).items():
        found = found.assign(**{name: found.eval(expression, engine="python")})
    return found


def measure(
    source: Mapping[str, Any],
    numbers: Mapping[str, Mapping[str, Any] | str],
    resample: Sequence[str],
) -> intervals.Resampled:
    """Return numbers that are each a reduction of an expression over the columns of a source.

    Args:
        source: The arguments of `select`.
        numbers: For each number, its reduction (a key of `REDUCTIONS`, or "min", "max", "median" or
            "nunique") with the expression, as in `{mean: embed - full}`: a list of columns for a
            rank correlation, a regular expression for their names for an agreement. There may also
            be `rows`, a query for the rows that count. A text is an expression over the numbers
            before it. One number must be the `effect`.
        resample: The columns whose groups are drawn, see `intervals.Resampled`.
    """
    found = select(**source)

    def compute(times: np.ndarray) -> pd.DataFrame:
        reduced = pd.DataFrame(index=range(len(times)))
        for name, how in numbers.items():
            if isinstance(how, str):
                reduced[name] = reduced.eval(how, engine="python")
            else:
                reduced[name] = _reduced(found, times, **how)
        return reduced

    return intervals.Resampled(found, resample, compute)


def _reduced(found: pd.DataFrame, times: np.ndarray, rows: str = "", **how: Any) -> np.ndarray:
    ((name, expression),) = how.items()
    one_of("reduction", name, [*REDUCTIONS, *_EXACT])
    if rows:
        kept = found.eval(rows, engine="python").fillna(False).to_numpy(bool)
        found, times = found[kept], times[:, kept]
    if name == "agreement":
        values = found.filter(regex=expression)
    elif name == "rank correlation":
        values = found[expression]
    else:
        values = found.eval(expression, engine="python")
    if name in _EXACT:
        return np.full(len(times), _EXACT[name](values))
    values = (values.notna() if name == "count" else values).to_numpy(float)
    present = ~np.isnan(values.reshape(len(values), -1)).any(axis=1)
    return REDUCTIONS[name](values[present], times[:, present])
