"""Recorded measurements of six tokenizers on the FLORES-200 devtest.

The package ships them with checksums of what was measured, so that the book shows real numbers on
a machine that has neither the tokenizers nor the corpus. `python -m benchmarks.record_tokenizers`
measures again and writes the record.
"""

import json

import pandas as pd

from mlq_utils import paper
from mlq_utils.data import PACKAGE_DATA, one_of, sha256

FOLDER = PACKAGE_DATA / "recorded"


def recorded(name: str) -> pd.DataFrame:
    """Return a recorded measurement, with its provenance in `attrs`.

    Args:
        name: `fertility`, one row per tokenizer and language with the columns of `analyse`; or
            `shortening`, the result of `gains` for LLaMA.

    Raises:
        ValueError: The name is unknown, or the file has been edited.
    """
    path = FOLDER / f"{one_of('measurement', name, ('fertility', 'shortening'))}.csv"
    provenance = _provenance()
    if sha256(path) != provenance["files"][path.name]:
        raise ValueError(f"{path.name} is not the file that was recorded; reinstall mlq_utils")
    frame = pd.read_csv(path, keep_default_na=False)
    frame.attrs = provenance
    return frame


def checksums() -> str:
    """Return one line with the date of the record and the checksums of tokenizers and corpus."""
    made = _provenance()
    corpus = made["corpus"]
    parts = [f"{name} sha256 {t['sha256'][:12]}…" for name, t in made["tokenizers"].items()]
    parts.append(f"{corpus['name']} {corpus['split']} {corpus['sha256_of_sha256s'][:12]}…")
    return f"{made['date']}: {', '.join(parts)}"


def ratios(fertility: pd.DataFrame) -> pd.DataFrame:
    """Compare the Ratio that the paper prints (Tables 5 and 13) with what was measured.

    Args:
        fertility: The measurement of that name.

    Returns:
        One row per language of either table, sorted by measured ratio: `Table 13` and `Table 5`
        (missing if not printed), `measured` (tokens per word), `per character`, `difference`
        (measured minus Table 13) and `rounds to it` (whether it rounds to the digit in Table 13).
    """
    llama = fertility[fertility["tokenizer"] == "llama"].set_index("language")
    printed = {f"Table {n}": paper.table(n).groupby("target")["ratio"].first() for n in (13, 5)}
    frame = pd.DataFrame(printed)
    frame["measured"] = llama["tokens_per_word"]
    frame["per character"] = llama["tokens_per_char"]
    frame["difference"] = frame["measured"] - frame["Table 13"]
    rounds = frame["measured"].round(1) == frame["Table 13"]
    frame["rounds to it"] = rounds.where(frame["Table 13"].notna())
    return frame.sort_values("measured")


def _provenance() -> dict:
    return json.loads((FOLDER / "provenance.json").read_text(encoding="utf8"))
