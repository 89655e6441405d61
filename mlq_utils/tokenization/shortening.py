"""Prefix shortening of byte sequences (Section 4.3, practice guidance 2)."""

import codecs
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mlq_utils.tokenization.analysis import fertility
from mlq_utils.tokenization.tokenizer import Tokenizer, missing_bytes, wrap

PREFIXES = {"one token": 1, "two tokens": 2, "table": None}
"""The kinds of prefix, and the `length` of `PrefixShortener.fit` that each stands for."""
OVERTOKENIZED = 0.1
"""`gains` measures languages with at least this share of characters split over several tokens."""

_CONTINUATION = bytes(range(0x80, 0xC0))


class PrefixShortener:
    """Drop the token that over-tokenised characters have in common, and restore it.

    A character outside the vocabulary becomes several tokens, in LLaMA its UTF-8 bytes, and the
    characters of one script share the first of them: the byte E0 (token 227) in most scripts of
    India, E1 9E (tokens 228 and 161) in Khmer. `encode` drops this prefix wherever a token follows
    that begins with a continuation byte. `decode` inserts it before each such token that stands
    outside a character.

    Any text comes back unchanged, because valid UTF-8 has a continuation byte only inside a
    character and a prefix begins only outside one. Several prefixes need a table that gives each
    following token one prefix. Without it, what is left would not tell which one was dropped.

    Ids that do not spell valid UTF-8, which a model may generate, are decoded without an error.
    """

    def __init__(
        self, tokenizer: Any, prefix: int | Sequence[int] | Mapping[int, Sequence[int]]
    ) -> None:
        """Create a codec.

        Args:
            tokenizer: Any tokenizer that `tokenization.wrap` accepts.
            prefix: The id or the ids to drop. For several prefixes, a table from the token that
                follows to the prefix that is dropped before it.

        Raises:
            ValueError: The ids are unknown or do not open a character, or the table has a token
                that does not begin with a continuation byte.
        """
        self.tokenizer = wrap(tokenizer)
        table = self.tokenizer.token_bytes
        leading = _leading_continuations(self.tokenizer)
        if isinstance(prefix, Mapping):
            self.prefixes = {int(i): tuple(map(int, p)) for i, p in prefix.items()}
            if not set(self.prefixes) <= set(leading):
                raise ValueError("a prefix can be dropped only before a continuation byte")
        else:
            prefix = (int(prefix),) if np.isscalar(prefix) else tuple(map(int, prefix))
            self.prefixes = dict.fromkeys(leading, prefix)
        self._first = {ids[0] for ids in self.prefixes.values() if ids}
        for ids in set(self.prefixes.values()):
            pieces = [table[i] if 0 <= i < len(table) else None for i in ids]
            if None in pieces or not _opens_one_character(b"".join(pieces)):
                raise ValueError(
                    f"{ids} is no prefix of this tokenizer: its tokens must spell the first bytes "
                    f"of one character, but not all of them; they spell {pieces}"
                )
        # The number of bytes that the last character of a token lacks. It is negative for a token
        # of continuation bytes only, which reduces what an earlier character lacks.
        self._missing = {
            i: -len(piece) if leading.get(i) == len(piece) else missing_bytes(piece)
            for i, piece in enumerate(table)
            if piece
        }

    @property
    def prefix(self) -> tuple[int, ...]:
        """The prefix, or the commonest one if there are several."""
        prefixes = list(self.prefixes.values())
        return max(sorted(set(prefixes), key=len, reverse=True), key=prefixes.count)

    @classmethod
    def fit(
        cls, tokenizer: Any, sentences: Sequence[str], length: int | None = 1
    ) -> "PrefixShortener":
        """Choose the prefix that saves the most tokens on a text.

        Args:
            tokenizer: Any tokenizer that `tokenization.wrap` accepts.
            sentences: The text to save tokens on.
            length: Number of tokens of the prefix. Defaults to 1, as in the paper. None builds a
                table with the best prefix of one or two tokens for each token that may follow.

        Raises:
            ValueError: No character of the text takes more than `length` tokens.
        """
        tokenizer = wrap(tokenizer)
        found = _savings(tokenizer, sentences, [1, 2] if length is None else [length])
        if found.empty:
            raise ValueError(
                f"there is no prefix to drop: no character of the text takes more than "
                f"{length or 1} token(s) of this tokenizer"
            )
        by = ["prefix"] if length else ["following", "prefix"]
        saved = found.groupby(by)["saved"].sum().sort_values(ascending=False).reset_index()
        if length:
            return cls(tokenizer, saved["prefix"].iloc[0])
        best = saved.drop_duplicates("following")
        return cls(tokenizer, dict(zip(best["following"], best["prefix"], strict=True)))

    def shortened(self) -> Tokenizer:
        """Return a tokenizer that shortens what it encodes, for a model tuned on shortened ids."""
        plain = self.tokenizer
        return dataclasses.replace(
            plain,
            name=f"{plain.name}, shortened",
            _encode_batch=lambda texts: [self.encode(ids) for ids in plain.encode(texts)],
            _decode=lambda ids: plain.decode(self.decode(ids)),
        )

    def encode(self, ids: Sequence[int]) -> list[int]:
        """Return `ids` without the prefix wherever `decode` can restore it."""
        if self._first.isdisjoint(ids):
            return list(ids)
        kept, left = [], len(ids)
        # From the right, so that the longer of two prefixes with the same beginning is dropped.
        while left:
            left -= 1
            kept.append(ids[left])
            prefix = self.prefixes.get(ids[left])
            if prefix and tuple(ids[max(0, left - len(prefix)) : left]) == prefix:
                left -= len(prefix)
        return kept[::-1]

    def decode(self, ids: Sequence[int]) -> list[int]:
        """Return `ids` with the prefix restored. No ids raise an error."""
        restored, open_bytes = [], 0
        for given in ids:
            lost = () if open_bytes else self.prefixes.get(given, ())
            for token in (*lost, given):
                restored.append(token)
                change = self._missing.get(token, 0)
                open_bytes = change if change >= 0 else max(0, open_bytes + change)
        return restored


def gains(tokenizer: Any, texts: Mapping[str, Sequence[str]], cap: int = 256) -> pd.DataFrame:
    """Measure what shortening does to each language that the tokenizer over-tokenises.

    Args:
        tokenizer: Any tokenizer that `tokenization.wrap` accepts.
        texts: Sentences by language: the references that a model would have to generate.
        cap: Most tokens that a model may generate. Defaults to 256, as in the released evaluation.

    Returns:
        One row per language and kind of prefix (a key of `PREFIXES`), which is fitted on the same
        text: `language`; `kind`; `overtokenized_share`; `prefix_bytes` (the commonest prefix in
        hexadecimal); `tokens_per_sentence`; `over_cap`, the share of sentences longer than the cap;
        `brevity`, BLEU's brevity penalty if each reference were generated up to the cap; the last
        three again with the prefix `shortened_`; and `restored`, the share of sentences that decode
        to the original. A kind is left out if no character has so many tokens.
    """
    tokenizer = wrap(tokenizer)
    rows = []
    for language, sentences in texts.items():
        share = fertility(tokenizer, sentences)["overtokenized_share"]
        for kind, length in PREFIXES.items() if share >= OVERTOKENIZED else ():
            row = {"language": language, "kind": kind, "overtokenized_share": share}
            try:
                shortener = PrefixShortener.fit(tokenizer, sentences, length)
            except ValueError:  # no character is split into three tokens: no prefix of two
                continue
            rows.append(row | _gain(shortener, sentences, cap))
    return pd.DataFrame(rows)


def _gain(shortener: PrefixShortener, sentences: Sequence[str], cap: int) -> dict[str, Any]:
    plain = shortener.tokenizer.encode(list(sentences))
    short = [shortener.encode(ids) for ids in plain]
    pieces = (shortener.tokenizer.token_bytes[i] for i in shortener.prefix)
    measures = {"prefix_bytes": b"".join(pieces).hex(" ")}
    for name, rows in (("", plain), ("shortened_", short)):
        sizes = np.array(list(map(len, rows)))
        cut = np.minimum(sizes, cap).sum()
        measures[f"{name}tokens_per_sentence"] = sizes.mean()
        measures[f"{name}over_cap"] = (sizes > cap).mean()
        measures[f"{name}brevity"] = float(np.exp(1 - sizes.sum() / cut))
    back = [shortener.decode(ids) == whole for ids, whole in zip(short, plain, strict=True)]
    return measures | {"restored": np.mean(back)}


def _savings(
    tokenizer: Tokenizer, sentences: Sequence[str], lengths: Sequence[int]
) -> pd.DataFrame:
    """Count what prefixes of some lengths would save: columns `prefix`, `following`, `saved`."""
    inside, found = _leading_continuations(tokenizer), Counter()
    for ids in tokenizer.encode(list(sentences)):
        for start in np.flatnonzero(tokenizer.opens[ids]):
            for length in lengths:
                *prefix, following = ids[start : start + length + 1]
                if len(prefix) == length and all(i in inside for i in (*prefix[1:], following)):
                    found[tuple(prefix), following] += length
    rows = [
        (prefix, following, saved)
        for (prefix, following), saved in found.items()
        if _opens_one_character(b"".join(tokenizer.token_bytes[i] for i in prefix))
    ]
    return pd.DataFrame(rows, columns=["prefix", "following", "saved"])


def _leading_continuations(tokenizer: Tokenizer) -> dict[int, int]:
    """Return the number of continuation bytes of each token that begins with one."""
    table = enumerate(tokenizer.token_bytes)
    leading = {i: len(t) - len(t.lstrip(_CONTINUATION)) for i, t in table if t}
    return {i: n for i, n in leading.items() if n}


def _opens_one_character(text: bytes) -> bool:
    """Return whether `text` is the incomplete beginning of one UTF-8 character."""
    try:
        return bool(text) and codecs.getincrementaldecoder("utf-8")().decode(text) == ""
    except UnicodeDecodeError:
        return False
