"""What a tokenizer does to a language: fertility, overlap with English, over-tokenised characters.

Everything here works on any tokenizer that `wrap` takes and on plain lists of sentences. Tokens
are counted without BOS, EOS or other special tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mlq_utils.tokenization.shortening import PrefixShortener
from mlq_utils.tokenization.tokenizer import Tokenizer, load, train, wrap

__all__ = [
    "PrefixShortener",
    "Tokenizer",
    "analyse",
    "fertility",
    "load",
    "overlap",
    "overtokenized",
    "train",
    "wrap",
]


class _Encoded(NamedTuple):
    """Sentences and their tokens: `ids` of all sentences in a row, `lengths` one a sentence."""

    sentences: list[str]
    ids: np.ndarray
    lengths: np.ndarray
    counts: np.ndarray


def _encode(tokenizer: Tokenizer, sentences: Sequence[str], what: str = "sentences") -> _Encoded:
    if isinstance(sentences, str):
        raise TypeError(f"{what}: give a list of sentences, not one string")
    sentences = list(sentences)
    if not sentences:
        raise ValueError(f"{what}: empty, nothing to tokenise")
    rows = tokenizer.encode(sentences)
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    ids = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=lengths.sum())
    return _Encoded(sentences, ids, lengths, np.bincount(ids, minlength=len(tokenizer)))


def fertility(tokenizer: Any, sentences: Sequence[str]) -> pd.Series:
    """Measure how many tokens a language takes.

    Args:
        tokenizer: Any tokenizer that `wrap` takes.
        sentences: One or more sentences, none blank.

    Returns:
        A Series with
        `tokens_per_word`: mean over sentences of tokens per whitespace-separated word, which is
        the paper's Ratio (Tables 5 and 13) for every language, also those that put no spaces
        between words, whatever the captions say;
        `tokens_per_char`, `tokens_per_byte`: the same per character and per byte of UTF-8;
        `tokens_per_sentence`: mean;
        `byte_token_share`: share of byte tokens among all tokens, 0 to 1;
        `overtokenized_share`: share of characters that take several tokens, 0 to 1.

    Raises:
        ValueError: No sentences, or a blank one.
    """
    tokenizer = wrap(tokenizer)
    return _fertility(tokenizer, _encode(tokenizer, sentences))


def _fertility(tokenizer: Tokenizer, text: _Encoded) -> pd.Series:
    def per(units: Callable[[str], int]) -> float:
        sizes = np.fromiter(map(units, text.sentences), np.int64, len(text.sentences))
        if not sizes.all():
            raise ValueError(f"sentence {int(np.argmin(sizes)) + 1} is blank")
        return float((text.lengths / sizes).mean())

    tokens = max(int(text.counts.sum()), 1)
    return pd.Series(
        {
            "tokens_per_word": per(lambda s: len(s.split())),
            "tokens_per_char": per(len),
            "tokens_per_byte": per(lambda s: len(s.encode())),
            "tokens_per_sentence": float(text.lengths.mean()),
            "byte_token_share": text.counts[tokenizer.is_byte].sum() / tokens,
            "overtokenized_share": text.counts[tokenizer.opens].sum()
            / sum(map(len, text.sentences)),
        }
    )


def overlap(
    tokenizer: Any, sentences: Sequence[str], english_sentences: Sequence[str]
) -> pd.Series:
    """Measure what a language's tokens share with English (Section 4.2, Figure 4).

    Returns:
        A Series with, S being the set of tokens that occur in a text,
        `of_language`: |S_LG ∩ S_En| / |S_LG|; `of_english`: |S_LG ∩ S_En| / |S_En|;
        `of_language_weighted`: share of the language's running tokens that English uses too;
        `of_english_weighted`: share of English's running tokens that the language uses too;
        `tokens_language`, `tokens_english`, `tokens_shared`: the sets' sizes.

    Raises:
        ValueError: No sentences on either side.
    """
    tokenizer = wrap(tokenizer)
    language = _encode(tokenizer, sentences)
    english = _encode(tokenizer, english_sentences, "english_sentences")
    return _overlap(language.counts, english.counts)


def _overlap(language: np.ndarray, english: np.ndarray) -> pd.Series:
    shared = (language > 0) & (english > 0)
    sizes = {"language": (language > 0).sum(), "english": (english > 0).sum()}
    return pd.Series(
        {
            "of_language": shared.sum() / sizes["language"],
            "of_english": shared.sum() / sizes["english"],
            "of_language_weighted": language[shared].sum() / language.sum(),
            "of_english_weighted": english[shared].sum() / english.sum(),
            "tokens_language": sizes["language"],
            "tokens_english": sizes["english"],
            "tokens_shared": shared.sum(),
        }
    )


def analyse(
    tokenizer: Any,
    texts: Mapping[str, Sequence[str]],
    english: str = "en",
    shortener: PrefixShortener | None = None,
) -> pd.DataFrame:
    """Measure fertility and overlap with English for many languages, encoding each text once.

    Args:
        tokenizer: Any tokenizer that `wrap` takes.
        texts: Sentences by language.
        english: The key of English in `texts`; without it overlap is left out.
        shortener: Where given, the texts are shortened too.

    Returns:
        A row a language: column `language`, then those of `fertility` and `overlap`, and
        `shortened_tokens_per_sentence` where there is a shortener.
    """
    tokenizer = wrap(tokenizer)
    reference = _encode(tokenizer, texts[english], english) if english in texts else None
    rows = []
    for language, sentences in texts.items():
        known = language == english
        text = reference if known else _encode(tokenizer, sentences, language)
        row = {"language": language, **_fertility(tokenizer, text)}
        if reference is not None:
            row |= dict(_overlap(text.counts, reference.counts))
        if shortener is not None:
            short = len(shortener.encode(text.ids))
            row["shortened_tokens_per_sentence"] = short / len(text.sentences)
        rows.append(row)
    return pd.DataFrame(rows)


def overtokenized(tokenizer: Any, sentences: Sequence[str]) -> pd.DataFrame:
    """List the over-tokenised characters of a text: those that take several tokens (Section 4.3).

    Returns:
        A row a character and way of splitting it, commonest first: `character`, `count`,
        `tokens` (how many it takes), `prefix` (id of its first token) and `prefix_bytes` (that
        token's bytes in hexadecimal). Empty where no character is split.
    """
    tokenizer = wrap(tokenizer)
    text = _encode(tokenizer, sentences)
    pieces = [tokenizer.token_bytes[i] or b"" for i in text.ids.tolist()]
    stream = np.frombuffer(b"".join(pieces), dtype=np.uint8)
    token = np.repeat(np.arange(len(pieces)), list(map(len, pieces)))
    first = np.flatnonzero(stream & 0xC0 != 0x80)
    last = np.append(first[1:], len(stream)) - 1
    split = token[first] != token[last]
    characters = np.array(list(stream.tobytes().decode()), dtype=object)
    frame = pd.DataFrame(
        {
            "character": characters[split],
            "tokens": token[last][split] - token[first][split] + 1,
            "prefix": text.ids[token[first][split]],
        }
    )
    frame = frame.value_counts().rename("count").reset_index()
    frame["prefix_bytes"] = [tokenizer.token_bytes[i].hex(" ").upper() for i in frame["prefix"]]
    return frame[["character", "count", "tokens", "prefix", "prefix_bytes"]]
