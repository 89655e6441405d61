"""Parallel and monolingual text."""

from mlq_utils.corpora.by_language import english_centric_tokenizer, texts
from mlq_utils.corpora.loading import (
    CORPORA,
    NAMES,
    TEXTS,
    TRAINING,
    cache_folder,
    draw,
    evaluation_keys,
    find,
    load,
    monolingual,
    sentence_keys,
    training_pairs,
)

__all__ = [
    "CORPORA",
    "NAMES",
    "TEXTS",
    "TRAINING",
    "cache_folder",
    "draw",
    "english_centric_tokenizer",
    "evaluation_keys",
    "find",
    "load",
    "monolingual",
    "sentence_keys",
    "texts",
    "training_pairs",
]
