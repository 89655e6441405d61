"""Which languages a model has: what is measured without tuning, and how good predictions are."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks import record_diagnosis
from mlq_utils import cli, experiments, languages, modeling, paper, scoring
from mlq_utils.experiments import Store, diagnosis, studies

CODES = ("cy", "km")


@pytest.fixture(scope="module")
def recorded():
    frame = pd.read_csv(diagnosis.RECORDED / "diagnosis.csv").set_index("language")
    return frame[frame["base"] == "mini"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A diagnosis of the packaged base in two languages, made here."""
    with pytest.MonkeyPatch.context() as patch:
        store = Store(tmp_path_factory.mktemp("diagnosis"))
        patch.setattr(diagnosis, "default_store", lambda: store)
        return experiments.diagnose(languages=CODES)


def test_the_record_is_of_the_packaged_base(found, recorded):
    assert list(recorded.index) == [code for code in languages.codes("cldr") if code != "en"]
    made = found.set_index("language")
    for name, tolerance in {"tokens_per_char": 0, "premium": 0, "bits_per_char": 0.01}.items():
        expected = recorded.loc[list(CODES), name]
        np.testing.assert_allclose(made[name], expected, rtol=1e-3 + tolerance)
    np.testing.assert_allclose(made["spbleu"], recorded.loc[list(CODES), "spbleu"], atol=2)


def test_the_quadrants_of_the_packaged_base_are_those_of_its_studies(recorded):
    tuned = studies.assigned().set_index("language").loc[recorded.index]
    assert recorded["quadrant"].tolist() == tuned["quadrant"].tolist()
    np.testing.assert_allclose(recorded["after"], tuned["bilingual_post"], rtol=1e-3)


def test_numbers_lie_within_their_intervals(found):
    for name in ("tokens_per_char", "premium", "bits_per_char", "alignment"):
        assert (found[f"{name}_low"] < found[name]).all() and (
            found[name] < found[f"{name}_high"]
        ).all()
    assert found["premium"].is_monotonic_increasing  # Khmer falls to bytes
    assert set(scoring.KINDS) < set(found) and not found["lost_letters"].any()
    kinds = diagnosis.examples()["quadrant"].unique()
    np.testing.assert_allclose(found[kinds].sum(axis=1), 1)
    assert found.attrs["alignment"][found.attrs["layer"]] == max(found.attrs["alignment"])


def test_a_prediction_has_not_seen_the_language(found, monkeypatch):
    known, examples = diagnosis.features(found), diagnosis.examples()
    before = diagnosis.probabilities(known)
    strange = examples["quadrant"].where(examples.index != "km", "strange")
    monkeypatch.setattr(diagnosis, "examples", lambda: examples.assign(quadrant=strange))
    after = diagnosis.probabilities(known)
    cy, km = after["strange"][list(CODES)]
    assert cy > 0 and np.isnan(km)  # not even the class is known
    pd.testing.assert_series_equal(after.loc["km", before.columns], before.loc["km"])


def test_the_nearest_of_a_pool_is_what_draws_of_pools_would_find():
    rng = np.random.default_rng(0)
    own, english = rng.normal(size=(2, 1, 12, 5))
    english += 0.5 * own
    (hits,) = diagnosis.nearest(own, english)
    sides = [side[0] - side[0].mean(axis=0) for side in (own, english)]
    first, second = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides)
    close = first @ second.T
    for i in (0, 5):
        others = [j for j in range(12) if j != i]
        pools = itertools.combinations(others, diagnosis.POOL - 1)
        assert hits[i] == pytest.approx(
            np.mean([close[i, list(p)].max() <= close[i, i] for p in pools])
        )
    assert diagnosis.nearest(own, own).tolist() == [[1] * 12]
    own[0, 3] = np.nan  # longer than the context
    assert np.isnan(diagnosis.nearest(own, own)[0]).tolist() == [i == 3 for i in range(12)]


def test_the_recorded_losses_are_those_of_the_record():
    kinds = {name: record_diagnosis.METHODS[name] for name in ("tokens", "family and script")}
    keys = ["held_out", "base", "method"]
    made = record_diagnosis.methods(kinds).set_index(keys)
    there = pd.read_csv(diagnosis.RECORDED / "diagnosis_methods.csv")
    assert list(there["method"]) == [*record_diagnosis.METHODS] * 2 * len(record_diagnosis.BASES)
    there = there.set_index(keys)
    columns = ["log_loss", "low", "high", "accuracy", "less_tokens", "less_tokens_high", "rho"]
    shown = there.loc[list(made.index), columns].astype(float)
    pd.testing.assert_frame_equal(made[columns].astype(float), shown, rtol=2e-3)


def test_what_is_published_of_llama_is_compared():
    rows = record_diagnosis.published().set_index(["model", "feature"])
    assert set(rows["n"]) == {101} and (rows["low"] < rows["rho"]).all()
    table = paper.table(9)
    expected = stats.spearmanr(table["llama"], table["alpaca"]).statistic
    assert rows.loc[("LLaMA-7B", "translation"), "rho"] == pytest.approx(expected)
    assert (rows.xs("tokens", level="feature")["high"] < 0).all()


def test_the_toys_probabilities_are_held_against_the_paper(monkeypatch):
    monkeypatch.setattr(
        record_diagnosis, "METHODS", {name: [()] for name in record_diagnosis.METHODS}
    )
    monkeypatch.setattr(record_diagnosis, "LANGUAGE", ())
    rows = record_diagnosis.transferred().set_index("method")
    assert rows.loc["all four alike", "log_loss"] == pytest.approx(np.log(4))
    printed = paper.table(2).query("dataset != 'Summary'")
    assert set(rows["n"]) == {len(printed)}
    # Knowing nothing of a language, the toy predicts the frequencies of its own quadrants.
    shares = diagnosis.examples()["quadrant"].value_counts(normalize=True)
    chances = printed["quadrant"].map(shares).fillna(0) * 0.99 + 0.01 / 4
    chances = -np.log(chances).mean()
    assert rows.loc["family and script", "log_loss"] == pytest.approx(chances, rel=0.01)


def test_the_text_says_what_it_rests_on(found):
    shown = diagnosis.text(found.assign(lost_letters=[0.0, 0.5]))
    assert "Welsh" in shown and "With base and language held out" in shown
    assert shown.endswith("The tokenizer cannot represent km.")
    there = pd.read_csv(diagnosis.RECORDED / "diagnosis_methods.csv")
    there = there[there["held_out"] == "base and language"].groupby("method")
    for name in diagnosis.FEATURES[1:]:
        worse = (there["less_tokens_high"].get_group(name) >= 0).all()
        assert (name in shown.split("of the bases: ")[1]) == worse


def test_the_command_writes_a_table(base, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(diagnosis, "default_store", lambda: Store(tmp_path))
    words = ["diagnose", "--base", str(base), "--languages", "cy", "eu", "--sentences", "10"]
    assert cli.main([*words, "--csv", str(tmp_path / "table.csv")]) == 0
    shown = capsys.readouterr()
    assert "Basque" in shown.out and "diagnosis: expecting" in shown.err
    assert pd.read_csv(tmp_path / "table.csv")["language"].tolist() == ["cy", "eu"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--languages cz", "unknown language 'cz'"),
        ("--languages umb", "unknown language of cldr 'umb'"),
        ("--sentences 9", "10 sentences or more"),
        ("--base nowhere", "no model 'nowhere'"),
        ("--base owner/name", "its revision must be a commit"),
    ],
)
def test_what_is_refused_before_anything_is_computed(words, message, capsys, monkeypatch):
    monkeypatch.setattr(modeling, "read", lambda *_: pytest.fail("computed"))
    assert cli.main(["diagnose", *words.split()]) == 2
    assert message in capsys.readouterr().err
