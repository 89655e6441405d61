"""How long sentences are, in tokens and in bytes, before any of them is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from mlq_utils import corpora, modeling, tokenization
from mlq_utils.experiments.spec import Spec
from mlq_utils.modeling import prompts
from mlq_utils.tokenization import tokenizer as tokenizers

PHRASES = 40
"""Phrases of a language that are measured, of cldr."""


@dataclass(frozen=True)
class Lengths:
    """Means of sentences by language, in tokens and in bytes, and of an English character."""

    tokens: Mapping[str, float]
    bytes: Mapping[str, float]
    per_char: float

    def prompt(self, code: str) -> float:
        """Return the tokens of the prompt to translate into a language, with BOS."""
        text = prompts.translation(code if code != "en" else "ro", "")
        return 1 + len(text) * self.per_char + self.tokens["en"]

    def pair(self, code: str) -> float:
        """Return the tokens of an example, with BOS and EOS."""
        return self.prompt(code) + self.tokens[code] + 1


def lengths(spec: Spec) -> Lengths:
    """Return how long a run's sentences are taken to be."""
    local = spec.base == "mini" or Path(spec.base).is_dir()
    if not local or spec.test[0] != "cldr" or spec.corpus != ("cldr",):
        return recorded()
    words = _words(spec.base)
    rows = {code: _phrases(spec.base, code) for code in {"en", *spec.languages, *spec.targets}}
    template = prompts.translation("ro", "")
    return Lengths(
        {code: tokens for code, (tokens, _) in rows.items()},
        {code: size for code, (_, size) in rows.items()},
        len(words.encode([template])[0]) / len(template),
    )


@cache
def recorded() -> Lengths:
    """Return those of LLaMA's tokenizer on FLORES-200."""
    frame = tokenization.recorded("fertility").query("tokenizer == 'llama'").set_index("language")
    tokens = frame["tokens_per_sentence"]
    sizes = tokens / frame["tokens_per_byte"]
    return Lengths(dict(tokens), dict(sizes), frame.loc["en", "tokens_per_char"])


@cache
def _words(base: str) -> tokenizers.Tokenizer:
    folder = modeling.MINI if base == "mini" else Path(base)
    if about := modeling.saved_as(folder):
        return _words(about["base"])
    return tokenizers.load(folder)


@cache
def _phrases(base: str, code: str) -> tuple[float, float]:
    """Return the mean tokens and bytes of a language's phrases."""
    text = corpora.load("cldr", code, "test", size=PHRASES)["target"].tolist()
    ids = _words(base).encode(text)
    return float(np.mean([len(row) for row in ids])), float(
        np.mean([len(line.encode()) for line in text])
    )
