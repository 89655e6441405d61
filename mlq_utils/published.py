"""Scores that others published, carried over as figures."""

from collections.abc import Sequence

import pandas as pd

from mlq_utils import paper
from mlq_utils.data import PACKAGE_DATA, one_of


def llamax(models: Sequence[str] | None = None) -> pd.DataFrame:
    """Return en→x spBLEU on FLORES-101 of LLaMA-2 and LLaMA-3, untuned and Alpaca-tuned.

    From the LLaMAX project's published experiment results (CONE-MT/LLaMAX, MIT licence), where
    they are printed with two decimals; the models were tuned and scored by its authors.

    Args:
        models: Some of `LLaMA2-7B`, `LLaMA2-13B`, `LLaMA3-8B`; all where None.

    Returns:
        A row a model, tuning and target: `model`, `tuning` (`none`, `Alpaca`), `target`, `spbleu`
        (0 to 100), and `label` (the model, with " + Alpaca" where it is tuned).

    Raises:
        ValueError: Unknown model.
    """
    scores = pd.read_csv(PACKAGE_DATA / "published" / "llamax_en_x.csv", keep_default_na=False)
    for model in models or []:
        one_of("model", model, scores["model"].unique())
    if models is not None:
        scores = scores[scores["model"].isin(models)]
    return _labelled(scores)


def llama() -> pd.DataFrame:
    """Return the paper's scores of LLaMA-7B, untuned and Alpaca-tuned (Table 9), as `llamax` does.

    Returns:
        The columns of `llamax`; printed with one decimal.
    """
    table = paper.table(9).melt("target", ["llama", "alpaca"], "tuning", "spbleu")
    table["tuning"] = table["tuning"].map({"llama": "none", "alpaca": "Alpaca"})
    return _labelled(table.assign(model="LLaMA-7B"))


def harness() -> pd.DataFrame:
    """Return LLaMA-7B's zero-shot accuracies, language by language, on four tasks of Table 16.

    From the results that lm-evaluation-harness published in 2023 (EleutherAI, MIT licence,
    `results/llama/llama-7B`, there at commit 8085723); there are none for MGSM. XNLI was scored on
    its test set then.

    Returns:
        A row a task and language: `task` (as `nlu.TASKS`), `language`, `score` (percent).
    """
    return pd.read_csv(PACKAGE_DATA / "published" / "harness_llama_7b.csv", keep_default_na=False)


def _labelled(scores: pd.DataFrame) -> pd.DataFrame:
    label = scores["model"] + scores["tuning"].map({"none": "", "Alpaca": " + Alpaca"})
    return scores.assign(label=label)[["model", "tuning", "target", "spbleu", "label"]]
