"""Vocabulary extension (section 4.3, Table 6): new pieces in a BPE tokenizer.

    pieces = learn("sp", sentences, 600, base.tokenizer)
    bigger = extend(base, pieces, start="subwords", ranked=True)

The score of a piece decides when BPE merges it. The paper's code gives every new piece the score 0,
above all original merges, so that other text, even English, is split differently from before. Here
`ranked` can put new pieces below, and `start` chooses how their embeddings are initialised.

LLaMA has a SentencePiece tokenizer. LLaMA-3, Qwen and most models since have byte-level BPE, whose
new pieces are merges of tokens that it has. They come after all others, so that text in which no
two of these tokens meet is split as before.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Metaspace, WhitespaceSplit
from tokenizers.trainers import BpeTrainer

from mlq_utils import corpora, tokenization
from mlq_utils.data import one_of

if TYPE_CHECKING:
    from mlq_utils.modeling.loading import Model

METHODS = ("bbpe", "bpe", "sp")
"""How pieces are learned: by BPE with byte fallback, as LLaMA has, or over bytes, as a byte-level
tokenizer has; by BPE on words; or by SentencePiece's unigram model."""
STARTS = ("random", "mean", "subwords", "focus")
"""Initial value of a new embedding: noise; the mean of all embeddings; the mean of those of the
tokens that the piece was split into before; or a mean of those that occur among like tokens (FOCUS,
Dobler and de Melo 2023)."""
PRIVATE = 0xF0000
"""The first of 131,068 characters without a meaning of their own, which stand for tokens."""
WINDOW, WIDTH = 5, 64
"""How far apart tokens count as neighbours, and the number of dimensions that tell them apart."""


@dataclasses.dataclass(frozen=True)
class Extension:
    """How a vocabulary is extended.

    Attributes:
        method: How pieces are learned, one of `METHODS`.
        pieces: Number of new pieces.
        start: Initial value of new embeddings, one of `STARTS`. Defaults to "subwords".
        ranked: Whether new pieces rank below the original merges, instead of above as in the
            paper's code. Defaults to True.
        text: Text to learn from: a name or a file, as `corpora.monolingual` takes it. The paper
            uses mC4 and the dev set of FLORES. Defaults to "cldr".
    """

    method: str
    pieces: int
    start: str = "subwords"
    ranked: bool = True
    text: str = "cldr"

    def __post_init__(self) -> None:
        """Refuse an unknown method or start, and an extension by nothing."""
        one_of("method", self.method, METHODS)
        one_of("start", self.start, STARTS)
        if not Path(self.text).is_file():
            one_of("file or source of text", self.text, ("mc4", *corpora.TEXTS))
        if self.pieces < 1:
            raise ValueError(f"pieces must be 1 or more, not {self.pieces}")


def learn(
    method: str, sentences: Sequence[str], pieces: int, tokenizer: tokenization.Tokenizer
) -> list[str]:
    """Learn pieces that a tokenizer does not have, the most useful first.

    Args:
        method: One of `METHODS`.
        sentences: Text to learn from, as `corpora.monolingual` returns it.
        pieces: Number of pieces.
        tokenizer: The tokenizer to extend.

    Returns:
        The pieces, in which a space is "▁" as in SentencePiece. For a byte-level tokenizer each is
        a merge, whose two parts have a space between them.

    Raises:
        ValueError: Unknown method, or the text does not have as many new pieces.
    """
    one_of("method", method, METHODS)
    if isinstance(tokenizer.backend, tokenizers.Tokenizer):
        return _merges(method, sentences, pieces, tokenizer)
    known = {tokenizer.backend.id_to_piece(i) for i in range(len(tokenizer))}
    wanted = pieces + 100
    while True:
        found = _learned(method, sentences, wanted)
        # A single character is not a merge, and digits should be split as before.
        new = [
            piece
            for piece in found
            if piece not in known and len(piece.strip("▁")) > 1 and not any(map(str.isdigit, piece))
        ]
        if len(new) >= pieces:
            return new[:pieces]
        if len(found) < wanted:
            raise ValueError(
                f"the text has {len(new)} new pieces by {method}, and {pieces} are asked for: "
                "give more text or ask for fewer"
            )
        wanted *= 2


def reached(
    before: tokenization.Tokenizer, after: tokenization.Tokenizer, sentences: Sequence[str]
) -> pd.Series:
    """Measure what an extension does to a text.

    BPE reaches a piece only by merging two others, so it cannot reach some pieces that a unigram
    model has learned.

    Args:
        before: The tokenizer before the extension.
        after: The extended tokenizer.
        sentences: Text in the language of the extension.

    Returns:
        `tokens` (number of tokens after, relative to before) and `used` (share of the new pieces
        that occur).
    """
    old, new = before.encode(list(sentences)), after.encode(list(sentences))
    met = {i for ids in new for i in ids if i >= len(before)}
    sizes = [sum(map(len, rows)) for rows in (old, new)]
    return pd.Series({"tokens": sizes[1] / sizes[0], "used": len(met) / (len(after) - len(before))})


def _merges(
    method: str, sentences: Sequence[str], pieces: int, tokenizer: tokenization.Tokenizer
) -> list[str]:
    """Return merges of a byte-level tokenizer's tokens, until there are so many new pieces."""
    backend = tokenizer.backend
    if method != "bbpe" or not isinstance(backend.model, BPE):
        raise ValueError(
            f"{tokenizer.name} is no SentencePiece tokenizer: learn byte-level merges, bbpe"
        )
    if backend.normalizer:
        sentences = map(backend.normalizer.normalize_str, sentences)
    words = [word for s in sentences for word, _ in backend.pre_tokenizer.pre_tokenize_str(s)]
    split = [[token.value for token in backend.model.tokenize(word)] for word in words]
    used = sorted({token for tokens in split for token in tokens})
    signs = {token: chr(PRIVATE + n) for n, token in enumerate(used)}
    learner = tokenizers.Tokenizer(BPE())
    learner.pre_tokenizer = WhitespaceSplit()
    # Some merges make a token that there is already, and give no new piece.
    trainer = BpeTrainer(vocab_size=len(used) + 2 * pieces + 100, show_progress=False)
    learner.train_from_iterator(("".join(map(signs.get, tokens)) for tokens in split), trainer)
    known, found = set(backend.get_vocab()), []
    for pair in json.loads(learner.to_str())["model"]["merges"]:
        parts = ["".join(used[ord(sign) - PRIVATE] for sign in part) for part in pair]
        found.append(" ".join(parts))
        known.add("".join(parts))
        if len(known) == backend.get_vocab_size() + pieces:
            return found
    raise ValueError(
        f"the text has {len(known) - backend.get_vocab_size()} new pieces, and {pieces} are asked "
        "for: give more text or ask for fewer"
    )


def _learned(method: str, sentences: Sequence[str], size: int) -> list[str]:
    """Return at most `size` pieces of several characters, the most useful first."""
    if method == "bpe":
        learner = tokenizers.Tokenizer(BPE())
        learner.pre_tokenizer = Metaspace()
        # In scripts without spaces a repeated paragraph would become one piece, which
        # SentencePiece refuses. No phrase of CLDR is as long as this limit.
        trainer = BpeTrainer(vocab_size=size + 2000, show_progress=False, max_token_length=256)
        learner.train_from_iterator(sentences, trainer)
        ranks = learner.get_vocab()
        return [p for p in sorted(ranks, key=ranks.__getitem__) if len(p) > 1][:size]
    options = {}
    if method == "sp":
        options = {"model_type": "unigram", "byte_fallback": False, "split_digits": False}
    learned = tokenization.train(
        sentences,
        # Single characters come on top. The limit is soft: a text may have fewer pieces.
        size + len(set("".join(sentences))) + 300,
        hard_vocab_limit=False,
        max_sentence_length=2**16 - 1,  # in bytes; longer ones would be left out
        **options,
    )
    several = [
        learned.backend.id_to_piece(i)
        for i, text in enumerate(learned.token_bytes)
        if text is not None and not learned.is_byte[i]
    ]
    return [p for p in several if len(p) > 1][:size]


def extend(
    base: "Model",
    pieces: Sequence[str],
    start: str,
    ranked: bool,
    seed: int = 0,
    text: Sequence[str] = (),
) -> "Model":
    """Return a model with new pieces in its tokenizer, and a row for each in embeddings and head.

    Args:
        base: A model with a BPE tokenizer of SentencePiece or of bytes. It is resized in place.
        pieces: New pieces, the most useful first, as `learn` returns them.
        start: Initial value of new embeddings, one of `STARTS`.
        ranked: Whether new pieces rank below the original merges. Those of bytes always do.
        seed: Random seed for the noise. Defaults to 0.
        text: Text in the language, by which "focus" finds like tokens.

    Raises:
        ValueError: Unknown start, a piece that exists already, another kind of tokenizer, or no
            text for "focus".
    """
    import torch  # here, so that `Extension`, which specifications hold, loads without it

    if one_of("start", start, STARTS) == "focus" and not len(text):
        raise ValueError("the start 'focus' needs text in the language")
    old, count = base.tokenizer, len(base.tokenizer)
    if isinstance(old.backend, tokenizers.Tokenizer):
        if not ranked:
            raise ValueError("byte-level merges are appended: they cannot rank above the others")
        backend, parts = _appended(old, pieces)
    else:
        backend, parts = _inserted(base, pieces, ranked)
    new = tokenization.wrap(backend, f"{old.name}, {len(parts)} more pieces")
    rows = base.model.get_input_embeddings().num_embeddings  # some models have spare ones
    base.model.resize_token_embeddings(max(rows, len(new)), mean_resizing=False)
    shares = _like(old, new, parts, text) if start == "focus" else _means(count, parts)
    generator = torch.Generator().manual_seed(seed)
    for layer in (base.model.get_input_embeddings(), base.model.get_output_embeddings()):
        weights = layer.weight.data
        known, added = weights[:count], weights[count : len(new)]
        if start == "random":
            noise = torch.randn(added.shape, generator=generator)
            added.copy_(noise * base.model.config.initializer_range)
        elif start == "mean":
            added.copy_(known.mean(dim=0))
        else:
            added.copy_(torch.from_numpy(shares @ known.float().cpu().numpy()))
    return dataclasses.replace(base, tokenizer=new, extended_from=count)


def _inserted(
    base: "Model", pieces: Sequence[str], ranked: bool
) -> tuple[sentencepiece.SentencePieceProcessor, list[list[int]]]:
    """Return a SentencePiece tokenizer with new pieces, and the ids that made each before."""
    old = base.tokenizer
    proto = sentencepiece_model_pb2.ModelProto()
    if not isinstance(old.backend, sentencepiece.SentencePieceProcessor):
        raise ValueError(
            f"{base.name} has no tokenizer that can be extended: BPE of SentencePiece or of bytes"
        )
    proto.ParseFromString(old.backend.serialized_model_proto())
    if proto.trainer_spec.model_type != proto.trainer_spec.BPE:
        raise ValueError(f"{base.name} has a SentencePiece tokenizer that is not BPE")
    known = {piece.piece for piece in proto.pieces}
    if repeated := sorted(known.intersection(pieces)):
        raise ValueError(f"pieces that the tokenizer has already: {', '.join(repeated[:5])}")
    lowest = min(piece.score for piece in proto.pieces)
    for rank, piece in enumerate(pieces, 1):
        proto.pieces.add(piece=piece, score=lowest - rank if ranked else 0.0)
    backend = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    return backend, old.encode([piece.replace("▁", " ").strip() or " " for piece in pieces])


def _appended(
    old: tokenization.Tokenizer, merges: Sequence[str]
) -> tuple[tokenizers.Tokenizer, list[list[int]]]:
    """Return a byte-level tokenizer with more merges, and the ids that made each piece before."""
    spec = json.loads(old.backend.to_str())
    vocabulary, kept = spec["model"]["vocab"], spec["model"]["merges"]
    # With ids of their own, or they would be numbered anew behind the new pieces.
    vocabulary |= {token["content"]: token["id"] for token in spec["added_tokens"]}
    parts, together = [], kept and isinstance(kept[0], str)  # as older files have them
    for merge in merges:
        pair = merge.split(" ")
        if len(pair) != 2 or not {*pair} <= vocabulary.keys():
            raise ValueError(f"{merge!r} is no merge of two tokens of {old.name}")
        kept.append(merge if together else pair)
        if (piece := "".join(pair)) not in vocabulary:
            vocabulary[piece] = len(old) + len(parts)
            parts.append([token.id for token in old.backend.model.tokenize(piece)])
    return tokenizers.Tokenizer.from_str(json.dumps(spec)), parts


def _means(count: int, parts: Sequence[Sequence[int]]) -> scipy.sparse.csr_array:
    """Return the share of each old token in each new row: equal ones of what made it before."""
    rows = np.repeat(np.arange(len(parts)), list(map(len, parts)))
    places = rows, np.concatenate([np.array(ids, int) for ids in parts])
    shares = 1 / np.bincount(rows)[rows]
    return scipy.sparse.csr_array((shares, places), (len(parts), count))  # which adds up repeats


def _like(
    old: tokenization.Tokenizer,
    new: tokenization.Tokenizer,
    parts: Sequence[Sequence[int]],
    text: Sequence[str],
) -> scipy.sparse.csr_array:
    """Return the share of each old token in each new row by FOCUS.

    Shares are the sparsemax of the tokens' likeness. FOCUS takes that from fastText vectors. Here
    it is of the neighbours in the text, by the factors of their positive mutual information. A
    piece that does not occur there has the shares of `_means`.
    """
    from sklearn.decomposition import TruncatedSVD

    size, pairs = len(new), []
    for ids in map(np.array, new.encode(list(text))):
        for step in range(1, WINDOW + 1):
            pairs += [(ids[:-step], ids[step:]), (ids[step:], ids[:-step])]
    places = [np.concatenate(side).astype(int) for side in zip(*pairs, strict=True)]
    near = scipy.sparse.csr_array((np.ones(len(places[0])), places), (size, size)).tocoo()
    often = near.sum(axis=1)
    left, right = near.coords
    near.data = np.maximum(np.log(near.data * near.sum() / (often[left] * often[right])), 0)
    present = np.flatnonzero(often[: len(old)])
    width = min(WIDTH, len(present))
    vectors = TruncatedSVD(width, random_state=0).fit_transform(near.tocsr())
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    shares = _means(len(old), parts).tolil()
    for row in np.flatnonzero(often[len(old) :]):
        shares[row] = 0
        shares[row, present] = _sparsemax(vectors[present] @ vectors[len(old) + row])
    return shares.tocsr()


def _sparsemax(scores: np.ndarray) -> np.ndarray:
    """Return the nearest shares that add up to 1 (Martins and Astudillo 2016)."""
    falling = np.sort(scores)[::-1]
    excess = (np.cumsum(falling) - 1) / np.arange(1, len(scores) + 1)
    return np.maximum(scores - excess[falling > excess][-1], 0)
