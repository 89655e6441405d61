"""The benchmark of a shape: what it counts is what is computed."""

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import bench_at_size
from mlq_utils import modeling
from mlq_utils.modeling import batches


def test_the_operations_counted_are_those_computed():
    """But for attention between tokens, which is left out, and Embed FT's lowest layer."""
    base = bench_at_size.random_base("tiny")
    data = batches.examples(bench_at_size.sentences(1), base)
    ids, labels, _ = batches.collate(data, [[0]], base.pad)
    for strategy in ("embed", "full"):
        model = modeling.prepare(base.model, strategy)
        with FlopCounterMode(display=False) as counter:
            batches.label_loss(model, ids, labels).backward()
        counts = counter.get_flop_counts()["Global"]
        products = sum(n for op, n in counts.items() if "mm" in str(op) and "bmm" not in str(op))
        expected = bench_at_size.floating_operations(base, data, strategy)
        assert abs(products / expected - 1) < 0.01, strategy


def test_sentences_have_the_lengths_of_the_languages():
    base = bench_at_size.random_base("tiny")
    data = batches.examples(bench_at_size.sentences(400), base)
    targets = data.labels(range(400)) / 400
    mean, _ = bench_at_size.LENGTHS["target"]
    assert abs(targets - mean - 1) < 4  # and EOS
    assert bench_at_size.sentences(3).equals(bench_at_size.sentences(400)[:3])


def test_the_shape_is_llama_7b_s():
    """6.61 billion parameters in matrices."""
    sizes = bench_at_size.SHAPES["llama-7b"]
    hidden, inner, layers = sizes.values()
    matrices = layers * (4 * hidden**2 + 3 * hidden * inner) + hidden * bench_at_size.VOCABULARY
    assert round(matrices / 1e9, 2) == 6.61
    assert bench_at_size.random_base("tiny").model.dtype == torch.float32


def test_targets_say_what_was_reached_and_what_was_not_measured():
    measured = {"embed_share_of_matrix_rate": 0.6, "embed_vs_recipe": 2.9}
    measured |= {"embed_peak_vs_estimate": 1.09, "full_peak_vs_estimate": 0.85}
    rows = {f"tiny {name}": {"ratio": ratio, "hardware": "x"} for name, ratio in measured.items()}
    recorded = pd.DataFrame.from_dict(rows, orient="index")
    found = bench_at_size.targets(recorded, ["tiny", "llama-7b"]).set_index(["shape", "figure"])
    reached = found.loc["tiny", "reached"].dropna()
    assert reached.to_dict() == dict(zip(measured, [True, False, True, False], strict=True))
    assert set(found.loc["llama-7b", "hardware"]) == {"not measured"}
    assert found.loc["llama-7b", "measured"].isna().all()
