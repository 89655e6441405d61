"""Kinds of errors in translations: source copy, oscillation, off-target, empty and cut off.

The paper (section 4.2) finds that tuning replaces source copies by oscillatory hallucination (the
term of Li et al. 2023), but does not say how it told them apart. Here each kind has a rule, and no
rule ever finds an error in the reference itself.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from fontTools.unicodedata import script as script_of
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

_HAN = dict.fromkeys(("Hans", "Hant", "Jpan", "Hira", "Kana"), "Hani")
"""Scripts that are taken for one, because Chinese and Japanese share their characters."""
_CHRF = CHRF()


def errors(
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[str],
    language: str,
    *,
    cap_hit: Sequence[bool] | None = None,
) -> pd.DataFrame:
    """Return which errors each hypothesis shows; it can show several.

    Args:
        sources: The English sentences.
        hypotheses: One translation per sentence.
        references: One reference per sentence.
        language: The paper's code of the language asked for.
        cap_hit: Whether the cap on new tokens cut each hypothesis off, as `modeling.translate`
            reports it. Defaults to unknown.

    Returns:
        One row per sentence, with `KINDS` as columns of pandas' "boolean" type. Undecided cells are
        missing. A copy of the source does not count as off-target too.

    Raises:
        ValueError: The lists are empty or differ in length, or the language is unknown.
        TypeError: A sentence is not a string.
    """
    check_texts(sources=sources, hypotheses=hypotheses, references=references)
    words: dict[str, set[str]] = defaultdict(set)
    for code, texts in (("en", sources), (language, references)):
        words[code].update(unit for text in texts for unit in _units(text, language))
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
        The numbers of `sentences`, of those that show each of `KINDS` (missing if it was never
        decided), of those whose language is `undecided`, and of those that show `none`.
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


def off_target(
    hypothesis: str, reference: str, language: str, words: Mapping[str, Collection[str]]
) -> bool | None:
    """Return whether a hypothesis is in another language than the one asked for.

    It is if most of its letters are in a script that is neither the language's nor the reference's,
    or if another language in `words` knows more of its words than the language asked for does. This
    cheap test recognises only languages whose words it is given.

    Args:
        hypothesis: The translation.
        reference: Its reference.
        language: The paper's code of the language asked for.
        words: Words in lower case by language, or characters for languages without spaces.

    Returns:
        None if the script is right but no language knows the share `KNOWN` of the words. They are
        rare, or of a language that is not in `words`.
    """
    script = _script(hypothesis)
    if script is None or hypothesis == reference:
        return False  # digits and signs alone are not in a wrong language
    own = languages.get(language).script
    if script not in (_HAN.get(own, own), _script(reference)):
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
    """Return the ISO 15924 code of the script of most letters."""
    scripts = (script_of(letter) for letter in text if letter.isalpha())
    counts = Counter(_HAN.get(script, script) for script in scripts)
    return counts.most_common(1)[0][0] if counts else None


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
