"""The shipped runs of the book: they belong to the packaged base, and the page's sums over them."""

import json

import pandas as pd
import pytest

from benchmarks import ablations
from mlq_utils import experiments, modeling, paper, quadrants
from mlq_utils.corpora import loading as corpora
from mlq_utils.data import PACKAGE_DATA
from mlq_utils.experiments import studies
from mlq_utils.experiments.store import Store
from mlq_utils.modeling import pretraining
from mlq_utils.modeling.pretraining_text import pretraining_languages


@pytest.mark.parametrize("name", studies.STUDIES)
def test_all_runs_of_a_study_are_shipped(name, tmp_path, monkeypatch):
    """Found by identity: so they are of this base, this data and this code."""
    monkeypatch.setattr(experiments, "run", lambda spec, *_, **__: pytest.fail(f"no {spec}"))
    records = studies.records(name, store=Store(tmp_path, experiments.SHIPPED))
    specs = studies.specs(name)
    assert [r["identity"] for r in records] == [s.identity() for s in specs]
    for record, spec in zip(records, specs, strict=True):
        assert record["status"] == "done"
        assert [s["target"] for s in record["scores"]] == list(spec.targets)


def test_a_study_with_a_failed_run_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "run", lambda *_, **__: 1 / 0)
    with pytest.raises(ValueError, match=r"1 of 1 runs of the study untuned failed.*division"):
        studies.records("untuned", store=Store(tmp_path))
    with pytest.raises(ValueError, match=r"unknown study 'untund'\. Did you mean untuned"):
        studies.records("untund")


def test_records_are_shipped_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "SHIPPED", tmp_path)
    studies.ship(("untuned",))
    (file,) = tmp_path.iterdir()
    assert file.read_bytes() == (PACKAGE_DATA / "runs/untuned.jsonl").read_bytes()
    with pytest.raises(ValueError, match="Did you mean untuned"):
        studies.ship(("untund",))


def test_scores_in_the_form_that_equation_1_takes():
    untuned = pd.DataFrame({"target": ["fr", "af", "ro"], "spbleu": [4.0, 2.0, 6.0]})
    tuned = pd.DataFrame(
        [
            ("fr", 0, "fr", 50.0),
            ("fr", 0, "af", 10.0),
            ("fr", 0, "ro", 20.0),
            ("ro", 1, "ro", 30.0),
            ("ro", 1, "af", 8.0),
        ],
        columns=["tuned_on", "seed", "target", "spbleu"],
    )
    found = quadrants.trained(untuned, tuned).to_dict("records")
    shared = {"multilingual_pre": 4.0}
    assert found == [
        {"language": "fr", "seed": 0, "bilingual_pre": 4.0, "bilingual_post": 50.0}
        | shared
        | {"multilingual_post": 15.0},
        {"language": "ro", "seed": 1, "bilingual_pre": 6.0, "bilingual_post": 30.0}
        | shared
        | {"multilingual_post": 19.0},
    ]
    with pytest.raises(KeyError):
        quadrants.trained(untuned, tuned[tuned["target"] != "af"])


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store, the default one."""
    monkeypatch.setattr("mlq_utils.experiments.spec.STORE", tmp_path)
    return Store(tmp_path)


def test_part_of_a_run_is_done_again(small, store):
    record = experiments.scores([experiments.run(small, store, progress=False)])
    found = studies.live(small, small.targets[-1:])
    (row,) = found.to_dict("records")
    (recorded,) = record[record["target"] == small.targets[-1]].to_dict("records")
    assert row["target"] == small.targets[-1]
    assert row["recorded"] == recorded["spbleu"] == row["live"]
    assert (row["low"], row["high"]) == (recorded["spbleu_low"], recorded["spbleu_high"])
    assert len(list(store.keys())) == 2  # the part was computed, not looked up
    with pytest.raises(ValueError, match="unknown target of this run 'te'"):
        studies.live(small, ["te"])


def test_the_packaged_base_reaches_what_the_mini_world_needs():
    """Latent, brought out by Embed FT, three quadrants, and full FT where Embed FT does nothing."""
    inside = pretraining_languages()
    untuned = studies.scores("untuned").set_index("target")
    assert untuned.loc[inside, "spbleu"].mean() <= 25
    copies = untuned.loc[inside, ["source_copy", "sentences"]].sum()
    assert copies["source_copy"] >= copies["sentences"] / 2
    elicited = studies.scores("elicited").groupby("target")["spbleu"].mean()
    assert elicited["ro"] >= 85
    assert elicited[[c for c in inside if c != "ro"]].mean() >= 75
    scores = quadrants.trained(untuned.reset_index(), studies.scores("by_language"))
    scores = scores.groupby("language").mean().reset_index()
    T = quadrants.threshold(untuned["spbleu"])
    counts = quadrants.assign(scores, T)["quadrant"].value_counts()
    assert counts["reciprocal"] >= 18 and counts["altruistic"] >= 12 and counts["stagnant"] >= 10
    runs = studies.scores("strategies")
    runs["itself"] = runs["target"] == runs["tuned_on"]
    means = runs.groupby(["tuned_on", "strategy", "itself"])["spbleu"].mean()
    for language in ("tr", "lt"):
        assert means[language, "full", True] >= 2 * means[language, "embed", True]
        assert means[language, "full", False] <= 0.75 * means[language, "embed", False]
    data = studies.scores("more_data").groupby("strategy")["spbleu"].mean()
    assert data["full"] >= 25 and data["embed"] <= 5


def test_the_package_is_small():
    size = sum(p.stat().st_size for p in modeling.MINI.iterdir())
    assert size <= 12e6 + 200_000  # the weights, and a tokenizer and records beside them
    assert (modeling.MINI / "model.safetensors").stat().st_size <= 12e6


def test_shares_of_the_text_add_up(tmp_path):
    shares = modeling.shares(modeling.MINI)
    assert shares["tokens"].sum() == pytest.approx(1, abs=0.001)
    assert shares["documents"].sum() > 1
    assert shares.groupby("group").size().to_dict() == {
        "English": 1, "pretraining": 19, "trace": len(studies.group("covered")) - 19,
    }  # fmt: skip
    assert shares.index[0] == "en" and shares["tokens"].min() > 0
    with pytest.raises(FileNotFoundError):
        modeling.shares(tmp_path)


def test_the_record_of_the_base_is_of_this_recipe():
    record = json.loads((modeling.MINI / "pretraining.json").read_text("utf8"))
    assert record["recipe"] == json.loads(json.dumps(pretraining.RECIPE)) and record["seed"] == 0
    assert (modeling.MINI / "README.md").read_text("utf8") == pretraining.card(record)


def test_the_bases_on_record_are_known():
    table = ablations.load()
    assert list(dict.fromkeys(table["base"])) == list(ablations.NAMES)
    summary = ablations.summary(table)
    assert list(summary.index) == list(ablations.NAMES) and summary.notna().all(axis=None)


def test_what_made_the_ability_latent():
    """The book's account of the small bases, each without one ingredient."""
    small = ablations.summary(ablations.load())
    assert small.loc["no English tasks", "untuned"] > 5 * small.loc["everything", "untuned"]
    for base in ("tasks without arguments", "one phrasing"):
        assert small.loc[base, "ro"] > 70 and small.loc[base, "others"] < 10
        assert small.loc[base, "in_romanian"] > 0.5
    for base in ("everything", "no traces"):
        assert small.loc[base, "others"] > 50 and small.loc[base, "in_romanian"] < 0.1


def test_another_seed_is_latent_too():
    """What the book says of the packaged base is no accident of its seed."""
    second = ablations.summary(ablations.load()).loc["second base"]
    assert second["untuned"] <= 25 and second["copies"] >= 0.5
    assert second["ro"] >= 85 and second["others"] >= 75


def test_a_summary_of_ablations():
    inside = pretraining_languages()
    rows = []
    for tuned_on, own, rest in (("", 0, 4), ("ro", 90, 60), ("vi", 7, 50), ("af", 30, 70)):
        targets = [*inside, *({tuned_on} - {"", *inside})]
        for target in targets:
            score = own if target == tuned_on else rest
            copies = 5 if tuned_on == "" else 0
            rows.append(("x", tuned_on, target, score, 10, copies, 8 if target == "fr" else 0))
    columns = ["base", "tuned_on", "target", "spbleu", "sentences", "source_copy", "as_tuned_on"]
    found = ablations.summary(pd.DataFrame(rows, columns=columns)).loc["x"]
    assert found.to_dict() == {
        "untuned": 4, "copies": 0.5, "ro": 90, "others": 60, "in_romanian": 8 / 180,
        "vi": 7, "vi_others": 50, "af": 30, "af_others": 70,
    }  # fmt: skip


def test_costs_of_runs_that_tuned(small, tmp_path):
    record = experiments.run(small, Store(tmp_path), progress=False)
    untuned = {"spec": record["spec"], "training": None}
    (row,) = experiments.costs([untuned, record]).to_dict("records")
    assert row["tuned_on"] == "ro" and row["strategy"] == "embed"
    assert row["seconds"] == record["training"]["seconds"]
    assert row["translation_seconds"] == sum(score["seconds"] for score in record["scores"])
    pairs = corpora.load("cldr", "ro", "train", size=small.size, seed=small.seed)
    ids = modeling.load(small.base).tokenizer.encode(pairs["target"].tolist())
    labels = sum(map(len, ids)) / len(ids) + 1  # the end of the sentence is learned too
    assert row["tokens_per_sentence"] == pytest.approx(labels, rel=0.05)


def test_sides_by_hand():
    rows = [("tr", "tr", 5.0), ("tr", "af", 90.0), ("tr", "ro", 10.0), ("tr", "fr", 20.0)]
    rows += [("ro", "ro", 50.0), ("ro", "fr", 30.0)]
    frame = pd.DataFrame(rows, columns=["tuned_on", "target", "spbleu"])
    frame = frame.assign(strategy="embed", learning_rate=None, size=100, seed=0)
    found = studies.sides(frame).set_index(["tuned_on", "side"])["spbleu"]
    assert found.to_dict() == {
        ("tr", "itself"): 5, ("tr", "others"): 15, ("ro", "itself"): 50, ("ro", "others"): 30,
    }  # fmt: skip


def test_sparing_rates_are_the_best_of_those_tried_on_the_held_out_language():
    tried = studies.sides(studies.scores("learning_rates")).query("tuned_on == 'sv'")
    sums = tried.groupby(["strategy", "learning_rate"])["spbleu"].sum().unstack()
    assert sums.idxmax(axis=1).to_dict() == studies.SPARING_RATES
    compared = ("reciprocal", "mixed", "altruistic_six", "table_5")
    others = {code for name in compared for code in studies.group(name)}
    assert not others & set(studies.group("held_out"))


def test_a_group_holds_other_groups():
    assert studies.group("altruistic_six") == ("vi", "ar", *studies.group("altruistic"))
    assert studies.group("table_14") == tuple(dict.fromkeys(paper.table(14)["target"]))[:-1]
    assert studies.group("table_3") == tuple(dict.fromkeys(paper.table(3)["target"]))[:-1]
    assert studies.group("pretraining") == tuple(pretraining_languages())
    covered = studies.group("covered")
    known = [code for code in paper.table(11)["language"] if code in covered]
    assert studies.group("representatives") == tuple(known) and "en" not in covered
    assert [spec.languages for spec in studies.specs("mirrored")] == [(c,) for c in covered[::3]]
    with pytest.raises(ValueError, match="unknown group of languages 'watchd'"):
        studies.group("watchd")


def test_the_languages_called_altruistic_here_are():
    scores = quadrants.trained(studies.scores("untuned"), studies.scores("by_language"))
    means = scores.groupby("language").mean().drop(columns="seed").reset_index()
    level = quadrants.threshold(studies.scores("untuned")["spbleu"])
    kinds = quadrants.assign(means, level).set_index("language")["quadrant"]
    assert (kinds[list(studies.group("altruistic"))] == "altruistic").all()
    assert (kinds[list(studies.group("overtokenised"))] == "stagnant").all()
