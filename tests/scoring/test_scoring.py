"""Scores against sacrebleu's own, and the kinds of errors in several scripts."""

import io
import subprocess
import sys

import numpy as np
import pytest
import requests
import sacrebleu
import sentencepiece
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.tokenizers import tokenizer_spm

from mlq_utils import languages, scoring
from mlq_utils.corpora import loading as corpora
from mlq_utils.scoring import KINDS, chrf, errors, spbleu, summary
from mlq_utils.scoring.error_types import off_target, oscillation, source_copy
from mlq_utils.tokenization import tokenizer

LANGUAGES = ("ro", "km", "ja", "ar", "te", "zh")


@pytest.fixture(scope="module")
def phrases():
    return {code: corpora.load("cldr", code, "test", size=40) for code in ("de", *LANGUAGES)}


@pytest.fixture(scope="module")
def pieces(phrases):
    return tokenizer.train((t for frame in phrases.values() for t in frame["target"]), 700)


@pytest.fixture
def flores101(monkeypatch, tmp_path, pieces):
    """A model where sacrebleu reads its own; not the real one."""
    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    path = scoring.flores101_path()
    path.parent.mkdir()
    path.write_bytes(pieces.backend.serialized_model_proto())
    return path


def worsened(references):
    """Some words lost, some sentences empty."""
    words = [[w for i, w in enumerate(r.split()) if (i + n) % 4] for n, r in enumerate(references)]
    return [" ".join(w) if n % 9 else "" for n, w in enumerate(words)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_spbleu_is_what_sacrebleu_makes_of_the_same_pieces(language, phrases, pieces, flores101):
    references = phrases[language]["target"].tolist()
    hypotheses = worsened(references)
    expected = BLEU(tokenize="flores101").corpus_score(hypotheses, [references], n_bootstrap=1000)
    own, named = spbleu(hypotheses, references, tokenizer=pieces), spbleu(hypotheses, references)
    assert own.score == named.score == expected.score
    assert (own.low, own.high) == pytest.approx(
        (expected._mean - expected._ci, expected._mean + expected._ci)
    )
    assert own.low <= own.high
    start = "nrefs:1|bs:1000|seed:12345|case:mixed|eff:no|tok:flores101|smooth:exp|version:"
    assert named.signature == start + sacrebleu.__version__
    assert own.signature.replace(own.signature.split("tok:")[1].split("|")[0], "flores101") == (
        named.signature
    )
    assert own.empty == hypotheses.count("") >= 5
    assert own.sentences == 40


def test_spbleu_is_what_the_command_line_says(phrases, flores101, tmp_path):
    references = phrases["ro"]["target"].tolist()
    hypotheses = worsened(references)
    for name, lines in (("hyp", hypotheses), ("ref", references)):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf8")
    command = [sys.executable, "-m", "sacrebleu", tmp_path / "ref", "-i", tmp_path / "hyp", "-b"]
    command += ["-m", "bleu", "--tokenize", "flores101", "-w", "4"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"SACREBLEU": str(tmp_path)}, check=True
    )
    assert float(done.stdout) == pytest.approx(spbleu(hypotheses, references).score, abs=5e-5)


def test_chrf_is_chrf_plus_plus(phrases):
    references = phrases["km"]["target"].tolist()
    hypotheses = worsened(references)
    expected = CHRF(word_order=2).corpus_score(hypotheses, [references])
    found = chrf(hypotheses, references, resamples=1)
    assert found.score == found.low == found.high == expected.score
    assert "nw:2" in found.signature


def test_the_signature_names_the_model_not_its_path(phrases, pieces, tmp_path):
    references = phrases["ro"]["target"].tolist()
    path = tmp_path / "some.model"
    path.write_bytes(pieces.backend.serialized_model_proto())
    found = spbleu(references, references, tokenizer=tokenizer.load(path))
    assert found.signature == spbleu(references, references, tokenizer=pieces).signature
    assert str(tmp_path) not in found.signature
    assert found.score == pytest.approx(100)
    other = tokenizer.train(references, 400)
    assert spbleu(references, references, tokenizer=other).signature != found.signature


def test_without_the_model_it_says_what_to_place_where(monkeypatch, tmp_path):
    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"sacrebleu_tokenizer_spm\.model.*Place it there"):
        spbleu(["a"], ["a"])
    assert not list(tmp_path.iterdir())


def test_a_truncated_model_is_refused_with_its_path(flores101):
    flores101.write_bytes(flores101.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"sacrebleu_tokenizer_spm\.model is truncated"):
        spbleu(["a"], ["a"])


def test_the_model_is_fetched_with_a_checksum_or_not_at_all(monkeypatch, tmp_path):
    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))

    def no_network(*args, **kwargs):
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", no_network)
    with pytest.raises(ConnectionError, match=r"cannot be downloaded .* get https.*place it at"):
        scoring.fetch_flores101("0" * 64)

    answer = requests.Response()
    answer.status_code, answer.raw = 200, urllib3.HTTPResponse(io.BytesIO(b"wrong"))
    monkeypatch.setattr(requests, "get", lambda *args, **kwargs: answer)
    with pytest.raises(ValueError, match="hash"):
        scoring.fetch_flores101("0" * 64)
    assert not scoring.flores101_path().exists()


def test_another_kind_of_tokenizer_is_refused():
    for wrong in ("flores101", object()):
        with pytest.raises(TypeError, match="needs a SentencePiece model"):
            spbleu(["a"], ["a"], tokenizer=wrong)


@pytest.mark.parametrize("score", [spbleu, chrf])
def test_bad_lists_are_refused(score, pieces):
    options = {"tokenizer": pieces} if score is spbleu else {}
    for hypotheses, references, error, message in (
        (["a"], ["a", "b"], ValueError, "1 hypotheses, 2 references"),
        (["a", "b"], ["a"], ValueError, "2 hypotheses, 1 references"),
        ([], [], ValueError, "list of hypotheses is empty"),
        (["a"], [], ValueError, "list of references is empty"),
        (["a", None], ["a", "b"], TypeError, "number 1 of the hypotheses is not a string: None"),
        (["a"], [float("nan")], TypeError, "number 0 of the references is not a string"),
        ("a", ["a"], TypeError, "list of hypotheses, not one string"),
    ):
        with pytest.raises(error, match=message):
            score(hypotheses, references, **options)
    with pytest.raises(ValueError, match="resamples"):
        score(["a"], ["a"], resamples=0, **options)


def test_nothing_but_empty_hypotheses_scores_nothing(pieces):
    for found in (spbleu(["", " "], ["a", "b"], tokenizer=pieces), chrf(["", " "], ["a", "b"])):
        assert (found.score, found.low, found.high) == (0, 0, 0)
        assert found.empty == found.sentences == 2


@pytest.mark.parametrize("mark", ["\u2028", "\u0085", "\n", "\r"])
def test_line_separators_within_segments_shift_nothing(mark, phrases, pieces):
    references = phrases["ro"]["target"].tolist()
    broken = [references[0] + mark + "și", *references[1:]]
    for found in (spbleu(broken, references, tokenizer=pieces), chrf(broken, references)):
        assert found.score > 95
        assert found.sentences == 40
    assert summary(errors(references, broken, references, "ro"))["none"] >= 39


def test_copies_of_the_source_in_several_scripts():
    source = "Thursday, January 9, 2003, 7 years ago, and Romania"
    references = [
        "joi, 9 ianuarie 2003, acum 7 ani și România",
        "ព្រហស្បតិ៍ 9 មករា 2003, 7 ឆ្នាំ​មុន និង រូម៉ានី",
        "2003年1月9日木曜日、7 年前、ルーマニア",
        "الخميس، 9 يناير 2003، وقبل 7 سنوات، ورومانيا",
    ]
    for reference in references:
        assert source_copy(source, source, reference)
        assert source_copy(source, source.upper().replace(",", "") + " .", reference)
        assert source_copy(source, source.replace("Romania", "România"), reference)
        assert not source_copy(source, reference, reference)
        assert not source_copy(source, "", reference)
        assert not source_copy(source, reference[:20] + source[:10], reference)
    assert not source_copy("Kiribati", "kiribati.", "Kiribati")
    assert source_copy("Kiribati, Fiji", "Kiribati Fiji", "Kiribati și Fiji")
    assert not source_copy("...", "...", "!")


def test_the_examples_in_the_docstrings_hold():
    copy = "7 years ago, and Romania", "7 years ago and romania.", "acum 7 ani și România"
    assert source_copy(*copy)
    assert oscillation("2003, 7 ani, 7 ani, 7 ani, 7 ani, 7", "2003 și acum 7 ani")
    words = {"ro": {"românia", "și", "kiribati"}, "de": {"rumänien", "und", "kiribati"}}
    pair = "Rumänien und Kiribati", "România și Kiribati"
    assert off_target(*pair, "ro", words) is True
    assert off_target(*pair[::-1], "ro", words) is False
    assert off_target("Roumanie et Kiribati", pair[1], "ro", words) is None
    assert off_target("7, 7", pair[1], "ro", words) is False


def test_oscillation_in_several_scripts():
    ordinary = "joi, 9 ianuarie 2003, acum 7 ani și România"
    for hypothesis in (
        "joi, 9 ianuarie" + " și 7 ani" * 4,
        "joi" + " 2003," * 9 + " 20",
        "7 ઘંટ" + " પહેલાં" * 5,
        "ព្រហស្បតិ៍" + "ឆ្នាំ" * 4,
        "木曜日" + "、年前" * 4,
        "الخميس" + " ورومانيا" * 4,
        "joi" + " ani" * 4 + " și România",
        "a" * 8,
    ):
        assert oscillation(hypothesis, ordinary), hypothesis
        assert not oscillation(hypothesis, hypothesis)
    for hypothesis in (
        "",
        "1000000 km",
        "joi, joi, joi și vineri",
        "bora bora bora",
        "1 km, 2 km, 3 km, 4 km, 5 km",
        "...",
        ordinary,
    ):
        assert not oscillation(hypothesis, ordinary), hypothesis
    assert not oscillation("ha ha ha ha ha", "ha ha ha ha ha!")


def test_other_languages_by_script_and_by_words(phrases):
    ro, de = (phrases[code]["target"].tolist() for code in ("ro", "de"))
    source = phrases["ro"]["source"].tolist()
    words = {"ro": set(" ".join(ro).lower().split()), "de": set(" ".join(de).lower().split())}
    germans = [off_target(said, meant, "ro", words) for said, meant in zip(de, ro, strict=True)]
    assert germans.count(True) > 0.9 * len(de)  # a few are alike, or have no letters
    undecided = errors(source, de, ro, "ro")["off_target"]
    assert undecided.isna().mean() > 0.3
    assert not errors(source, ro, ro, "ro")["off_target"].any()
    for code in ("km", "ja", "ar", "te", "zh"):
        frame = phrases[code]
        others = errors(frame["source"], ro, frame["target"], code)["off_target"]
        assert others.fillna(False).mean() > 0.9
    zh = phrases["zh"]["target"].tolist()
    trad = corpora.load("cldr", "zhtrad", "test", size=40)["target"].tolist()
    words = {"zh": set("".join(zh)), "zhtrad": set("".join(trad))}
    assert any(off_target(said, meant, "zh", words) for said, meant in zip(trad, zh, strict=True))


def test_a_copy_is_a_copy_and_not_off_target_too(phrases):
    frame = phrases["km"]
    found = errors(frame["source"], frame["source"], frame["target"], "km")
    assert not found["off_target"].any()
    assert found["source_copy"].mean() > 0.9


def test_errors_are_counted():
    source = ["Thursday and Romania"] * 6
    reference = ["joi și România"] * 6
    hypotheses = [
        source[0],
        "joi și joi și joi și joi și joi",
        "ព្រហស្បតិ៍ និង រូម៉ានី",
        "  ",
        "joi și Româ",
        "joi și România",
    ]
    cap_hit = [False, True, False, False, True, False]
    found = errors(source, hypotheses, reference, "ro", cap_hit=np.array(cap_hit))
    assert list(found) == list(KINDS)
    assert set(found.dtypes.astype(str)) == {"boolean"}
    shown = [[kind for kind in KINDS if row[kind] is True] for row in found.to_dict("records")]
    assert shown == [
        ["source_copy"],
        ["oscillation", "cap_hit"],
        ["off_target"],
        ["empty"],
        ["cap_hit"],
        [],
    ]
    assert summary(found).to_dict() == {
        "sentences": 6,
        "source_copy": 1,
        "oscillation": 1,
        "off_target": 1,
        "empty": 1,
        "cap_hit": 2,
        "undecided": 0,
        "none": 1,
    }
    unknown = errors(source, hypotheses, reference, "ro")
    assert unknown["cap_hit"].isna().all()
    assert summary(unknown).isna()["cap_hit"]
    assert summary(unknown)["none"] == 2


def test_errors_refuse_bad_lists():
    with pytest.raises(ValueError, match="2 sources, 1 hypotheses, 1 references"):
        errors(["a", "b"], ["a"], ["a"], "ro")
    with pytest.raises(ValueError, match=r"values \(2\) does not match .* index \(1\)"):
        errors(["a"], ["a"], ["a"], "ro", cap_hit=[True, False])
    with pytest.raises(ValueError, match="list of hypotheses is empty"):
        errors(["a"], [], ["a"], "ro")
    with pytest.raises(ValueError, match="list of sources is empty"):
        errors([], [], [], "ro")
    with pytest.raises(TypeError, match="number 0 of the references is not a string: None"):
        errors(["a"], ["a"], [None], "ro")
    with pytest.raises(ValueError, match="unknown language 'rp'"):
        errors(["a"], ["a"], ["a"], "rp")


@pytest.mark.parametrize("code", languages.codes("cldr"))
def test_every_script_is_known(code):
    text = " ".join(corpora.load("cldr", code, "test", size=40)["target"])
    assert off_target(text, "", code, {code: set()}) is None  # the script is right


text = st.text(min_size=1, max_size=40)


@settings(max_examples=60)
@given(st.lists(st.tuples(text, text), min_size=1, max_size=4), st.sampled_from(LANGUAGES))
def test_the_reference_itself_is_never_an_error(pairs, language):
    sources, references = map(list, zip(*pairs, strict=True))
    found = errors(sources, references, references, language)
    assert not found[["source_copy", "oscillation", "off_target"]].any(axis=None)


@settings(max_examples=60)
@given(text, text)
def test_copying_the_source_of_a_differing_reference_is_always_a_copy(source, reference):
    from mlq_utils.scoring.error_types import _letters

    differs = _letters(source) and _letters(source) != _letters(reference)
    assert source_copy(source, source, reference) == bool(differs)


def test_the_pieces_are_those_of_sentencepiece(pieces):
    assert isinstance(pieces.backend, sentencepiece.SentencePieceProcessor)
    line = "acum 7 ani"
    assert scoring.metrics._Pieces(pieces.backend)(line).split() == pieces.backend.encode_as_pieces(
        line
    )


def test_resamples_that_score_nothing_are_scored_with_the_others():
    """sacrebleu alone raises here: some of its resamples are floats, some NumPy's."""
    hypotheses = ["abc def ghi jkl", *["zzz"] * 7]
    references = ["abc def ghi jkl", *["quick brown fox"] * 7]
    with pytest.raises(TypeError, match="float32"):
        CHRF(word_order=2).corpus_score(hypotheses, [references], n_bootstrap=1000)
    found = scoring.chrf(hypotheses, references)
    assert found.score > 0 and found.high > found.low
    pieces = tokenizer.train([*hypotheses, *references] * 50, 280)
    assert scoring.spbleu(hypotheses, references, tokenizer=pieces).score > 0
