"""The paper's claims, and what the evidence says of each of them.

`claims.yaml` in the package data states every claim, how it is measured and the rule that draws a
verdict from the numbers. `evidence` measures, on the paper's own tables, on a record of LLaMA's
tokenizer and on recorded runs of the mini world. `ledger` brings the two together: `table()`
returns one row per claim and kind of evidence.
"""

from mlq_utils.claims.ledger import (
    CLAIMS_FILE,
    EVIDENCE,
    VERDICTS,
    Claim,
    Test,
    numbers,
    read,
    report,
    table,
    verdict,
)

__all__ = [
    "CLAIMS_FILE",
    "EVIDENCE",
    "VERDICTS",
    "Claim",
    "Test",
    "numbers",
    "read",
    "report",
    "table",
    "verdict",
]
