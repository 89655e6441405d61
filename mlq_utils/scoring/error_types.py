"""Kinds of errors in translations: source copy, oscillation, off-target, empty and cut off.

The paper (section 4.2) finds that tuning replaces source copies by oscillatory hallucination (the
term of Li et al. 2023), but does not say how it told them apart. Here each kind has a rule, and no
rule ever finds an error in the reference itself.

The language of a hypothesis is recognised by the words of all languages of a corpus. Identifiers
that can be installed with their models lack some of these languages, and fail on short phrases.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd
from fontTools.unicodedata import script as script_of
from sacrebleu.metrics import CHRF

from mlq_utils import corpora, languages
from mlq_utils.corpora.own import HAN, main_script
from mlq_utils.data import one_of
from mlq_utils.languages import Language
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
KNOWN = 0.34
"""Share of a hypothesis's words that a language must know before the words can decide."""
SURE = 20
"""How many times as likely as another language one must be to be told from it."""
UNSEEN = 1e-7
"""Share of a language's running words that a word is taken to have which its texts lack."""
SENTENCES = 1000
"""Largest number of sentences per language from which its words are learned."""

_UNSPACED = {HAN.get(s, s) for s in languages.table().query("not space_separated")["script"]}
_CHRF = CHRF()


def errors(
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[str],
    language: str | Language,
    *,
    cap_hit: Sequence[bool] | None = None,
    corpus: str = "cldr",
    source_language: str | Language = "en",
    text: Sequence[str] = (),
) -> pd.DataFrame:
    """Return which errors each hypothesis shows; it can show several.

    Args:
        sources: The English sentences.
        hypotheses: One translation per sentence.
        references: One reference per sentence.
        language: The language asked for, as `languages.get` takes it.
        cap_hit: Whether the cap on new tokens cut each hypothesis off, as `modeling.translate`
            reports it. Defaults to unknown.
        corpus: Where the words of all languages are from, a key of `corpora.TEXTS`. Defaults to
            "cldr", which knows the words of its phrases. Prose needs "flores200".
        source_language: Language of the sources. Defaults to "en".
        text: Further text in a language whose words the corpus lacks.

    Returns:
        One row per sentence, with `KINDS` as columns of pandas' "boolean" type, and the code of the
        language `found`. Undecided cells are missing. A copy of the source is in its language, and
        does not count as off-target too. A hypothesis that could as well be in the language asked
        for is taken to be in it. Of one that is off-target, `found` is missing if several languages
        fit.

    Raises:
        ValueError: The lists are empty or differ in length, or the language or corpus is unknown.
        TypeError: A sentence is not a string.
        FileNotFoundError, ConnectionError: As for `corpora.load`.
    """
    check_texts(sources=sources, hypotheses=hypotheses, references=references)
    words = dict(words_of(corpus))
    asked, given = languages.get(language).code, languages.get(source_language).code
    further = [] if asked in words else text
    for code, texts in ((given, sources), (asked, [*references, *further])):
        words[code] = _weights(texts) | words.get(code, {})
    rows = []
    for source, hypothesis, reference in zip(sources, hypotheses, references, strict=True):
        copy = source_copy(source, hypothesis, reference)
        other, code = (False, given) if copy else recognise(hypothesis, reference, language, words)
        repeats, empty = oscillation(hypothesis, reference), not hypothesis.strip()
        rows.append((copy, repeats, other, empty, None, code))
    found = pd.DataFrame(rows, columns=[*KINDS, "found"])
    found = found.astype(dict.fromkeys(KINDS, "boolean") | {"found": "string"})
    return found if cap_hit is None else found.assign(cap_hit=pd.array(cap_hit, dtype="boolean"))


def summary(found: pd.DataFrame) -> pd.Series:
    """Count the errors in a frame that `errors` returned.

    Returns:
        The numbers of `sentences`, of those that show each of `KINDS` (missing if it was never
        decided), of those whose language is `undecided`, and of those that show `none`.
    """
    counts = {"sentences": len(found)}
    counts |= {kind: found[kind].sum(min_count=1) for kind in KINDS}
    counts["undecided"] = found["off_target"].isna().sum()
    counts["none"] = (~found[list(KINDS)].fillna(False).any(axis=1)).sum()
    return pd.Series(counts, dtype="Int64")


def source_copy(source: str, hypothesis: str, reference: str) -> bool:
    """Return whether a hypothesis copies its source.

    It does if, without case, punctuation and whitespace, its chrF against the source is at least
    `COPY` and higher than against the reference. So a name that stays the same ("Kiribati") is not
    an error, but "7 years ago and romania." copies "7 years ago, and Romania".
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
    count, so that scripts without spaces are treated alike. "7 ani, 7 ani, 7 ani, 7 ani" is found,
    and a list whose items change ("1 km, 2 km, 3 km, 4 km") is not.
    """
    repeats = _repeats(hypothesis)
    return repeats >= REPEATS and repeats > _repeats(reference)


def recognise(
    hypothesis: str,
    reference: str,
    language: str | Language,
    words: Mapping[str, Mapping[str, float]],
) -> tuple[bool | None, str | None]:
    """Return whether a hypothesis is in another language than the one asked for, and in which.

    It is if most of its letters are in a script that is neither the language's nor the reference's,
    or if its words make another language more than `SURE` times as likely (naive Bayes). `words`
    has for each language the logarithm of how much more often it has a word than `UNSEEN`.

    Returns:
        None and None if the script is right and the likeliest language knows less than the share
        `KNOWN` of the words. If several other languages fit, the second is None.
    """
    own, script = languages.get(language).script, main_script(hypothesis)
    language = languages.get(language).code
    if script is None:
        return False, None  # digits and signs alone are not in a wrong language
    if hypothesis == reference:
        return False, language
    units = _units(hypothesis)
    strange = script not in (HAN.get(own, own), main_script(reference))
    codes = [code for code in words if not strange or code != language]
    likely = {code: sum(words[code].get(unit, 0) for unit in units) for code in codes}
    best = max(likely, key=likely.get)
    if sum(unit in words[best] for unit in units) < KNOWN * len(units):
        return strange or None, None
    close = [code for code in codes if likely[best] - likely[code] <= math.log(SURE)]
    if language in close:
        return False, language
    return True, best if close == [best] else None


@cache  # this takes a few seconds
def words_of(corpus: str) -> dict[str, dict[str, float]]:
    """Return the words of every language of a corpus, as `recognise` takes them."""
    split = corpora.TEXTS[one_of("source of words", corpus, corpora.TEXTS)]
    return {code: _weights(s) for code, s in corpora.texts(corpus, split, SENTENCES).items()}


def _weights(texts: Iterable[str]) -> dict[str, float]:
    counts = Counter(unit for text in texts for unit in _units(text))
    total = counts.total() * UNSEEN
    return {unit: math.log(1 + count / total) for unit, count in counts.items()}


def _units(text: str) -> list[str]:
    """Return the words of a text. In scripts without spaces each letter stands for a word."""
    return "".join(map(_spaced, text.casefold())).split()


@cache
def _spaced(character: str) -> str:
    if unicodedata.category(character)[0] not in "LM":
        return " "
    script = script_of(character)
    return f" {character} " if HAN.get(script, script) in _UNSPACED else character


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
