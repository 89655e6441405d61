"""How a tokenizer treats a language: fertility and overlap with English.

All functions accept any tokenizer that `wrap` accepts and plain lists of sentences. Special tokens
such as BOS and EOS are never counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from mlq_utils.tokenization.shortening import PrefixShortener
from mlq_utils.tokenization.tokenizer import Tokenizer, wrap


@dataclass(frozen=True)
class _Encoded:
    """Sentences with their token ids, concatenated, and the number of tokens of each."""

    sentences: list[str]
    ids: np.ndarray
    lengths: np.ndarray
    counts: np.ndarray


def _encode(tokenizer: Tokenizer, sentences: Sequence[str], what: str = "sentences") -> _Encoded:
    if isinstance(sentences, str):
        raise TypeError(f"{what}: pass a list of sentences, not a single string")
    sentences = list(sentences)
    if not sentences:
        raise ValueError(f"{what} is empty; there is nothing to tokenise")
    rows = tokenizer.encode(sentences)
    lengths = _sizes(rows)
    ids = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=lengths.sum())
    return _Encoded(sentences, ids, lengths, np.bincount(ids, minlength=len(tokenizer)))


def _sizes(rows: Iterable) -> np.ndarray:
    return np.fromiter(map(len, rows), dtype=np.int64)


def fertility(tokenizer: Any, sentences: Sequence[str]) -> pd.Series:
    """Measure how many tokens a tokenizer needs for a text.

    Args:
        tokenizer: Any tokenizer that `wrap` accepts.
        sentences: One or more sentences, none of them blank.

    Returns:
        A Series with these entries:
        `tokens_per_word`: tokens per whitespace-separated word, averaged over sentences. This is
        the paper's Ratio (Tables 5 and 13), also for languages without spaces between words.
        `tokens_per_char` and `tokens_per_byte`: the same per character and per UTF-8 byte.
        `tokens_per_sentence`: mean number of tokens per sentence.
        `byte_token_share`: share of byte tokens among all tokens, from 0 to 1.
        `overtokenized_share`: share of characters split over several tokens, from 0 to 1.

    Raises:
        ValueError: There are no sentences, or one is blank.
    """
    tokenizer = wrap(tokenizer)
    return pd.Series(_fertility(tokenizer, _encode(tokenizer, sentences)))


def _fertility(tokenizer: Tokenizer, text: _Encoded) -> dict[str, float]:
    def per(units: np.ndarray) -> float:
        if not units.all():
            raise ValueError(f"sentence {int(np.argmin(units)) + 1} is blank")
        return float((text.lengths / units).mean())

    characters = _sizes(text.sentences)
    return {
        "tokens_per_word": per(_sizes(map(str.split, text.sentences))),
        "tokens_per_char": per(characters),
        "tokens_per_byte": per(_sizes(map(str.encode, text.sentences))),
        "tokens_per_sentence": float(text.lengths.mean()),
        "byte_token_share": text.counts[tokenizer.is_byte].sum() / max(len(text.ids), 1),
        "overtokenized_share": text.counts[tokenizer.opens].sum() / characters.sum(),
    }


def overlap(
    tokenizer: Any, sentences: Sequence[str], english_sentences: Sequence[str]
) -> pd.Series:
    """Measure which tokens a language shares with English (Section 4.2, Figure 4).

    Args:
        tokenizer: Any tokenizer that `wrap` accepts.
        sentences: Text in the language.
        english_sentences: Text in English.

    Returns:
        A Series with these entries, where S is the set of tokens that occur in a text:
        `of_language`: share of the language's tokens that English has, `|S_LG ∩ S_En| / |S_LG|`.
        `of_english`: the share of the English tokens, `|S_LG ∩ S_En| / |S_En|`.
        `of_language_weighted`: share of the language's running tokens that also occur in English.
        `of_english_weighted`: share of English's running tokens that also occur in the language.
        `tokens_language`, `tokens_english`, `tokens_shared`: the sizes of the sets.

    Raises:
        ValueError: There are no sentences on one side.
    """
    tokenizer = wrap(tokenizer)
    language = _encode(tokenizer, sentences)
    english = _encode(tokenizer, english_sentences, "english_sentences")
    return pd.Series(_overlap(language.counts, english.counts))


def _overlap(language: np.ndarray, english: np.ndarray) -> dict[str, float]:
    shared = (language > 0) & (english > 0)
    in_language, in_english = np.count_nonzero(language), np.count_nonzero(english)
    in_both = np.count_nonzero(shared)
    return {
        "of_language": in_both / in_language,
        "of_english": in_both / in_english,
        "of_language_weighted": language[shared].sum() / language.sum(),
        "of_english_weighted": english[shared].sum() / english.sum(),
        "tokens_language": in_language,
        "tokens_english": in_english,
        "tokens_shared": in_both,
    }


def analyse(
    tokenizer: Any,
    texts: Mapping[str, Sequence[str]],
    english: str = "en",
    shortener: PrefixShortener | None = None,
) -> pd.DataFrame:
    """Measure fertility and overlap with English for many languages, encoding each text once.

    Args:
        tokenizer: Any tokenizer that `wrap` accepts.
        texts: Sentences by language.
        english: The key of English in `texts`. If it is missing, overlap is not measured.
        shortener: If given, also measure the length of the shortened texts.

    Returns:
        One row per language, with the columns `language`, those of `fertility` and `overlap`, and
        `shortened_tokens_per_sentence` if there is a shortener.
    """
    tokenizer = wrap(tokenizer)
    reference = _encode(tokenizer, texts[english], english) if english in texts else None
    rows = []
    for language, sentences in texts.items():
        text = reference if language == english else _encode(tokenizer, sentences, language)
        row = {"language": language, **_fertility(tokenizer, text)}
        if reference is not None:
            row |= _overlap(text.counts, reference.counts)
        if shortener is not None:
            short = len(shortener.encode(text.ids))
            row["shortened_tokens_per_sentence"] = short / len(text.sentences)
        rows.append(row)
    return pd.DataFrame(rows)
