"""Prefix shortening (Section 4.3, practice guidance 2) as a codec on token ids."""

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from mlq_utils.tokenization.tokenizer import Tokenizer, missing_bytes, wrap

_CONTINUATION = bytes(range(0x80, 0xC0))

Prefix = tuple[int, ...]


class PrefixShortener:
    """Drops a prefix from over-tokenised characters, and puts it back.

    A character that is not in the vocabulary becomes several tokens: in LLaMA its bytes of UTF-8.
    Characters of one script share the first of them. A prefix is one token or several, which
    together open a character without closing it: `(227,)`, the byte E0, for most scripts of
    India, Thai and Lao; `(228,)`, the byte E1, for Khmer, Burmese, Amharic and Georgian;
    `(228, 161)`, the bytes E1 9E, for most of Khmer.

    `encode` drops the prefix wherever a token that begins with a continuation byte follows.
    `decode` inserts it before each orphan: a token that begins with a continuation byte where no
    character is open.

    **Lossless for which prefixes, and why.** For any one prefix, of one token or several, and any
    ids that spell valid UTF-8 (every text in every language; also one that is cut off anywhere):
    `decode(encode(ids)) == ids`. In valid UTF-8 a continuation byte occurs only in an open
    character, so `ids` holds no orphan; and a prefix begins with a lead byte, which occurs only
    where no character is open. By induction on the tokens that `decode` has restored: where a
    prefix was dropped, the next token begins with a continuation byte while no character is open,
    and `decode` inserts the prefix; elsewhere the next token is no orphan, and `decode` inserts
    nothing. Which characters are open depends on the restored tokens alone, so both agree.

    **Several prefixes** are lossless on one condition: the orphan must tell which prefix it lost.
    So a table gives each orphan token one prefix, and `encode` drops a prefix only before tokens
    that own it; the proof is the same. Dropping two prefixes before every orphan is not lossless:
    the bytes 9E 80 may have lost E1 or E2. The released code drops E0 alone and restores it from
    tables of a language's characters, which lack digits and the letters of other scripts.

    Ids that do not spell valid UTF-8, which a model may emit, are decoded all the same: nothing
    raises, and what is no character stays none.
    """

    def __init__(self, tokenizer: Any, prefix: int | Sequence[int] | Mapping[int, Prefix]) -> None:
        """Make a codec.

        Args:
            tokenizer: Any tokenizer that `tokenization.wrap` takes.
            prefix: The id, or the ids, to drop; or, for several prefixes, a table from the token
                that follows to the prefix that is dropped before it.

        Raises:
            ValueError: The ids are no prefix: unknown, or they do not open a character; or the
                table has a token that does not begin with a continuation byte.
        """
        self.tokenizer = wrap(tokenizer)
        table = self.tokenizer.token_bytes
        starts = _starts_inside(table)
        if isinstance(prefix, Mapping):
            self.prefixes = {int(i): tuple(map(int, p)) for i, p in prefix.items()}
            if not set(self.prefixes) <= set(starts):
                raise ValueError("a prefix can be dropped only before a continuation byte")
        else:
            prefix = (int(prefix),) if np.isscalar(prefix) else tuple(map(int, prefix))
            self.prefixes = dict.fromkeys(starts, prefix)
        # Longest first: a token may open a shorter and a longer prefix.
        self._distinct = sorted(set(self.prefixes.values()), key=len, reverse=True)
        for ids in self._distinct:
            _check_prefix(ids, table)
        self._owned = {
            ids: [i for i, owned in self.prefixes.items() if owned == ids] for ids in self._distinct
        }
        self._first = sorted({ids[0] for ids in self._distinct})
        # What decode needs to know of a token: the continuation bytes it begins with, and those
        # that its last character lacks (None: it holds continuation bytes only).
        self._leading = starts
        self._missing = {
            i: None if starts.get(i) == len(piece) else missing_bytes(piece)
            for i, piece in enumerate(table)
            if piece
        }
        self._prefix_missing = {
            ids: missing_bytes(b"".join(table[i] for i in ids)) for ids in self._distinct
        }

    @property
    def prefix(self) -> Prefix:
        """The prefix, where there is one; the commonest in the table, where there are several."""
        if len(self._distinct) == 1:
            return self._distinct[0]
        return max(self._distinct, key=list(self.prefixes.values()).count)

    @classmethod
    def fit(
        cls, tokenizer: Any, sentences: Sequence[str], length: int | None = 1
    ) -> "PrefixShortener":
        """Choose the prefix that saves the most tokens on a text.

        Args:
            tokenizer: Any tokenizer that `tokenization.wrap` takes.
            sentences: The text.
            length: How many tokens the prefix has; 1 in the paper. None chooses a table: for each
                token that may follow, the prefix of one or two tokens that saves the most.

        Raises:
            ValueError: There is nothing to drop: no character of the text takes more than
                `length` tokens.
        """
        tokenizer = wrap(tokenizer)
        ids = np.fromiter(chain.from_iterable(tokenizer.encode(list(sentences))), dtype=np.int64)
        found = pd.concat(
            [_candidates(tokenizer, ids, n) for n in ([1, 2] if length is None else [length])]
        )
        if found.empty:
            raise ValueError(
                f"no character of the text takes more than {length or 1} token(s) of this "
                "tokenizer: there is no prefix to drop"
            )
        by = ["following", "prefix"] if length is None else ["prefix"]
        saved = found.groupby(by)["saved"].sum().sort_values(ascending=False).reset_index()
        if length is None:
            best = saved.drop_duplicates("following")
            return cls(tokenizer, dict(zip(best["following"], best["prefix"], strict=True)))
        return cls(tokenizer, saved["prefix"].iloc[0])

    def shortened(self) -> Tokenizer:
        """Return the tokenizer with this codec behind it: for a model that is tuned on its ids."""
        plain = self.tokenizer
        return dataclasses.replace(
            plain,
            name=f"{plain.name}, shortened",
            _encode_batch=lambda texts: [self.encode(ids) for ids in plain.encode(texts)],
            _decode=lambda ids: plain.decode(self.decode(ids)),
        )

    def kept(self, ids: np.ndarray) -> np.ndarray:
        """Return which of `ids`, shape (tokens,), `encode` keeps: an array of booleans."""
        keep = np.ones(len(ids), dtype=bool)
        for prefix in self._distinct:
            size = len(prefix)
            hits = np.flatnonzero(ids[: len(ids) - size] == prefix[0])
            hits = hits[np.isin(ids[hits + size], self._owned[prefix]) & keep[hits]]
            for n in range(1, size):
                hits = hits[ids[hits + n] == prefix[n]]
            for n in range(size):
                keep[hits + n] = False
        return keep

    def encode(self, ids: Sequence[int] | np.ndarray) -> list[int] | np.ndarray:
        """Return `ids` without the prefix, wherever `decode` can put it back.

        An array gives an array, a list a list. Several sentences may stand in one array.
        """
        if isinstance(ids, np.ndarray):
            return ids[self.kept(ids)]
        ids = ids.tolist() if hasattr(ids, "tolist") else list(ids)
        if not any(first in ids for first in self._first):
            return ids
        if len(self._distinct) > 1 or len(self.prefix) > 1:
            array = np.array(ids)
            return array[self.kept(array)].tolist()
        # One prefix of one token: making an array of a sentence would cost more than this.
        lead, owners, following = self.prefix[0], self.prefixes, [*ids[1:], -1]
        pairs = zip(ids, following, strict=True)
        return [token for token, after in pairs if token != lead or after not in owners]

    def decode(self, ids: Sequence[int] | np.ndarray) -> list[int] | np.ndarray:
        """Return `ids` with its prefix before every orphan; never raises, whatever the ids."""
        out, open_bytes = [], 0
        for token in np.asarray(ids).tolist():
            leading = self._leading.get(token, 0)
            if leading and not open_bytes and token in self.prefixes:
                out.extend(self.prefixes[token])
                open_bytes = self._prefix_missing[self.prefixes[token]]
            out.append(token)
            missing = self._missing.get(token, 0)
            open_bytes = max(0, open_bytes - leading) if missing is None else missing
        return np.array(out, dtype=np.int64) if isinstance(ids, np.ndarray) else out


def gain(
    tokenizer: Any, sentences: Sequence[str], length: int | None = 1, cap: int = 256
) -> pd.Series:
    """Measure what shortening does to a text, the prefix being fitted on the same text.

    Args:
        tokenizer: Any tokenizer that `tokenization.wrap` takes.
        sentences: The text: references that a model would have to generate.
        length: As in `PrefixShortener.fit`.
        cap: The most tokens that a model may generate; 256 in the released evaluation.

    Returns:
        A Series with `prefix_bytes` (the commonest, in hexadecimal); `tokens_per_sentence`;
        `over_cap`, the share of sentences longer than the cap; `brevity`, BLEU's brevity penalty
        if all of a reference up to the cap were generated; each of them followed by
        `shortened_...`; and `restored`, the share of sentences that come back unchanged.

    Raises:
        ValueError: As `PrefixShortener.fit`.
    """
    tokenizer = wrap(tokenizer)
    rows = tokenizer.encode(list(sentences))
    shortener = PrefixShortener.fit(tokenizer, sentences, length)
    short = [shortener.encode(ids) for ids in rows]
    measures = {
        "prefix_bytes": b"".join(tokenizer.token_bytes[i] for i in shortener.prefix).hex(" ")
    }
    for name, texts in (("", rows), ("shortened_", short)):
        sizes = np.array(list(map(len, texts)))
        cut = np.minimum(sizes, cap).sum()
        measures[f"{name}tokens_per_sentence"] = sizes.mean()
        measures[f"{name}over_cap"] = (sizes > cap).mean()
        measures[f"{name}brevity"] = float(np.exp(1 - sizes.sum() / cut))
    pairs = zip(short, rows, strict=True)
    measures["restored"] = np.mean([shortener.decode(s) == ids for s, ids in pairs])
    return pd.Series(measures)


def _candidates(tokenizer: Any, ids: np.ndarray, length: int) -> pd.DataFrame:
    """Count what prefixes of a length would save: columns `prefix`, `following`, `saved`."""
    table = tokenizer.token_bytes
    starts = np.isin(np.arange(len(table)), list(_starts_inside(table)))
    at = np.flatnonzero(tokenizer.opens[ids[: max(0, len(ids) - length)]])
    for n in range(1, length + 1):
        at = at[starts[ids[at + n]]]
    windows, counts = np.unique(
        ids[at[:, None] + np.arange(length + 1)], axis=0, return_counts=True
    )
    rows = [
        (tuple(window[:-1]), window[-1], count * length)
        for window, count in zip(windows.tolist(), counts.tolist(), strict=True)
        if _opens_one_character(b"".join(table[i] for i in window[:-1]))
    ]
    return pd.DataFrame(rows, columns=["prefix", "following", "saved"])


def _starts_inside(table: Sequence[bytes | None]) -> dict[int, int]:
    """Return the tokens that begin inside a character, with how many of its bytes they begin."""
    leading = {i: len(t) - len(t.lstrip(_CONTINUATION)) for i, t in enumerate(table) if t}
    return {i: n for i, n in leading.items() if n}


def _check_prefix(ids: Prefix, table: Sequence[bytes | None]) -> None:
    pieces = [table[i] if 0 <= i < len(table) else None for i in ids]
    if not pieces or None in pieces or not _opens_one_character(b"".join(pieces)):
        raise ValueError(
            f"{ids} is no prefix of this tokenizer: its tokens must be the first bytes of one "
            f"character, and not all of them; they are {pieces}"
        )


def _opens_one_character(text: bytes) -> bool:
    """Say whether `text` is the beginning of one character of UTF-8, and not all of it."""
    missing = missing_bytes(text)
    return missing > 0 and any(_is_character(text + bytes([b]) * missing) for b in (0x80, 0xBF))


def _is_character(text: bytes) -> bool:
    try:
        return len(text.decode()) == 1
    except UnicodeDecodeError:
        return False
