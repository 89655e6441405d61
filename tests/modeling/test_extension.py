"""Vocabulary extension: what is learned, what stays as it was, where new embeddings start."""

import dataclasses
import itertools

import pytest
import torch

from mlq_utils import experiments, modeling
from mlq_utils.corpora import loading as corpora
from mlq_utils.experiments import Spec
from mlq_utils.experiments.store import Store
from mlq_utils.modeling import extension
from mlq_utils.modeling.extension import Extension


@pytest.fixture(scope="module")
def khmer():
    return corpora.load("cldr", "km", "train", size=1500, seed=1)["target"].tolist()


@pytest.fixture
def mini():
    return modeling.load("mini")


@pytest.mark.parametrize("method", extension.METHODS)
def test_learned_pieces_are_new_and_of_the_text(method, khmer, mini):
    pieces = extension.learn(method, khmer, 60, mini.tokenizer)
    assert len(pieces) == len(set(pieces)) == 60
    known = {mini.tokenizer.backend.id_to_piece(i) for i in range(len(mini.tokenizer))}
    assert not known & set(pieces)
    text = "▁".join(["", *" ".join(khmer).split(" ")])
    assert all(piece in text for piece in pieces)
    assert not any(c.isdigit() for piece in pieces for c in piece)
    if method != "sp":  # the unigram model is pruned to its size
        assert extension.learn(method, khmer, 20, mini.tokenizer) == pieces[:20]


@pytest.mark.parametrize("ranked", [True, False])
def test_texts_come_back_and_take_fewer_tokens(ranked, khmer, mini):
    old = mini.tokenizer
    pieces = extension.learn("bbpe", khmer, 100, old)
    new = extension.extend(mini, pieces, "mean", ranked).tokenizer
    test = corpora.load("cldr", "km", "test", size=50)["target"].tolist()
    before, after = old.encode(test), new.encode(test)
    assert sum(map(len, after)) < 0.7 * sum(map(len, before))
    assert [new.decode(ids) for ids in after] == [old.decode(ids) for ids in before]
    assert len(new) == len(old) + 100
    found = extension.reached(old, new, test)
    assert found["tokens"] == pytest.approx(sum(map(len, after)) / sum(map(len, before)))
    assert found["used"] == sum(any(i in ids for ids in after) for i in range(3072, 3172)) / 100


def test_most_unigram_pieces_are_out_of_the_reach_of_merges(khmer, mini):
    used = {}
    for method in ("bbpe", "sp"):
        bigger = modeling.load("mini")
        pieces = extension.learn(method, khmer, 100, mini.tokenizer)
        bigger = extension.extend(bigger, pieces, "mean", True)
        used[method] = extension.reached(mini.tokenizer, bigger.tokenizer, khmer)["used"]
    assert used["bbpe"] > 0.6 and used["sp"] < 0.4


def test_a_new_piece_on_top_splits_english_anew_and_one_below_does_not(mini):
    """The confound of Table 6."""
    text = ["the name of the month", "January and February"]
    old = mini.tokenizer
    pairs = dict.fromkeys(a + b for a, b in itertools.pairwise("January"))
    unknown = old.backend.unk_id()
    pieces = [pair for pair in pairs if old.backend.piece_to_id(pair) == unknown]
    assert pieces
    below = extension.extend(modeling.load("mini"), pieces, "mean", ranked=True).tokenizer
    above = extension.extend(mini, pieces, "mean", ranked=False).tokenizer
    assert below.encode(text) == old.encode(text) != above.encode(text)


def test_old_rows_stay_and_new_ones_start_where_they_should(mini):
    count = len(mini.tokenizer)
    layers = ("get_input_embeddings", "get_output_embeddings")
    old = [getattr(mini.model, layer)().weight.detach().clone() for layer in layers]
    pieces = ["▁ខ្ញុំ", "កម្ពុជា"]
    split = [mini.tokenizer.encode(piece.strip("▁")) for piece in pieces]
    for start in extension.STARTS:
        bigger = extension.extend(modeling.load("mini"), pieces, start, True)
        for layer, before in zip(layers, old, strict=True):
            rows = getattr(bigger.model, layer)().weight
            assert torch.equal(rows[:count], before) and rows.shape[0] == count + 2
            if start == "mean":
                assert torch.allclose(rows[count:], before.mean(dim=0).expand(2, -1), atol=1e-6)
            elif start == "subwords":
                for row, ids in zip(rows[count:], split, strict=True):
                    assert torch.allclose(row, before[ids].mean(dim=0), atol=1e-6)
            else:
                again = extension.extend(modeling.load("mini"), pieces, start, True)
                assert torch.equal(getattr(again.model, layer)().weight, rows)
                assert not torch.equal(rows[count], rows[count + 1])


def test_a_run_with_an_extended_vocabulary(base, tmp_path):
    spec = Spec(("km",), ("km",), "full", 16, 3, epochs=1, beam_size=2, base=str(base))
    bigger = dataclasses.replace(spec, extension=Extension("bbpe", 100))
    record, plain = (
        experiments.run(one, Store(tmp_path), progress=False) for one in (bigger, spec)
    )
    assert record["status"] == "done" and record["identity"] != plain["identity"]
    assert record["scores"][0]["cap"] < plain["scores"][0]["cap"]
    (row,) = experiments.scores([record]).to_dict("records")
    assert (row["method"], row["pieces"], row["start"], row["ranked"]) == (
        "bbpe", 100, "subwords", True,
    )  # fmt: skip
    assert Store(tmp_path).get(bigger.identity()) == record


def test_bad_extensions(khmer, mini):
    with pytest.raises(ValueError, match=r"unknown method 'bpee'\. Did you mean"):
        Extension("bpee", 10)
    with pytest.raises(ValueError, match="unknown start 'men'"):
        Extension("bpe", 10, "men")
    with pytest.raises(ValueError, match="pieces must be 1 or more"):
        Extension("bpe", 0)
    with pytest.raises(ValueError, match="new pieces by sp, and 5000 are asked for"):
        extension.learn("sp", khmer, 5000, mini.tokenizer)
    with pytest.raises(ValueError, match="has already: ▁the"):
        extension.extend(mini, ["▁the"], "mean", True)
    with pytest.raises(ValueError, match="extension needs exactly one language"):
        Spec(("km", "lo"), ("km",), extension=Extension("bpe", 10))
    with pytest.raises(ValueError, match="unshortened"):
        Spec(("km",), ("km",), shorten="one token", extension=Extension("bpe", 10))
