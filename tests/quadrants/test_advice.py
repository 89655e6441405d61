"""What predicts a quadrant: features by hand, languages held out, better than chance, advice."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from mlq_utils import languages, paper, quadrants
from mlq_utils.quadrants import advice as advising

COLUMNS = advising.PREDICTORS["all"]


@pytest.fixture(scope="module")
def examples():
    return quadrants.examples()


def test_features_by_hand():
    measured = pd.DataFrame(
        {
            "language": ["en", "ru", "km"],
            "tokens_per_sentence": [10.0, 20.0, 80.0],
            "byte_token_share": [0.0, 0.1, 0.9],
            "of_language_weighted": [1.0, 0.3, 0.05],
        }
    )
    found = quadrants.features(measured)
    assert found.loc["ru"].tolist() == [1, 1, 0, 1.0, 0.1, 0.3]
    assert found.loc["km"].tolist() == [0, 0, 0, 3.0, 0.9, 0.05]
    with pytest.raises(ValueError, match="English is missing"):
        quadrants.features(measured.iloc[1:])
    with pytest.raises(ValueError, match="unknown language 'xx'"):
        quadrants.features(measured.assign(language=["en", "ru", "xx"]))


def test_every_row_of_table_2_is_an_example(examples):
    rows = paper.table(2).query("dataset != 'Summary'")
    assert len(examples) == len(rows) and not examples.isna().any(axis=None)
    assert set(advising.llama_features().index) == set(languages.codes()) - {"en"}


def test_a_language_is_predicted_by_a_model_that_has_not_seen_it(examples):
    """A language is predicted alike whatever its own labels are."""
    before = advising.cross_validate(examples, COLUMNS)
    code = "af"
    changed = examples.copy()
    changed.loc[changed["language"] == code, "quadrant"] = "stagnant"
    after = advising.cross_validate(changed, COLUMNS)
    names = sorted(examples["quadrant"].unique())
    rows = examples["language"] == code
    assert np.allclose(before.loc[rows, names], after.loc[rows, names])
    assert not np.allclose(before.loc[~rows, names], after.loc[~rows, names])


def test_probabilities_are_those_of_scikit_learn(examples):
    values = examples[list(COLUMNS)].to_numpy(float)
    scaled = (values - values.mean(axis=0)) / values.std(axis=0)
    direct = LogisticRegression(max_iter=1000).fit(scaled, examples["quadrant"])
    found = advising.fitted(COLUMNS).predict_proba(examples)
    assert np.allclose(found, direct.predict_proba(scaled))
    assert np.allclose(found.sum(axis=1), 1)


def test_it_predicts_better_than_frequencies_and_not_when_labels_are_shuffled(examples):
    table = quadrants.compare_predictors(examples, samples=200)
    assert table.loc["all", "low"] > table.loc["none (class frequencies)", "right"]
    assert table.loc["all", "log_loss"] < table.loc["none (class frequencies)", "log_loss"] - 0.1
    mixed = examples.assign(quadrant=examples["quadrant"].sample(frac=1, random_state=0).to_numpy())
    table = quadrants.compare_predictors(mixed, samples=200)
    assert table.loc["all", "log_loss"] > table.loc["none (class frequencies)", "log_loss"]


# The advice


def test_a_trial_decides_by_equation_1():
    ted = quadrants.assign(quadrants.published(), quadrants.threshold()).set_index("language")
    vanilla = paper.table(9).set_index("target")["llama"]
    rows = paper.table(12).set_index(["tuned_on", "target", "role"])["spbleu"]
    for code in ("bg", "vi", "mr", "th"):
        after = {t: rows[code, t, "representative"] for t in ("af", "ro")}
        after[code] = ted.loc[code, "bilingual_post"]
        before = {t: vanilla[t] for t in after}
        trial = quadrants.Trial(before, after, quadrants.threshold(), standard_error=0)
        advice = quadrants.recommend(code, trial)
        assert advice.quadrant == ted.loc[code, "quadrant"]
        assert advice.probability[advice.quadrant] == pytest.approx(1)
        assert advice.strategy == advising.STRATEGIES[advice.quadrant]
        assert advice.evidence.startswith("trained")


def test_more_error_in_the_trial_is_less_sure():
    trial = {"before": {"vi": 2.0, "af": 3.0}, "after": {"vi": 4.2, "af": 12.0}, "threshold": 1.84}
    sure, unsure = (
        quadrants.recommend("vi", quadrants.Trial(**trial, standard_error=error)).probability
        for error in (0.001, 0.3)
    )
    assert sure["reciprocal"] > 0.99 > unsure["reciprocal"] > 0.3
    assert sum(unsure.values()) == pytest.approx(1)


def test_advice_from_the_language_alone():
    advice = quadrants.recommend("fr")
    assert advice.quadrant == "reciprocal" and advice.evidence.startswith("published")
    assert sum(advice.probability.values()) == pytest.approx(1)
    assert quadrants.recommend("km").probability["reciprocal"] < 0.2


def test_a_tokenizer_that_breaks_a_language_into_bytes_speaks_against_it():
    measured = pd.DataFrame(
        {
            "language": ["en", "cy"],
            "tokens_per_sentence": [30.0, 45.0],
            "byte_token_share": [0.0, 0.0],
            "of_language_weighted": [1.0, 0.6],
        }
    )
    kind = quadrants.recommend("cy", fertility=measured)
    broken = measured.assign(tokens_per_sentence=[30.0, 300.0], byte_token_share=[0.0, 0.9])
    worse = quadrants.recommend("cy", fertility=broken)
    assert kind.evidence.startswith("tokenizer")
    assert worse.probability["reciprocal"] < kind.probability["reciprocal"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"language": "xx"}, "unknown language 'xx'"),
        ({"language": "en"}, "English is the source language"),
        ({"language": "vi", "before": {"vi": 1}}, "different targets: vi"),
        (
            {"language": "vi", "before": {"vi": 1, "af": 2}, "after": {"vi": 1}},
            "different targets: af",
        ),
        ({"language": "vi", "before": {"vi": 1}, "after": {"vi": 1}}, "at least one other target"),
        (
            {"language": "vi", "before": {"ro": 1, "af": 1}, "after": {"ro": 1, "af": 1}},
            "scores of vi",
        ),
    ],
)
def test_bad_questions(arguments, message):
    language = arguments.pop("language")
    with pytest.raises(ValueError, match=message):
        quadrants.recommend(language, quadrants.Trial(**arguments))


def test_a_measurement_without_the_language():
    measured = pd.DataFrame(
        {
            "language": ["en", "ru"],
            "tokens_per_sentence": [10.0, 20.0],
            "byte_token_share": [0.0, 0.1],
            "of_language_weighted": [1.0, 0.3],
        }
    )
    with pytest.raises(ValueError, match="no row for cy"):
        quadrants.recommend("cy", fertility=measured)


def test_every_language_has_advice():
    table = quadrants.recommendations()
    assert len(table) == 101 and table["quadrant"].isin(quadrants.QUADRANTS).all()
    chances = table[[f"P({name})" for name in quadrants.QUADRANTS]]
    assert np.allclose(chances.sum(axis=1), 1)
    assert (chances.idxmax(axis=1) == "P(" + table["quadrant"] + ")").all()
    ted = paper.table(2).query("dataset == 'Ted'").set_index("language")["quadrant"]
    printed = table.set_index("code")["Ted"]
    assert (printed[ted.index] == ted).all() and (printed.drop(ted.index) == "").all()
