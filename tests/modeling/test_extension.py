"""Vocabulary extension: what is learned, what stays as it was, where new embeddings start."""

import dataclasses
import itertools

import numpy as np
import pytest
import tokenizers
import torch
import transformers
import yaml
from hypothesis import given
from hypothesis import strategies as st
from transformers.convert_slow_tokenizer import TikTokenConverter

from mlq_utils import corpora, experiments, modeling, tokenization
from mlq_utils.data import PACKAGE_DATA
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
    for start in ("random", "mean", "subwords"):
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


def test_pieces_from_a_text_of_ones_own(base, khmer, tmp_path):
    """A run is known by the content of the file, wherever it lies."""
    (tmp_path / "here.txt").write_text("\n\n".join(khmer), "utf8")
    (tmp_path / "there.txt").write_text("\n\n".join(khmer), "utf8")
    (tmp_path / "other.txt").write_text("\n".join(khmer[1:]), "utf8")
    specs = [
        Spec(("km",), ("km",), base=str(base), extension=Extension("bbpe", 9, text=str(file)))
        for file in sorted(tmp_path.glob("*.txt"))
    ]
    here, other, there = (spec.identity() for spec in specs)
    assert here == there != other
    text = corpora.monolingual(specs[0].extension.text, "km", 100, 1)
    assert len(text) == 100 and set(text) <= set(khmer) and text.attrs["corpus"] == "here.txt"
    with pytest.raises(ValueError, match=r"unknown file or source of text 'mine\.txt'"):
        Extension("bbpe", 9, text="mine.txt")
    (tmp_path / "empty.txt").write_text("\n", "utf8")
    with pytest.raises(ValueError, match=r"empty\.txt holds no text"):
        corpora.monolingual(str(tmp_path / "empty.txt"), "km", 10)


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


# Byte-level tokenizers


@pytest.fixture(scope="module")
def small_bytes(tmp_path_factory):
    """A tiny model with a byte-level tokenizer, as it lies in a folder of the Hub."""
    words = tokenization.train_byte_level(
        (line for c in ("en", "fr", "ro") for line in corpora.load("cldr", c, "train")["target"]),
        600,
    )
    config = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=512, tie_word_embeddings=False,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bytes")
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    words.backend.save(str(folder / "tokenizer.json"))
    return folder


def test_merges_of_bytes_are_reached_and_leave_other_text_as_it_was(small_bytes, khmer, tmp_path):
    base = modeling.load(small_bytes)
    old = base.tokenizer
    merges = extension.learn("bbpe", khmer, 80, old)
    bigger = extension.extend(base, merges, "subwords", True)
    new = bigger.tokenizer
    assert len(new) == len(old) + 80 == bigger.model.get_output_embeddings().out_features
    test = {
        c: corpora.load("cldr", c, "test", size=60)["target"].tolist() for c in ("en", "ro", "km")
    }
    for code in ("en", "ro"):
        assert new.encode(test[code]) == old.encode(test[code])
    assert [new.decode(ids) for ids in new.encode(test["km"])] == test["km"]
    found = extension.reached(old, new, khmer)
    assert found["used"] > 0.9 and found["tokens"] < 0.7
    # The end is where it was, and a folder opens as it was left.
    assert new.backend.token_to_id("</s>") == 2 and new.opening == 1
    modeling.export(bigger, tmp_path / "home")
    again = modeling.load(tmp_path / "home")
    assert again.tokenizer.encode(test["km"]) == new.encode(test["km"])


def test_special_tokens_behind_the_vocabulary_keep_their_ids(small_bytes, khmer):
    """As LLaMA-3 has them: the new pieces come after these."""
    file = small_bytes / "tokenizer.json"
    words = tokenizers.Tokenizer.from_file(str(file))
    words.add_special_tokens(["<|end|>", "<|pad|>"])
    old = tokenization.wrap(words)
    backend, parts = extension._appended(old, extension.learn("bbpe", khmer, 10, old))
    new = tokenization.wrap(backend)
    assert len(new) == len(old) + 10 and len(parts) == 10
    assert [backend.token_to_id(t) for t in ("<|end|>", "<|pad|>")] == [len(old) - 2, len(old) - 1]
    text = "January<|end|>"
    assert backend.encode(text, add_special_tokens=False).ids[-1] == len(old) - 2
    for piece, ids in zip(range(len(old), len(new)), parts, strict=True):
        assert new.token_bytes[piece] == b"".join(old.token_bytes[i] for i in ids)


def test_the_vocabulary_of_llama_3_splits_english_as_before(data):
    """On FLORES-200, after merges of Khmer and of Welsh, which shares English's letters."""
    file = data / "tokenizers/llama-3/tokenizer.model"
    if not file.is_file() or corpora.find("flores200") is None:
        pytest.skip("no LLaMA-3 tokenizer or no FLORES-200 in the data folder")
    split = yaml.safe_load((PACKAGE_DATA / "splits.yaml").read_text("utf8"))[128_000]
    special = [f"<|special_{n}|>" for n in range(256)]
    converter = TikTokenConverter(str(file), pattern=split, extra_special_tokens=special)
    old = tokenization.wrap(converter.converted(), "llama-3")
    english = corpora.load("flores200", "km", "devtest")["source"].tolist()
    learned = {code: corpora.load("flores200", code, "dev")["target"] for code in ("km", "cy")}
    merges = [m for text in learned.values() for m in extension.learn("bbpe", text, 200, old)]
    new = tokenization.wrap(extension._appended(old, merges)[0])
    assert len(new) == 128_656 and new.encode(english) == old.encode(english)
    for code, share in (("km", 0.5), ("cy", 0.9)):
        test = corpora.load("flores200", code, "devtest")["target"]
        assert extension.reached(old, new, test)["tokens"] < share


def test_like_tokens_give_a_new_row_its_start(khmer, mini):
    """FOCUS: a mean of old rows, and of those that occur in the same places."""
    before = mini.model.get_input_embeddings().weight.detach().clone()
    pieces = extension.learn("bbpe", khmer, 40, mini.tokenizer)
    unseen = "ဗမာစာ"
    bigger = extension.extend(mini, [*pieces, unseen], "focus", True, text=khmer)
    old, new = modeling.load("mini").tokenizer, bigger.tokenizer
    parts = [old.encode(p.strip("▁")) for p in (*pieces, unseen)]
    shares = extension._like(old, new, parts, khmer).toarray()
    assert (shares >= 0).all() and shares.sum(axis=1) == pytest.approx(1)
    seen = {i for ids in new.encode(khmer) for i in ids}
    assert {i for row in shares[:-1] for i in row.nonzero()[0]} <= seen
    rows = bigger.model.get_input_embeddings().weight.detach()[len(old) :]
    expected = torch.from_numpy(shares).float() @ before
    torch.testing.assert_close(rows, expected, rtol=0, atol=1e-5)
    mean = before[old.encode(unseen)].mean(dim=0)  # nothing is known of it
    torch.testing.assert_close(rows[-1], mean, rtol=0, atol=1e-6)


def test_a_token_in_the_places_of_another_starts_like_it():
    text = [
        f"{a} {b} {c}"
        for a in ("one", "two", "six")
        for b in ("old", "new")
        for c in ("cats", "dogs")
    ]
    words = sorted({word for line in text for word in line.split()})
    ids = {word: n for n, word in enumerate([*words, "seven"])}
    encode = lambda lines: [[ids[w] for w in line.split()] for line in lines]  # noqa: E731

    class Words:
        def __init__(self, size):
            self.size, self.encode = size, encode

        def __len__(self):
            return self.size

    lines = text + [line.replace("two", "seven") for line in text if "two" in line]
    (shares,) = extension._like(
        Words(len(words)), Words(len(ids)), [[ids["cats"]]], lines
    ).toarray()
    numerals = [ids[w] for w in ("one", "two", "six")]
    assert shares[numerals].sum() > 0.9


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=12))
def test_sparsemax_is_the_nearest_point_of_the_simplex(scores):
    scores = np.array(scores)
    found = extension._sparsemax(scores)
    assert found.min() >= 0 and found.sum() == pytest.approx(1)
    low, high = scores.min() - 1, scores.max()  # the one number that, taken off, leaves 1
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if np.maximum(scores - middle, 0).sum() < 1 else (middle, high)
    assert found == pytest.approx(np.maximum(scores - low, 0), abs=1e-6)


def test_rows_trains_the_new_rows_alone(khmer, mini):
    pieces = extension.learn("bbpe", khmer, 60, mini.tokenizer)
    bigger = extension.extend(mini, pieces, "subwords", True)
    before = {name: weight.clone() for name, weight in bigger.model.state_dict().items()}
    frame = modeling.mixture({"km": 48})
    schedule = modeling.Schedule.mini("rows", epochs=1, batch_size=8, warmup_steps=1)
    tuned = modeling.fine_tune(bigger, frame, "rows", schedule, progress=False, precision="fp32")
    for name, after in tuned.model.model.state_dict().items():
        old = before[name]
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert torch.equal(after[:3072], old[:3072]) and not torch.equal(
                after[3072:], old[3072:]
            )
        else:
            assert torch.equal(after, old), name


def test_bad_extensions_of_bytes(small_bytes, khmer, mini):
    base = modeling.load(small_bytes)
    for method in ("bpe", "sp"):
        with pytest.raises(ValueError, match="learn byte-level merges, bbpe"):
            extension.learn(method, khmer, 10, base.tokenizer)
    with pytest.raises(ValueError, match="new pieces, and 50000 are asked for"):
        extension.learn("bbpe", khmer[:50], 50_000, base.tokenizer)
    with pytest.raises(ValueError, match="cannot rank above"):
        extension.extend(base, ["a b"], "mean", False)
    with pytest.raises(ValueError, match="'a ទ្រ' is no merge of two tokens"):
        extension.extend(base, ["a ទ្រ"], "mean", True)
    with pytest.raises(ValueError, match="needs text in the language"):
        extension.extend(base, ["a b"], "focus", True)
    with pytest.raises(ValueError, match="extend the model first"):
        modeling.fine_tune(mini, modeling.mixture({"km": 8}), "rows", progress=False)
    with pytest.raises(ValueError, match="give an extension"):
        Spec(("km",), ("km",), "rows")
