"""Which text makes a mini base most like LLaMA-7B.

    python -m benchmarks.calibration        # pretrains missing bases, scores all, writes the table

`calibration.yaml` in the package data states the facts, the rule and the recipes. Each base is
scored untuned, after Embed FT on English tasks and after Embed FT on Romanian. Bases are kept in
`_build/calibration` and take half an hour of one core each. The table is written after each.
"""

from dataclasses import asdict
from pathlib import Path

import pandas as pd
import tyro
import yaml

from mlq_utils import experiments, languages
from mlq_utils.data import PACKAGE_DATA, atomic_write, one_of
from mlq_utils.experiments import Spec
from mlq_utils.experiments.executors import run_all
from mlq_utils.experiments.store import Store
from mlq_utils.modeling import MINI, shares
from mlq_utils.modeling.pretraining_text import Mix, pretraining_languages

SETTINGS = yaml.safe_load((PACKAGE_DATA / "calibration.yaml").read_text("utf8"))
FACTS: dict[str, dict[str, str]] = SETTINGS["facts"]
RECIPES: dict[str, dict] = SETTINGS["recipes"]
"""The fields of `Mix` by the name of the recipe, from the least change to the most, and the number
of `steps` where it is another than that of the packaged base."""
PACKAGED = "packaged base"
"""The former base, which is scored as well and is not to be chosen."""
BASES = Path("_build/calibration")
TABLE = PACKAGE_DATA / "calibration.csv"
SEEDS = (0, 1, 2)


def base(name: str) -> Path:
    """Return the folder of a recipe's base, which is pretrained if it is missing."""
    from mlq_utils.modeling import pretraining  # late, since readers of the table need no torch

    if name == PACKAGED:
        return MINI
    mix = dict(RECIPES[one_of("recipe", name, RECIPES)])
    steps = mix.pop("steps", pretraining.RECIPE["steps"])
    recipe = pretraining.RECIPE | {"mix": asdict(Mix(**mix)), "steps": steps}
    folder = BASES / name.replace(",", "").replace(" ", "-")
    if not (folder / "pretraining.json").exists():
        pretraining.pretrain(folder, 0, recipe)
    return folder


def measure(folder: Path, store: Store, workers: int = 1) -> dict[str, float]:
    """Return what the facts are about, by the names that their rules use.

    Args:
        folder: Folder of a base.
        store: Where the records of runs are kept.
        workers: See `run_all`.
    """
    path, named = str(folder), pretraining_languages()
    targets = tuple(c for c in languages.codes("cldr") if c != "en")
    specs = [Spec(targets=targets, base=path)]
    specs += [Spec(("en",), targets, seed=seed, base=path) for seed in SEEDS]
    specs += [Spec(("ro",), ("af", "ro"), seed=seed, base=path) for seed in SEEDS]
    scores = experiments.scores(run_all(specs, store, workers=workers))
    means = scores.pivot_table(index="target", columns="tuned_on", values="spbleu")
    untuned = scores[scores["tuned_on"] == ""].set_index("target").loc[named]
    after, before = means["en"], means[""]
    risen = after - before > after.max() / 8
    text = shares(folder)
    return {
        "named_share": text.query("group == 'pretraining'")["tokens"].sum(),
        "copies": untuned["source_copy"].sum() / untuned["sentences"].sum(),
        "untuned": before[named].mean(),
        "english_after": after[named].mean(),
        "english_named": risen[named].mean(),
        "english_unnamed": risen.drop(named).mean(),
        "afrikaans": (means["ro"]["af"] - before["af"]) / means["ro"]["ro"],
        "romanian": means["ro"]["ro"],
    }


def met(measured: pd.DataFrame) -> pd.DataFrame:
    """Return which facts each base shares with LLaMA, given the rows of `measure`."""
    return pd.DataFrame({name: measured.eval(fact["holds"]) for name, fact in FACTS.items()})


def chosen(measured: pd.DataFrame) -> str:
    """Return the recipe with the most facts, the first of several."""
    return str(met(measured).drop(index=PACKAGED, errors="ignore").sum(axis=1).idxmax())


def main(names: tuple[str, ...] = (), /, *, workers: int = 1) -> None:
    """Pretrain and score the bases, and write the table after each.

    Args:
        names: Recipes, or `PACKAGED`. Defaults to all.
        workers: Number of processes that score, with one thread each.
    """
    order = [PACKAGED, *RECIPES]
    for name in names or order:
        row = pd.DataFrame(measure(base(name), Store(experiments.STORE), workers), index=[name])
        if TABLE.exists():
            known = pd.read_csv(TABLE, index_col="recipe")
            row = pd.concat([known.drop(index=name, errors="ignore"), row])
        row = row.loc[[recipe for recipe in order if recipe in row.index]]
        with atomic_write(TABLE) as path:
            row.round(4).to_csv(path, index_label="recipe")
        print(row.join(met(row).add_suffix(" (fact)")).T.to_string(), flush=True)


if __name__ == "__main__":
    tyro.cli(main)
