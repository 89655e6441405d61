"""How the claims are measured: each function returns numbers by name.

`claims.yaml` says which of these functions measures a claim, and on what; for most claims that is
`values`. Every function takes a source: the arguments of `frames.select`, which say which rows of
which frame are meant.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from mlq_utils.claims.frames import select
from mlq_utils.data import one_of
from mlq_utils.scoring import intervals

Numbers = dict[str, float]
Source = Mapping[str, Any]
Wanted = Mapping[str, Mapping[str, str]]

REDUCTIONS: dict[str, Callable[[pd.Series], float]] = {
    "first": lambda values: values.iloc[0],
    "last": lambda values: values.iloc[-1],
    "rise": lambda values: values.iloc[-1] - values.iloc[0],
    "times": lambda values: values.iloc[-1] / values.iloc[0],
    "range": lambda values: values.max() - values.min(),
    "count": len,
    "distinct": pd.Series.nunique,
} | {name: getattr(pd.Series, name) for name in ("min", "max", "mean", "median", "sum")}
"""How the values in the rows of a source become one number."""


def values(source: Source, numbers: Wanted) -> Numbers:
    """Return numbers that are each a reduction of an expression over the columns of a source.

    Args:
        source: The arguments of `frames.select`.
        numbers: For each number, its reduction (a key of `REDUCTIONS`) with the expression, as in
            `{first: embed - full}`. `rows` may be given too, a query for the rows that count.

    Raises:
        ValueError: A reduction is unknown.
    """
    found = select(**source)
    return {name: _number(found, **how) for name, how in numbers.items()}


def _number(found: pd.DataFrame, rows: str = "", **how: str) -> float:
    ((reduction, expression),) = how.items()
    one_of("reduction", reduction, REDUCTIONS)
    if rows:
        found = found.query(rows, engine="python")
    return REDUCTIONS[reduction](found.eval(expression, engine="python"))


def correlation(source: Source, x: str, y: str, numbers: Wanted | None = None) -> Numbers:
    """Return the rank correlation of two columns with its interval: `rho`, `low`, `high`, `n`.

    Args:
        source: The arguments of `frames.select`.
        x: One column.
        y: The other column.
        numbers: Further numbers, as in `values`.
    """
    found = select(**source)
    rho = intervals.rank_correlation(found[x], found[y])
    return rho.to_dict() | values(source, numbers or {})


def consistency(source: Source) -> Numbers:
    """Return how alike models order the targets, by rank correlations of all `pairs` of models.

    `rho` is the median and `all` the least over all `targets`; `named` is the greatest over the
    targets that pretraining names.

    Args:
        source: The arguments of `frames.select` for rows with `tuned_on`, `target` and `named`.
    """
    cells = select(**source)
    wide = cells.pivot_table(index=["named", "target"], columns="tuned_on", values="spbleu")
    rho, named = (intervals.pairwise(rows)["rho"] for rows in (wide, wide.loc[True]))
    numbers = {"rho": rho.median(), "all": rho.min(), "named": named.max()}
    return numbers | {"pairs": len(rho), "targets": len(wide)}


def shortening_gain(source: Source) -> Numbers:
    """Return the mean gain by shortening, with its interval over settings, and their number.

    Args:
        source: The arguments of `frames.select` for runs with and without shortening.
    """
    scores = select(**source)
    short = scores["shorten"].notna().rename("short")
    wide = scores.pivot_table(index=["target", "size"], columns=short, values="spbleu")
    gain = intervals.mean(wide[True] - wide[False])
    numbers = {"gain": gain["mean"], "low": gain["low"], "high": gain["high"]}
    return numbers | {"settings": len(wide), "seeds": scores["seed"].nunique()}


MEASUREMENTS: dict[str, Callable[..., Numbers]] = {
    function.__name__: function for function in (values, correlation, consistency, shortening_gain)
}
"""The functions that `claims.yaml` may name."""
