"""The SentencePiece model that spBLEU of CLDR phrases is counted with: the mini world's flores101.

    python -m mlq_utils.scoring.spm                 # trains it anew, over the packaged file

As sacrebleu's flores101 it is multilingual, made of equal parts of all languages, and belongs to no
model that is scored, so that scores of different base models compare and no language is counted in
bytes. The settings are SentencePiece's defaults (unigram) with 16,000 pieces that cover all
characters. Its digits are not split, and that matters. With a piece a digit, as LLaMA's tokenizer
cuts them, copying an English phrase with its dates and amounts scores about 30; so counted it
scores about 3, as copies of real text do.
"""

import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import sentencepiece

from mlq_utils import languages
from mlq_utils.corpora import cldr
from mlq_utils.data import PACKAGE_DATA
from mlq_utils.tokenization.tokenizer import Tokenizer, load

MODEL = PACKAGE_DATA / "cldr_spm.model"
PHRASES = 1000
"""Phrases of the train split for each language that CLDR covers."""
SEED = 1
PIECES = 16_000


def cldr_spm() -> Tokenizer:
    """Return the packaged model."""
    return _load(MODEL)


@cache
def _load(path: Path) -> Tokenizer:
    return load(path)


def train() -> bytes:
    """Train the model; the same CLDR data and SentencePiece give the same bytes."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_phrases(),
        model_writer=model,
        vocab_size=PIECES,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def _phrases() -> Iterator[str]:
    for code in languages.codes("cldr"):
        yield from cldr.pairs(code, "train", PHRASES, SEED)["target"]


if __name__ == "__main__":
    MODEL.write_bytes(train())
