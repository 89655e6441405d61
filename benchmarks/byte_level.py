"""Extend the vocabulary of a byte-level base, and measure what each way brings.

    python -m benchmarks.byte_level --workers 2     # pretrains the base if it is missing

The base is a twin of the packaged one: the same text, seed and shape, with a byte-level tokenizer,
as LLaMA-3 and Qwen have it. It is kept in `_build/byte_level` and takes half an hour of one core,
and the runs as long again. For Khmer and Telugu, `PIECES` merges are learned from text. Embeddings
of new pieces start in four ways, and all weights or the new rows alone are tuned. Each run also
reads English text and English tasks.
"""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import tyro

from mlq_utils import corpora, experiments, modeling
from mlq_utils.data import PACKAGE_DATA, atomic_write
from mlq_utils.experiments import Spec
from mlq_utils.experiments.spec import TASKS
from mlq_utils.experiments.store import Store
from mlq_utils.modeling import Extension, extension

BASE = Path("_build/byte_level")
TABLE = PACKAGE_DATA / "recorded/byte_level.csv"
LANGUAGES = ("km", "te")
PIECES = 200
SEEDS = (0, 1, 2)
ROWS_RATE = 0.03
"""Learning rate for the new rows alone: ten times that of all embeddings, since at that rate they
learned nothing in a first look."""


def base() -> str:
    """Return the folder of the base, which is pretrained if it is missing."""
    from mlq_utils.modeling import pretraining  # late, since readers of the table need no torch

    if not (BASE / "pretraining.json").exists():
        pretraining.pretrain(BASE, 0, pretraining.RECIPE | {"byte_level": True})
    return str(BASE)


def specs(language: str) -> list[Spec]:
    """Return the runs of one language: untuned, and with each seed each way to extend."""
    common = {"targets": (language,), "test_size": 100, "base": base(), "panel": ("en", TASKS)}
    untuned = Spec(**common)
    tuned = Spec((language,), strategy="full", size=1600, **common)
    ways = [tuned]
    ways += [replace(tuned, extension=_extension(start)) for start in extension.STARTS]
    ways += [
        replace(tuned, strategy="rows", learning_rate=ROWS_RATE, extension=_extension(start))
        for start in ("subwords", "focus")
    ]
    return [untuned, *(replace(way, seed=seed) for way in ways for seed in SEEDS)]


def _extension(start: str) -> Extension:
    return Extension("bbpe", PIECES, start)


def reached(language: str) -> pd.Series:
    """Return what new pieces do to test sentences: `tokens`, `english_tokens` and `used`.

    See `extension.reached`. Tokens are relative to those before.
    """
    from mlq_utils.experiments import runner  # late, as above

    spec = Spec((language,), extension=_extension("mean"), base=base())
    model = modeling.load(spec.base)
    before = model.tokenizer
    after = runner.extended(spec, model).tokenizer
    sentences = corpora.load("cldr", language, "test", size=200)
    changed = extension.reached(before, after, sentences["target"])
    english = extension.reached(before, after, sentences["source"])
    return pd.Series(
        {
            "tokens": changed["tokens"],
            "english_tokens": english["tokens"],
            "used": changed["used"],
        }
    )


def measure(language: str, store: Store, workers: int = 1) -> pd.DataFrame:
    """Return one row per run: how it was made, its score, and what English lost.

    Its columns are `language`, `strategy`, `start` ("" without new pieces), `seed`, `spbleu` with
    its interval, the change of bits per character by tuning of English text (`english`) and of
    answers to English tasks (`tasks`), and the columns of `reached`.
    """
    untuned, *records = experiments.run_all(specs(language), store, workers=workers)
    rows = experiments.scores(records)
    rows = rows[["target", "strategy", "start", "seed", "spbleu", "spbleu_low", "spbleu_high"]]
    rows = rows.rename(columns={"target": "language"}).fillna({"start": ""})
    read = [
        experiments.losses(untuned, record)
        .query("measure == 'bits_per_char'")
        .set_index("language")["change"]
        for record in records
    ]
    rows["english"], rows["tasks"] = zip(*((one["en"], one[TASKS]) for one in read), strict=True)
    for name, value in reached(language).items():
        rows[name] = value
        rows.loc[rows["start"] == "", name] = None
    return rows


def main(*, workers: int = 1) -> None:
    """Make the runs that are missing, and write the table.

    Args:
        workers: Number of processes, with one thread each. Defaults to 1.
    """
    store = Store(experiments.STORE)
    table = pd.concat([measure(language, store, workers) for language in LANGUAGES])
    with atomic_write(TABLE) as path:
        table.round(4).to_csv(path, index=False, lineterminator="\n")
    print(table.groupby(["language", "strategy", "start"], sort=False).mean(numeric_only=True))


if __name__ == "__main__":
    tyro.cli(main)
