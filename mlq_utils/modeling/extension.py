"""Vocabulary extension (section 4.3, Table 6): new pieces in a SentencePiece BPE tokenizer.

    pieces = learn("sp", sentences, 600, base.tokenizer)
    bigger = extend(base, pieces, start="subwords", ranked=True)

The score of a piece decides when BPE merges it. The paper's code gives every new piece the score 0,
above all original merges, so that other text, even English, is split differently from before. Here
`ranked` can put new pieces below, and `start` chooses how their embeddings are initialised.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.trainers import BpeTrainer

from mlq_utils import corpora, tokenization
from mlq_utils.data import one_of

if TYPE_CHECKING:
    from mlq_utils.modeling.loading import Model

METHODS = ("bbpe", "bpe", "sp")
"""How pieces are learned: by SentencePiece BPE with byte fallback, as LLaMA has; by BPE on words;
or by SentencePiece's unigram model."""
STARTS = ("random", "mean", "subwords")
"""Initial value of a new embedding: noise, the mean of all embeddings, or the mean of those of the
tokens that the piece was split into before."""


@dataclasses.dataclass(frozen=True)
class Extension:
    """How a vocabulary is extended.

    Attributes:
        method: How pieces are learned, one of `METHODS`.
        pieces: Number of new pieces.
        start: Initial value of new embeddings, one of `STARTS`. Defaults to "subwords".
        ranked: Whether new pieces rank below the original merges, instead of above as in the
            paper's code. Defaults to True.
        text: Text to learn from, as `corpora.monolingual` names it. The paper uses mC4 and the dev
            set of FLORES. Defaults to "cldr".
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
        one_of("source of text", self.text, ("mc4", *corpora.TEXTS))
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
        The pieces, in which a space is "▁" as in SentencePiece.

    Raises:
        ValueError: Unknown method, or the text does not have as many new pieces.
    """
    one_of("method", method, METHODS)
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
    base: "Model", pieces: Sequence[str], start: str, ranked: bool, seed: int = 0
) -> "Model":
    """Return a model with new pieces in its tokenizer, and a row for each in embeddings and head.

    Args:
        base: A model with a SentencePiece BPE tokenizer. Its weights are resized in place.
        pieces: New pieces, the most useful first.
        start: Initial value of new embeddings, one of `STARTS`.
        ranked: Whether new pieces rank below the original merges.
        seed: Random seed for the noise. Defaults to 0.

    Raises:
        ValueError: Unknown start, a piece that exists already, or another kind of tokenizer.
    """
    import torch  # here, so that `Extension`, which specifications hold, loads without it

    one_of("start", start, STARTS)
    old = base.tokenizer
    proto = sentencepiece_model_pb2.ModelProto()
    if not isinstance(old.backend, sentencepiece.SentencePieceProcessor):
        raise ValueError(f"{base.name} has no SentencePiece tokenizer, which alone can be extended")
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
    new = tokenization.wrap(backend, f"{old.name}, {len(pieces)} more pieces")
    base.model.resize_token_embeddings(len(new), mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    subwords = old.encode([piece.replace("▁", " ").strip() or " " for piece in pieces])
    for layer in (base.model.get_input_embeddings(), base.model.get_output_embeddings()):
        weights = layer.weight.data
        rows = weights[: len(old)]
        if start == "random":
            noise = torch.randn(len(pieces), rows.shape[1], generator=generator)
            weights[len(old) :] = noise * base.model.config.initializer_range
        elif start == "mean":
            weights[len(old) :] = rows.mean(dim=0)
        else:
            for row, ids in enumerate(subwords, len(old)):
                weights[row] = rows[ids].mean(dim=0)
    return dataclasses.replace(base, tokenizer=new)
