"""Bootstrap intervals over languages, sentences or runs, and comparisons by rank."""

import warnings
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
import scipy  # loads scipy.stats, which takes a second, on first use


def mean(values: Sequence[float], *, samples: int = 2000, seed: int = 0) -> pd.Series:
    """Return a mean with its 95% percentile bootstrap interval.

    Args:
        values: Two or more numbers.
        samples: Number of bootstrap samples. Defaults to 2000.
        seed: Random seed for drawing the samples. Defaults to 0.

    Returns:
        A Series with `mean`, `low`, `high` and `n`.
    """
    values = _numbers(values)
    found = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=samples, method="percentile", rng=seed
    )
    low, high = found.confidence_interval
    return pd.Series({"mean": values.mean(), "low": low, "high": high, "n": len(values)})


def rank_correlation(
    x: Sequence[float], y: Sequence[float], *, samples: int = 2000, seed: int = 0
) -> pd.Series:
    """Return Spearman's rank correlation with its 95% percentile bootstrap interval.

    Args:
        x: Two or more numbers.
        y: As many numbers, paired with `x`.
        samples: Number of bootstrap samples. Those in which a side is constant are left out.
        seed: Random seed for drawing the samples. Defaults to 0.

    Returns:
        A Series with `rho`, `low`, `high` and `n`.
    """
    x, y = _numbers(x), _numbers(y)
    if len(x) != len(y):
        raise ValueError(f"unequal lengths: {len(x)} and {len(y)}")
    with warnings.catch_warnings(action="ignore"):  # about samples in which a side is constant
        found = scipy.stats.bootstrap(
            (x, y), _spearman, paired=True, n_resamples=samples, method="percentile", rng=seed
        )
    # scipy's own interval is NaN as soon as one sample has a constant side.
    low, high = np.nanquantile(found.bootstrap_distribution, [0.025, 0.975])
    rho = scipy.stats.spearmanr(x, y).statistic
    return pd.Series({"rho": rho, "low": low, "high": high, "n": len(x)})


def _spearman(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the rank correlations of many samples at once, which `stats.spearmanr` cannot."""
    ranks = (scipy.stats.rankdata(side, axis=axis) for side in (x, y))
    return scipy.stats.pearsonr(*ranks, axis=axis).statistic


def pairwise(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rank correlations of all pairs of columns, with the columns' names in a and b."""
    rho = frame.corr("spearman").to_numpy()
    first, second = np.triu_indices(len(frame.columns), k=1)
    names = frame.columns.to_numpy()
    return pd.DataFrame({"a": names[first], "b": names[second], "rho": rho[first, second]})


def superiority(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the share of pairs in which the value of `x` is above that of `y`. Ties count half."""
    if len(x) == 0 or len(y) == 0:
        raise ValueError("one side is empty: there are no pairs to compare")
    return float(scipy.stats.mannwhitneyu(x, y).statistic / (len(x) * len(y)))


def table(rows: Mapping[Hashable, pd.Series]) -> pd.DataFrame:
    """Return results of `mean` or `rank_correlation` by label as a frame for reading."""
    names = {"rho": "rank correlation", "low": "95% from", "high": "to"}
    return pd.DataFrame(dict(rows)).T.astype({"n": int}).rename(columns=names).round(2)


def _numbers(values: Sequence[float]) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if len(values) < 2 or np.isnan(values).any():
        raise ValueError("an interval needs two or more numbers, none of them missing")
    return values
