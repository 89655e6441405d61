"""Parallel and monolingual text."""

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
    "evaluation_keys",
    "find",
    "load",
    "monolingual",
    "sentence_keys",
    "training_pairs",
]
