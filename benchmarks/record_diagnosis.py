"""Diagnose mini bases in all languages of CLDR, and write the package's record.

    python -m benchmarks.record_diagnosis --workers 2

The bases are the packaged one, whose languages have the quadrants of the studies, and the first two
of `benchmarks.calibration`, whose text has a tenth of the named languages. On each of these every
language is tuned on with one seed, which takes half an hour of one core. It also measures how well
quadrants are predicted from a diagnosis, by models that have seen neither the base nor the language.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import tyro

from benchmarks import calibration
from mlq_utils import experiments, quadrants
from mlq_utils.experiments import diagnosis, studies
from mlq_utils.experiments.diagnosis import FEATURES, RECORDED
from mlq_utils.experiments.store import Store
from mlq_utils.scoring import intervals

BASES = ("mini", *list(calibration.RECIPES)[:2])
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
UNSEEN = 0.01
"""What all quadrants share of the probability, so that one that no other base has is possible."""
FORMAT = {"index": False, "float_format": "%.4g", "lineterminator": "\n"}


def diagnosed(name: str, store: Store, workers: int = 1) -> pd.DataFrame:
    """Return the diagnosis of one of `BASES`, with each language's quadrant and score after tuning.

    Args:
        name: The base, which is pretrained if it is missing.
        store: Where the records of runs are kept.
        workers: See `experiments.run_all`.
    """
    base = "mini" if name == "mini" else str(calibration.base(name))
    if name == "mini":
        tuned = studies.assigned()
    else:
        untuned, runs = (
            experiments.scores(experiments.run_all(specs, store, workers=workers))
            for specs in (
                [replace(spec, base=base) for spec in studies.specs("untuned")],
                [replace(s, base=base) for s in studies.specs("by_language") if s.seed == 0],
            )
        )
        tuned = studies.assigned(untuned, runs)
    tuned = tuned.set_index("language")[["quadrant", "bilingual_post"]]
    frame = diagnosis.diagnose(base=base)  # its probabilities are learned from the former record
    frame = frame.drop(columns=list(quadrants.QUADRANTS), errors="ignore")
    frame = frame.join(tuned.rename(columns={"bilingual_post": "after"}), on="language")
    frame.insert(0, "base", name)
    return frame


def methods(kinds: Mapping[str, Sequence[Sequence[str]]] = METHODS) -> pd.DataFrame:
    """Return how well quadrants are predicted, by models that know other bases and languages.

    Args:
        kinds: What each prediction knows; "tokens" must be among them. Defaults to `METHODS`.

    Returns:
        One row per base and prediction: `base`, `method`, `log_loss` (in nats; lower is better)
        with its 95% interval over languages `low` and `high`, `accuracy`, `n`, the log loss
        `less_tokens` (less that of counting tokens) with its interval, and for single features
        `rho`, the rank correlation with the score after tuning, with its interval.
    """
    known = diagnosis.examples().reset_index()
    splits = [
        (np.flatnonzero((known["base"] != base) & (known["language"] != code)), np.array([place]))
        for place, (base, code) in enumerate(zip(known["base"], known["language"], strict=True))
    ]
    found = quadrants.held_out(known, kinds, splits).query("held_out == 'language'").copy()
    chances = [kind for kind in quadrants.QUADRANTS if kind in found]
    found[chances] = found[chances] * (1 - UNSEEN) + UNSEEN / len(chances)
    found["loss"] = [-np.log(row[row["quadrant"]]) for _, row in found.iterrows()]
    tables = []
    for base, rows in found.groupby("base", sort=False):
        loss = rows.pivot(index="language", columns="method", values="loss")
        own = known[known["base"] == base]
        table = quadrants.evaluate(rows).drop(columns=["held_out", "calibration_error"])
        table.insert(0, "base", base)
        parts = {
            "less_tokens": {m: intervals.mean(loss[m] - loss["tokens"]) for m in kinds},
            "rho": {
                m: intervals.rank_correlation(own[m], own["after"]) for m in FEATURES if m in kinds
            },
        }
        for name, values in parts.items():
            part = pd.DataFrame(values).T.iloc[:, :3]
            columns = [name, f"{name}_low", f"{name}_high"]
            table = table.join(part.set_axis(columns, axis=1), on="method")
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def main(*, workers: int = 1) -> None:
    """Measure, and write both files.

    Args:
        workers: Number of processes that make runs, with one thread each. Defaults to 1.
    """
    store = Store(experiments.STORE)
    frames = [diagnosed(name, store, workers) for name in BASES]
    pd.concat(frames).to_csv(RECORDED / "diagnosis.csv", **FORMAT)
    diagnosis.examples.cache_clear()
    methods().to_csv(RECORDED / "diagnosis_methods.csv", **FORMAT)


if __name__ == "__main__":
    tyro.cli(main)
