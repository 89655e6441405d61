"""Runs."""

from mlq_utils.experiments.runs import (
    SHIPPED,
    STORE,
    Spec,
    default_store,
    run,
    scores,
    spec_of,
)

__all__ = [
    "SHIPPED",
    "STORE",
    "Spec",
    "default_store",
    "run",
    "scores",
    "spec_of",
]
