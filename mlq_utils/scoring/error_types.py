"""What is wrong with a translation, by kind: copies, oscillation, another language, nothing, cut.

The paper (section 4.2) finds that tuning replaces one kind of error, source copy, by another,
oscillatory hallucination (the term of Li et al. 2023), but does not say how it told them. Here each
kind is a rule with its example, and no rule ever blames the reference itself.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd
from sacrebleu.metrics import CHRF

from mlq_utils import languages

KINDS = ("source_copy", "oscillation", "off_target", "empty", "cap_hit")
COPY = 80
"""chrF from which a hypothesis is a copy of its source. Right translations into the languages in
Latin script reach it against their English source, where they differ from it at all, in 0.02% of
9,000 FLORES sentences and 0.9% of 8,475 CLDR phrases (which keep names as they are), and these are
closer still to their reference."""
REPEATS = 4
"""How many times in a row a unit must stand to count as oscillation."""
REPEATED = 8
"""How many characters, spaces aside, the repeats must cover: "000000" in a number is none."""
KNOWN = 0.5
"""The share of a hypothesis's words that a language must know before it is judged by them."""

SCRIPTS = {
    "Arab": "ARABIC",
    "Armn": "ARMENIAN",
    "Beng": "BENGALI",
    "Cyrl": "CYRILLIC",
    "Deva": "DEVANAGARI",
    "Ethi": "ETHIOPIC",
    "Geor": "GEORGIAN",
    "Grek": "GREEK",
    "Gujr": "GUJARATI",
    "Guru": "GURMUKHI",
    "Hang": "HANGUL",
    "Hans": "CJK",
    "Hant": "CJK",
    "Hebr": "HEBREW",
    "Jpan": "CJK",
    "Khmr": "KHMER",
    "Knda": "KANNADA",
    "Laoo": "LAO",
    "Latn": "LATIN",
    "Mlym": "MALAYALAM",
    "Mymr": "MYANMAR",
    "Orya": "ORIYA",
    "Taml": "TAMIL",
    "Telu": "TELUGU",
    "Thai": "THAI",
}
"""For each script of `languages` the word that the Unicode names of its letters begin with."""
_SAME = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "KATAKANA-HIRAGANA": "CJK"}
_CHRF = CHRF()


def errors(
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[str],
    language: str,
    *,
    cap_hit: Sequence[bool] | None = None,
    texts: Mapping[str, Sequence[str]] | None = None,
) -> pd.DataFrame:
    """Return which errors each hypothesis shows; several can be true of one.

    Args:
        sources: The English sentences.
        hypotheses: Their translations.
        references: Their references.
        language: The paper's code of the language asked for.
        cap_hit: For each whether the cap on new tokens ended it, as `translation.translate` says.
        texts: Sentences in further languages, or more in this one, by code: what off-target
            languages in the same script are recognised by; see `off_target`.

    Returns:
        A row a sentence, columns `KINDS` in pandas' "boolean" type, missing where undecided:
        `source_copy`, `oscillation` (the functions of these names), `off_target` (likewise; a copy
        of the source counts as a copy alone), `empty` (nothing but whitespace), `cap_hit`.

    Raises:
        ValueError: Different numbers of sentences, none, or an unknown language.
    """
    counts = {"sources": len(sources), "hypotheses": len(hypotheses), "references": len(references)}
    if cap_hit is not None:
        counts["cap_hit"] = len(cap_hit)
    if len(set(counts.values())) > 1:
        raise ValueError(
            "numbers differ: " + ", ".join(f"{n} {name}" for name, n in counts.items())
        )
    if not len(hypotheses):
        raise ValueError("the list of hypotheses is empty")
    spoken = _vocabularies(sources, references, language, texts or {})
    triples = list(zip(sources, hypotheses, references, strict=True))
    copies = [source_copy(*triple) for triple in triples]
    columns = {
        "source_copy": copies,
        "oscillation": [oscillation(hyp, ref) for _, hyp, ref in triples],
        "off_target": [
            False if copy else off_target(hyp, ref, language, spoken)
            for copy, (_, hyp, ref) in zip(copies, triples, strict=True)
        ],
        "empty": [not hyp.strip() for hyp in hypotheses],
        "cap_hit": [None] * len(triples) if cap_hit is None else [bool(hit) for hit in cap_hit],
    }
    return pd.DataFrame({kind: pd.array(columns[kind], dtype="boolean") for kind in KINDS})


def summary(found: pd.DataFrame) -> pd.Series:
    """Count the errors of a frame that `errors` returned.

    Returns:
        `sentences`; for each of `KINDS` how many show it (missing where it was never decided);
        `undecided`, for how many the language was not; `none`, how many show no error.
    """
    counts = {"sentences": len(found)}
    counts |= {kind: found[kind].sum(min_count=1) for kind in KINDS}
    counts["undecided"] = found["off_target"].isna().sum()
    counts["none"] = (~found.fillna(False).any(axis=1)).sum()
    return pd.Series(counts, dtype="Int64")


def source_copy(source: str, hypothesis: str, reference: str) -> bool:
    """Return whether a hypothesis is its source.

    Case, punctuation and whitespace aside, its chrF against the source is `COPY` or more, and
    higher than against the reference. So a name that stays as it is ("Kiribati") is no error.

        source_copy("7 years ago, and Romania", "7 years ago and romania.", "acum 7 ani și România")
    """
    source, hypothesis, reference = map(_letters, (source, hypothesis, reference))
    if not source or not hypothesis or hypothesis == reference:
        return False
    similar = _similarity(hypothesis, source)
    return similar >= COPY and similar > _similarity(hypothesis, reference)


def oscillation(hypothesis: str, reference: str) -> bool:
    """Return whether a hypothesis repeats itself as its reference does not.

    Somewhere a unit, of whatever length, stands `REPEATS` times or more in a row, more often than
    any does in the reference; the repeats cover `REPEATED` characters or more; case and whitespace
    do not count, so that scripts without spaces are judged alike. Lists that change as they go
    ("1 km, 2 km, 3 km, …") are not found.

        oscillation("2003, 7 ani, 7 ani, 7 ani, 7 ani, 7", "2003 și acum 7 ani")
    """
    repeats = _repeats(hypothesis)
    return repeats >= REPEATS and repeats > _repeats(reference)


def off_target(
    hypothesis: str, reference: str, language: str, words: Mapping[str, Collection[str]]
) -> bool | None:
    """Return whether a hypothesis is in another language than the one asked for.

    First by script: if most of its letters are of a script that is neither the language's nor the
    one most frequent in the reference, it is. Then by words (single characters in languages written
    without spaces): it is if `words` of another language know more of its words than those of the
    language asked for. This is a cheap test. It only knows languages that it is given words of,
    English among them where `errors` calls it; where neither knows `KNOWN` of its words, in the
    right script, the answer is None: a translation in rare words or a language not given.

        off_target("Rumänien und Kiribati", "România și Kiribati", "ro", {"ro": …, "de": …})

    Args:
        hypothesis: The translation.
        reference: Its reference.
        language: The paper's code.
        words: Words by language, casefolded, as `errors` makes them from its sentences.
    """
    script = _script(hypothesis)
    if script is None or hypothesis == reference:
        return False  # nothing but digits and signs is in no wrong language
    if script not in (SCRIPTS[languages.get(language).script], _script(reference)):
        return True
    units = _units(hypothesis, language)
    known = {code: sum(u in each for u in units) / len(units) for code, each in words.items()}
    own, other = known.pop(language, 0), max(known.values(), default=0)
    return None if max(own, other) < KNOWN else other > own


def _vocabularies(
    sources: Sequence[str],
    references: Sequence[str],
    language: str,
    texts: Mapping[str, Sequence[str]],
) -> dict[str, set[str]]:
    languages.get(language)
    given = {code: list(sentences) for code, sentences in texts.items()}
    for code, sentences in (("en", sources), (language, references)):
        given[languages.get(code).code] = given.get(code, []) + list(sentences)
    return {
        code: {unit for sentence in sentences for unit in _units(sentence, language)}
        for code, sentences in given.items()
    }


def _units(text: str, language: str) -> list[str]:
    """Return the words of a text, or its letters where a language has no spaces."""
    spaced = languages.get(language).space_separated
    words = "".join(c if _category(c) in "LM" else " " for c in text.casefold())
    return words.split() if spaced else list("".join(words.split()))


def _script(text: str) -> str | None:
    """Return the script of most letters, as Unicode names begin; None without letters."""
    counts = Counter(_script_of(c) for c in text if c.isalpha())
    return counts.most_common(1)[0][0] if counts else None


@cache
def _script_of(letter: str) -> str:
    first = unicodedata.name(letter, "UNKNOWN").split()[0]
    return _SAME.get(first, first)


@cache
def _category(character: str) -> str:
    return unicodedata.category(character)[0]


def _letters(text: str) -> str:
    """Return a text without case, punctuation and whitespace: letters, marks and digits."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if _category(c) in "LMN")


def _similarity(hypothesis: str, text: str) -> float:
    """Return chrF, 0 to 100, of texts that `_letters` made; 100 exactly where they are equal."""
    return 100.0 if hypothesis == text else _CHRF.sentence_score(hypothesis, [text]).score


def _repeats(text: str) -> int:
    """Return how often in a row the most repeated unit stands that covers `REPEATED` characters."""
    codes = np.array([ord(c) for c in re.sub(r"\s", "", text.casefold())])
    most = 1
    for period in range(1, len(codes) // REPEATS + 1):
        same = np.concatenate([[False], codes[period:] == codes[:-period], [False]])
        edges = np.flatnonzero(np.diff(same.astype(np.int8)))
        covered = int((edges[1::2] - edges[::2]).max(initial=0)) + period
        if covered >= REPEATED:
            most = max(most, covered // period)
    return most
