"""Small bases that are each trained without one ingredient of the mini base's text.

    python -m benchmarks.ablations         # pretrains missing bases, scores all, writes the table

The variants are pretrained for `STEPS` steps, fewer than half of the steps of the packaged base.
That base, and one trained like it from another seed, are scored too. Each base is scored untuned,
after Embed FT on Romanian, which is in the pretraining text, and after Embed FT on Vietnamese and
on Afrikaans, which are not, with one tuning seed. Bases are kept in `_build/ablations` and take a
quarter of an hour of one core each. The scores are written into the package.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import tyro

from mlq_utils import experiments
from mlq_utils.data import PACKAGE_DATA, atomic_write, one_of
from mlq_utils.experiments import Spec
from mlq_utils.experiments.executors import run_all
from mlq_utils.experiments.store import Store
from mlq_utils.modeling import pretraining
from mlq_utils.modeling.pretraining_text import Mix, pretraining_languages

STEPS = 1000
BASES = Path("_build/ablations")
TABLE = PACKAGE_DATA / "ablations.csv"
VARIANTS = {
    "everything": Mix(),
    "no English tasks": Mix(tasks=0),
    "tasks without arguments": Mix(arguments=False),
    "one phrasing": Mix(phrasings=1),
    "no traces": Mix(traces=0),
}
"""Text of each small base. All have the seed 0."""
FULL = {"packaged base": 0, "second base": 1}
"""Seeds of the bases that are trained for all steps."""
NAMES = (*FULL, *VARIANTS)
"""All bases, in the order of the table."""


def load() -> pd.DataFrame:
    """Return the recorded scores.

    Returns:
        One row per base, language tuned on and target: `base`, `steps` (of pretraining), `seed` (of
        the base), `tuned_on` ("" for the untuned model), `target`, `spbleu` with `spbleu_low` and
        `spbleu_high`, and numbers of sentences: `sentences`, `source_copy`, `off_target`, and
        `as_tuned_on`, which counts translations that are the same text as the translation into the
        language tuned on.
    """
    return pd.read_csv(TABLE, keep_default_na=False)


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of each base before and after tuning.

    Args:
        scores: The result of `load`.

    Returns:
        One row per base. `untuned` is the mean spBLEU over the 19 languages, and `copies` is the
        share (0 to 1) of source copies among the untuned model's translations. After Embed FT on
        Romanian, `ro` is the spBLEU of Romanian, `others` is the mean of the other 18, and
        `in_romanian` is the share (0 to 1) of the translations into these that are the same text as
        the translation into Romanian. `vi` and `af` are the spBLEU of a language after Embed FT on
        it, and `vi_others` and `af_others` are the means of the 19.
    """
    inside = pretraining_languages()
    rows = {}
    for name, rest in scores.groupby("base", sort=False):
        by = {code: frame.set_index("target") for code, frame in rest.groupby("tuned_on")}
        untuned = by[""].loc[inside]
        row = {
            "untuned": untuned["spbleu"].mean(),
            "copies": untuned["source_copy"].sum() / untuned["sentences"].sum(),
        }
        for code in ("ro", "vi", "af"):
            others = [c for c in inside if c != code]
            row[code] = by[code]["spbleu"][code]
            row["others" if code == "ro" else f"{code}_others"] = by[code]["spbleu"][others].mean()
            if code == "ro":
                counts = by[code].loc[others, ["as_tuned_on", "sentences"]].sum()
                row["in_romanian"] = counts["as_tuned_on"] / counts["sentences"]
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("base")


def base(name: str) -> tuple[str, int, int]:
    """Return the name or folder, steps and seed of a base, which is pretrained if it is missing."""
    one_of("base", name, NAMES)
    if name == "packaged base":
        return "mini", pretraining.RECIPE["steps"], 0
    seed = FULL.get(name, 0)
    recipe = pretraining.RECIPE
    if name in VARIANTS:
        recipe = recipe | {"mix": asdict(VARIANTS[name]), "steps": STEPS}
    folder = BASES / name.replace(" ", "-")
    if not (folder / "pretraining.json").exists():
        pretraining.pretrain(folder, seed, recipe)
    return str(folder), recipe["steps"], seed


def score(name: str, store: Store, workers: int = 1) -> pd.DataFrame:
    """Return the scores of a base, with the columns of `load`."""
    path, steps, seed = base(name)
    inside = tuple(pretraining_languages())
    specs = [
        Spec(targets=(*inside, "vi", "af"), base=path),
        Spec(languages=("ro",), targets=inside, base=path),
        Spec(languages=("vi",), targets=(*inside, "vi"), base=path),
        Spec(languages=("af",), targets=(*inside, "af"), base=path),
    ]
    records = run_all(specs, store, workers=workers)
    rows = experiments.scores(records)
    rows["as_tuned_on"] = [n for record in records for n in _as_tuned_on(store, record)]
    kept = ["tuned_on", "target", "spbleu", "spbleu_low", "spbleu_high"]
    kept += ["sentences", "source_copy", "off_target", "as_tuned_on"]
    return rows[kept].assign(base=name, steps=steps, seed=seed)


def _as_tuned_on(store: Store, record: dict[str, Any]) -> list[int]:
    """Count, for each target, hypotheses that are the same as in the language tuned on."""
    texts = store.hypotheses(record["identity"]).drop_duplicates(["target_language", "source"])
    wide = texts.pivot(index="source", columns="target_language", values="hypothesis")
    targets, tuned_on = record["spec"]["targets"], record["spec"]["languages"]
    if not tuned_on:
        return [0] * len(targets)
    return [int((wide[target] == wide[tuned_on[0]]).sum()) for target in targets]


def main(names: tuple[Literal[*NAMES], ...] = (), /, *, workers: int = 1) -> None:
    """Pretrain and score the bases, and write the table after each.

    Args:
        names: Bases. Defaults to all.
        workers: Number of processes, with one thread each.
    """
    for name in names or NAMES:
        rows = score(name, Store(experiments.STORE), workers)
        if TABLE.exists():
            known = load()
            rows = pd.concat([known[known["base"] != name], rows])
        rows = rows.sort_values("base", key=lambda b: b.map(NAMES.index), kind="stable")
        columns = ["base", "steps", "seed"]
        with atomic_write(TABLE) as path:
            rows[columns + [c for c in rows if c not in columns]].to_csv(path, index=False)


if __name__ == "__main__":
    tyro.cli(main)
