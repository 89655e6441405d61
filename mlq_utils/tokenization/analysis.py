"""How a tokenizer treats a language: its fertility, and the tokens that it shares with English.

All functions accept any tokenizer that `wrap` accepts and plain lists of sentences. Special tokens
such as BOS and EOS are never counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from mlq_utils.tokenization.tokenizer import Tokenizer, wrap


class _Encoded:
    """Sentences, the number of tokens of each, and how often each token occurs in all of them."""

    def __init__(self, tokenizer: Tokenizer, sentences: Sequence[str], what: str) -> None:
        if isinstance(sentences, str):
            raise TypeError(f"{what}: pass a list of sentences, not a single string")
        self.tokenizer, self.sentences = tokenizer, list(sentences)
        if not self.sentences:
            raise ValueError(f"{what}: the list is empty, so there is nothing to tokenise")
        rows = tokenizer.encode(self.sentences)
        self.lengths = _sizes(rows)
        ids = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=self.lengths.sum())
        self.counts = np.bincount(ids, minlength=len(tokenizer))

    def fertility(self) -> dict[str, float]:
        """Return the entries that the function `fertility` describes."""
        tokens, characters = self.lengths.sum(), _sizes(self.sentences)
        return {
            "tokens_per_word": self._per(_sizes(map(str.split, self.sentences))),
            "tokens_per_char": self._per(characters),
            "tokens_per_byte": self._per(_sizes(map(str.encode, self.sentences))),
            "tokens_per_sentence": float(self.lengths.mean()),
            "byte_token_share": self.counts[self.tokenizer.is_byte].sum() / max(tokens, 1),
            "overtokenized_share": self.counts[self.tokenizer.opens].sum() / characters.sum(),
        }

    def _per(self, units: np.ndarray) -> float:
        if not units.all():
            raise ValueError(f"sentence {int(np.argmin(units)) + 1} is blank")
        return float((self.lengths / units).mean())

    def overlap(self, english: "_Encoded") -> dict[str, float]:
        """Return the entries that the function `overlap` describes."""
        shared = (self.counts > 0) & (english.counts > 0)
        in_both = np.count_nonzero(shared)
        in_language, in_english = map(np.count_nonzero, (self.counts, english.counts))
        return {
            "of_language": in_both / in_language,
            "of_english": in_both / in_english,
            "of_language_weighted": self.counts[shared].sum() / self.counts.sum(),
            "of_english_weighted": english.counts[shared].sum() / english.counts.sum(),
            "tokens_language": in_language,
            "tokens_english": in_english,
            "tokens_shared": in_both,
        }


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
    return pd.Series(_Encoded(wrap(tokenizer), sentences, "sentences").fertility())


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
    english = _Encoded(tokenizer, english_sentences, "english_sentences")
    return pd.Series(_Encoded(tokenizer, sentences, "sentences").overlap(english))


def analyse(tokenizer: Any, texts: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Measure fertility and overlap with English for many languages, encoding each text once.

    Args:
        tokenizer: Any tokenizer that `wrap` accepts.
        texts: Sentences by language. Overlap is measured only if "en" is among the languages.

    Returns:
        One row per language, with the columns `language` and those of `fertility` and `overlap`.
    """
    tokenizer = wrap(tokenizer)
    encoded = {language: _Encoded(tokenizer, text, language) for language, text in texts.items()}
    english = encoded.get("en")
    return pd.DataFrame(
        [
            {"language": code, **text.fertility(), **(text.overlap(english) if english else {})}
            for code, text in encoded.items()
        ]
    )
