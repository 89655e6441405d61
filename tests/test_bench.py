"""The benchmark's arithmetic and its file; the figures themselves are for a quiet machine."""

import json

from mlq_utils import bench, measurements


def test_compare_gives_the_ratio_of_medians(monkeypatch):
    clock = iter([0, 2, 0, 1, 0, 6, 0, 2, 0, 4, 0, 4])
    monkeypatch.setattr(bench, "perf_counter", lambda: next(clock))
    calls = []
    result = bench.compare(lambda: calls.append("a"), lambda: calls.append("b"), runs=3)
    assert result == {"ratio": 2.0, "medians": [4, 2], "runs": 3}
    assert calls == ["a", "b"] * 4


def test_bench_writes_its_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measurements, "missing", lambda: ["everything"])
    monkeypatch.setattr(bench, "RUNS", 1)
    few = {c: ["joi, 9 ianuarie తెలుగు"] * 3 for c in ("en", "te")}
    monkeypatch.setattr(measurements, "texts", lambda *_: few)
    monkeypatch.setattr(bench.compare, "__defaults__", (1,))
    bench.main()
    written = json.loads((tmp_path / "_build/bench.json").read_text())
    assert set(written) == {"tokenizer_vs_sentencepiece", "shortening_vs_plain"}
    for result in written.values():
        assert result["runs"] == 1 and len(result["medians"]) == 2 and result["ratio"] > 0
