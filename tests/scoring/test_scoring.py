"""Scores against sacrebleu's own, and the kinds of errors in several scripts."""

import io
import subprocess
import sys

import numpy as np
import pandas as pd
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
from mlq_utils.corpora import texts as corpora_texts
from mlq_utils.scoring import KINDS, chrf, error_types, errors, spbleu, summary
from mlq_utils.scoring.error_types import REPEATS, oscillation, recognise, source_copy, words_of
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
    assert hypotheses.count("") >= 5  # which are scored with the others


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


@pytest.mark.parametrize("mark", ["\u2028", "\u0085", "\n", "\r"])
def test_line_separators_within_segments_shift_nothing(mark, phrases, pieces):
    references = phrases["ro"]["target"].tolist()
    broken = [references[0] + mark + "și", *references[1:]]
    for found in (spbleu(broken, references, tokenizer=pieces), chrf(broken, references)):
        assert found.score > 95
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
    known = {"ro": ("românia", "și", "kiribati"), "de": ("rumänien", "und", "kiribati")}
    words = {code: dict.fromkeys(each, 9.0) for code, each in known.items()}
    words["lb"] = words["de"] | {"sinn": 9.0}
    pair = "Rumänien und Kiribati", "România și Kiribati"
    assert recognise(*pair, "de", words) == (False, "de")  # no sign that it is Luxembourgish
    assert recognise(*pair, "ro", words) == (True, None)  # it could be
    assert recognise(f"{pair[0]} sinn", pair[1], "ro", words) == (True, "lb")
    assert recognise(*pair[::-1], "ro", words) == (False, "ro")
    assert recognise("Roumanie et Kiribati", pair[1], "ro", words) == (None, None)
    assert recognise("7, 7", pair[1], "ro", words) == (False, None)
    assert recognise("Румыния", pair[1], "ro", words) == (True, None)


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


def ambiguous(text, code, words):
    """Whether another language has all words of a text that any language has."""
    units = set(error_types._units(text))
    known = {other: units.intersection(each) for other, each in words.items()}
    every = set().union(*known.values())
    return any(every <= each for other, each in known.items() if other != code)


def share_right(corpus, split, number):
    """Offer sentences of each language for three others: whole, cut in half, and looped.

    Those that nobody could tell from another language by their words are left out (`ambiguous`).
    This was laid down before the numbers were seen. No pair of languages is left out.
    """
    words, texts = words_of(corpus), corpora_texts(corpus, split, number)
    codes, rows = list(texts), []
    for place, code in enumerate(codes):
        said = [f(t) for t in texts[code] for f in (str, lambda t: t[: len(t) // 2 + 1], loop)]
        said = [text for text in said if not ambiguous(text, code, words)]
        for step in (1, 20, 50):
            asked = codes[(place + step) % len(codes)]
            rows += [(*recognise(text, texts[asked][0], asked, words), code) for text in said]
    found = pd.DataFrame(rows, columns=["off_target", "found", "code"])
    undecided = found["off_target"].isna().mean()
    return (found["off_target"].eq(True) & (found["found"] == found["code"])).mean(), undecided


def loop(text):
    return f"{text} " * REPEATS


def test_the_language_of_phrases_is_found():
    right, undecided = share_right("cldr", "test", 4)
    assert right > 0.95 and undecided < 0.02


def test_the_language_of_prose_is_found(flores):
    right, undecided = share_right("flores200", "devtest", 1)
    assert right > 0.95 and undecided < 0.03


def test_other_languages_by_script_and_by_words(phrases):
    ro, de = (phrases[code]["target"].tolist() for code in ("ro", "de"))
    source = phrases["ro"]["source"].tolist()
    germans = errors(source, de, ro, "ro")
    assert germans["off_target"].mean() > 0.9  # a few are alike, or have no letters
    assert germans["off_target"].notna().all()
    assert (germans["found"] == "de").mean() > 0.9
    found = errors(source, ro, ro, "ro")
    assert not found["off_target"].any() and (found["found"] == "ro").mean() > 0.9
    for code in ("km", "ja", "ar", "te", "zh"):
        frame = phrases[code]
        others = errors(frame["source"], ro, frame["target"], code)
        assert others["off_target"].fillna(False).mean() > 0.9
        assert (others["found"] == "ro").mean() > 0.9
    frame, trad = phrases["zh"], corpora.load("cldr", "zhtrad", "test", size=40)["target"]
    found = errors(frame["source"], trad, frame["target"], "zh")["found"]
    assert found.isin(["zh", "zhtrad"]).mean() > 0.9 and (found == "zhtrad").any()
    assert errors(["7 km"], ["zzz"], ["7 km"], "ro")["off_target"].isna().all()
    with pytest.raises(ValueError, match="unknown source of words 'flores20'"):
        errors(source, ro, ro, "ro", corpus="flores20")


def test_a_copy_is_a_copy_and_not_off_target_too(phrases):
    frame = phrases["km"]
    found = errors(frame["source"], frame["source"], frame["target"], "km")
    assert not found["off_target"].any()
    assert found["source_copy"].mean() > 0.9
    assert (found["found"][found["source_copy"]] == "en").all()


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
    assert list(found) == [*KINDS, "found"]
    assert set(found[list(KINDS)].dtypes.astype(str)) == {"boolean"}
    assert found["found"].fillna("").tolist() == ["en", "ro", "km", "", "ro", "ro"]
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
    assert recognise(text, "", code, {code: {}}) == (None, None)  # the script is right


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
