"""Predicts a quadrant before any tuning, and measures how good the predictions are.

The prior is a mean of logistic regressions, each of which is given one kind of knowledge of the
language. The quadrants that Table 2 prints for the language itself then turn it into a posterior.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mlq_utils import languages, paper, tokenization
from mlq_utils.quadrants.assignment import QUADRANTS

Columns = tuple[str, ...]
LANGUAGE: Columns = ("pretraining", "indo_european", "latin")
TOKENIZER: Columns = ("relative_length", "byte_token_share", "of_language_weighted")
PRIOR: Sequence[Columns] = (LANGUAGE, ("after_english",), ("after_english_four",))
"""Kinds of knowledge that there are of every language. A tokenizer that was measured is added."""
METHODS: Mapping[str, Sequence[Columns]] = {
    "class frequencies": [()],
    "named: reciprocal, else altruistic": [("pretraining",)],
    "pretraining, family and script": [LANGUAGE],
    "recommend": PRIOR,
    "recommend with LLaMA's tokenizer": [*PRIOR, TOKENIZER],
}
"""Predictions that are compared: kinds of knowledge, whose predictions are averaged."""


def features(fertility: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return what is known of languages before any tuning on them.

    Args:
        fertility: One row per language, including English, as returned by `tokenization.analyse`
            for texts of the same content. Defaults to LLaMA's tokenizer on the FLORES-200 devtest.

    Returns:
        A frame indexed by language, without English. `pretraining` (whether LLaMA's Wikipedia text
        has the language), `indo_european` and `latin` (the script) are 0 or 1. `after_english` is
        log2(1 + spBLEU) of LLaMA-7B after tuning on English tasks (Table 9), and
        `after_english_four` the mean of four LLaMA models. `relative_length` is the log2 of tokens
        per sentence relative to English, and `of_language_weighted` the share of running tokens
        that English also uses. `byte_token_share` is that of `fertility`.

    Raises:
        ValueError: English is missing, or a language is unknown.
    """
    if fertility is None:
        fertility = tokenization.recorded("fertility").query("tokenizer == 'llama'")
    measured = fertility.set_index("language")
    if "en" not in measured.index:
        raise ValueError("English is missing: lengths are measured relative to it")
    known = languages.table().set_index("code").loc[languages.check(measured.index)]
    length = measured["tokens_per_sentence"] / measured.loc["en", "tokens_per_sentence"]
    tuned = paper.open_scores(["LLaMA-7B", "LLaMA2-7B", "LLaMA2-13B", "LLaMA3-8B"])
    tuned = tuned.query("tuning == 'Alpaca'").pivot(index="target", columns="model")["spbleu"]
    tuned = np.log2(1 + tuned).reindex(known.index)
    frame = pd.DataFrame(
        {
            "pretraining": known["pretraining"].astype(float),
            "indo_european": (known["family_1"] == "Indo-European").astype(float),
            "latin": (known["script"] == "Latn").astype(float),
            "after_english": tuned["LLaMA-7B"],
            "after_english_four": tuned.mean(axis=1),
            "relative_length": np.log2(length),
            "byte_token_share": measured["byte_token_share"],
            "of_language_weighted": measured["of_language_weighted"],
        }
    )
    return frame.drop(index="en")


def examples() -> pd.DataFrame:
    """Return the quadrants of Table 2 with the columns of `features`.

    There is one row per language and dataset. The summary is left out.
    """
    rows = paper.table(2).query("dataset != 'Summary'")
    return rows.merge(features(), left_on="language", right_index=True).reset_index(drop=True)


def learned(examples: pd.DataFrame, columns: Columns, known: pd.DataFrame) -> np.ndarray:
    """Return the probabilities of `QUADRANTS` for the first row of `known`, learned of examples."""
    # Imported late because scikit-learn takes a second, and most readers of results do not need it.
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression()) if columns else DummyClassifier()
    model.fit(examples[list(columns)], examples["quadrant"])
    chances = pd.Series(model.predict_proba(known[list(columns)])[0], model.classes_)
    return chances.reindex(QUADRANTS, fill_value=1e-6).to_numpy()


def posterior(prior: np.ndarray, record: np.ndarray) -> np.ndarray:
    """Return the probabilities of `QUADRANTS` in a further dataset.

    The prior counts as a number of datasets, to which the recorded ones are added. Since some
    languages keep to what is known beforehand and others do not, several such numbers are taken as
    equally likely, and the record tells which of them fit it. None of this is fitted.

    Args:
        prior: The probabilities before the record is known.
        record: Number of the language's datasets in each quadrant.
    """
    from scipy.stats import dirichlet_multinomial

    if not record.any():
        return prior
    weights = np.array([1, 2, 3, 5, 8, 12, 20, 40])
    chances = [(weight * prior + record) / (weight + record.sum()) for weight in weights]
    fit = dirichlet_multinomial.pmf(record, weights[:, None] * prior, record.sum())
    return fit @ chances / fit.sum()


def held_out(
    examples: pd.DataFrame, methods: Mapping[str, Sequence[Columns]] = METHODS
) -> pd.DataFrame:
    """Predict each example by models that have seen no dataset of its language.

    Args:
        examples: Columns `language`, `quadrant` and those that the methods need.
        methods: Kinds of knowledge, whose predictions are averaged. Defaults to `METHODS`.

    Returns:
        One row per method, way of holding out and example: `method`, `held_out`, `language`,
        `quadrant` and the probability of each quadrant. If the `language` is held out, the
        prediction is the prior. If the `dataset` is, the language's other datasets are its record.
    """
    kinds = np.array([examples["quadrant"] == name for name in QUADRANTS], dtype=int).T
    rows = []
    for code in examples["language"].unique():
        own = (examples["language"] == code).to_numpy()
        mine, others = examples[own], kinds[own].sum(axis=0) - kinds[own]
        every = {columns for kinds_known in methods.values() for columns in kinds_known}
        found = {columns: learned(examples[~own], columns, mine) for columns in every}
        for name, known in methods.items():
            prior = np.mean([found[columns] for columns in known], axis=0)
            for right, record in zip(mine["quadrant"], others, strict=True):
                rows.append((name, "language", code, right, *prior))
                rows.append((name, "dataset", code, right, *posterior(prior, record)))
    return pd.DataFrame(rows, columns=["method", "held_out", "language", "quadrant", *QUADRANTS])


def evaluate(predictions: pd.DataFrame | None = None, *, samples: int = 2000) -> pd.DataFrame:
    """Measure how well quadrants are predicted.

    Args:
        predictions: A frame as returned by `held_out`. Defaults to that of Table 2's datasets.
        samples: Number of bootstrap samples, which are drawn by language. Defaults to 2000.

    Returns:
        One row per method and way of holding out: `method`, `held_out`, `log_loss` (mean negative
        log-probability of the right quadrant, in nats; lower is better) with a 95% interval `low`,
        `high`, `accuracy` (share of examples whose likeliest quadrant is right),
        `calibration_error` (mean distance of probability and frequency in ten equal bins of the
        probability, over all quadrants of all examples) and `n` (examples).
    """
    predictions = held_out(examples()) if predictions is None else predictions
    rows = []
    for key, group in predictions.groupby(["method", "held_out"], sort=False):
        chances = group[list(QUADRANTS)].to_numpy()
        right = group["quadrant"].to_numpy()[:, None] == np.array(QUADRANTS)
        loss = pd.Series(-np.log(chances[right])).groupby(group["language"].to_numpy())
        sums, number = loss.agg(["sum", "size"]).to_numpy(), loss.ngroups
        drawn = sums[np.random.default_rng(0).integers(number, size=(samples, number))].sum(axis=1)
        interval = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
        accuracy = (chances.argmax(axis=1) == right.argmax(axis=1)).mean()
        bins = np.minimum(chances.ravel() * 10, 9).astype(int)
        error = pd.Series((chances - right).ravel()).groupby(bins).sum().abs().sum() / chances.size
        rows.append((*key, loss.sum().sum() / len(group), *interval, accuracy, error, len(group)))
    names = ["log_loss", "low", "high", "accuracy", "calibration_error", "n"]
    return pd.DataFrame(rows, columns=["method", "held_out", *names])
