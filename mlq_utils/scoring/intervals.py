"""How sure a number is: bootstrap intervals over languages, sentences or runs."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats


def mean(values: Sequence[float], *, samples: int = 2000, seed: int = 0) -> pd.Series:
    """Return a mean with its 95% percentile bootstrap interval.

    Args:
        values: Two or more numbers.
        samples: Bootstrap samples.
        seed: Of the draws.

    Returns:
        A Series with `mean`, `low`, `high` and `n`.

    Raises:
        ValueError: Fewer than two values, or one that is not a number.
    """
    values = _numbers(values)
    found = stats.bootstrap(
        (values,), np.mean, n_resamples=samples, method="percentile", rng=seed
    ).confidence_interval
    return pd.Series(
        {"mean": values.mean(), "low": found.low, "high": found.high, "n": len(values)}
    )


def rank_correlation(
    x: Sequence[float], y: Sequence[float], *, samples: int = 2000, seed: int = 0
) -> pd.Series:
    """Return Spearman's rank correlation with its 95% percentile bootstrap interval.

    Args:
        x: Two or more numbers.
        y: As many, paired with `x`.
        samples: Bootstrap samples of the pairs; those in which a side is constant are left out.
        seed: Of the draws.

    Returns:
        A Series with `rho`, `low`, `high` and `n`.

    Raises:
        ValueError: The sides differ in length, are too short, or hold what is not a number.
    """
    x, y = _numbers(x), _numbers(y)
    if len(x) != len(y):
        raise ValueError(f"unequal lengths: {len(x)} and {len(y)}")
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(x), size=(samples, len(x)))
    # Ranks of each sample at once; Pearson's correlation of ranks is Spearman's.
    a, b = (stats.rankdata(side[draws], axis=1) for side in (x, y))
    a, b = (side - side.mean(axis=1, keepdims=True) for side in (a, b))
    with np.errstate(invalid="ignore"):
        rhos = (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    low, high = np.nanquantile(rhos, [0.025, 0.975])
    rho = stats.spearmanr(x, y).statistic
    return pd.Series({"rho": rho, "low": low, "high": high, "n": len(x)})


def pairwise(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rank correlation of each pair of columns, each pair once.

    Returns:
        A row a pair: `a`, `b` (the columns' names), `rho`.
    """
    rho = frame.corr("spearman").to_numpy()
    first, second = np.triu_indices(len(frame.columns), k=1)
    names = frame.columns.to_numpy()
    return pd.DataFrame({"a": names[first], "b": names[second], "rho": rho[first, second]})


def superiority(x: Sequence[float], y: Sequence[float]) -> float:
    """Return how often a value of `x` is above one of `y`, of all pairs; a tie counts half.

    Raises:
        ValueError: A side is empty.
    """
    if len(x) == 0 or len(y) == 0:
        raise ValueError("one side is empty: there are no pairs to compare")
    return float(stats.mannwhitneyu(x, y).statistic / (len(x) * len(y)))


def table(rows: Mapping[Hashable, pd.Series]) -> pd.DataFrame:
    """Return results of `mean` or `rank_correlation` as a frame, a row each, labelled for reading.

    Args:
        rows: Results by label; tuples make levels of the index.
    """
    frame = pd.DataFrame(dict(rows)).T.astype({"n": int})
    return frame.rename(columns={"rho": "rank correlation", "low": "95% from", "high": "to"}).round(
        2
    )


def _numbers(values: Sequence[float]) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if len(values) < 2 or np.isnan(values).any():
        raise ValueError("an interval needs two or more numbers, none of them missing")
    return values
