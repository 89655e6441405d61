"""What predicts a language's quadrant before it is tuned on: a small model, cross-validated.

    examples = published()                       # Table 2, with LLaMA's tokenizer on FLORES-200
    cross_validate(examples, PREDICTORS["all"])  # probabilities for languages held out

The model is a logistic regression. It sees a language once for each dataset that the paper sorted
it on, and is tested on languages that it has not seen.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from mlq_utils import languages, paper, tokenization

PREDICTORS: Mapping[str, tuple[str, ...]] = {
    "none (class frequencies)": (),
    "named in pretraining": ("pretraining",),
    "family": ("indo_european",),
    "script": ("latin",),
    "fertility": ("relative_length", "byte_token_share"),
    "overlap with English": ("of_language_weighted",),
    "without a tokenizer": ("pretraining", "indo_european", "latin"),
    "all": (
        "pretraining",
        "indo_european",
        "latin",
        "relative_length",
        "byte_token_share",
        "of_language_weighted",
    ),
}
"""What the model is given, by name; each a column of `features` or a set of them."""


def features(fertility: pd.DataFrame) -> pd.DataFrame:
    """Return what is known of languages before any tuning.

    Args:
        fertility: A row a language, English among them, as `tokenization.analyse` gives it for
            texts that say the same in every language.

    Returns:
        A frame indexed by language, English left out: `pretraining` (named in LLaMA's Wikipedia
        text), `indo_european`, `latin` (script), all 0 or 1; `relative_length` (log2 of tokens a
        sentence over English's), `byte_token_share`, `of_language_weighted` (share of running
        tokens that English uses too).

    Raises:
        ValueError: English is missing, or a language is unknown.
    """
    measured = fertility.set_index("language")
    if "en" not in measured.index:
        raise ValueError("English is missing: lengths are relative to it")
    known = languages.table().set_index("code").loc[languages.check(measured.index)]
    length = measured["tokens_per_sentence"] / measured.loc["en", "tokens_per_sentence"]
    frame = pd.DataFrame(
        {
            "pretraining": known["pretraining"].astype(float),
            "indo_european": (known["family_1"] == "Indo-European").astype(float),
            "latin": (known["script"] == "Latn").astype(float),
            "relative_length": np.log2(length),
            "byte_token_share": measured["byte_token_share"],
            "of_language_weighted": measured["of_language_weighted"],
        }
    )
    return frame.drop(index="en")


def llama() -> pd.DataFrame:
    """Return the features of all 101 languages with LLaMA's tokenizer on the FLORES-200 devtest."""
    record = tokenization.recorded("fertility")
    return features(record[record["tokenizer"] == "llama"])


def published() -> pd.DataFrame:
    """Return Table 2 as examples: a row a language and dataset, its summary left out.

    Returns:
        Columns `language`, `dataset`, `quadrant` and those of `features`.
    """
    rows = paper.table(2).query("dataset != 'Summary'")
    return rows.merge(llama(), left_on="language", right_index=True).reset_index(drop=True)


def fit(examples: pd.DataFrame, columns: Sequence[str]) -> Pipeline:
    """Fit the model.

    Args:
        examples: Columns `quadrant` and `columns`.
        columns: What the model is given; none: it learns how frequent the quadrants are.
    """
    model = LogisticRegression(max_iter=1000) if columns else DummyClassifier()
    return make_pipeline(StandardScaler(), model).fit(
        _inputs(examples, columns), examples["quadrant"]
    )


def probabilities(
    model: Pipeline, frame: pd.DataFrame, columns: Sequence[str], quadrants: Sequence[str]
) -> pd.DataFrame:
    """Return the probability of each quadrant, a column each (0 where the model met none of it)."""
    found = pd.DataFrame(
        model.predict_proba(_inputs(frame, columns)), index=frame.index, columns=model.classes_
    )
    return found.reindex(columns=list(quadrants), fill_value=0.0)


def cross_validate(
    examples: pd.DataFrame, columns: Sequence[str], folds: int = 10, seed: int = 0
) -> pd.DataFrame:
    """Predict each language by a model that has not seen it.

    Args:
        examples: As `published` returns them.
        columns: What the model is given.
        folds: Parts that the languages are divided into.
        seed: Of the division.

    Returns:
        `examples` with a column a quadrant that occurs (its probability) and `predicted` (the
        likeliest).
    """
    names = sorted(examples["quadrant"].unique())
    split = GroupKFold(folds, shuffle=True, random_state=seed)
    parts = []
    for known, unseen in split.split(examples, groups=examples["language"]):
        model = fit(examples.iloc[known], columns)
        parts.append(probabilities(model, examples.iloc[unseen], columns, names))
    found = pd.concat(parts).loc[examples.index]
    return examples.join(found).assign(predicted=found.idxmax(axis=1))


def compare(
    examples: pd.DataFrame,
    predictors: Mapping[str, Sequence[str]] = PREDICTORS,
    *,
    samples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare what the model is given, by how well it predicts languages that it has not seen.

    Args:
        examples: As `published` returns them.
        predictors: Columns by name.
        samples: Bootstrap samples, drawn by language.
        seed: Of division and draws.

    Returns:
        A row a set of columns, best last: `right` (share of examples whose quadrant is the
        likeliest one) with a 95% interval `low`, `high`, and `log_loss` (mean of minus the log of
        the probability of the right quadrant, in nats; lower is better).
    """
    rng = np.random.default_rng(seed)
    codes = examples["language"].unique()
    drawn = rng.integers(len(codes), size=(samples, len(codes)))
    rows = {}
    for name, columns in predictors.items():
        found = cross_validate(examples, columns, seed=seed)
        right = found["predicted"] == found["quadrant"]
        given = [row[row["quadrant"]] for _, row in found.iterrows()]
        groups = right.groupby(found["language"]).agg(["sum", "size"]).loc[codes].to_numpy()
        shares = groups[drawn].sum(axis=1)
        low, high = np.quantile(shares[:, 0] / shares[:, 1], [0.025, 0.975])
        rows[name] = {
            "right": right.mean(),
            "low": low,
            "high": high,
            "log_loss": -np.log(np.clip(given, 1e-6, 1)).mean(),
        }
    return pd.DataFrame(rows).T.sort_values("log_loss", ascending=False)


def _inputs(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Return the columns as an array; one of zeros where there are none, which tells nothing."""
    return frame[list(columns)].to_numpy(float) if columns else np.zeros((len(frame), 1))
