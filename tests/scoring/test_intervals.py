"""Bootstrap intervals against scipy, and comparisons by rank by brute force."""

import pandas as pd
import pytest
from scipy import stats

from mlq_utils.scoring import intervals


def test_intervals_agree_with_scipy():
    x = [1.0, 4.0, 2.0, 8.0, 5.0, 7.0, 3.0, 9.0]
    y = [2.0, 3.0, 1.0, 9.0, 4.0, 8.0, 5.0, 7.0]
    found = intervals.rank_correlation(x, y, samples=500)
    reference = stats.bootstrap(
        (x, y),
        lambda a, b: stats.spearmanr(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=500,
        method="percentile",
        rng=0,
    ).confidence_interval
    assert found["rho"] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert (found["low"], found["high"]) == pytest.approx(tuple(reference))
    mean = intervals.mean(x)
    assert mean["mean"] == pytest.approx(4.875) and mean["low"] < 4.875 < mean["high"]


@pytest.mark.parametrize("bad", [[], [1.0], [1.0, float("nan")]])
def test_intervals_need_numbers(bad):
    with pytest.raises(ValueError, match="two or more numbers"):
        intervals.mean(bad)


def test_pairwise_and_superiority_by_brute_force():
    frame = pd.DataFrame({"a": [1, 2, 3, 4], "b": [2, 1, 4, 3], "c": [4, 3, 2, 1]})
    found = intervals.pairwise(frame).set_index(["a", "b"])["rho"]
    assert found.to_dict() == pytest.approx({("a", "b"): 0.6, ("a", "c"): -1, ("b", "c"): -0.6})
    x, y = [1, 5, 5, 9], [5, 2, 0]
    pairs = [(a > b) + (a == b) / 2 for a in x for b in y]
    assert intervals.superiority(x, y) == pytest.approx(sum(pairs) / len(pairs))
    with pytest.raises(ValueError, match="one side is empty"):
        intervals.superiority([], y)


def test_a_table_of_intervals_reads_as_rows():
    table = intervals.table({"x": intervals.mean([1, 2, 3]), "y": intervals.mean([2, 2, 2])})
    assert table.columns.tolist() == ["mean", "95% from", "to", "n"]
    assert table["n"].tolist() == [3, 3] and table.loc["y"].tolist() == [2, 2, 2, 3]


def test_rank_correlation_needs_pairs():
    with pytest.raises(ValueError, match="unequal lengths: 2 and 3"):
        intervals.rank_correlation([1, 2], [1, 2, 3])
