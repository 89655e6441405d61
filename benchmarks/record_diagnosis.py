"""Diagnose the packaged base in all languages of CLDR, and write the package's record.

    python -m benchmarks.record_diagnosis

It also measures how well quadrants are predicted from a diagnosis. Only languages can be held out,
since there is no other base whose languages have quadrants.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mlq_utils import quadrants
from mlq_utils.experiments import diagnosis
from mlq_utils.experiments.diagnosis import FEATURES, RECORDED
from mlq_utils.scoring import intervals

LANGUAGE = ("indo_european", "latin")
METHODS = {
    "class frequencies": [()],
    "family and script": [LANGUAGE],
    "pretraining, family and script": [("pretraining", *LANGUAGE)],
    **{name: [(name,)] for name in FEATURES},
    "all four": [FEATURES],
    "family, script and tokens": [(*LANGUAGE, "tokens")],
    "family, script and all four": [(*LANGUAGE, *FEATURES)],
}
"""The predictions that are compared, by what each knows."""
FORMAT = {"index": False, "float_format": "%.4g", "lineterminator": "\n"}


def methods(kinds: Mapping[str, Sequence[Sequence[str]]] = METHODS) -> pd.DataFrame:
    """Return how well quadrants are predicted, each language by models that have not seen it.

    Args:
        kinds: What each prediction knows; "tokens" must be among them. Defaults to `METHODS`.

    Returns:
        One row per prediction: `method`, `log_loss` (in nats; lower is better) with its 95%
        interval over languages `low` and `high`, `accuracy`, `n`, the log loss `less_tokens` (less
        that of counting tokens) with its interval, and for single features `rho`, the rank
        correlation with the score after tuning, with its interval.
    """
    known = diagnosis.examples().reset_index()
    found = quadrants.held_out(known, kinds).query("held_out == 'language'").copy()
    found["loss"] = [-np.log(row[row["quadrant"]]) for _, row in found.iterrows()]
    loss = found.pivot(index="language", columns="method", values="loss")
    table = quadrants.evaluate(found).drop(columns=["held_out", "calibration_error"])
    parts = {
        "less_tokens": {m: intervals.mean(loss[m] - loss["tokens"]) for m in kinds},
        "rho": {
            m: intervals.rank_correlation(known[m], known["after"]) for m in FEATURES if m in kinds
        },
    }
    for name, rows in parts.items():
        part = pd.DataFrame(rows).T.iloc[:, :3]
        table = table.join(
            part.set_axis([name, f"{name}_low", f"{name}_high"], axis=1), on="method"
        )
    return table


def main() -> None:
    """Measure, and write both files."""
    frame = diagnosis.diagnose()  # its probabilities are learned from the former record
    measured = frame.drop(columns=list(quadrants.QUADRANTS), errors="ignore")
    measured.to_csv(RECORDED / "diagnosis.csv", **FORMAT)
    diagnosis.examples.cache_clear()
    methods().to_csv(RECORDED / "diagnosis_methods.csv", **FORMAT)


if __name__ == "__main__":
    main()
