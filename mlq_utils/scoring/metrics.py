"""spBLEU and chrF++ by sacrebleu, each with its signature and interval.

spBLEU is BLEU over SentencePiece pieces (paper, section 3.2). The SentencePiece model decides the
number, so it is never replaced silently. By default it is sacrebleu's `flores101`, which must be at
hand (see `fetch_flores101`). Any other model is named in the signature by its checksum, as in
`tok:spm-sha256-1a2b3c4d`; CLDR phrases are scored with `cldr_spm`.
"""

import hashlib
import json
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.metrics.base import Metric
from sacrebleu.tokenizers import tokenizer_spm

from mlq_utils.data import PACKAGE_DATA, fetch
from mlq_utils.tokenization.tokenizer import Tokenizer, load

FLORES101_URL = tokenizer_spm.SPM_MODELS["flores101"]["url"]


@dataclass(frozen=True)
class Score:
    """A corpus score.

    Attributes:
        score: The score, from 0 to 100.
        low: Lower bound of sacrebleu's 95% bootstrap interval, which is centred on the mean over
            resamples. With a single resample it equals the score.
        high: Upper bound of that interval.
        signature: sacrebleu's signature, which says how the score was computed.
    """

    score: float
    low: float
    high: float
    signature: str


def spbleu(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    tokenizer: Tokenizer | None = None,
    resamples: int = 1000,
) -> Score:
    """Return spBLEU.

    Args:
        hypotheses: One translation per sentence. Empty ones are allowed.
        references: One reference per sentence.
        tokenizer: A SentencePiece model that splits text into pieces. Defaults to sacrebleu's
            flores101.
        resamples: Number of bootstrap resamples for the interval, 1 for none. Defaults to 1000.

    Raises:
        ValueError: The lists are empty or differ in length, or flores101 is damaged.
        TypeError: A sentence is not a string, or the tokenizer is not a SentencePiece model.
        FileNotFoundError: The flores101 model is missing. The message says where to place it.
    """
    if tokenizer is None:
        check_flores101()
    elif not isinstance(getattr(tokenizer, "backend", None), sentencepiece.SentencePieceProcessor):
        raise TypeError(
            f"spBLEU needs a SentencePiece model, and {tokenizer!r} is not one: load it with "
            "mlq_utils.tokenization.load"
        )
    # `force` keeps sacrebleu from warning that the text looks tokenised, which pieces do.
    bleu = BLEU(tokenize="none" if tokenizer else "flores101", force=True)
    if tokenizer:
        bleu.tokenizer = _Pieces(tokenizer.backend)
        bleu.tokenizer_signature = bleu.tokenizer.signature()
    return _score(bleu, hypotheses, references, resamples)


def chrf(hypotheses: Sequence[str], references: Sequence[str], *, resamples: int = 1000) -> Score:
    """Return chrF++ (characters up to 6, words up to 2). For arguments and errors see `spbleu`."""
    return _score(CHRF(word_order=2), hypotheses, references, resamples)


@cache
def cldr_spm() -> Tokenizer:
    """Return the packaged SentencePiece model for spBLEU of CLDR phrases.

    Like flores101, it is trained on equal parts of all languages and belongs to none of the models
    that are scored. Its digits are not split. Otherwise a copy of an English phrase with its dates
    and amounts would score about 30 instead of 3, which is what a copy of real text scores.
    """
    return load(PACKAGE_DATA / "cldr_spm.model")


def flores101_path() -> Path:
    """Return where sacrebleu reads the flores101 model: `$SACREBLEU/models`, or ~/.sacrebleu."""
    return Path(tokenizer_spm.SACREBLEU_DIR, "models", Path(FLORES101_URL).name)


def fetch_flores101(sha256: str) -> Path:
    """Download the flores101 model to where sacrebleu reads it.

    Args:
        sha256: The SHA-256 digest that the file must have. Its authors publish none and sacrebleu
            checks none, so take it from a copy that you trust.
    """
    path = flores101_path()
    fetch(FLORES101_URL, path, "sacrebleu's flores101 model", f"place it at {path}", sha256)
    return path


def check_flores101() -> None:
    """Refuse a missing or damaged flores101 model. sacrebleu would download it unchecked."""
    path = flores101_path()
    if not path.is_file():
        raise FileNotFoundError(
            f"spBLEU needs sacrebleu's flores101 model at {path}. Place it there, from "
            f"{FLORES101_URL}; or call scoring.fetch_flores101; or give another SentencePiece "
            "model as `tokenizer`, which the signature then names"
        )
    try:
        sentencepiece.SentencePieceProcessor(model_file=str(path))
    except RuntimeError as error:
        raise ValueError(f"{path} is truncated or not a SentencePiece model: {error}") from error


class _Pieces(tokenizer_spm.TokenizerSPM):
    """sacrebleu's SentencePiece tokenizer with a model of our own."""

    def __init__(self, model: sentencepiece.SentencePieceProcessor) -> None:
        digest = hashlib.sha256(model.serialized_model_proto()).hexdigest()
        self.sp, self.name = model, f"spm-sha256-{digest[:8]}"


def _score(
    metric: Metric, hypotheses: Sequence[str], references: Sequence[str], resamples: int
) -> Score:
    check_texts(hypotheses=hypotheses, references=references)
    if not isinstance(resamples, numbers.Integral) or resamples < 1:
        raise ValueError(f"resamples must be a whole number of at least 1, not {resamples!r}")
    compute = metric._compute_score_from_stats

    def plain(stats: list[int]) -> Any:
        score = compute(stats)
        score.score = float(score.score)
        return score

    # sacrebleu cannot take the mean of resamples of which some score floats and some float32.
    metric._compute_score_from_stats = plain
    found = metric.corpus_score(list(hypotheses), [list(references)], n_bootstrap=int(resamples))
    signature = str(metric.get_signature())
    # The printed form is the only public way to sacrebleu's interval.
    printed = json.loads(found.format(width=10, signature=signature, is_json=True))
    mean = float(printed.get("confidence_mean", found.score))
    half = float(printed.get("confidence_var", 0))
    return Score(found.score, mean - half, mean + half, signature)


def check_texts(**lists: Sequence[str]) -> None:
    """Refuse what is no list of strings, and lists of which sacrebleu would score only a part."""
    for kind, texts in lists.items():
        if isinstance(texts, str):
            raise TypeError(f"give a list of {kind}, not one string")
        if not len(texts):
            raise ValueError(f"the list of {kind} is empty")
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"number {number} of the {kind} is not a string: {text!r}")
    if len({len(texts) for texts in lists.values()}) > 1:
        counts = ", ".join(f"{len(texts)} {kind}" for kind, texts in lists.items())
        raise ValueError(f"numbers differ: {counts}")
