"""Advice: features by hand, languages held out, the printed record, trials, printed runs."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import dirichlet_multinomial
from sklearn.linear_model import LogisticRegression

from mlq_utils import languages, paper, quadrants
from mlq_utils.quadrants import advice as advising
from mlq_utils.quadrants import strategies


@pytest.fixture(scope="module")
def examples():
    return quadrants.examples()


@pytest.fixture(scope="module")
def found(examples):
    return quadrants.evaluate(quadrants.held_out(examples), samples=200)


@pytest.fixture(scope="module")
def advice():
    """The advice for each of the 101 languages."""
    return {code: quadrants.recommend(code) for code in quadrants.features().index}


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
    alpaca = paper.table(9).set_index("target")["alpaca"]
    own = np.log2(1 + alpaca[["ru", "km"]])
    assert found["after_english"].tolist() == pytest.approx(own.tolist())
    four = found.pop("after_english_four") - found.pop("after_english")
    assert (four.abs() < 3).all() and four["ru"] != 0  # other models' scores are a little different
    assert found.loc["ru"].tolist() == [1, 1, 0, 1.0, 0.1, 0.3]
    assert found.loc["km"].tolist() == [0, 0, 0, 3.0, 0.9, 0.05]
    with pytest.raises(ValueError, match="English is missing"):
        quadrants.features(measured.iloc[1:])
    with pytest.raises(ValueError, match="unknown language 'xx'"):
        quadrants.features(measured.assign(language=["en", "ru", "xx"]))


def test_every_row_of_table_2_is_an_example(examples):
    rows = paper.table(2).query("dataset != 'Summary'")
    assert len(examples) == len(rows) and not examples.isna().any(axis=None)
    assert set(quadrants.features().index) == set(languages.codes()) - {"en"}


def test_a_language_is_predicted_by_a_model_that_has_not_seen_it(examples):
    """The prior of a language is the same whatever its own quadrants are."""
    methods = {"all": [*advising.PRIOR, advising.TOKENIZER]}
    some = examples["language"].isin(["af", *examples["language"].unique()[::5]])
    examples, changed = examples[some], examples[some].copy()
    changed.loc[changed["language"] == "af", "quadrant"] = "stagnant"
    before, after = (
        quadrants.held_out(frame, methods).query("held_out == 'language'")
        for frame in (examples, changed)
    )
    names, rows = list(quadrants.QUADRANTS), (before["language"] == "af").to_numpy()
    assert np.allclose(before.loc[rows, names], after.loc[rows, names])
    assert not np.allclose(before.loc[~rows, names], after.loc[~rows, names])


def test_the_prior_is_the_mean_of_regressions_on_other_languages(examples, advice):
    others = examples[examples["language"] != "kn"]  # Kannada is not in Table 2
    known, means = quadrants.features().loc["kn"], []
    for columns in map(list, advising.PRIOR):
        centre, spread = others[columns].mean(), others[columns].std(ddof=0)
        model = LogisticRegression().fit((others[columns] - centre) / spread, others["quadrant"])
        means.append(model.predict_proba(((known[columns] - centre) / spread).to_frame().T)[0])
    expected = dict(zip(model.classes_, np.mean(means, axis=0), strict=True))
    assert advice["kn"].probability == pytest.approx(expected)


def test_the_posterior_by_hand():
    prior, record = np.array([0.1, 0.2, 0.3, 0.4]), np.array([2, 0, 0, 1])
    weights = [1, 2, 3, 5, 8, 12, 20, 40]
    fit = [dirichlet_multinomial.pmf(record, w * prior, 3) for w in weights]
    by_hand = sum(f * (w * prior + record) / (w + 3) for f, w in zip(fit, weights, strict=True))
    assert advising._posterior(prior, record) == pytest.approx(by_hand / sum(fit))
    assert (advising._posterior(prior, record * 0) == prior).all()
    # The more often it was measured and the less the prior fits, the more the record counts.
    shares = [advising._posterior(prior, np.array([n, 0, 0, 0]))[0] for n in range(4)]
    assert shares == sorted(shares) and shares[3] > 0.5


def test_held_out_it_is_better_than_the_baselines(found):
    found = found.set_index(["method", "held_out"])
    ours = found.loc["recommend"]
    assert (ours["log_loss"] <= 0.96).all() and (ours["calibration_error"] <= 0.05).all()
    assert (ours["accuracy"] >= 0.61).all() and (found["n"] == 199).all()
    for baseline in ("class frequencies", "named: reciprocal, else altruistic"):
        assert (ours["log_loss"] < found.loc[baseline, "log_loss"] - 0.05).all()
        assert (ours["accuracy"] > found.loc[baseline, "accuracy"]).all()
    assert found["log_loss"].between(found["low"], found["high"]).all()
    named = found.loc[("named: reciprocal, else altruistic", "language"), "accuracy"]
    rows = quadrants.examples()
    rule = np.where(rows["pretraining"] == 1, "reciprocal", "altruistic")
    assert named == pytest.approx((rule == rows["quadrant"]).mean())


def test_it_is_no_better_than_chance_when_quadrants_are_shuffled(examples):
    mixed = examples.assign(quadrant=examples["quadrant"].sample(frac=1, random_state=0).to_numpy())
    methods = {name: advising.METHODS[name] for name in ("class frequencies", "recommend")}
    loss = quadrants.evaluate(quadrants.held_out(mixed, methods), samples=10)["log_loss"]
    assert loss[2] > loss[0] - 0.02 and loss[3] > loss[0] - 0.02


def test_the_measures_of_a_prediction_by_hand():
    rows = {"method": "mine", "held_out": "language", "language": ["a", "b"]}
    rows |= {"quadrant": ["reciprocal", "stagnant"], "reciprocal": [0.8, 0.55]}
    rows |= {"altruistic": 0.05, "selfish": 0.05, "stagnant": [0.1, 0.35]}
    row = quadrants.evaluate(pd.DataFrame(rows), samples=50).iloc[0]
    assert row["log_loss"] == pytest.approx(-np.log([0.8, 0.35]).mean())
    assert row["accuracy"] == 0.5 and row["n"] == 2
    # The bins hold four cells of 0.05, one each of 0.1, 0.35, 0.55 and 0.8.
    assert row["calibration_error"] == pytest.approx((0.2 + 0.1 + 0.65 + 0.55 + 0.2) / 8)


# The advice


def test_no_unanimous_record_is_contradicted(advice):
    rows = paper.table(2).query("dataset != 'Summary'").groupby("language")["quadrant"].unique()
    unanimous = {code: kinds[0] for code, kinds in rows.items() if len(kinds) == 1}
    assert len(unanimous) == 63
    wrong = [code for code, kind in unanimous.items() if kind not in advice[code].likely]
    assert not wrong
    assert advice["mk"].quadrant == "reciprocal" and advice["ta"].quadrant == "stagnant"
    assert advice["cy"].quadrant == "altruistic"


def test_every_language_has_an_answer_of_its_own(advice):
    assert len(advice) == 101
    for each in advice.values():
        chance = pd.Series(each.probability).sort_values(ascending=False)
        assert chance.sum() == pytest.approx(1) and each.likely[0] == chance.index[0]
        close = chance.iloc[0] - chance.iloc[1] <= 0.1
        assert (each.quadrant == "undecided") == (len(each.likely) == 2) and close <= (
            each.quadrant == "undecided"
        )
        assert each.quadrant in (*quadrants.QUADRANTS, "undecided")
        assert each.gains_itself == pytest.approx(chance["reciprocal"] + chance["selfish"])
        assert each.gains_others == pytest.approx(chance["reciprocal"] + chance["altruistic"])
        assert each.strategy.split(",")[0] in strategies.NAMES.values()
    assert len({tuple(each.probability.values()) for each in advice.values()}) > 95
    assert len({each.expect for each in advice.values()}) > 50


def test_a_language_that_table_2_lacks_is_advised_by_what_is_known(advice):
    for code in ("kn", "ha", "kea"):
        assert "Table 2 (nothing)" in advice[code].evidence
    assert "Table 2 (Lego-MT altruistic)" in advice["cy"].evidence


# What the paper prints of strategies


def test_printed_runs_against_the_tables():
    runs = quadrants.runs()
    four = paper.table(4).query("strategy == 'lora' and size == 20_000 and tuned_on == 'tr'")
    assert runs.loc[("lora", 20_000, "tr"), ["own", "others"]].tolist() == four["spbleu"].tolist()
    assert runs.loc[("full", 160_000, "km"), "own"] == 13.4
    assert runs.loc[("embed", 10_000, "km"), ["own", "others"]].tolist() == [0.1, 15.5]
    bulgarian = runs.loc[("embed", 10_000, "bg")]  # Table 15 has its own score, 12 those of others
    assert bulgarian["own"] == 19.6 and bulgarian["others"] == pytest.approx((8.2 + 12.1) / 2)
    assert bulgarian["tables"] == (15, 12)
    assert runs.index.is_unique and set(runs.index.unique("strategy")) == set(strategies.NAMES)
    assert "AVG" not in runs.index.unique("language")


def test_nearest_languages():
    assert strategies.nearest("km", ["lo", "km", "th"]) == ["km"]
    assert strategies.nearest("sk", ["ar", "fr", "ru", "cs"]) == ["cs", "ru", "fr"]  # branch first
    assert strategies.nearest("cy", ["mr", "vi", "km"])[0] == "vi"  # then script
    assert strategies.nearest("hi", ["hy", "he"])[0] == "hy"  # then family


def test_khmer_is_told_what_more_data_does():
    little, much = (quadrants.recommend("km", pairs=pairs) for pairs in (10_000, 200_000))
    assert "Khmer from 1.1 to 1.6" in little.expect
    assert "with 160,000 pairs Khmer 13.4" in little.expect
    assert "with 160,000 pairs Khmer from 1.1 to 13.4" in much.expect
    assert little.strategy.startswith("full FT, with shortened byte sequences if a limit cuts")
    assert "(Tables 5, 13)" in little.expect and "nothing is printed of" in little.expect


def test_the_tables_overrule_the_paper_where_another_strategy_is_better():
    fifteen = paper.table(15).set_index(["strategy", "size", "target"])["spbleu"]
    little, more = (quadrants.recommend("bg", pairs=pairs) for pairs in (10_000, 20_000))
    assert little.strategy == "FT of layers 0-14" and more.strategy == "Embed FT"
    layers, embed = (fifteen[name, 10_000, "bg"] for name in ("layers 0-14", "embed"))
    assert f"Embed FT is {layers - embed:.1f} spBLEU worse at this size" in little.paper
    assert f"Bulgarian from 0.7 to {layers}" in little.expect
    assert more.paper == "Embed FT for reciprocal languages"
    most = quadrants.recommend("bg", pairs=100_000)  # no table has Embed FT at 80,000 pairs
    assert most.strategy == "full FT" and "Embed FT is not printed at this size" in most.paper


def test_the_expectation_is_of_the_strategy_that_is_advised(advice):
    runs = quadrants.runs()
    for code in ("cy", "fr", "mk", "ta"):
        name = advice[code].strategy.split(",")[0]
        strategy = next(key for key, value in strategies.NAMES.items() if value == name)
        first = advice[code].expect.split(" pairs ")[1].split(",")[0]
        name, _, scores = first.partition(" from ")
        (nearest,) = [each for each in languages.codes() if languages.get(each).name == name]
        assert f"{runs.loc[(strategy, 10_000, nearest), 'own']:.1f}" == scores.split()[-1]


def test_shortening_is_advised_only_where_a_limit_cuts(advice):
    short = {code for code, each in advice.items() if "shortened" in each.strategy}
    assert short == {"bn", "as", "gu", "or", "pa", "lo", "my", "am", "km", "te", "kn"}
    assert "too few to shorten" in advice["ta"].paper


@pytest.mark.parametrize("pairs", [1, 15_000, 30_000, 80_000, 10**7])
def test_every_kind_of_language_has_a_plan_at_every_size(pairs):
    for code in ("cy", "kea", "zhtrad", "af", "hi"):
        for quadrant in quadrants.QUADRANTS:
            plan = strategies.plan(code, (quadrant,), pairs)
            assert " nan" not in " ".join(plan.values()) and all(plan.values())


# A trial


def test_an_exact_trial_decides_by_equation_1():
    ted = quadrants.assign(quadrants.published(), quadrants.threshold()).set_index("language")
    vanilla = paper.table(9).set_index("target")["llama"]
    rows = paper.table(12).set_index(["tuned_on", "target", "role"])["spbleu"]
    for code in ("bg", "vi", "mr", "th", "ta"):
        after = {t: rows[code, t, "representative"] for t in ("af", "ro")}
        after[code] = ted.loc[code, "bilingual_post"]
        before = {t: vanilla[t] for t in after}
        trial = quadrants.Trial(before, after, quadrants.threshold(), standard_error=0)
        advice = quadrants.recommend(code, trial)
        assert advice.quadrant == ted.loc[code, "quadrant"]
        assert advice.probability[advice.quadrant] == pytest.approx(1)
        assert "your trial (3 targets" in advice.evidence


def test_a_trial_updates_what_was_known():
    """The chances of a trial that cannot tell are those without it."""
    trial = {"before": {"vi": 2.0, "af": 3.0}, "after": {"vi": 4.0, "af": 6.0}, "threshold": 2.0}
    unclear = quadrants.Trial(**trial, standard_error=0.2)
    drawn = advising._tried("vi", unclear)
    prior = pd.Series(quadrants.recommend("vi").probability)
    expected = prior * drawn / (prior * drawn).sum()
    assert quadrants.recommend("vi", unclear).probability == pytest.approx(expected.to_dict())
    assert drawn.min() > 0.1


def test_errors_of_single_scores_count():
    trial = {"before": {"vi": 2.0, "af": 3.0}, "after": {"vi": 4.2, "af": 12.0}, "threshold": 1.84}
    sure, unsure, single = (
        quadrants.recommend("vi", quadrants.Trial(**trial, **errors)).probability
        for errors in (
            {"standard_error": 0.001},
            {"standard_error": 0.3},
            {"standard_error": 0.001, "after_error": {"vi": 0.3 * 4.2}},
        )
    )
    assert sure["reciprocal"] > 0.99 > single["reciprocal"] > unsure["reciprocal"]
    assert single["altruistic"] > 0.1 > 0.01 > single["stagnant"]  # only its own score is unsure
    assert sum(unsure.values()) == pytest.approx(1)


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
    assert "your tokenizer" in kind.evidence
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
        (
            {
                "language": "vi",
                "before": {"vi": 1, "af": 1},
                "after": {"vi": 1, "af": 1},
                "after_error": {"ro": 0.1},
            },
            "errors but no scores of ro",
        ),
        ({"language": "vi", "before": {"vi": 1, "af": 1}, "after": {"vi": -1, "af": 1}}, "0 or mo"),
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
