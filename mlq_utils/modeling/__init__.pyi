from .bases import MINI, digest
from .beam import Output
from .distributed import hardware, placement
from .exporting import check_adapter, export, export_adapter
from .extension import METHODS, STARTS, Extension, extend, learn, reached
from .loading import Model, configuration, load
from .precision import choose_precision, for_translation
from .pretraining_text import Mix, pretraining_languages, shares, trace_languages
from .prompts import alpaca, english_tasks, mixture
from .reading import read
from .strategies import PAPER_CAP, STRATEGIES, Schedule, decoder_layers, prepare, trainable
from .training import Result, fine_tune
from .translation import beam_search, context_length, scaled_cap, translate

__all__ = [
    "METHODS", "MINI", "PAPER_CAP", "STARTS", "STRATEGIES", "Extension", "Mix", "Model", "Output",
    "Result", "Schedule", "alpaca", "beam_search", "check_adapter", "choose_precision",
    "configuration", "context_length", "decoder_layers", "digest", "english_tasks", "export",
    "export_adapter", "extend", "fine_tune", "for_translation", "hardware", "learn", "load",
    "mixture", "placement", "prepare", "pretraining_languages", "reached", "read", "scaled_cap",
    "shares", "trace_languages", "trainable", "translate",
]  # fmt: skip
