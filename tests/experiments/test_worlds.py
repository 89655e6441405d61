"""The family of bases: its design, its records, and the rule of its predictions."""

import itertools
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mlq_utils import claims, cli
from mlq_utils.corpora import cldr
from mlq_utils.experiments import Spec, Store, family, run_all, worlds
from mlq_utils.experiments.family import World
from mlq_utils.experiments.spec import TEST_SEED
from mlq_utils.modeling import pretraining
from mlq_utils.modeling.pretraining_text import pretraining_languages
from mlq_utils.quadrants import QUADRANTS

TINY = {
    "vocabulary_size": 800,
    "tokenizer_documents": 1500,
    "sequence_length": 32,
    "batch_size": 2,
    "steps": 2,
    "warmup_steps": 1,
}


def test_the_design_tells_main_effects_apart_from_each_other_and_from_pairs():
    designed = family.design()
    assert len(designed) == 20 and len({world.identity() for world in designed}) == 20
    assert [world.seed for world in designed[16:]] == [1, 2, 3, 4]
    signs = np.array([[1 if x in world.high else -1 for x in family.FACTORS] for world in designed])
    half = signs[:16]
    np.testing.assert_array_equal(half.T @ half, 16 * np.eye(8))
    aliased = {}
    for one, two in itertools.combinations(range(8), 2):
        assert not (half.T @ (half[:, one] * half[:, two])).any()
        aliased.setdefault(tuple(half[:, one] * half[:, two]), []).append(
            "ABCDEFGH"[one] + "ABCDEFGH"[two]
        )
    assert family.aliases() == [" = ".join(pairs) for pairs in aliased.values()]
    assert [len(pairs) for pairs in aliased.values()] == [4] * 7


def test_the_world_without_changes_is_the_packaged_base():
    recipes = [json.loads(json.dumps(r)) for r in (World().recipe, pretraining.RECIPE)]
    assert recipes[0] == recipes[1]
    assert set(family.GROUPS["named"]) == set(pretraining_languages())


def test_a_world_at_ten_times_the_scale_is_another_one(tmp_path, capsys):
    one, ten = World("BE"), World("BE", scale=10)
    assert ten.recipe["mix"] == one.recipe["mix"] and ten.identity() != one.identity()
    assert ten.recipe["steps"] == 10 * one.recipe["steps"]
    sizes = []
    for world in (one, ten):
        changed = pretraining.ARCHITECTURE | world.recipe.get("architecture", {})
        with torch.device("meta"):
            layers = LlamaForCausalLM(LlamaConfig(vocab_size=9, **changed)).model.layers
        sizes.append(sum(weight.numel() for weight in layers.parameters()))
    assert 8 < sizes[1] / sizes[0] < 15
    assert World(scale=10).base(Store(tmp_path)) != World().base(Store(tmp_path))
    hours = [family.plan(Store(tmp_path), scale)["hours"] for scale in (1, 10)]
    assert 10 * hours[0].sum() < hours[1].sum() < 100 * hours[0].sum()
    with pytest.raises(ValueError, match="unknown scale '5'"):
        World(scale=5)
    assert cli.main(["worlds", "plan", "--store", str(tmp_path), "--scale", "5"]) == 2


def test_predictions_are_of_what_is_there():
    assert set(worlds.outcomes(record({}))) == set(worlds.OUTCOMES)
    pairs = [(p["factor"], p["outcome"]) for p in family.PLAN["predictions"]]
    assert len(set(pairs)) == len(pairs)
    for prediction in family.PLAN["predictions"]:
        assert prediction["factor"] in family.FACTORS
        assert prediction["outcome"] in worlds.OUTCOMES
        assert {prediction["paper"], prediction["rival"]} <= {"+", "-", "0"}
        assert set(prediction["because"]) == {"paper", "rival"}
    assert {factor for factor, _ in pairs} == set(family.FACTORS)


def record(changes, high="", seed=0):
    """A record in which all scores are 10, but for those of `changes`, by language tuned on."""
    rows = [
        {
            "tuned_on": "+".join(spec.languages),
            "strategy": spec.strategy,
            "size": spec.size,
            "learning_rate": spec.learning_rate,
            "target": target,
            "spbleu": changes.get(("+".join(spec.languages), target), 10.0),
            "reference_bits_per_char": 4 - changes.get(("+".join(spec.languages), target), 0) / 50,
            "source_copy": 3,
            "sentences": 6,
            "names_seen": 8,
            "names_seen_right": 6,
            "names_unseen": 4,
            "names_unseen_right": 1,
        }
        for spec in World().specs(Store("nowhere"))
        for target in spec.targets
    ]
    return {"spec": {"high": high, "seed": seed}, "scores": rows}


def test_outcomes_are_what_they_are_said_to_be():
    of = {name: 0.0 for name in worlds.OUTCOMES} | {"untuned": 10, "copies": 0.5, "unseen": -0.5}
    found = worlds.outcomes(record({}))
    assert np.isnan(found.pop("same_order")) and of.pop("same_order") == 0
    assert found == of
    changes = {("ro", "ro"): 40, ("ro", "de"): 26, ("ro", "af"): 12, ("en", "de"): 18}
    changes |= {("hu", "hu"): 15, ("es", "es"): 30, ("tr", "tr"): 20, ("km", "km"): 14}
    changes |= {("lt", "cs"): 26, ("jv", "cs"): 18}
    found = worlds.outcomes(record(changes))
    assert found["own_rise"] == 30 and found["others_rise"] == 2 and found["afrikaans"] == 2
    assert found["frequency"] == pytest.approx(16 / 3) and found["english_lifts"] == 1
    assert found["hungarian"] == 5 and found["kin"] == 5 and found["helpers"] == 1.5
    assert found["bytes"] == 2 and found["bytes_full"] == 4
    assert found["own_bits"] == pytest.approx(-0.8)
    assert found["others_bits"] == pytest.approx(-26 / 50 / 8)
    assert found["helpers_bits"] == pytest.approx(-(26 + 18) / 50 / 8 / 2)


def test_names_are_counted_by_whether_tuning_saw_them():
    book = cldr.phrasebook("ro")
    spec = Spec(("ro",), ("ro", "fr"), size=60, test_size=50)
    seen = "\n".join(cldr.pairs("ro", "train", 60)["target"])
    test = cldr.pairs("ro", "test", 50)["target"].tolist()
    names = [
        text
        for kind in family.NAMED
        for n in book.items[kind]
        if (text := book.render(((kind, n, 0),)))
    ]
    single = [text for text in test if text in names]
    assert {text in seen for text in single} == {True, False}
    # Of Romanian all phrases are answered, but for those that are one name; of French none.
    answers = ["" if text in single else text for text in test] + [""] * 50
    frame = pd.DataFrame({"target_language": ["ro"] * 50 + ["fr"] * 50, "hypothesis": answers})
    ro, fr = family.names(spec, frame)
    for kind, kept in (("seen", True), ("unseen", False)):
        missing = sum((text in seen) is kept for text in single)
        assert ro[f"names_{kind}"] - ro[f"names_{kind}_right"] == missing
        assert fr[f"names_{kind}"] and not fr[f"names_{kind}_right"]


def test_quadrants_are_assigned_in_each_world():
    """Where Romanian lifts itself and both targets, it is reciprocal; Lithuanian lifts itself."""
    changes = {("ro", "ro"): 60, ("ro", "af"): 60, ("lt", "lt"): 60}
    made = record(changes, "E", 2)
    made |= {"text": {"language_tokens": {"ro": 30}, "tokens": {"one": 80, "two": 20}}}
    found = worlds.assigned([made | {"tokens_per_char": {"ro": 0.5, "km": 3.0}}])
    one = found.set_index("language")
    assert one["quadrant"].to_dict() == {code: "stagnant" for code in one.index} | {
        "ro": "reciprocal",
        "lt": "selfish",
    }
    assert one["share"][["ro", "km"]].tolist() == [0.3, 0.0]
    assert one["tokens_per_char"][["ro", "km"]].tolist() == [0.5, 3.0]
    assert set(found["high"]) == {"E"} and set(found["seed"]) == {2} and len(one) == 11


def test_what_moves_a_language_and_where_something_is_seen():
    """Romanian is reciprocal but for the worlds with B; in one without, it is stagnant, too."""
    places = [("", 0), ("BD", 0), ("BC", 0), ("C", 0), ("B", 1), ("", 1)]
    kinds = ["reciprocal", "altruistic", "altruistic", "reciprocal", "altruistic", "stagnant"]
    rows = [
        {"high": h, "language": "ro", "quadrant": q}
        for (h, _), q in zip(places, kinds, strict=True)
    ]
    (row,) = worlds.moved(pd.DataFrame(rows)).to_dict("records")
    assert [row[kind] for kind in QUADRANTS] == [2, 3, 0, 1]
    assert row["factor"] == "B" and row["share"] == pytest.approx(1)
    rises = {("ro", "de"): 90, ("ro", "fr"): 90}
    found = [record({} if "B" in w.high else rises, w.high, w.seed) for w in family.design()]
    assert worlds.seen("others_rise > scale / 8", worlds.table(found)) == (
        "in 12 of 20 worlds; by text in named languages (B): 0 of 8 where high, 12 of 12 where low"
    )
    assert worlds.seen("others_rise > scale / 8", worlds.table(found[:5])) == (
        "in 4 of 5 worlds"  # which factor?
    )
    assert worlds.seen("others_rise >= 0", worlds.table(found)) == "in 20 of 20 worlds"
    assert worlds.seen("others_rise > 0", worlds.table([])) == ""


def test_the_ledger_says_in_how_many_worlds_the_like_is_seen():
    rises = {("ro", code): 90 for code in family.GROUPS["named"]}
    known = worlds.table([record(rises)])
    asked = [test for claim in claims.read() for test in claim.tests if "worlds" in test.fields]
    assert {test.evidence for test in asked} == {"trained"}
    rows = {test.where: test.row(0.95, known)["worlds"] for test in asked}
    assert rows.pop("the claim 'others-rise' (trained)") == "in 1 of 1 worlds"
    assert rows.pop("the claim 'afrikaans' (trained)") == "in 0 of 1 worlds"
    assert rows and set(rows.values()) <= {"in 0 of 1 worlds", "in 1 of 1 worlds"}


def test_effects_are_found_with_their_intervals(monkeypatch):
    rng = np.random.default_rng(0)

    def planted(found):
        high = found["spec"]["high"]
        base = dict.fromkeys(worlds.OUTCOMES, 40.0)
        base["others_rise"] -= 30 * ("B" in high)
        base["hungarian"] += 12 * ("E" in high) * ("A" in high)
        return {name: value + rng.normal(0, 0.5) for name, value in base.items()}

    monkeypatch.setattr(worlds, "outcomes", planted)
    made = [{"spec": {"high": w.high, "seed": w.seed}} for w in family.design()]
    found = worlds.effects(made).set_index(["factor", "outcome"])
    b = found.loc[("B", "others_rise")]
    assert b["low"] < -30 < b["high"] and b["high"] - b["low"] < 3 and b["verdict"] == "rival"
    assert found.loc[("G", "others_rise"), "verdict"] == "rival"  # which predicts no effect
    assert found.loc[("C", "same_order"), "verdict"] == "paper"
    assert found.loc[("E", "hungarian"), "verdict"] in ("neither", "undecided")
    unsaid = found[found["predicted_by_paper"] == ""]
    assert (unsaid["verdict"] == "").all() and len(found) == 8 * len(worlds.OUTCOMES)
    wide = worlds.effects(made, level=0.999).set_index(["factor", "outcome"])
    assert wide.loc[("B", "others_rise"), "low"] < b["low"]
    none = worlds.effects(made, small=1.0).set_index(["factor", "outcome"])
    assert none.loc[("B", "others_rise"), "verdict"] == "paper"  # who predicts no effect
    assert set(none["verdict"]) <= {"", "paper", "rival", "both", "neither"}
    few = worlds.effects(made[:8])
    assert few[["effect", "low"]].isna().all(axis=None)
    assert (few.loc[few["predicted_by_paper"] != "", "verdict"] == "undecided").all()
    # Nine worlds of full rank tell the effects, and a tenth the noise.
    chosen = ["", "B", "A", "C", "D", "E", "F", "G", "H", "AB"]
    ten = [{"spec": {"high": high, "seed": 0}} for high in chosen]
    nine = worlds.effects(ten[:9]).set_index(["factor", "outcome"]).loc["B", "others_rise"]
    assert nine["effect"] == pytest.approx(-30, abs=3) and np.isnan(nine["low"])
    assert worlds.effects(ten)[["low", "high"]].notna().all(axis=None)


@pytest.mark.parametrize(
    ("low", "high", "sign"),
    [(-1, 1, "0"), (0.5, 1.9, "0"), (0.5, 9, "+"), (-9, -0.5, "-"), (-9, 1, ""), (-2.5, 2.5, "")],
)
def test_the_sign_of_an_effect(low, high, sign):
    assert worlds._sign(low, high, 2.0) == sign


def test_an_unknown_factor_and_a_store_that_is_no_folder_are_refused(capsys):
    with pytest.raises(ValueError, match="unknown factor 'X'"):
        World("AX")
    assert cli.main(["worlds", "plan", "--store", "memory://worlds"]) == 2
    assert "bases need a folder" in capsys.readouterr().err


@pytest.fixture
def tiny(monkeypatch):
    """Two worlds whose bases are trained for two steps."""
    monkeypatch.setitem(family.SETTINGS, "recipe", family.SETTINGS["recipe"] | TINY)
    small = {"size": 24, "epochs": 1, "cap": 8, "beam_size": 1}
    runs = [
        {"targets": ["hu", "km"], **small},
        {"languages": [["hu"]], "targets": ["itself", "ro"], **small},
    ]
    monkeypatch.setattr(family, "PLAN", family.PLAN | {"runs": runs, "sentences": 4})
    monkeypatch.setitem(family.FACTORS["H"]["recipe"], "vocabulary_size", 1100)
    made = [World("EH"), World("", 1)]
    monkeypatch.setattr(family, "design", lambda scale=1: made if scale == 1 else [])
    return made


def test_worlds_are_made_once_and_one_that_fails_costs_only_itself(
    tiny, tmp_path, monkeypatch, capsys
):
    pretrain, store = pretraining.pretrain, ["--store", str(tmp_path / "store")]

    def failing(folder, seed, recipe):
        if seed:
            raise FloatingPointError("the loss is nan at step 1")
        return pretrain(folder, seed, recipe)

    monkeypatch.setattr(pretraining, "pretrain", failing)
    with pytest.raises(SystemExit, match=r"1 of 2 worlds failed:\nnone 1: .*loss is nan"):
        cli.main(["worlds", "run", *store])
    monkeypatch.setattr(pretraining, "pretrain", pretrain)
    assert cli.main(["worlds", "run", *store]) == 0
    assert "All 2 worlds are done." in capsys.readouterr().out
    # What the model met as signs is kept and scored as letters.
    store_made = Store(tmp_path / "store")
    for spec in tiny[0].specs(store_made):
        kept = store_made.hypotheses(spec.identity())
        expected = cldr.pairs("hu", "test", 4, seed=TEST_SEED)
        hungarian = kept[kept["target_language"] == "hu"]
        assert hungarian["target"].tolist() == expected["target"].tolist()
    # A copy of the folder has all that is needed.
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    monkeypatch.setattr(pretraining, "pretrain", lambda *_: pytest.fail("pretrained again"))
    found = run_all(tiny, Store(tmp_path / "copy"))
    first = found[0]
    assert first["spec"] == {"high": "EH", "seed": 0, "scale": 1}
    assert {row["tuned_on"] for row in first["scores"]} == {"", "hu"}
    # Hungarian is read byte by byte where it is enciphered, each sign in four of them.
    tokens = [world["tokens_per_char"] for world in found]
    assert tokens[0]["hu"] > 2 > tokens[1]["hu"] and set(tokens[0]) == {"hu", "km"}
    assert all(row["reference_bits_per_char"] > 0 for row in first["scores"])
    assert set(first["sha256_of"]) == {"model.safetensors", "tokenizer.model"}
    assert cli.main(["worlds", "plan", "--store", str(tmp_path / "copy")]) == 0
    assert "2 of 2 worlds are done; the others take 0.0 hours" in capsys.readouterr().out
    monkeypatch.setattr(family, "FOLDER", tmp_path)
    assert cli.main(["worlds", "ship", *store]) == 0
    assert len((tmp_path / "worlds.jsonl").read_text().splitlines()) == 2
    assert isinstance(pd.DataFrame(first["scores"])["spbleu"].mean(), float)


def test_a_killed_world_keeps_its_base_and_its_runs(tiny, tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    monkeypatch.setattr(
        family, "run_all", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        tiny[0].run(store)
    frame = family.plan(store)
    assert frame["pretrained"].tolist() == [True, False] and not frame["done"].any()
    assert frame["hours"][0] < frame["hours"][1] - family.BASE_HOURS / 2


def test_the_shipped_worlds_are_those_of_the_design(tmp_path):
    store = Store(tmp_path, family.FOLDER)
    found = [record for scale in family.SCALES for record in family.records(store, scale)]
    assert len(found) == len(store.shipped_records) > 0
    values = pd.DataFrame([worlds.outcomes(record) for record in found])
    assert np.isfinite(values).all(axis=None) and set(values) == set(worlds.OUTCOMES)
    assigned = worlds.assigned(found)
    assert (assigned["share"] < 0.2).all() and (assigned["tokens_per_char"] > 0.2).all()
