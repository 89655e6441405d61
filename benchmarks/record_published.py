"""Write what others published as data of the package, from their own files.

    MLQ_DATA=folder python -m benchmarks.record_published

The data folder must hold `llamax/<system>/{spBLEU,comet}.csv`, the experiment results of LLaMAX
(github.com/CONE-MT/LLaMAX at commit 0eeec0be, MIT licence), and the tables of
`fairness/`, the assets of tokenization-fairness (github.com/AleksandarPetrov/tokenization-fairness
at commit 365c3f85, MIT licence). Only figures are taken over.
"""

from pathlib import Path

import pandas as pd

from mlq_utils import languages
from mlq_utils.data import PACKAGE_DATA, data_folder

FOLDER = PACKAGE_DATA / "published"
METRICS = ("spBLEU", "comet")
PIVOTS = ("en", "zh", "ja")
"""The paper translates from English. Two systems were scored with Chinese or Japanese only."""
COUNTS = {"tokens": "lengths", "unknown": "unknown_fraction"}
"""The measures of the tokenizers, and the names of their files."""


def scores(folder: Path) -> pd.DataFrame:
    """Return the scores of all systems in a folder, a column per language of the paper.

    Raises:
        ValueError: A file has no scores for a language.
    """
    systems = sorted(path.name for path in folder.iterdir() if path.is_dir())
    rows = [_scores(folder, system, metric) for system in systems for metric in METRICS]
    return pd.concat(rows, ignore_index=True)


def _scores(folder: Path, system: str, metric: str) -> pd.DataFrame:
    path = folder / system / f"{metric}.csv"
    # As text, so that the figures stay as they were printed.
    table = pd.read_csv(path, dtype=str, keep_default_na=False).rename(columns=str.strip)
    if absent := [code for code in languages.codes() if code not in table]:
        raise ValueError(f"{path} has no scores for {', '.join(absent)}; get the file anew")
    kept = [f"{code}-x" for code in PIVOTS] + [f"x-{code}" for code in PIVOTS]
    table = table[table["direct"].isin(kept)].rename(columns={"direct": "direction"})
    table = table.assign(system=system, metric=metric).replace("/", "")
    return table[["system", "metric", "direction", *languages.codes()]]


def counts(folder: Path) -> pd.DataFrame:
    """Return how many tokens each tokenizer needs and how many it does not know, by language."""
    names = pd.read_csv(folder / "flores_language_map.csv", skipinitialspace=True)
    names = names.set_index("FLORES-200 code")["Language"]
    known = languages.table().set_index("code")["flores"].map(names)
    tables = {
        measure: pd.read_csv(folder / f"tokenization_{file}.csv", index_col="Language")
        .loc[known]
        .set_axis(known.index)
        .rename_axis(columns="tokenizer")
        .T
        for measure, file in COUNTS.items()
    }
    return pd.concat(tables, names=["measure"]).reset_index()


def main() -> None:
    """Write both files."""
    source = data_folder()
    for name, frame in (
        ("llamax", scores(source / "llamax")),
        ("fairness", counts(source / "fairness")),
    ):
        path = FOLDER / f"{name}.csv"
        frame.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    main()
