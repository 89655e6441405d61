"""How long sentences are, in tokens and in bytes, before any of them is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from mlq_utils import corpora, modeling, tokenization
from mlq_utils.experiments.spec import Spec
from mlq_utils.modeling import prompts

PHRASES = 40
"""Number of CLDR phrases of a language that are measured."""


@dataclass(frozen=True)
class Lengths:
    """Mean lengths of sentences.

    Attributes:
        tokens: Tokens per sentence, by language.
        bytes: Bytes per sentence, by language.
        per_char: Tokens per character of English.
    """

    tokens: Mapping[str, float]
    bytes: Mapping[str, float]
    per_char: float

    def prompt(self, code: str) -> float:
        """Return the tokens of a prompt to translate into a language, including BOS."""
        text = prompts.translation(code if code != "en" else "ro", "")
        return 1 + len(text) * self.per_char + self.tokens["en"]

    def pair(self, code: str) -> float:
        """Return the tokens of a training example, including BOS and EOS."""
        return self.prompt(code) + self.tokens[code] + 1


def lengths(spec: Spec) -> Lengths:
    """Return the lengths of a run's sentences.

    CLDR phrases are measured with the base's own tokenizer if the base is on this machine. For all
    other text the lengths are those of `recorded`.
    """
    local = spec.base == "mini" or Path(spec.base).is_dir()
    if not local or spec.test[0] != "cldr" or spec.corpus != ("cldr",):
        return recorded()
    codes = {"en", *spec.languages, *spec.targets}
    tokens, sizes = ({code: _phrases(spec.base, code)[n] for code in codes} for n in (0, 1))
    template = prompts.translation("ro", "")
    per_char = len(_tokenizer(spec.base).encode([template])[0]) / len(template)
    return Lengths(tokens, sizes, per_char)


@cache
def recorded() -> Lengths:
    """Return the recorded lengths of FLORES-200 in the tokens of LLaMA's tokenizer."""
    frame = tokenization.recorded("fertility").query("tokenizer == 'llama'").set_index("language")
    tokens = frame["tokens_per_sentence"]
    sizes = tokens / frame["tokens_per_byte"]
    return Lengths(dict(tokens), dict(sizes), frame.loc["en", "tokens_per_char"])


@cache
def _tokenizer(base: str) -> tokenization.Tokenizer:
    folder = modeling.MINI if base == "mini" else Path(base)
    about = modeling.saved_as(folder)
    return _tokenizer(about["base"]) if about else tokenization.load(folder)


@cache
def _phrases(base: str, code: str) -> tuple[float, float]:
    """Return the mean tokens and bytes of a language's phrases."""
    text = corpora.load("cldr", code, "test", size=PHRASES)["target"].tolist()
    ids = _tokenizer(base).encode(text)
    return float(np.mean(list(map(len, ids)))), float(np.mean([len(s.encode()) for s in text]))
