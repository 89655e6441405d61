"""Claims."""

from mlq_utils.claims.ledger import (
    EVIDENCE,
    VERDICTS,
    table,
)

__all__ = [
    "EVIDENCE",
    "VERDICTS",
    "table",
]
