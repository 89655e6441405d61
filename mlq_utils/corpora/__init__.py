"""The room of parallel and monolingual text.

`load` reads every corpus and `training_pairs` draws pairs to tune on. `monolingual` gives text in
one language, `texts` in all languages, and `alpaca` gives instructions. `cldr` composes the
embedded corpus, and `inventory` tells which corpora there are and how much of them is here.
"""

from mlq_utils.corpora.loading import draw, evaluation_keys, load, sentence_keys, training_pairs
from mlq_utils.corpora.readers import MARGIN, lines
from mlq_utils.corpora.releases import CORPORA, NAMES, TRAINING, Corpus, find
from mlq_utils.corpora.texts import (
    TEXTS,
    alpaca,
    english_centric_tokenizer,
    mc4_files,
    monolingual,
    texts,
)

__all__ = [
    "CORPORA",
    "MARGIN",
    "NAMES",
    "TEXTS",
    "TRAINING",
    "Corpus",
    "alpaca",
    "draw",
    "english_centric_tokenizer",
    "evaluation_keys",
    "find",
    "lines",
    "load",
    "mc4_files",
    "monolingual",
    "sentence_keys",
    "texts",
    "training_pairs",
]
