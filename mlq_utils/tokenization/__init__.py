"""Tokenizers and what they do to a language."""

from mlq_utils.tokenization.fertility import (
    PrefixShortener,
    Tokenizer,
    analyse,
    load,
    train,
)

__all__ = [
    "PrefixShortener",
    "Tokenizer",
    "analyse",
    "load",
    "train",
]
