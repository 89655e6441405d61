"""Diagnose mini bases in all languages of CLDR, and write the package's record.

    python -m benchmarks.record_diagnosis --workers 2

The bases are the packaged one, whose languages have the quadrants of the studies, and the first two
of `benchmarks.calibration`, whose text has a tenth of the named languages. On each of these every
language is tuned on with one seed, which takes half an hour of one core. It also measures how well
quadrants are predicted from a diagnosis, by models that know neither the base nor the language.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import tyro

from benchmarks import calibration
from mlq_utils import experiments, paper, quadrants, tokenization
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
    """Return how well quadrants are predicted, by models that do not know the language.

    Args:
        kinds: What each prediction knows; "tokens" must be among them. Defaults to `METHODS`.

    Returns:
        One row per base, kind of test and prediction: `base`, `held_out` ("language", where other
        languages of the base are known, or "base and language"), `method`, `log_loss` (in nats;
        lower is better) with its 95% interval over languages `low` and `high`, `accuracy`, `n`, the
        log loss `less_tokens` (less that of counting tokens) with its interval, and for single
        features `rho`, the rank correlation with the score after tuning, with its interval.
    """
    known = diagnosis.examples().reset_index()
    apart = [known["language"] != code for code in known["language"]]
    beyond = [known["base"] != base for base in known["base"]]
    tests = {
        "language": apart,
        "base and language": [one & other for one, other in zip(apart, beyond, strict=True)],
    }
    tables = []
    for name, seen in tests.items():
        splits = [(np.flatnonzero(rows), np.array([place])) for place, rows in enumerate(seen)]
        found = quadrants.held_out(known, kinds, splits).query("held_out == 'language'").copy()
        chances = [kind for kind in quadrants.QUADRANTS if kind in found]
        found[chances] = _floored(found[chances])
        found["loss"] = [-np.log(row[row["quadrant"]]) for _, row in found.iterrows()]
        for base, rows in found.groupby("base", sort=False):
            tables.append(_measured(rows, known[known["base"] == base], kinds))
            tables[-1].insert(0, "base", base)
            tables[-1]["held_out"] = name
    return pd.concat(tables, ignore_index=True)


def _measured(found: pd.DataFrame, own: pd.DataFrame, kinds: Collection[str]) -> pd.DataFrame:
    """Return the rows of `methods` for one base."""
    loss = found.pivot(index="language", columns="method", values="loss")
    table = quadrants.evaluate(found).drop(columns="calibration_error")
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
    return table


def published() -> pd.DataFrame:
    """Return how far what is known of untuned LLaMA models goes with their scores after tuning.

    Scores are those of Table 9 and of LLaMAX, en→x on FLORES-101, before and after tuning on
    Alpaca; tokens are relative to English, on FLORES-200.

    Returns:
        One row per model and feature ("tokens", "translation"): `model`, `feature`, the rank
        correlation `rho` over languages with its 95% interval `low`, `high`, and `n`.
    """
    scores = paper.published_scores().pivot(index="language", columns="system", values="score")
    first = paper.table(9).set_index("target")
    sides = {"LLaMA-7B": (first["llama"], first["alpaca"])}
    for name in ("LLaMA2-7B", "LLaMA2-13B", "LLaMA3-8B"):
        sides[name] = scores[name], scores[f"{name}-Alpaca"]
    rows = []
    for name, (before, after) in sides.items():
        tokens = _premium("llama-3" if name == "LLaMA3-8B" else "llama")
        for feature, values in {"tokens": tokens[after.index], "translation": before}.items():
            row = intervals.rank_correlation(values, after)
            rows.append({"model": name, "feature": feature, **row})
    return pd.DataFrame(rows)


def transferred() -> pd.DataFrame:
    """Return how well the toy's bases predict the quadrants that the paper prints (Table 2).

    Returns:
        One row per prediction, as `quadrants.evaluate` gives them: `method`, `log_loss` with its
        interval, `accuracy` and `n`. "all four alike" takes each quadrant for as likely.
    """
    frame = paper.table(9).rename(columns={"target": "language", "llama": "spbleu"})
    frame["premium"] = _premium("llama")[frame["language"]].to_numpy()
    there = diagnosis.features(frame.assign(bits_premium=np.nan, alignment=np.nan))
    printed = paper.table(2).query("dataset != 'Summary'")
    printed = printed[printed["language"].isin(there.index)]
    kinds = {name: METHODS[name][0] for name in ("family and script", "family, script and tokens")}
    kinds["family, script, tokens and score"] = (*LANGUAGE, "tokens", "translation")
    found = [printed.assign(method="all four alike")]
    for name, columns in kinds.items():
        chances = diagnosis.probabilities(there, columns)
        found.append(printed.assign(method=name).join(chances, on="language"))
    kinds = list(quadrants.QUADRANTS)
    every = pd.concat(found).reindex(columns=[*found[0], *kinds]).assign(held_out="base")
    every[kinds] = _floored(every[kinds].fillna(0))
    return quadrants.evaluate(every).drop(columns=["held_out", "calibration_error"])


def _floored(chances: pd.DataFrame) -> pd.DataFrame:
    """Return probabilities of which all quadrants share `UNSEEN` equally."""
    chances = chances * (1 - UNSEEN) + UNSEEN / chances.shape[1]
    return chances.div(chances.sum(axis=1), axis=0)


def _premium(tokenizer: str) -> pd.Series:
    """Return the tokens of each language's FLORES relative to English."""
    words = tokenization.recorded("fertility").query("tokenizer == @tokenizer")
    tokens = words.set_index("language")["tokens_per_sentence"]
    return tokens / tokens["en"]


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
