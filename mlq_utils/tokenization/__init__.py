"""Tokenizers and how well they serve each language.

This room loads any SentencePiece, Hugging Face or tiktoken tokenizer behind one interface, measures
fertility and overlap with English, shortens the byte sequences of over-tokenised languages, and
keeps what was measured of six tokenizers on FLORES-200.
"""

from mlq_utils.tokenization.analysis import analyse, fertility, overlap
from mlq_utils.tokenization.record import checksums, ratios, recorded
from mlq_utils.tokenization.shortening import OVERTOKENIZED, PREFIXES, PrefixShortener, gains
from mlq_utils.tokenization.tokenizer import Tokenizer, load, train, train_byte_level, wrap

__all__ = [
    "OVERTOKENIZED",
    "PREFIXES",
    "PrefixShortener",
    "Tokenizer",
    "analyse",
    "checksums",
    "fertility",
    "gains",
    "load",
    "overlap",
    "ratios",
    "recorded",
    "train",
    "train_byte_level",
    "wrap",
]
