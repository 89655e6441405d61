"""Scores that others published, carried over as figures."""

import pandas as pd

from mlq_utils._common import PACKAGE_DATA


def llamax() -> pd.DataFrame:
    """Return en→x spBLEU on FLORES-101 of LLaMA-2 and LLaMA-3, untuned and Alpaca-tuned.

    From the LLaMAX project's published experiment results (CONE-MT/LLaMAX, MIT licence), where
    they are printed with two decimals; the models were tuned and scored by its authors.

    Returns:
        A row a model, tuning and target: `model` (`LLaMA2-7B`, `LLaMA2-13B`, `LLaMA3-8B`),
        `tuning` (`none`, `Alpaca`), `target`, `spbleu` (0 to 100).
    """
    return pd.read_csv(PACKAGE_DATA / "published" / "llamax_en_x.csv", keep_default_na=False)
