"""How the claims are measured: `select` takes rows of a frame, and `measure` numbers from them.

`claims.yaml` gives the arguments of both for every test of a claim.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from mlq_utils.claims import frames
from mlq_utils.data import one_of
from mlq_utils.scoring import intervals

REDUCTIONS: dict[str, Callable[[Any], Any]] = {
    "first": lambda values: values.iloc[0],
    "last": lambda values: values.iloc[-1],
    "rise": lambda values: values.iloc[-1] - values.iloc[0],
    "times": lambda values: values.iloc[-1] / values.iloc[0],
    "range": lambda values: values.max() - values.min(),
    "count": len,
    "distinct": pd.Series.nunique,
    "mean with interval": intervals.mean,
    "rank correlation": lambda pair: intervals.rank_correlation(pair.iloc[:, 0], pair.iloc[:, 1]),
} | {name: getattr(pd.Series, name) for name in ("min", "max", "mean", "median", "sum")}
"""How the values in the rows of a source become one number, or a number and its interval."""


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

    Raises:
        ValueError: The frame is unknown.
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
    source: Mapping[str, Any], numbers: Mapping[str, Mapping[str, Any]]
) -> dict[str, float]:
    """Return numbers that are each a reduction of an expression over the columns of a source.

    Args:
        source: The arguments of `select`.
        numbers: For each number, its reduction (a key of `REDUCTIONS`) with the expression, as in
            `{first: embed - full}`. The expression of a rank correlation is a list of two columns.
            There may also be `rows`, a query for the rows that count.

    Returns:
        The numbers by name. If one of them has an interval, there are also `low`, `high` and `n`.

    Raises:
        ValueError: A reduction is unknown.
    """
    found = select(**source)
    measured = {}
    for name, how in numbers.items():
        result = _reduced(found, **how)
        if isinstance(result, pd.Series):
            measured |= {name: result.iloc[0]} | result.iloc[1:].to_dict()
        else:
            measured[name] = result
    return measured


def _reduced(found: pd.DataFrame, rows: str = "", **how: Any) -> Any:
    ((reduction, expression),) = how.items()
    reduce = REDUCTIONS[one_of("reduction", reduction, REDUCTIONS)]
    if rows:
        found = found.query(rows, engine="python")
    two = isinstance(expression, list)
    return reduce(found[expression] if two else found.eval(expression, engine="python"))
