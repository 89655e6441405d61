"""The paper's claims, and what the evidence says of each of them.

`claims.yaml` in the package data states every claim, how it is measured and the rules that draw a
verdict from the numbers. `frames` holds the data that is measured: the paper's own tables, a record
of LLaMA's tokenizer and the recorded runs of the mini world. `evidence` measures and `ledger`
judges. `table()` returns one row per claim and kind of evidence.
Evidence about LLaMA and other real models is one strand, and evidence from the toy another.
"""

from mlq_utils.claims.frames import extensions
from mlq_utils.claims.ledger import EVIDENCE, STRANDS, VERDICTS, Claim, Test, read, report, table

__all__ = [
    "EVIDENCE", "STRANDS", "VERDICTS", "Claim", "Test", "extensions", "read", "report", "table",
]  # fmt: skip
