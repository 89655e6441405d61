"""The record: complete, equal to a new measurement, and refused if it was edited."""

import json
import shutil

import pandas as pd
import pytest

from benchmarks import record_tokenizers
from mlq_utils import tokenization
from mlq_utils.data import sha256
from mlq_utils.scoring import intervals
from mlq_utils.tokenization import record

NAMES = ("fertility", "shortening")


def test_the_record_is_what_is_measured_now(llama, flores, data):
    if not (data / "tokenizers/gpt-neox-20b").is_dir():
        pytest.skip("no GPT-NeoX tokenizer in the data folder")
    measured = record_tokenizers.measure()
    assert tuple(measured) == NAMES
    for name, frame in measured.items():
        on_record = tokenization.recorded(name)
        pd.testing.assert_frame_equal(frame, on_record, rtol=1e-6, check_dtype=False, obj=name)
        for words, file in record_tokenizers.TOKENIZERS.items():
            digest = sha256(data / "tokenizers" / words / file)
            assert on_record.attrs["tokenizers"][words]["sha256"] == digest


def test_an_edited_record_is_refused(monkeypatch, tmp_path):
    folder = shutil.copytree(record.FOLDER, tmp_path / "recorded")
    monkeypatch.setattr(record, "FOLDER", folder)
    path = folder / "fertility.csv"
    path.write_text(path.read_text().replace("llama,ro,2", "llama,ro,3"))
    with pytest.raises(ValueError, match=r"fertility.csv is not the file that was recorded"):
        tokenization.recorded("fertility")


def test_unknown_measurement():
    with pytest.raises(ValueError, match=r"unknown measurement .fertilty.*Did you mean fertility"):
        tokenization.recorded("fertilty")


def test_every_shortened_sentence_came_back():
    shortened = tokenization.recorded("shortening")
    assert shortened["restored"].eq(1).all()
    assert {"km", "lo", "gu", "te"} <= set(shortened["language"])


def test_provenance_names_every_file():
    provenance = json.loads((record.FOLDER / "provenance.json").read_text())
    assert {p.name for p in record.FOLDER.glob("*.csv")} == set(provenance["files"])
    assert provenance["date"] in tokenization.checksums()


def test_intervals_agree_with_scipy():
    from scipy import stats

    x = [1.0, 4.0, 2.0, 8.0, 5.0, 7.0, 3.0, 9.0]
    y = [2.0, 3.0, 1.0, 9.0, 4.0, 8.0, 5.0, 7.0]
    found = intervals.rank_correlation(x, y, samples=4000)
    reference = stats.bootstrap(
        (x, y),
        lambda a, b: stats.spearmanr(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=0,
    ).confidence_interval
    assert found["rho"] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert (found["low"], found["high"]) == pytest.approx(tuple(reference), abs=0.08)
    mean = intervals.mean(x)
    assert mean["mean"] == pytest.approx(4.875) and mean["low"] < 4.875 < mean["high"]


@pytest.mark.parametrize("bad", [[], [1.0], [1.0, float("nan")]])
def test_intervals_need_numbers(bad):
    with pytest.raises(ValueError, match="two or more numbers"):
        intervals.mean(bad)


def test_pairwise_and_superiority_by_brute_force():
    frame = pd.DataFrame({"a": [1, 2, 3, 4], "b": [2, 1, 4, 3], "c": [4, 3, 2, 1]})
    found = intervals.pairwise(frame).set_index(["a", "b"])["rho"]
    assert found.to_dict() == pytest.approx({("a", "b"): 0.6, ("a", "c"): -1, ("b", "c"): -0.6})
    x, y = [1, 5, 5, 9], [5, 2, 0]
    pairs = [(a > b) + (a == b) / 2 for a in x for b in y]
    assert intervals.superiority(x, y) == pytest.approx(sum(pairs) / len(pairs))
    with pytest.raises(ValueError, match="one side is empty"):
        intervals.superiority([], y)


def test_a_table_of_intervals_reads_as_rows():
    table = intervals.table({"x": intervals.mean([1, 2, 3]), "y": intervals.mean([2, 2, 2])})
    assert table.columns.tolist() == ["mean", "95% from", "to", "n"]
    assert table["n"].tolist() == [3, 3] and table.loc["y"].tolist() == [2, 2, 2, 3]


def test_rank_correlation_needs_pairs():
    with pytest.raises(ValueError, match="unequal lengths: 2 and 3"):
        intervals.rank_correlation([1, 2], [1, 2, 3])
