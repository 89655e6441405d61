"""The benchmark's arithmetic and its file; the figures themselves are for a quiet machine."""

import json

import pytest
import tyro

from benchmarks import bench
from mlq_utils import corpora, modeling, scoring
from mlq_utils.modeling import batches, prompts, translation


def test_compare_gives_the_ratio_of_medians(monkeypatch):
    clock = iter([0, 2, 0, 1, 0, 6, 0, 2, 0, 4, 0, 4])
    monkeypatch.setattr(bench, "perf_counter", lambda: next(clock))
    calls = []
    result = bench.compare(lambda: calls.append("a"), lambda: calls.append("b"), runs=3)
    assert result == {"ratio": 2.0, "medians": [4, 2], "runs": 3}
    assert calls == ["a", "b"] * 4


@pytest.mark.parametrize(
    "ours, verdict",
    [
        ([1.00, 1.01, 0.99, 1.00], "yes"),
        ([0.50, 0.60, 0.40, 0.50], "yes"),  # better is good enough
        ([1.20, 1.21, 1.19, 1.20], "no"),
        ([1.00, 1.40, 0.60, 1.00], "undecided"),
        ([1.04, 1.06, 1.03, 1.05], "undecided"),
    ],
)
def test_equal_quality_is_claimed_only_where_seeds_tell(ours, verdict):
    found = bench.quality({"ours": ours, "trainer": [1.01, 0.99, 1.00, 1.00]})
    assert found["equal_loss"] == verdict
    low, high = found["loss_ratio"]
    assert low < found["held_out_loss"]["ours"] < high
    assert found["standard_error"]["trainer"] == pytest.approx(0.0041, abs=1e-4)


def test_bench_writes_its_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(corpora, "find", lambda _: None)
    monkeypatch.setattr(bench, "RUNS", 1)
    few = {c: ["joi, 9 ianuarie తెలుగు"] * 3 for c in ("en", "te")}
    monkeypatch.setattr(corpora, "texts", lambda *_: few)
    monkeypatch.setattr(bench.compare, "__defaults__", (1,))
    bench.OUTPUT.parent.mkdir()
    bench.OUTPUT.write_text('{"other": {"ratio": 2}}')
    bench.main(("tokenizer",))
    written = json.loads((tmp_path / "_build/bench.json").read_text())
    assert written.pop("other") == {"ratio": 2}  # other benchmarks' figures stay
    assert set(written) == {"tokenizer_vs_sentencepiece", "shortening_vs_plain"}
    for result in written.values():
        assert result["runs"] == 1 and len(result["medians"]) == 2 and result["ratio"] > 0


def test_an_unknown_benchmark_is_refused(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(bench.main, args=["translate"])
    assert "translation" in capsys.readouterr().err


def test_what_the_trainer_is_compared_with_trains_alike(monkeypatch):
    """With all pairs in every batch, where order is nothing, both make the same model."""
    monkeypatch.setattr(bench, "SENTENCES", 50)
    frame = prompts.mixture({"ro": 32})
    schedule = modeling.Schedule.mini("full", batch_size=32, epochs=15)
    before = bench.held_out_loss(modeling.load("mini"))
    ours = modeling.fine_tune(
        modeling.load("mini"), frame, "full", schedule, precision="fp32", progress=False
    )
    base = modeling.load("mini")
    modeling.prepare(base.model, "full")
    bench.trainer(base, batches.examples(frame, base), schedule)
    losses = [bench.held_out_loss(tuned) for tuned in (ours.model, base)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01) and max(losses) < before / 2


def test_what_translation_is_compared_with_translates_alike():
    base = modeling.load("mini")
    test = prompts.mixture({"ro": 12}, split="test")
    asked, references = list(test["prompt"]), list(test["target"])
    out = translation.translate(
        base.model, base.tokenizer, asked, cap=40, bos_id=base.bos, eos_id=base.eos
    )
    found = bench._generate(base, asked, 40)
    scores = [
        scoring.spbleu(texts, references, tokenizer=scoring.cldr_spm(), resamples=1).score
        for texts in (found, list(out["hypothesis"]))
    ]
    assert found == out["hypothesis"].tolist() and scores[0] == scores[1]
