"""Equation 1 against the printed equation, the paper's table and brute force."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlq_utils import paper, quadrants

scores = st.floats(0, 100, allow_subnormal=False)
thresholds = st.floats(0.01, 50)
factors = st.floats(0.1, 30)


@pytest.fixture(scope="module")
def ted():
    return quadrants.assign(quadrants.published(), quadrants.threshold())


def by_hand(post, pre, threshold, factor):
    """Equation 1 as printed, with `factor` for its 2."""
    return post / pre - factor if pre >= threshold else (post - factor * threshold) / pre


@given(post=scores, pre=st.floats(0.01, 100), threshold=thresholds, factor=factors)
def test_delta_is_equation_1(post, pre, threshold, factor):
    expected = by_hand(post, pre, threshold, factor)
    assert quadrants.delta(post, pre, threshold, factor) == pytest.approx(expected, abs=1e-9)


@given(rows=st.lists(st.tuples(scores, st.floats(0.01, 100)), min_size=1), threshold=thresholds)
def test_delta_is_vectorised(rows, threshold):
    post, pre = np.array(rows).T
    one_by_one = [quadrants.delta(a, b, threshold) for a, b in rows]
    assert quadrants.delta(post, pre, threshold) == pytest.approx(one_by_one)
    series = quadrants.delta(pd.Series(post, index=range(5, 5 + len(rows))), pre, threshold)
    assert series.tolist() == pytest.approx(one_by_one)
    assert series.index[0] == 5


@given(post=scores, pre=scores, threshold=thresholds, factor=factors)
def test_significant_means_factor_times_the_score_or_the_threshold(post, pre, threshold, factor):
    bar = factor * max(pre, threshold)
    if abs(post - bar) > 1e-6:
        assert (quadrants.delta(post, pre, threshold, factor) > 0) == (post > bar)


@given(pre=scores, threshold=thresholds, low=scores, high=scores)
def test_delta_rises_with_the_score(pre, threshold, low, high):
    low, high = sorted((low, high))
    below, above = (quadrants.delta(p, pre, threshold) for p in (low, high))
    assert below <= above or np.isclose(below, above)


def test_a_score_of_zero_before():
    assert quadrants.delta(5, 0, 1) == np.inf
    assert quadrants.delta(1, 0, 1) == -np.inf
    assert quadrants.delta(2, 0, 1) == 0


@pytest.mark.parametrize(
    ("post", "pre", "threshold", "factor"),
    [
        (1, -1, 1, 2),
        (np.nan, 1, 1, 2),
        (1, 1, 0, 2),
        (1, 1, -1, 2),
        (1, 1, 1, 0),
        (1, 1, np.nan, 2),
    ],
)
def test_bad_scores_and_constants(post, pre, threshold, factor):
    with pytest.raises(ValueError, match="must be"):
        quadrants.delta(post, pre, threshold, factor)


def test_the_four_quadrants():
    sides = [(1, 1), (-1, 1), (1, -1), (-1, -1), (0, 0), (np.inf, 1), (0, 1)]
    names = [
        "reciprocal",
        "altruistic",
        "selfish",
        "stagnant",
        "stagnant",
        "reciprocal",
        "altruistic",
    ]
    assert [quadrants.quadrant(*side) for side in sides] == names
    assert quadrants.quadrant(*np.array(sides).T).tolist() == names
    columns = pd.DataFrame(sides, columns=["b", "m"], index=list("abcdefg"))
    assert quadrants.quadrant(columns["b"], columns["m"]).tolist() == names
    with pytest.raises(ValueError, match="not a number"):
        quadrants.quadrant(np.nan, 1)


def test_table_2_ted_row_50_of_50(ted):
    printed = paper.table(2).query("dataset == 'Ted'").set_index("language")["quadrant"]
    assert len(ted) == len(printed) == 50
    assert ted.set_index("language")["quadrant"].to_dict() == printed.to_dict()


@pytest.mark.parametrize(("threshold", "matches"), [(2.0, 50), (3.0, 45)])
def test_other_thresholds(threshold, matches):
    printed = paper.table(2).query("dataset == 'Ted'").set_index("language")["quadrant"]
    assigned = quadrants.assign(quadrants.published(), threshold).set_index("language")
    assert (assigned["quadrant"] == printed[assigned.index]).sum() == matches


def test_threshold():
    assert quadrants.threshold() == pytest.approx(paper.table(9)["llama"].mean())
    assert quadrants.threshold([1, 2, 6]) == 3
    with pytest.raises(ValueError, match="no scores"):
        quadrants.threshold([])


def test_sensitivity_counts_every_language_once(ted):
    grid = quadrants.sensitivity(quadrants.published(), [1.0, quadrants.threshold()], [2, 20])
    assert (grid.groupby(["threshold", "factor"])["languages"].sum() == len(ted)).all()
    assert grid.query("factor == 20 and quadrant == 'stagnant'")["languages"].eq(50).all()
    at_two = grid.query("factor == 2").set_index(["threshold", "quadrant"])["languages"]
    expected = ted["quadrant"].value_counts()
    for name in quadrants.QUADRANTS:
        assert at_two[quadrants.threshold(), name] == expected[name]


def test_stability(ted):
    vanilla = paper.table(9)["llama"]
    options = {"samples": 300, "seed": 1}
    still = quadrants.stability(quadrants.published(), [2.0] * 9, rounding=0.0, **options)
    assert still.query("assigned")["probability"].eq(1).all()  # nothing is drawn: nothing moves
    sure = quadrants.stability(quadrants.published(), vanilla, **options)
    assert np.allclose(sure.groupby("language")["probability"].sum(), 1)
    assert sure["assigned"].sum() == len(ted)
    same = quadrants.stability(quadrants.published(), vanilla, **options)
    pd.testing.assert_frame_equal(sure, same)
    noisy = quadrants.stability(quadrants.published(), vanilla, standard_error=0.3, **options)
    kept = [f.query("assigned")["probability"].mean() for f in (sure, noisy)]
    assert kept[0] > kept[1]


def test_each_score_has_its_own_error():
    interval = {"spbleu_low": [3.0, 8.04, 3.0], "spbleu_high": [5.0, 11.96, 5.0]}
    untuned = pd.DataFrame({"target": ["km", "af", "ro"], "spbleu": [4.0, 10, 4], **interval})
    tuned = untuned.assign(tuned_on="km", seed=0, spbleu=[8.2, 30.0, 30.0])
    scores = quadrants.trained(untuned, tuned)
    assert scores["bilingual_post_error"].tolist() == pytest.approx([2 / 3.92])
    assert scores["multilingual_pre_error"].tolist() == pytest.approx([np.hypot(2 / 3.92, 1) / 2])
    options = {"rounding": 0.0, "samples": 4000}
    found = quadrants.stability(scores, [1.0], **options).set_index("quadrant")["probability"]
    # The own score is 0.2 above twice the score before; both are drawn with their errors.
    expected = 0.5 + math.erf(0.2 / math.hypot(2 / 3.92, 2 * 2 / 3.92) / math.sqrt(2)) / 2
    assert found["reciprocal"] == pytest.approx(expected, abs=0.05)
    same = quadrants.stability(scores, [1.0], standard_error=0.5, **options)
    assert same.set_index("quadrant")["probability"].equals(found)  # the known errors count
    exact = scores[[column for column in scores if not column.endswith("_error")]]
    assert quadrants.stability(exact, [1.0], **options)["probability"].tolist() == [1]


def test_summary_follows_two_rules():
    summary = quadrants.summarise(paper.table(2))
    printed = {k: set(g["language"]) for k, g in summary.groupby("printed")}
    assert set(paper.table(2).query("dataset == 'Summary'")["language"]) <= set(summary["language"])
    assert printed["altruistic"] == set(summary.query("strict == 'altruistic'")["language"])
    assert printed["reciprocal"] == set(summary[summary["bilingual_gain"]]["language"])
    assert len(printed["reciprocal"]) == 18
    assert len(summary.query("strict == 'reciprocal'")) == 10
    assert summary.query("strict == 'stagnant'")["language"].tolist() == ["ta"]
