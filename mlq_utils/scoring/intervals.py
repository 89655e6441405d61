"""Bootstrap intervals over languages, seeds or sentences.

Rows count once each for an estimate, as often as they are drawn in a bootstrap sample, and not at
all if their language is left out.
"""

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

LEVEL = 0.95  # of confidence


def mean(values: Sequence[float], *, samples: int = 2000, seed: int = 0) -> pd.Series:
    """Return a mean with its 95% percentile bootstrap interval: `mean`, `low`, `high` and `n`.

    There must be two or more values. `seed` is the random seed for drawing the samples.
    """
    return _interval("mean", means, _numbers(values), samples, seed)


def ratio(
    numerators: Sequence[float],
    denominators: Sequence[float],
    *,
    samples: int = 2000,
    seed: int = 0,
) -> pd.Series:
    """Return the ratio of two sums with its interval: `ratio`, `low`, `high` and `n`.

    Pairs of a numerator and a denominator are drawn together. Those that lack one (NaN) are left
    out; of a single pair the interval has no width. For the arguments see `mean`.
    """
    pairs = np.column_stack([numerators, denominators]).astype(float)
    pairs = pairs[~np.isnan(pairs).any(axis=1)]
    if not len(pairs):
        return pd.Series({"ratio": np.nan, "low": np.nan, "high": np.nan, "n": 0})
    return _interval("ratio", ratios, pairs, samples, seed)


def rank_correlation(
    x: Sequence[float], y: Sequence[float], *, samples: int = 2000, seed: int = 0
) -> pd.Series:
    """Return Spearman's rank correlation of pairs with its interval: `rho`, `low`, `high` and `n`.

    Samples in which a side is constant are left out. For the arguments see `mean`.
    """
    x, y = _numbers(x), _numbers(y)
    if len(x) != len(y):
        raise ValueError(f"unequal lengths: {len(x)} and {len(y)}")
    return _interval("rho", agreements, np.column_stack([x, y]), samples, seed)


def table(rows: Mapping[Hashable, pd.Series]) -> pd.DataFrame:
    """Return results of `mean` or `rank_correlation` by label as a frame for reading."""
    names = {"rho": "rank correlation", "low": "95% from", "high": "to"}
    return pd.DataFrame(dict(rows)).T.astype({"n": int}).rename(columns=names).round(2)


def words(found: pd.Series, form: str = ".2f") -> str:
    """Return a result of `mean`, `ratio` or `rank_correlation` as text, "0.71 (0.42 to 0.90)"."""
    middle, low, high = found.iloc[:3]
    return f"{middle:{form}} ({low:{form}} to {high:{form}})".replace("-", "−")


def _interval(name: str, reduce: Callable, values: np.ndarray, *draws: int) -> pd.Series:
    rows = pd.DataFrame({"row": range(len(values))})
    compute = lambda times: pd.DataFrame({"effect": reduce(values, times)})  # noqa: E731
    found = Resampled(rows, ["row"], compute, *draws).numbers()
    ends = {"low": found["low"], "high": found["high"], "n": len(values)}
    return pd.Series({name: found["effect"]} | ends)


def _numbers(values: Sequence[float]) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if len(values) < 2 or np.isnan(values).any():
        raise ValueError("an interval needs two or more numbers, none of them missing")
    return values


@dataclass(frozen=True)
class Resampled:
    """Numbers of rows, with what they are in bootstrap samples and without each language.

    Attributes:
        rows: The rows.
        units: The columns whose groups are drawn together, such as all rows of a language; the
            first has what is left out in turn. "seed within language" draws the seeds of each
            language by themselves. Other units are drawn independently of each other.
        compute: The function that returns numbers, a column for each, and one row per row of an
            array that says how often each row counts.
    """

    rows: pd.DataFrame
    units: Sequence[str]
    compute: Callable[[np.ndarray], pd.DataFrame]
    samples: int = 2000
    seed: int = 0

    @cached_property
    def languages(self) -> list[str]:
        """The groups of the first unit, which are left out in turn."""
        return list(self.rows[self.units[0]].astype(str).unique())

    def _counts(self) -> np.ndarray:
        """Return how often each row counts in each sample.

        One group less than there are is drawn, and scaled up, so that the variance of a mean of
        few groups has no bias.
        """
        rng = np.random.default_rng(self.seed)
        drawn = np.ones((self.samples, len(self.rows)))
        for unit in self.units:
            name, _, outer = unit.partition(" within ")
            parents = self.rows[outer] if outer else pd.Series(0, self.rows.index)
            for places in self.rows.groupby(parents.to_numpy()).indices.values():
                groups, names = pd.factorize(self.rows[name].iloc[places])
                if (n := len(names)) > 1:
                    times = rng.multinomial(n - 1, np.full(n, 1 / n), self.samples) * n / (n - 1)
                    drawn[:, places] *= times[:, groups]
        return drawn

    @cached_property
    def _draws(self) -> tuple[np.ndarray, pd.DataFrame]:
        """Which languages are there, and the numbers: of all rows, without each, in samples."""
        own = self.rows[self.units[0]].astype(str).to_numpy() == np.array(self.languages)[:, None]
        times = np.vstack([np.ones(len(self.rows)), ~own, self._counts()])
        return times @ own.T > 0, self.compute(times).round(12)  # a share of all rows is 1

    def numbers(self, level: float = LEVEL, without: str | None = None) -> dict[str, float]:
        """Return the numbers and the bounds of their intervals, `x_low` and `x_high` for `x`.

        The bounds of the number `effect` are `low` and `high`. If a language is left out, samples
        in which it was not drawn are bootstrap samples of the others.
        """
        present, draws = self._draws
        row, n = 0, len(self.languages) + 1
        samples = draws.to_numpy()[n:]
        if without is not None:
            row = self.languages.index(without) + 1
            samples = samples[~present[n:, row - 1]]
        samples = samples if len(samples) else np.full((1, draws.shape[1]), np.nan)
        found = draws.iloc[row].to_dict()
        quantile = np.nanquantile if np.isnan(samples).any() else np.quantile  # the latter is fast
        with warnings.catch_warnings(action="ignore"):  # about numbers without any row
            bounds = quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
        for side, values in zip(("low", "high"), bounds, strict=True):
            named = dict(zip(draws, values, strict=True))
            found |= {side: named["effect"]} | {f"{name}_{side}": x for name, x in named.items()}
        return found


def means(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the mean in each sample: `times` has a row per sample and a column per value."""
    with np.errstate(invalid="ignore"):
        return times @ values / times.sum(axis=1)


def ratios(pairs: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the ratio of the sums of two columns in each sample."""
    above, below = (times @ pairs).T
    with np.errstate(invalid="ignore"):
        return above / below


def agreements(columns: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the mean rank correlation of all pairs of columns in each sample."""
    n, total = columns.shape[1], 0
    with np.errstate(invalid="ignore", divide="ignore"):  # a column may be constant
        for column in columns.T:
            ranks = times @ ((column[:, None] > column) + 0.5 * (column[:, None] == column)).T
            ranks -= ((times * ranks).sum(axis=1) / times.sum(axis=1))[:, None]
            ranks *= np.sqrt(times)
            total += ranks / np.sqrt((ranks**2).sum(axis=1, keepdims=True))
    # The square of the sum has each pair twice, and each column with itself, which gives 1.
    return ((total**2).sum(axis=1) - n) / (n * (n - 1))
