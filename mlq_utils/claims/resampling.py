"""How sure a number is: what it would be with other languages and other seeds.

Numbers are computed from rows that count a number of times: once each for the estimate, as often as
they are drawn in a bootstrap sample, and not at all if their language is left out. So an estimate,
its interval and what a single language does to it come from one computation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

SAMPLES = 4000
LEVEL = 0.95
"""The level of confidence of the intervals."""


def counts(rows: pd.DataFrame, units: Sequence[str], samples: int = SAMPLES) -> np.ndarray:
    """Return how often each row counts in each sample of a cluster bootstrap.

    The groups of a unit are drawn together, such as all rows of a language. One group less than
    there are is drawn, and scaled up, so that the variance of a mean of few groups has no bias.

    Args:
        rows: The rows.
        units: The columns whose groups are drawn. "seed within language" draws the seeds of each
            language by themselves. Units that are not within another are drawn independently.
        samples: Number of samples. Defaults to 4000.

    Returns:
        An array of samples by rows.
    """
    rng = np.random.default_rng(0)
    drawn = np.ones((samples, len(rows)))
    for unit in units:
        name, _, outer = unit.partition(" within ")
        parents = rows[outer] if outer else pd.Series(0, rows.index)
        for places in rows.groupby(parents.to_numpy()).indices.values():
            groups, names = pd.factorize(rows[name].iloc[places])
            if (n := len(names)) > 1:
                times = rng.multinomial(n - 1, np.full(n, 1 / n), samples) * n / (n - 1)
                drawn[:, places] *= times[:, groups]
    return drawn


@dataclass(frozen=True)
class Measured:
    """Numbers, with what they are in bootstrap samples and without each language.

    Attributes:
        estimates: The numbers by name.
        samples: One row per bootstrap sample and a column per number.
        left_out: One row per language that is left out (the groups of the first unit).
        absent: For each language, the samples in which it was not drawn. They are bootstrap samples
            of the other languages.
    """

    estimates: Mapping[str, float]
    samples: pd.DataFrame
    left_out: pd.DataFrame
    absent: Mapping[str, np.ndarray]

    def numbers(self, level: float = LEVEL, without: str | None = None) -> dict[str, float]:
        """Return the numbers and the bounds of their intervals, `x_low` and `x_high` for `x`.

        The bounds of the effect are `low` and `high`.

        Args:
            level: Level of confidence. Defaults to 0.95.
            without: A language that is left out.
        """
        found, samples = dict(self.estimates), self.samples.to_numpy()
        if without is not None:
            found = self.left_out.loc[without].to_dict()
            samples = samples[self.absent[without]]
        # A sample in which a group has no rows says nothing of it.
        defined = samples[~np.isnan(samples).any(axis=1)]
        bounds = [(1 - level) / 2, (1 + level) / 2]
        low, high = np.quantile(defined, bounds, axis=0) if len(defined) else [np.nan] * 2
        for side, values in (("low", low), ("high", high)):
            ends = dict(zip(self.samples, np.broadcast_to(values, len(found)), strict=True))
            found |= {side: ends.pop("effect")} | {f"{name}_{side}": x for name, x in ends.items()}
        return found


def measure(
    rows: pd.DataFrame,
    units: Sequence[str],
    compute: Callable[[np.ndarray], pd.DataFrame],
) -> Measured:
    """Return numbers of rows with their bootstrap samples.

    Args:
        rows: The rows.
        units: What is drawn, see `counts`. If empty, the numbers are exact.
        compute: The function that returns the numbers, one row per row of an array that says how
            often each row counts.
    """
    once = np.ones((1, len(rows)))
    if not units:
        exact = compute(once)
        return Measured(exact.iloc[0].to_dict(), exact, exact.iloc[:0], {})
    drawn = counts(rows, units)
    first = rows[units[0]].astype(str)
    without = {name: (first != name).to_numpy() for name in first.unique()}
    found = compute(np.vstack([once, drawn, *without.values()]))
    left_out = found.iloc[len(drawn) + 1 :].set_axis(list(without))
    absent = {name: ~(drawn[:, ~others] > 0).any(axis=1) for name, others in without.items()}
    return Measured(
        found.iloc[0].to_dict(), found.iloc[1 : len(drawn) + 1], left_out, absent
    )


# Numbers of rows that count a number of times: `values` has one row per row, `times` one row per
# sample and one column per row.


def mean(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the mean of each sample."""
    with np.errstate(invalid="ignore"):
        return times @ values / times.sum(axis=1)


def agreement(columns: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the mean rank correlation of all pairs of columns, in each sample."""
    scaled = [_standard_ranks(column, times) for column in columns.T]
    n = len(scaled)
    # The square of a sum has each pair twice, and each column with itself, which gives 1.
    total = (np.sum(scaled, axis=0) ** 2).sum(axis=1)
    return (total - n) / (n * (n - 1))


def _standard_ranks(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return ranks whose weighted squares add up to 1 in each sample, times the root of weights."""
    below = (values[:, None] > values) + 0.5 * (values[:, None] == values)
    ranks = times @ below.T
    ranks = ranks - (times * ranks).sum(axis=1, keepdims=True) / times.sum(axis=1, keepdims=True)
    weighted = np.sqrt(times) * ranks
    with np.errstate(invalid="ignore", divide="ignore"):
        return weighted / np.sqrt((weighted**2).sum(axis=1, keepdims=True))
