"""Bootstrap intervals against scipy and by brute force."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlq_utils.scoring import intervals


def test_intervals_agree_with_scipy():
    x = [1.0, 4.0, 2.0, 8.0, 5.0, 7.0, 3.0, 9.0]
    y = [2.0, 3.0, 1.0, 9.0, 4.0, 8.0, 5.0, 7.0]
    found = intervals.rank_correlation(x, y)
    assert found["rho"] == pytest.approx(stats.spearmanr(x, y).statistic)
    mean = intervals.mean(x, samples=20_000)
    assert mean["mean"] == pytest.approx(4.875)
    # The bootstrap of one value less than there are has the variance of the mean without bias.
    half = stats.norm.ppf(0.975) * stats.sem(x)
    assert (mean["low"], mean["high"]) == pytest.approx((4.875 - half, 4.875 + half), abs=0.15)


def test_rank_correlations_in_samples_are_those_of_repeated_rows():
    rng = np.random.default_rng(1)
    columns = rng.integers(0, 4, (9, 3)).astype(float)
    times = rng.integers(0, 3, (5, 9))
    found = intervals.agreements(columns, times)
    for row, value in zip(times, found, strict=True):
        rho = pd.DataFrame(np.repeat(columns, row, axis=0)).corr("spearman").to_numpy()
        assert value == pytest.approx(rho[np.triu_indices(3, k=1)].mean())


@pytest.fixture
def by_seed():
    """Four languages with three seeds each; one differs from the others, and its seeds agree."""
    rows = [
        (code, seed, value)
        for code, value in zip("abcd", (1, 1, 1, 9), strict=True)
        for seed in range(3)
    ]
    return pd.DataFrame(rows, columns=["language", "seed", "value"])


def resampled(rows, units):
    values = rows["value"].to_numpy(float)
    compute = lambda times: pd.DataFrame({"effect": intervals.means(values, times)})  # noqa: E731
    return intervals.Resampled(rows, units, compute)


def test_languages_are_drawn_with_all_their_seeds(by_seed):
    clusters = resampled(by_seed, ["language", "seed within language"]).numbers()
    rows = resampled(by_seed.assign(row=range(12)), ["row"]).numbers()
    assert clusters["effect"] == rows["effect"] == 3
    assert clusters["high"] - clusters["low"] > rows["high"] - rows["low"]
    crossed = resampled(by_seed, ["language", "seed"]).numbers()
    assert (crossed["low"], crossed["high"]) == (clusters["low"], clusters["high"])


def test_a_language_is_left_out_of_estimate_and_interval(by_seed):
    numbers = resampled(by_seed, ["language"]).numbers(without="d")
    assert (numbers["effect"], numbers["low"], numbers["high"]) == (1, 1, 1)
    assert resampled(by_seed, ["language"]).numbers(without="a")["effect"] == pytest.approx(11 / 3)
    alone = resampled(by_seed.query("language == 'd'"), ["language"]).numbers(without="d")
    assert np.isnan([alone["effect"], alone["low"], alone["high"]]).all()


@pytest.mark.parametrize("bad", [[], [1.0], [1.0, float("nan")]])
def test_intervals_need_numbers(bad):
    with pytest.raises(ValueError, match="two or more numbers"):
        intervals.mean(bad)


def test_a_table_of_intervals_reads_as_rows():
    table = intervals.table({"x": intervals.mean([1, 2, 3]), "y": intervals.mean([2, 2, 2])})
    assert table.columns.tolist() == ["mean", "95% from", "to", "n"]
    assert table["n"].tolist() == [3, 3] and table.loc["y"].tolist() == [2, 2, 2, 3]


def test_rank_correlation_needs_pairs():
    with pytest.raises(ValueError, match="unequal lengths: 2 and 3"):
        intervals.rank_correlation([1, 2], [1, 2, 3])


def test_a_result_in_words():
    found = intervals.mean([1.0, 1.0, -4.0, -6.0])
    text = intervals.words(found, "+.1f")
    assert text == f"−2.0 (−{-found['low']:.1f} to {found['high']:+.1f})".replace("-", "−")
    assert intervals.words(intervals.ratio([1, 2], [2, 4])) == "0.50 (0.50 to 0.50)"
