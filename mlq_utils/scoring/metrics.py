"""Scores by sacrebleu, each with its signature and interval: spBLEU and chrF++, and comparisons.

spBLEU is BLEU over SentencePiece pieces (the metric of the paper, section 3.2). Which
pieces decides the number, so the model is never swapped silently: without `tokenizer` it is
sacrebleu's `flores101`, which must be at hand (`fetch_flores101`); with one it is that model, and
the signature names it by its checksum, as `tok:spm-sha256-1a2b3c4d`.

The kinds of errors are in `mlq_utils.scoring.error_types`, and to be had from here too.
"""

import hashlib
import json
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pooch
import requests
import sentencepiece
from sacrebleu import significance
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.metrics.base import Metric
from sacrebleu.tokenizers import tokenizer_spm
from sacrebleu.tokenizers.tokenizer_base import BaseTokenizer

from mlq_utils.scoring.error_types import (
    KINDS,
    errors,
    off_target,
    oscillation,
    source_copy,
    summary,
)
from mlq_utils.tokenization.tokenizer import Tokenizer

__all__ = [
    "KINDS",
    "RESAMPLES",
    "Score",
    "chrf",
    "compare",
    "errors",
    "fetch_flores101",
    "flores101_path",
    "off_target",
    "oscillation",
    "source_copy",
    "spbleu",
    "summary",
]

RESAMPLES = 1000
"""Bootstrap resamples, sacrebleu's default."""


@dataclass(frozen=True)
class Score:
    """A corpus score.

    Attributes:
        score: 0 to 100.
        low, high: Bounds of sacrebleu's 95% bootstrap interval: the mean over resamples of the
            sentences, plus and minus half the width of the middle 95% of them. Equal to the score
            where a single resample was asked for.
        signature: sacrebleu's, which says how it was computed.
        sentences: How many were scored.
        empty: How many hypotheses were empty; they count as sentences, with nothing right.
    """

    score: float
    low: float
    high: float
    signature: str
    sentences: int
    empty: int


class _Pieces(BaseTokenizer):
    """A SentencePiece model as sacrebleu's own tokenizers of that kind apply theirs."""

    def __init__(self, model: sentencepiece.SentencePieceProcessor) -> None:
        self.model = model
        self.name = f"spm-sha256-{hashlib.sha256(model.serialized_model_proto()).hexdigest()[:8]}"

    def signature(self) -> str:
        return self.name

    def __call__(self, line: str) -> str:
        return " ".join(self.model.encode(line, out_type=str))


def spbleu(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    tokenizer: Tokenizer | None = None,
    resamples: int = RESAMPLES,
) -> Score:
    """Return spBLEU.

    Args:
        hypotheses: One translation a sentence; empty ones are allowed, and counted.
        references: As many.
        tokenizer: A SentencePiece model to split into pieces with; None for sacrebleu's flores101.
        resamples: Bootstrap resamples for the interval; 1 for none.

    Raises:
        ValueError: Different numbers of hypotheses and references, or none; a damaged flores101.
        TypeError: A sentence is no string, or the tokenizer no SentencePiece model.
        FileNotFoundError: The flores101 model is not at hand; the message says where it belongs.
    """
    return _score(_bleu(tokenizer), hypotheses, references, resamples)


def chrf(
    hypotheses: Sequence[str], references: Sequence[str], *, resamples: int = RESAMPLES
) -> Score:
    """Return chrF++ (characters up to 6, words up to 2); arguments and errors as `spbleu`."""
    return _score(_plain(CHRF(word_order=2)), hypotheses, references, resamples)


def compare(
    systems: Mapping[str, Sequence[str]],
    references: Sequence[str],
    *,
    tokenizer: Tokenizer | None = None,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:
    """Compare systems on the same sentences by sacrebleu's paired bootstrap (Koehn 2004).

    Args:
        systems: Hypotheses by name of the system; the first one is the baseline.
        references: The sentences' references.
        tokenizer: As in `spbleu`.
        resamples: Bootstrap resamples.

    Returns:
        A row a system and metric: `system`, `metric` ("spBLEU", "chrF++"), `score`, `low` and
        `high` (as in `Score`), `difference` from the baseline, and `p_value` of its being due to
        the choice of sentences (missing for the baseline; 1 where the scores are equal, for which
        sacrebleu itself gives the smallest p value). `attrs["signatures"]` by metric.

    Raises:
        ValueError: Fewer than two systems; otherwise as `spbleu`, with the system's name.
    """
    if len(systems) < 2:
        raise ValueError(f"give two systems or more to compare, not {len(systems)}")
    for name, hypotheses in systems.items():
        _check(hypotheses, references, f"hypotheses of {name}")
    metrics = {"spBLEU": _bleu(tokenizer), "chrF++": _plain(CHRF(word_order=2))}
    signatures, frames = {}, []
    for metric, scorer in metrics.items():
        test = significance.PairedTest(
            [(name, list(hypotheses)) for name, hypotheses in systems.items()],
            {metric: scorer},
            [list(references)],
            test_type="bs",
            n_samples=resamples,
        )
        (signature,), (names, results) = (list(answer.values()) for answer in test())
        signatures[metric] = str(signature)
        rows = {
            "system": names,
            "metric": metric,
            "score": [r.score for r in results],
            "low": [r.mean - r.ci for r in results],
            "high": [r.mean + r.ci for r in results],
            "difference": [r.score - results[0].score for r in results],
            "p_value": [r.p_value for r in results],
        }
        rows = pd.DataFrame(rows).astype({"p_value": float})
        # With no difference to exceed, sacrebleu gives the least p value that there is.
        equal = (rows["difference"] == 0) & (rows.index > 0)
        frames.append(rows.assign(p_value=rows["p_value"].mask(equal, 1.0)))
    frame = pd.concat(frames, ignore_index=True)
    frame.attrs["signatures"] = signatures
    return frame


def flores101_path() -> Path:
    """Return where sacrebleu reads the flores101 model: `$SACREBLEU/models`, or ~/.sacrebleu."""
    name = tokenizer_spm.SPM_MODELS["flores101"]["url"].rsplit("/", 1)[1]
    return Path(tokenizer_spm.SACREBLEU_DIR, "models", name)


def fetch_flores101(sha256: str) -> Path:
    """Download the flores101 model to where sacrebleu reads it.

    Args:
        sha256: The digest that it must have. Its authors publish none and sacrebleu checks none:
            take it from a copy that you trust.

    Raises:
        ConnectionError: There is no network.
        ValueError: The file has another digest; nothing is kept.
    """
    url, path = tokenizer_spm.SPM_MODELS["flores101"]["url"], flores101_path()
    fetch = pooch.HTTPDownloader(timeout=10)
    try:
        pooch.retrieve(url, f"sha256:{sha256}", path.name, path.parent, downloader=fetch)
    except requests.RequestException as error:
        raise ConnectionError(f"cannot download {url} ({type(error).__name__})") from None
    return path


def _plain(metric: Metric) -> Metric:
    """Make all scores of a metric plain floats.

    Where some resamples score 0, sacrebleu's are floats and NumPy's float32 side by side, which the
    mean it takes of them refuses.
    """
    compute = metric._compute_score_from_stats

    def plain(stats: list[int]) -> Any:
        score = compute(stats)
        score.score = float(score.score)
        return score

    metric._compute_score_from_stats = plain
    return metric


def _bleu(tokenizer: Tokenizer | None) -> BLEU:
    if tokenizer is None:
        check_flores101()
        return _plain(BLEU(tokenize="flores101", force=True))
    if not isinstance(getattr(tokenizer, "backend", None), sentencepiece.SentencePieceProcessor):
        raise TypeError(
            f"spBLEU needs a SentencePiece model, and {tokenizer!r} is none: load it with "
            "mlq_utils.tokenizer.load"
        )
    bleu = _plain(
        BLEU(tokenize="none", force=True)
    )  # `force`: pieces do look tokenised, and they are
    bleu.tokenizer = _Pieces(tokenizer.backend)
    bleu.tokenizer_signature = bleu.tokenizer.signature()
    return bleu


def check_flores101() -> None:
    """Refuse what sacrebleu would do without the model: download it, unasked and unchecked.

    Raises:
        FileNotFoundError: It is not at hand; the message says where it belongs.
        ValueError: It is damaged.
    """
    path = flores101_path()
    if not path.is_file():
        raise FileNotFoundError(
            f"spBLEU needs sacrebleu's flores101 model at {path}. Place it there, from "
            f"{tokenizer_spm.SPM_MODELS['flores101']['url']}; or call fetch_flores101; or give "
            "another SentencePiece model as `tokenizer`, which the signature then names"
        )
    try:
        sentencepiece.SentencePieceProcessor(model_file=str(path))
    except RuntimeError as error:
        raise ValueError(f"{path} is truncated or no SentencePiece model: {error}") from error


def _score(
    metric: Metric, hypotheses: Sequence[str], references: Sequence[str], resamples: int
) -> Score:
    _check(hypotheses, references)
    if not isinstance(resamples, numbers.Integral) or resamples < 1:
        raise ValueError(f"resamples must be a number from 1 on, not {resamples!r}")
    found = metric.corpus_score(list(hypotheses), [list(references)], n_bootstrap=int(resamples))
    signature = str(metric.get_signature())
    # What sacrebleu prints is the only public way to its interval.
    printed = json.loads(found.format(width=10, signature=signature, is_json=True))
    mean = float(printed.get("confidence_mean", found.score))
    half = float(printed.get("confidence_var", 0))
    empty = sum(not h.strip() for h in hypotheses)
    return Score(found.score, mean - half, mean + half, signature, len(hypotheses), empty)


def _check(hypotheses: Sequence[str], references: Sequence[str], name: str = "hypotheses") -> None:
    """Refuse what sacrebleu would score all the same: it stops at the shorter list."""
    for kind, texts in ((name, hypotheses), ("references", references)):
        if isinstance(texts, str):
            raise TypeError(f"give a list of {kind}, not one string")
        if not len(texts):
            raise ValueError(f"the list of {kind} is empty")
        if (
            bad := next((i for i, t in enumerate(texts) if not isinstance(t, str)), None)
        ) is not None:
            raise TypeError(f"number {bad} of the {kind} is no string: {list(texts)[bad]!r}")
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} {name} and {len(references)} references")
