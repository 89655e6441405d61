"""Scores."""

from mlq_utils.scoring.metrics import (
    check_flores101,
    chrf,
    spbleu,
)

__all__ = [
    "check_flores101",
    "chrf",
    "spbleu",
]
