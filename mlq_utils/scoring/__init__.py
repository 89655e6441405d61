"""Scores of translations, the kinds of errors in them, and how sure a number is.

`spbleu` and `chrf` are sacrebleu's and carry its signature; `errors` tells source copies,
repetitions and other languages apart; `intervals` has bootstrap intervals of means and rank
correlations. Nothing here needs a model.
"""

from mlq_utils.scoring import intervals
from mlq_utils.scoring.error_types import KINDS, errors, summary
from mlq_utils.scoring.metrics import (
    Score,
    check_flores101,
    chrf,
    cldr_spm,
    fetch_flores101,
    flores101_path,
    spbleu,
)

__all__ = [
    "KINDS", "Score", "check_flores101", "chrf", "cldr_spm", "errors", "fetch_flores101",
    "flores101_path", "intervals", "spbleu", "summary",
]  # fmt: skip
