"""Tokenizers: loading against their reference, measures against brute force and the paper."""

import base64
import json
import math
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import sentencepiece
import tiktoken
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from mlq_utils import paper, tokenization
from mlq_utils.corpora import loading as corpora


def test_fertility_agrees_with_brute_force(tokenizers_by_name, mixed_sentences):
    for tokenizer in tokenizers_by_name.values():
        rows = [tokenizer.encode(s) for s in mixed_sentences]
        measured = tokenization.fertility(tokenizer, mixed_sentences)
        pairs = list(zip(rows, mixed_sentences, strict=True))
        assert measured["tokens_per_word"] == pytest.approx(
            np.mean([len(r) / len(s.split()) for r, s in pairs])
        )
        assert measured["tokens_per_char"] == pytest.approx(
            np.mean([len(r) / len(s) for r, s in pairs])
        )
        assert measured["tokens_per_byte"] == pytest.approx(
            np.mean([len(r) / len(s.encode()) for r, s in pairs])
        )
        ids = [i for r in rows for i in r]
        assert measured["byte_token_share"] == pytest.approx(
            np.mean([bool(tokenizer.is_byte[i]) for i in ids])
        )


def test_overtokenised_characters_are_those_of_several_tokens(tokenizers_by_name, mixed_sentences):
    """Against a walk over the bytes, character by character."""
    for tokenizer in tokenizers_by_name.values():
        counts: dict[str, int] = {}
        for sentence in mixed_sentences:
            owner = []
            for n, token in enumerate(tokenizer.encode(sentence)):
                owner += [n] * len(tokenizer.token_bytes[token] or b"")
            text = b"".join(tokenizer.token_bytes[t] or b"" for t in tokenizer.encode(sentence))
            at = 0
            for char in text.decode():
                size = len(char.encode())
                if len(set(owner[at : at + size])) > 1:
                    counts[char] = counts.get(char, 0) + 1
                at += size
        share = tokenization.fertility(tokenizer, mixed_sentences)["overtokenized_share"]
        assert share == pytest.approx(sum(counts.values()) / sum(map(len, mixed_sentences)))


def test_token_bytes_spell_the_text(tokenizers_by_name, mixed_sentences):
    for tokenizer in tokenizers_by_name.values():
        for sentence in mixed_sentences:
            text = b"".join(tokenizer.token_bytes[i] for i in tokenizer.encode(sentence)).decode()
            assert text.removeprefix(" ") == sentence
            assert tokenizer.decode(tokenizer.encode(sentence)) == sentence


def test_overlap_agrees_with_sets(tokenizers_by_name):
    one = corpora.load("cldr", "tr", "test", size=40)
    for tokenizer in tokenizers_by_name.values():
        language, english = (
            [i for s in one[side] for i in tokenizer.encode(s)] for side in ("target", "source")
        )
        both = set(language) & set(english)
        measured = tokenization.overlap(tokenizer, one["target"], one["source"])
        assert measured["of_language"] == pytest.approx(len(both) / len(set(language)))
        assert measured["of_english"] == pytest.approx(len(both) / len(set(english)))
        assert measured["of_language_weighted"] == pytest.approx(
            np.mean([i in both for i in language])
        )
        assert measured["of_english_weighted"] == pytest.approx(
            np.mean([i in both for i in english])
        )


def test_analyse_is_fertility_and_overlap_of_each_language(tokenizers_by_name):
    tokenizer = tokenizers_by_name["sentencepiece"]
    texts = {c: corpora.load("cldr", c, "test", size=30)["target"].tolist() for c in ("en", "km")}
    frame = tokenization.analyse(tokenizer, texts).set_index("language")
    for language, sentences in texts.items():
        expected = pd.concat(
            [
                tokenization.fertility(tokenizer, sentences),
                tokenization.overlap(tokenizer, sentences, texts["en"]),
            ]
        )
        pd.testing.assert_series_equal(
            frame.loc[language, expected.index].astype(float),
            expected.astype(float),
            check_names=False,
        )
    assert "of_english" not in tokenization.analyse(tokenizer, {"km": texts["km"]})


@given(text=st.binary(max_size=12))
def test_missing_bytes_counts_what_completes_the_last_character(text):
    from mlq_utils.tokenization.tokenizer import missing_bytes

    missing = missing_bytes(text)
    assert 0 <= missing <= 3
    try:
        text.decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            # Python, too, would take more: completing it removes this error.
            completed = [text + bytes([b]) * missing for b in (0x80, 0xBF)]
            assert missing and any(_ends_whole(c) for c in completed)
    else:
        assert missing == 0


def _ends_whole(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return error.reason != "unexpected end of data"
    return True


# Loading


def test_every_way_to_a_tokenizer_gives_the_same(tmp_path, tokenizers_by_name, monkeypatch):
    model = tokenizers_by_name["sentencepiece"].backend
    folder = tmp_path / "tokenizers" / "own"
    folder.mkdir(parents=True)
    (folder / "tokenizer.model").write_bytes(model.serialized_model_proto())
    monkeypatch.setenv("MLQ_DATA", str(tmp_path))
    for way in ("own", folder, folder / "tokenizer.model"):
        loaded = tokenization.load(way)
        assert loaded.encode("joi, 9 ianuarie ភ") == model.encode("joi, 9 ianuarie ភ")
        assert loaded.encode(["a", "b"]) == model.encode(["a", "b"])


def test_tokenizer_json_agrees_with_transformers(tmp_path, tokenizers_by_name, mixed_sentences):
    from transformers import PreTrainedTokenizerFast

    path = tmp_path / "tokenizer.json"
    tokenizers_by_name["byte-level"].backend.save(str(path))
    loaded = tokenization.load(path)
    reference = PreTrainedTokenizerFast(tokenizer_file=str(path))
    expected = reference(mixed_sentences, add_special_tokens=False)["input_ids"]
    assert loaded.encode(mixed_sentences) == expected
    wrapped = tokenization.wrap(reference)
    assert wrapped.encode(mixed_sentences) == expected
    assert wrapped.token_bytes == loaded.token_bytes


@pytest.mark.parametrize(
    "name",
    [
        "nowhere",
        "no/such/folder",
        "missing/tokenizer.model",
        "missing/tokenizer.json",
        "missing/o200k_base.tiktoken",
    ],
)
def test_a_path_that_does_not_exist(name):
    with pytest.raises(FileNotFoundError, match="no tokenizer at"):
        tokenization.load(name)


def test_a_name_of_the_hub_without_network(monkeypatch):
    import huggingface_hub

    def offline(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ConnectionError, match=r"\$MLQ_DATA/tokenizers/owner/name"):
        tokenization.load("owner/name")


def test_a_folder_without_a_tokenizer(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither tokenizer.model, nor tokenizer.json"):
        tokenization.load(tmp_path)


@pytest.mark.parametrize("file", ["tokenizer.model", "tokenizer.json"])
def test_a_truncated_tokenizer(tmp_path, tokenizers_by_name, file):
    backend = tokenizers_by_name["sentencepiece"].backend
    whole = backend.serialized_model_proto()
    if file.endswith("json"):
        whole = tokenizers_by_name["byte-level"].backend.to_str().encode()
    (tmp_path / file).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"{file} is truncated or not a tokenizer"):
        tokenization.load(tmp_path)


@pytest.fixture(scope="module")
def ranks():
    """As many tokens as LLaMA-3 has: the bytes, and pairs and triples of them."""
    pieces = [bytes([a]) for a in range(256)]
    pieces += [bytes([a, b]) for a in range(256) for b in range(256)]
    pieces += [b"ab" + bytes([a, b]) for a in range(256) for b in range(256)]
    return {piece: rank for rank, piece in enumerate(pieces[:128_000])}


@pytest.fixture
def tiktoken_file(tmp_path, ranks):
    lines = [b"%s %d\n" % (base64.b64encode(piece), rank) for piece, rank in ranks.items()]
    (tmp_path / "tokenizer.model").write_bytes(b"".join(lines))
    return tmp_path / "tokenizer.model"


def reference(ranks, name, monkeypatch):
    """The tokens by tiktoken, which splits text as its own encoding of this name does."""
    from tiktoken_ext import openai_public

    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", lambda *_, **__: {})
    pattern = getattr(openai_public, name)()["pat_str"]
    return tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def test_a_tiktoken_file_agrees_with_tiktoken(tiktoken_file, ranks, mixed_sentences, monkeypatch):
    loaded = tokenization.load(tiktoken_file.parent)
    expected = reference(ranks, "cl100k_base", monkeypatch)
    sentences = [*mixed_sentences, "I'LL pay 12345 dollars,\n  won't  you?\r\n abab"]
    assert loaded.encode(sentences) == [expected.encode_ordinary(s) for s in sentences]
    assert [loaded.decode(ids) for ids in loaded.encode(sentences)] == sentences


@pytest.mark.parametrize("end", [-9, -1000, 900_000])
def test_a_tiktoken_file_cut_short(tiktoken_file, end):
    whole = tiktoken_file.read_bytes()
    for cut in (whole[:end], whole[: whole.rindex(b"\n", 0, end) + 1]):
        tiktoken_file.write_bytes(cut)
        with pytest.raises(ValueError, match=r"truncated or not a tokenizer file: ") as caught:
            tokenization.load(tiktoken_file)
        assert "\n" not in str(caught.value)


def test_a_tiktoken_file_of_another_model(tiktoken_file):
    """It is read again although tiktoken has kept a copy of what was there before."""
    tokenization.load(tiktoken_file)
    tiktoken_file.write_bytes(tiktoken_file.read_bytes() + b"YWJhYmFi 128000\n")
    with pytest.raises(ValueError, match=r"128,001 tokens.*pass a tiktoken\.Encoding"):
        tokenization.load(tiktoken_file)


def test_a_tiktoken_file_without_tiktoken(tiktoken_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken.load", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install .mlq_utils\[tiktoken\]"):
        tokenization.load(tiktoken_file)


def test_byt5_agrees_with_transformers(mixed_sentences, tmp_path):
    from transformers import ByT5Tokenizer

    theirs = ByT5Tokenizer()
    theirs.save_pretrained(tmp_path)
    ours = tokenization.load(tmp_path)
    expected = theirs(mixed_sentences, add_special_tokens=False)["input_ids"]
    assert ours.encode(mixed_sentences) == expected
    assert [ours.decode(ids) for ids in expected] == mixed_sentences
    assert len(ours) == len(theirs) and ours.token_bytes[: theirs.offset] == (None,) * 3
    measured = tokenization.fertility(ours, mixed_sentences)
    assert measured["tokens_per_byte"] == 1
    beyond_ascii = sum(byte > 127 for s in mixed_sentences for byte in s.encode())
    total = sum(len(s.encode()) for s in mixed_sentences)
    assert measured["byte_token_share"] == pytest.approx(beyond_ascii / total)


def test_what_is_no_tokenizer():
    with pytest.raises(TypeError, match="tokenizer of type str"):
        tokenization.wrap("llama")


def test_special_tokens_stand_for_no_text(tokenizers_by_name):
    tokenizer = tokenizers_by_name["sentencepiece"]
    assert [tokenizer.token_bytes[i] for i in range(3)] == [None] * 3
    spec = json.loads(tokenizers_by_name["byte-level"].backend.to_str())
    for token in spec["added_tokens"]:
        expected = None if token["special"] else token["content"].encode()
        assert tokenizers_by_name["byte-level"].token_bytes[token["id"]] == expected
    assert tokenizers_by_name["tiktoken"].token_bytes[-2:] == (None, None)


@pytest.mark.parametrize(
    ("sentences", "error", "message"),
    [
        ([], ValueError, "empty"),
        (["a", " ", "b"], ValueError, "sentence 2 is blank"),
        (["a", ""], ValueError, "sentence 2 is blank"),
        ("one string", TypeError, "pass a list of sentences"),
    ],
)
def test_bad_sentences(tokenizers_by_name, sentences, error, message):
    with pytest.raises(error, match=message):
        tokenization.fertility(tokenizers_by_name["sentencepiece"], sentences)


def test_training_is_deterministic_and_says_what_is_too_large(mixed_sentences):
    one, other = (tokenization.train(mixed_sentences * 20, 900) for _ in range(2))
    assert one.token_bytes == other.token_bytes
    assert len(one) == 900
    with pytest.raises(ValueError, match="cannot train"):
        tokenization.train(["short"], 4000)


# The real tokenizers


def test_table_13_ratio(llama, flores):
    """All 21 rows, to the printed digit: 19 round to it, two miss the edge of rounding by 0.003."""
    printed = paper.table(13).groupby("target")["ratio"].first()
    assert len(printed) == 21
    texts = {language: flores(language) for language in printed.index}
    fertility = tokenization.analyse(llama, texts).assign(tokenizer="llama")
    compared = tokenization.ratios(fertility).dropna(subset="Table 13")
    assert (compared["difference"].abs() < 0.05 + 0.003).all()
    assert set(compared.index[~compared["rounds to it"].astype(bool)]) == {"ro", "as"}


def test_llama_is_read_by_sentencepiece(llama, data, flores):
    """Trap 4: transformers reads the same file otherwise; SentencePiece is the reference."""
    file = data / "tokenizers/llama/tokenizer.model"
    reference = sentencepiece.SentencePieceProcessor(model_file=str(file))
    for language in ("ro", "as", "km", "zh"):
        assert llama.encode(flores(language)) == reference.encode(flores(language))


def test_gpt_neox_agrees_with_transformers(data, flores):
    if not (data / "tokenizers/gpt-neox-20b").is_dir():
        pytest.skip("no GPT-NeoX tokenizer in the data folder")
    from transformers import AutoTokenizer

    ours = tokenization.load("gpt-neox-20b")
    theirs = AutoTokenizer.from_pretrained(data / "tokenizers/gpt-neox-20b")
    for language in ("en", "ro", "km", "ar", "ja"):
        sentences = flores(language)
        expected = theirs(sentences, add_special_tokens=False)["input_ids"]
        assert ours.encode(sentences) == expected
        assert math.isclose(
            tokenization.fertility(ours, sentences)["tokens_per_sentence"],
            np.mean([len(ids) for ids in expected]),
        )


@pytest.mark.parametrize(("name", "split"), [("llama-3", "cl100k_base"), ("llama-4", "o200k_base")])
def test_the_tiktoken_files_of_llama(data, flores, name, split, mixed_sentences, monkeypatch):
    file = data / "tokenizers" / name / "tokenizer.model"
    if not file.is_file():
        pytest.skip(f"no tokenizer of {name} in the data folder")
    lines = [line.split() for line in file.read_bytes().splitlines()]
    expected = reference({base64.b64decode(t): int(n) for t, n in lines}, split, monkeypatch)
    ours = tokenization.load(name)
    assert len(ours) == len(lines)
    for language in ("en", "ro", "km", "ar", "ja", "te"):
        sentences = flores(language)[:200]
        assert ours.encode(sentences) == expected.encode_ordinary_batch(sentences)
    assert ours.encode(mixed_sentences) == expected.encode_ordinary_batch(mixed_sentences)


def test_a_folder_is_read_as_its_file_says(tmp_path, data):
    """A folder that has both is read by SentencePiece."""
    source = data / "tokenizers"
    for name, file in (("llama", "tokenizer.model"), ("gpt-neox-20b", "tokenizer.json")):
        if not (source / name / file).is_file():
            pytest.skip("the real tokenizers are not in the data folder")
        shutil.copy(source / name / file, tmp_path / file)
    assert isinstance(
        tokenization.load(tmp_path).backend, sentencepiece.SentencePieceProcessor
    ) and not isinstance(tokenization.load(tmp_path).backend, tokenizers.Tokenizer)
