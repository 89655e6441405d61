"""The first look at a GPU, taken on a CPU with a tiny shape: every step works and is kept."""

import json

import pytest

from benchmarks import bench, gpu
from mlq_utils import modeling


@pytest.fixture(autouse=True)
def aside(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "OUTPUT", tmp_path / "bench.json")
    monkeypatch.setattr(bench, "RECORD", tmp_path / "record.json")


def test_the_mini_base_is_as_on_the_cpu(monkeypatch):
    monkeypatch.setattr(modeling, "STRATEGIES", ("embed", "layers"))  # two, for the time they take
    found = gpu.mini("tiny")
    for strategy in ("embed", "layers"):
        assert found[strategy]["equal_to_cpu"]
        assert found[strategy]["difference_of_two_runs"] == 0
    assert found["difference_after_resuming"] == 0
    assert found["translation"]["as_on_cpu"] == 1


@pytest.mark.parametrize(
    "step, figures",
    [
        ("environment", {"hardware", "versions", "matrix_teraflops", "disk_free_gigabytes"}),
        ("precision", {"largest_error_of_cos_and_sin", "embed_folder_computes_in"}),
        ("attention", {"MATH", "milliseconds_new_length_without_cudnn"}),
        ("memory", {"embed", "lora", "beam_search"}),
        ("saving", {"seconds_to_save", "seconds_for_a_checkpoint"}),
        ("profile", {"embed", "full"}),
        ("tests", {"result"}),
    ],
)
def test_a_step_returns_figures_that_json_holds(step, figures):
    found = gpu.STEPS[step][0]("tiny")
    assert figures <= set(json.loads(json.dumps(found)))


def test_every_row_of_the_performance_page_is_measured():
    tuned, decoded, recipe = (gpu.STEPS[n][0]("tiny") for n in ("tuning", "decoding", "recipe"))
    assert {"rows", "embed", "full"} == set(tuned)
    rows = tuned["rows"]
    assert {"embed_share_of_matrix_rate", "full_share_of_matrix_rate", "matrix_rate"} <= set(rows)
    assert 0 < rows["embed_share_of_matrix_rate"]["ratio"] < 1
    assert recipe["rows"]["embed_vs_recipe"]["ratio"] > 1
    assert {"cold_seconds", "ratio_at_equal_batch", "seconds_cap_600"} <= set(decoded)
    row = decoded["rows"]["translation_vs_generate_at_size"]
    assert row["ratio"] == row["medians"][0] / row["medians"][1]
    assert set(rows | recipe["rows"] | decoded["rows"]) >= set(gpu.at.TARGETS)


def test_steps_fit_into_the_time_and_a_failed_one_costs_only_itself(tmp_path, capfd):
    output = tmp_path / "gpu.jsonl"
    output.write_text('{"step": "tuning", "sha')  # a line that a kill has cut off
    gpu.main(("environment",), shape="tiny", minutes=0, output=output)
    assert "environment: no time left" in capfd.readouterr().out

    row = {"ratio": 0.6, "runs": 1, "what": "Embed FT"}
    rows = {"rows": {"embed_share_of_matrix_rate": row}}
    with output.open("a") as file:
        file.write("\n" + json.dumps({"step": "tuning", "shape": "tiny", "figures": rows}) + "\n")
    failed = gpu.apart("nothing", "tiny", 120)
    assert failed["error"] == "KeyError: 'nothing'"
    assert gpu.apart("tests", "tiny", 0.01)["error"] == "stopped after 0 seconds"

    gpu.main(("tests",), shape="tiny", output=output, record=True)
    assert set(gpu.known(output)) == {"tuning", "tests"}
    assert "embed_share_of_matrix_rate" in capfd.readouterr().out
    recorded = json.loads(bench.RECORD.read_text())["tiny embed_share_of_matrix_rate"]
    assert recorded["ratio"] == 0.6 and {"hardware", "versions", "date"} <= set(recorded)
