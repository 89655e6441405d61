"""Kinds of errors in translations: source copy, oscillation, off-target, empty and cut off.

The paper (section 4.2) finds that tuning replaces source copies by oscillatory hallucination (the
term of Li et al. 2023), but does not say how it told them apart. Here each kind has a rule, and no
rule ever finds an error in the reference itself.
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
from mlq_utils.scoring.metrics import check_texts

KINDS = ("source_copy", "oscillation", "off_target", "empty", "cap_hit")
COPY = 80
"""chrF from which a hypothesis counts as a copy of its source. Of correct translations into Latin
script that differ from their source, 0.02% of 9,000 FLORES sentences and 0.9% of 8,475 CLDR phrases
reach it; these are closer still to their reference."""
REPEATS = 4
"""How many times in a row a unit must stand to count as oscillation."""
REPEATED = 8
"""Fewest characters, without spaces, that the repeats must cover; "000000" is too short."""
KNOWN = 0.5
"""Share of a hypothesis's words that a language must know before the words can decide."""

SCRIPTS = dict(
    Arab="ARABIC", Armn="ARMENIAN", Beng="BENGALI", Cyrl="CYRILLIC", Deva="DEVANAGARI",
    Ethi="ETHIOPIC", Geor="GEORGIAN", Grek="GREEK", Gujr="GUJARATI", Guru="GURMUKHI", Hang="HANGUL",
    Hans="CJK", Hant="CJK", Hebr="HEBREW", Jpan="CJK", Khmr="KHMER", Knda="KANNADA", Laoo="LAO",
    Latn="LATIN", Mlym="MALAYALAM", Mymr="MYANMAR", Orya="ORIYA", Taml="TAMIL", Telu="TELUGU",
    Thai="THAI",
)  # fmt: skip
"""The word with which Unicode's names of letters begin, for each script of `languages`."""
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
    """Return which errors each hypothesis shows; it can show several.

    Args:
        sources: The English sentences.
        hypotheses: One translation per sentence.
        references: One reference per sentence.
        language: The paper's code of the language asked for.
        cap_hit: Whether the cap on new tokens cut each hypothesis off, as `modeling.translate`
            reports it. Defaults to unknown.
        texts: Sentences by language, from which other languages in the same script are recognised
            (see `off_target`), in addition to `sources` and `references`.

    Returns:
        One row per sentence, with `KINDS` as columns of pandas' "boolean" type; undecided cells are
        missing. A copy of the source does not count as off-target too.

    Raises:
        ValueError: The lists are empty or differ in length, or the language is unknown.
        TypeError: A sentence is not a string.
    """
    check_texts(sources=sources, hypotheses=hypotheses, references=references)
    sentences = {code: list(given) for code, given in (texts or {}).items()}
    for code, given in (("en", sources), (language, references)):
        sentences[code] = [*sentences.get(code, []), *given]
    words = {c: {u for s in given for u in _units(s, language)} for c, given in sentences.items()}
    rows = []
    for source, hypothesis, reference in zip(sources, hypotheses, references, strict=True):
        copy = source_copy(source, hypothesis, reference)
        other = False if copy else off_target(hypothesis, reference, language, words)
        rows.append((copy, oscillation(hypothesis, reference), other, not hypothesis.strip(), None))
    found = pd.DataFrame(rows, columns=KINDS).astype("boolean")
    return found if cap_hit is None else found.assign(cap_hit=pd.array(cap_hit, dtype="boolean"))


def summary(found: pd.DataFrame) -> pd.Series:
    """Count the errors in a frame that `errors` returned.

    Returns:
        `sentences`; the number that show each of `KINDS` (missing if it was never decided);
        `undecided`, the number whose language is unknown; `none`, the number without an error.
    """
    counts = {"sentences": len(found)}
    counts |= {kind: found[kind].sum(min_count=1) for kind in KINDS}
    counts["undecided"] = found["off_target"].isna().sum()
    counts["none"] = (~found.fillna(False).any(axis=1)).sum()
    return pd.Series(counts, dtype="Int64")


def source_copy(source: str, hypothesis: str, reference: str) -> bool:
    """Return whether a hypothesis copies its source.

    It does if, without case, punctuation and whitespace, its chrF against the source is at least
    `COPY` and higher than against the reference. So a name that stays the same ("Kiribati") is not
    an error. Example:

        source_copy("7 years ago, and Romania", "7 years ago and romania.", "acum 7 ani și România")
    """
    source, hypothesis, reference = map(_letters, (source, hypothesis, reference))
    if not source or not hypothesis or hypothesis == reference:
        return False
    similar = _similarity(hypothesis, source)
    return similar >= COPY and similar > _similarity(hypothesis, reference)


def oscillation(hypothesis: str, reference: str) -> bool:
    """Return whether a hypothesis repeats itself and its reference does not.

    It does if a unit of any length stands `REPEATS` times or more in a row, more often than any in
    the reference, and the repeats cover `REPEATED` characters or more. Case and whitespace do not
    count, so that scripts without spaces are treated alike. Lists whose items change ("1 km, 2 km,
    3 km, …") are not found. Example:

        oscillation("2003, 7 ani, 7 ani, 7 ani, 7 ani, 7", "2003 și acum 7 ani")
    """
    repeats = _repeats(hypothesis)
    return repeats >= REPEATS and repeats > _repeats(reference)


def off_target(
    hypothesis: str, reference: str, language: str, words: Mapping[str, Collection[str]]
) -> bool | None:
    """Return whether a hypothesis is in another language than the one asked for.

    It is if most of its letters are in a script that is neither the language's nor the reference's;
    or else if another language in `words` knows more of its words than the language asked for does.
    This cheap test recognises only languages whose words it is given. Example:

        off_target("Rumänien und Kiribati", "România și Kiribati", "ro", {"ro": …, "de": …})

    Args:
        hypothesis: The translation.
        reference: Its reference.
        language: The paper's code of the language asked for.
        words: Words in lower case by language, or characters for languages without spaces.

    Returns:
        None if the script is right but no language knows the share `KNOWN` of the words: these are
        rare words, or a language that is not in `words`.
    """
    script = _script(hypothesis)
    if script is None or hypothesis == reference:
        return False  # digits and signs alone are not in a wrong language
    if script not in (SCRIPTS[languages.get(language).script], _script(reference)):
        return True
    units = _units(hypothesis, language)
    known = {code: sum(u in each for u in units) / len(units) for code, each in words.items()}
    own, other = known.pop(language, 0), max(known.values(), default=0)
    return None if max(own, other) < KNOWN else other > own


def _units(text: str, language: str) -> list[str]:
    """Return the words of a text, or its letters if the language has no spaces."""
    letters = (c if unicodedata.category(c)[0] in "LM" else " " for c in text.casefold())
    words = "".join(letters).split()
    return words if languages.get(language).space_separated else list("".join(words))


def _script(text: str) -> str | None:
    """Return the script of most letters by the first word of their Unicode names."""
    counts = Counter(_script_of(c) for c in text if c.isalpha())
    return counts.most_common(1)[0][0] if counts else None


@cache
def _script_of(letter: str) -> str:
    first = unicodedata.name(letter, "UNKNOWN").split()[0]
    return _SAME.get(first, first)


def _letters(text: str) -> str:
    """Return the letters, marks and digits of a text, in lower case."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if unicodedata.category(c)[0] in "LMN")


def _similarity(hypothesis: str, text: str) -> float:
    """Return chrF from 0 to 100, which is exactly 100 for equal texts."""
    return 100.0 if hypothesis == text else _CHRF.sentence_score(hypothesis, [text]).score


def _repeats(text: str) -> int:
    """Return the most times in a row that a unit stands, among those covering `REPEATED`."""
    codes = np.array([ord(c) for c in re.sub(r"\s", "", text.casefold())])
    most = 1
    for period in range(1, len(codes) // REPEATS + 1):
        # A run of n positions that equal the one a period later covers n + period characters.
        same = np.concatenate([[False], codes[period:] == codes[:-period], [False]])
        edges = np.flatnonzero(np.diff(same.astype(np.int8)))
        covered = int((edges[1::2] - edges[::2]).max(initial=0)) + period
        if covered >= REPEATED:
            most = max(most, covered // period)
    return most
