"""What tuning costs other languages: text that a model reads, and what a report calls lost."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch

from mlq_utils import cli, corpora, experiments, modeling
from mlq_utils.experiments import Spec, Store, drawing, losses
from mlq_utils.experiments.spec import lost
from mlq_utils.modeling import reading


@pytest.fixture(scope="module")
def model(base):
    return modeling.load(base)


@pytest.fixture(scope="module")
def sentences():
    return corpora.load("cldr", "ro", "test", size=6)["target"].tolist()


def test_bits_are_those_of_the_models_own_loss(model, sentences, monkeypatch):
    expected = []
    for sentence in sentences:
        ids = torch.tensor([[model.bos, *model.tokenizer.encode(sentence)]])
        with torch.no_grad():
            loss = model.model(input_ids=ids, labels=ids).loss.item()
        expected.append(loss * (ids.shape[1] - 1) / math.log(2))
    monkeypatch.setattr(reading, "AT_ONCE", 4)  # hence padding, and a last batch of two
    np.testing.assert_allclose(modeling.read(model, sentences)[0], expected, rtol=1e-4)


def test_the_bits_after_a_prompt_are_those_of_the_sentence_alone(model, sentences):
    prompts, expected = ["Copy the text.", "a"] * 3, []
    for prompt, sentence in zip(prompts, sentences, strict=True):
        first, second = model.tokenizer.encode([prompt, sentence])
        ids = torch.tensor([[model.bos, *first, *second]])
        labels = torch.tensor([[-100] * (1 + len(first)) + second])
        with torch.no_grad():
            loss = model.model(input_ids=ids, labels=labels).loss.item()
        expected.append(loss * len(second) / math.log(2))
    bits, _ = modeling.read(model, sentences, prompts, hidden=False)
    np.testing.assert_allclose(bits, expected, rtol=1e-4)


def test_states_are_means_over_the_tokens_of_a_sentence(model, sentences):
    found = modeling.read(model, sentences)[1]
    ids = torch.tensor([[model.bos, *model.tokenizer.encode(sentences[2])]])
    with torch.no_grad():
        layers = model.model(input_ids=ids, output_hidden_states=True).hidden_states
    expected = np.stack([layer[0, 1:].mean(0).numpy() for layer in layers])
    np.testing.assert_allclose(found[:, 2], expected, rtol=1e-3, atol=1e-5)


def test_a_sentence_longer_than_the_context_is_missing(model, sentences):
    long = "x" * 2 * modeling.context_length(model.model)
    bits, states = modeling.read(model, [sentences[0], long])
    assert np.isnan(bits).tolist() == np.isnan(states[0, :, 0]).tolist() == [False, True]


@pytest.fixture(scope="module")
def read(small, tmp_path_factory):
    """A run with a panel, and the untuned one."""
    store = Store(tmp_path_factory.mktemp("panel"))
    spec = dataclasses.replace(small, panel=("en", "ro", "tasks"))
    return [experiments.run(one, store, progress=False) for one in (spec.untuned(), spec)], store


def test_a_run_reads_its_panel(read):
    (before, after), _ = read
    assert [row["language"] for row in after["panel"]] == ["en", "ro", "tasks"]
    for row in after["panel"]:
        expected = sum(row["bits"]) / sum(row["characters"])
        assert row["bits_per_char"] == pytest.approx(expected, rel=1e-3)
        assert row["bits_per_char_low"] < row["bits_per_char"] < row["bits_per_char_high"]
    changes = losses(before, after)
    assert changes.groupby("measure")["language"].agg(set).to_dict() == {
        "spbleu": {"ro", "km"}, "bits_per_char": {"en", "ro", "tasks"}
    }  # fmt: skip
    # Tuned and untuned read the same sentences, so that the change is surer than its two sides.
    row = changes.query("measure == 'bits_per_char' and language == 'ro'").iloc[0]
    one = after["panel"][1]
    assert row["change"] == pytest.approx(row["after"] - row["before"], abs=1e-3)
    assert row["high"] - row["low"] < one["bits_per_char_high"] - one["bits_per_char_low"]


def record(scores, bits):
    """A record of scores that are known to two points, and of two sentences with these bits."""
    rows = [
        {"target": t, "spbleu": s, "spbleu_low": s - 2, "spbleu_high": s + 2}
        for t, s in scores.items()
    ]
    panel = [
        {
            "language": code,
            "bits_per_char": np.nansum(two) / 20,
            "bits": two,
            "characters": [10, 10],
        }
        for code, two in bits.items()
    ]
    return {"scores": rows, "panel": panel}


def test_what_was_lost_is_named_most_lost_first():
    before = record({"eu": 5, "ro": 40, "fr": 30, "de": 20}, {"en": [10, 20], "eu": [40, 50]})
    after = record({"eu": 50, "ro": 30, "fr": 28, "de": 25}, {"en": [14, 24], "eu": [20, 25]})
    changes = losses(before, after)
    assert changes["language"].tolist() == ["ro", "fr", "de", "eu", "en", "eu"]
    ro = changes.iloc[0]
    assert ro["change"] == -10 and ro["high"] - ro["change"] == pytest.approx(8**0.5)
    assert lost(changes, ["eu"]) == "ro -10.0 spBLEU, en +0.40 bits per character"
    assert lost(losses(before, before), []) == "nothing beyond the intervals"
    assert losses({}, after).empty  # no untuned record is at hand
    longer = record({}, {"en": [math.nan, 24]})  # one sentence does not fit with other tokens
    assert losses(before, longer)["change"].tolist() == [pytest.approx(0.4)]


def test_the_command_says_what_was_lost(small, tmp_path, capsys):
    words = "run --targets ro --languages ro --panel en --compare --size 24 --epochs 1"
    words += f" --test-size 4 --beam-size 1 --cap 8 --base {small.base} --store {tmp_path}"
    assert cli.main(words.split()) == 0
    shown = capsys.readouterr().out
    assert "change by tuning, most lost first" in shown and "\nlost: " in shown
    assert "bits_per_char" in shown


def test_a_panel_is_checked(small):
    with pytest.raises(ValueError, match="unknown language 'xx'"):
        dataclasses.replace(small, panel=("xx",))
    with pytest.raises(ValueError, match="unknown language of cldr 'umb'"):
        dataclasses.replace(small, panel=("umb",))
    assert Spec(panel=("en",)).identity() != Spec().identity()


def test_the_panel_is_replayed_beside_the_language(small):
    spec = dataclasses.replace(
        small, languages=("cy",), panel=("en", "ro", "fr", "tasks"), replay=20
    )
    frame = drawing.tuning_data(spec)
    alone = drawing.tuning_data(dataclasses.replace(spec, replay=0))
    assert len(alone) == 24 and len(frame) == 44
    pd.testing.assert_frame_equal(frame.iloc[:24], alone)
    added = frame.iloc[24:]["prompt"]
    counts = {
        name: added.str.contains(f"into {name}|to {name}").sum() for name in ("Romanian", "French")
    }
    assert counts == {"Romanian": 7, "French": 6}
    tested = {text for code in ("ro", "fr") for text in drawing.pairs_to_test(spec, code)["target"]}
    assert not tested & set(frame["target"])
    assert frame.attrs["replayed"] == 20 and frame.attrs["pairs"] == {"cy": 24}
    assert spec.untuned() == dataclasses.replace(spec, replay=0).untuned()
    assert spec.identity() != dataclasses.replace(spec, replay=0).identity()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replay": 10}, "replay=10 needs languages to tune on, and a panel"),
        ({"replay": 10, "panel": ("ro",), "languages": ()}, "needs languages to tune on"),
        ({"replay": -1, "panel": ("ro",)}, "replay=-1"),
        ({"replay": 9, "panel": ("tasks",)}, "a panel to draw from"),
        ({"replay": 9, "panel": ("umb",)}, "unknown language of cldr 'umb'"),
    ],
)
def test_a_replay_of_nothing_is_refused(small, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(small, **changes)
