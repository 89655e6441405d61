"""Printed beside trained, on records made up and on runs of a tiny base."""

import dataclasses
from dataclasses import asdict

import numpy as np
import pytest

from mlq_utils import experiments, paper
from mlq_utils.experiments import comparison, studies
from mlq_utils.experiments.comparison import Comparison
from mlq_utils.experiments.executors import run_all
from mlq_utils.experiments.scales import MINI, PAPER
from mlq_utils.experiments.spec import SHIPPED, Spec
from mlq_utils.experiments.store import Store
from mlq_utils.experiments.tables import Score, cells, specs

TWO_SEEDS = dataclasses.replace(PAPER, name="two seeds", seeds=(0, 1))


def tiny(base):
    """Return a scale whose runs take a second."""
    untuned = Spec(base=str(base), test_size=2, beam_size=1)
    small = {"untuned": untuned, "training": {"epochs": 1}, "pairs": 24, "share": 0.001}
    return dataclasses.replace(MINI, seeds=(0,), **small)


def record(spec, scores, status="done"):
    rows = [
        {"target": t, "spbleu": s, "spbleu_low": s - 1, "spbleu_high": s + 1}
        for t, s in scores.items()
    ]
    return {"spec": asdict(spec), "status": status, "scores": rows}


@pytest.fixture(scope="module")
def as_printed():
    """Records in which every run scores what the paper prints for it, Table 9 for the base."""
    planted: dict = {}
    for table in (15, 13, 5, 4, 3, 1, 14, 12, 9):
        for row in cells(table).dropna(subset="cell").itertuples():
            if isinstance(row.cell, Score):
                planted.setdefault(row.cell.model, {})[row.cell.target] = row.printed
    return [record(spec, scores) for spec, scores in planted.items()]


def test_what_scores_as_printed_agrees(as_printed):
    for table in (1, 4, 12, 15):
        frame = Comparison(as_printed).compare(table)
        whole = frame.query("trained.notna() and not derived")
        assert len(whole) >= 14 and whole["seeds"].eq(1).all()
        assert np.allclose(whole["trained"], whole["printed"], atol=0.11)
        single = whole.dropna(subset="low")
        assert np.allclose(single["high"] - single["low"], 2)
    found = Comparison(as_printed).agreements([1, 12, 15]).set_index(["table", "measure"])
    assert (found["value"] > 0.999).all() and (found["low"] > 0.999).all()
    assert found.loc[(12, "same sign"), "n"] == 50 * 13


def test_averages_are_computed_anew(as_printed):
    frame = Comparison(as_printed).compare(15).query("target == 'AVG'")
    assert np.allclose(frame["trained"], frame["printed"], atol=0.06)
    assert frame["low"].isna().all() and frame["derived"].all()
    short = [
        r for r in as_printed
        if not (r["spec"]["languages"] == ("da",) and r["spec"]["size"] == 10_000)
    ]  # fmt: skip
    less = Comparison(short).compare(15).query("target == 'AVG'")
    assert less.loc[less["size"] == 10_000, "trained"].isna().all()  # no average of fewer
    assert less.loc[less["size"] != 10_000, "trained"].notna().all()


def test_quadrants_of_table_12_are_those_of_table_2(as_printed):
    """With the printed scores, Equation 1 gives all 50 of Ted, as `quadrants` shows."""
    frame = Comparison(as_printed).compare(2)
    ted = frame.query("dataset == 'Ted'").dropna(subset="printed")
    assert len(ted) == 50 and (ted["printed"] == ted["trained"]).all()
    assert (ted["seeds"] == 1).all() and (ted["kept"] == 1).all()
    assert frame.query("dataset == 'New'")["trained"].isna().all()
    assert frame.query("dataset == 'Summary'")["reason"].ne("").all()
    (row,) = comparison.agreement(frame.query("dataset == 'Ted'")).to_dict("records")
    assert row == {"measure": "same quadrant", "value": 1, "low": 1, "high": 1, "n": 50}
    tuned = [r for r in as_printed if r["spec"]["languages"]]
    assert Comparison(tuned).compare(2)["trained"].isna().all()  # no T without the base


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store, the default one, without shipped records behind it."""
    monkeypatch.setattr("mlq_utils.experiments.spec.STORE", tmp_path)
    monkeypatch.setattr("mlq_utils.experiments.spec.SHIPPED", None)
    return Store(tmp_path)


def test_nothing_run_yet(store):
    assert comparison.records() == []
    for table in (2, 3, 7, "figure 2"):
        frame = Comparison([]).compare(table)
        assert frame["trained"].isna().all() and frame["seeds"].eq(0).all()
    found = Comparison([]).agreements([2, 12])
    assert found["value"].isna().all() and found["n"].eq(0).all()
    counts = Comparison([]).status()
    assert (counts["missing"] == counts["runs"]).all() and counts["done"].sum() == 0
    assert counts.loc["all", "runs"] == len(specs()) < counts["runs"].drop("all").sum()


def test_mean_and_spread_over_seeds():
    target = {"strategy": "full", "size": 10_000, "target": "km"}
    query = " and ".join(f"{name} == {value!r}" for name, value in target.items())
    (cell,) = cells(5, TWO_SEEDS).query(query)["cell"]
    runs = [
        record(one, {"km": score})
        for one, score in zip(TWO_SEEDS.seeded(cell.model), (4.0, 7.0), strict=True)
    ]
    base = next(spec for spec in specs([5], TWO_SEEDS) if not spec.languages)
    runs.append(record(base, {"km": 1.5}))
    (row,) = Comparison(runs, TWO_SEEDS).compare(5).query(query).to_dict("records")
    assert row["trained"] == 5.5 and row["seeds"] == 2 and row["spread"] == pytest.approx(2.12132)
    assert (row["low"], row["high"]) == (4.5, 6.5)
    assert row["trained_change"] == 4.0 and row["printed_change"] == pytest.approx(1.6 - 1.1)
    (alone,) = Comparison(runs[:1], TWO_SEEDS).compare(5).query(query).to_dict("records")
    assert alone["trained"] == 4 and alone["seeds"] == 1 and np.isnan(alone["spread"])
    assert np.isnan(alone["trained_change"])
    counts = Comparison(runs, TWO_SEEDS).status()["done"]
    assert counts[5] == counts[13] == counts["all"] == 2  # the base is to be scored on more than km
    assert counts[12] == 0


def test_a_quadrant_that_seeds_do_not_share():
    scale = TWO_SEEDS
    base = next(spec for spec in specs([9], scale) if not spec.languages)
    (cell,) = cells(2, scale).query("dataset == 'Ted' and language == 'tr'")["cell"]
    model = next(score.model for score in cell.of if score.model.languages)
    runs = [record(base, dict.fromkeys(base.targets, 2.0))]
    for one, own in zip(scale.seeded(model), (3.0, 9.0), strict=True):
        runs.append(record(one, {"tr": own, "af": 8.0, "ro": 8.0}))
    frame = Comparison(runs, scale).compare(2)
    (row,) = frame.query("dataset == 'Ted' and language == 'tr'").to_dict("records")
    assert row["trained"] == "reciprocal" and row["kept"] == 0.5 and row["seeds"] == 2
    assert row["bilingual_delta"] == 1.0 and row["multilingual_delta"] == 2.0
    assert frame["trained"].notna().sum() == 1


def test_records_with_other_targets_and_older_ones_count():
    """Shipped runs are scored on less, and some were written before later fields."""
    found = studies.records("untuned") + studies.records("by_language")
    bare = [
        r | {"spec": {k: v for k, v in r["spec"].items() if k not in ("cap", "corpus", "test")}}
        for r in found
    ]
    frame = Comparison(bare, MINI).compare(2)
    run = frame[frame["reason"] == ""].dropna(subset="trained")
    assert len(run) == len(frame[frame["reason"] == ""]) and run["seeds"].eq(3).all()
    assert run.query("language == 'ro'")["trained"].eq("reciprocal").all()
    assert run.query("language == 'km'")["trained"].eq("stagnant").all()
    (row,) = comparison.agreement(frame).to_dict("records")
    assert row["n"] == len(paper.table(2).query("dataset != 'Summary'")) - 3  # ny, ns and umb
    assert 0.4 < row["low"] < row["value"] < row["high"] < 0.7


def test_another_base_does_not_count():
    found = studies.records("untuned")
    other = dataclasses.replace(MINI, untuned=Spec(base="some/other", revision="0" * 40))
    assert Comparison(found, other).compare(4)["trained"].isna().all()
    assert Comparison(found, MINI).compare(4)["trained"].notna().sum() == 8


def test_a_constant_side_has_no_correlation():
    frame = Comparison([]).compare(12).assign(trained=3.0)
    rows = comparison.agreement(frame).set_index("measure")
    assert np.isnan(rows.loc["rank correlation", "value"]) and rows["n"].tolist() == [662, 0]


def test_runs_of_a_tiny_base(base, store):
    scale = tiny(base)
    some = [
        spec for spec in specs([4], scale)
        if spec.languages == ("tr",) and spec.size == 10 and spec.strategy != "lora"
    ]  # fmt: skip
    assert [spec.strategy for spec in some] == ["full", "embed"]
    done = run_all(some, store, progress=False)
    frame = Comparison(comparison.records([4], scale), scale).compare(4)
    run = frame.dropna(subset="trained").set_index(["strategy", "measure"])
    assert len(run) == 4 and run["tuned_on"].eq("tr").all() and run["size"].eq(10_000).all()
    for one in done:
        scores = {row["target"]: row for row in one["scores"]}
        own, others = (
            run.loc[one["spec"]["strategy"], side] for side in ("bilingual", "multilingual")
        )
        assert own["trained"] == scores["tr"]["spbleu"]
        assert (own["low"], own["high"]) == tuple(
            scores["tr"][f"spbleu_{side}"] for side in ("low", "high")
        )
        assert others["trained"] == pytest.approx(
            (scores["af"]["spbleu"] + scores["ro"]["spbleu"]) / 2
        )
    failing = next(s for s in specs([4], scale) if s.strategy == "lora")
    failed = {"spec": asdict(failing), "identity": failing.identity(), "status": "failed"}
    store.put(failing.identity(), failed | {"error": "the loss is no number"})
    counts = (
        Comparison(comparison.records([4], scale), scale)
        .status()
        .loc[4, ["runs", "done", "failed", "missing"]]
    )
    assert counts.tolist() == [28, 2, 1, 25]
    same = Comparison(done, scale).compare(4)
    assert same.equals(frame)


def test_missing_runs_are_made_as_many_as_asked_for(base, store, monkeypatch):
    """Those that are there are not made again, and shipped ones count for the packaged base."""
    scale, made = tiny(base), []

    def run_all_here(missing, store, **_):
        made.append(len(missing))
        return run_all(missing, store, progress=False)

    monkeypatch.setattr(experiments, "run_all", run_all_here)
    assert comparison.records([3], scale) == [] and made == []
    assert len(comparison.records([3], scale, most=1)) == 1
    assert len(comparison.records([3], scale, most=1)) == 2
    assert made == [1, 1]
    beside = Comparison(comparison.records([3], scale), scale)
    assert beside.status().loc[3, "done"] == 2
    with pytest.raises(ValueError, match="most must be 0 or more"):
        comparison.records([3], scale, most=-1)
    monkeypatch.setattr("mlq_utils.experiments.spec.SHIPPED", SHIPPED)
    shipped = comparison.records([9], MINI)
    assert Comparison(shipped, MINI).status().loc[9, "missing"] == 0
    assert {record["spec"]["base"] for record in shipped} == {"mini"}
    found = Comparison(comparison.records([3], scale), scale).status()
    assert found.loc[3, "done"] == 2  # shipped records are of another base
