"""Predicting a language's quadrant before any tuning, and advice on how to tune.

    recommend("cy")                                          # from what is known of the language
    recommend("cy", fertility=frame)                         # and of your tokenizer
    recommend("cy", before=untuned, after=tuned)             # from a trial on your model

The predictor is a logistic regression, cross-validated on languages it has not seen. It sees a
language once for each dataset for which Table 2 gives its quadrant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mlq_utils import languages, paper, tokenization
from mlq_utils.quadrants.assignment import QUADRANTS, assign, published, stability, threshold

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

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
"""Named sets of columns of `features` that a model may be given."""
STRATEGIES = {
    "reciprocal": "Embed FT",
    "altruistic": "full FT on little data",
    "selfish": "full FT",
    "stagnant": "full FT on much data, with shortened byte sequences",
}
"""What to tune by quadrant (Section 4.4). The paper names nothing for selfish languages, which
improve by tuning as usual."""


@dataclass(frozen=True)
class Advice:
    """What to expect of a language and how to tune it.

    Attributes:
        language: The paper's code of the language.
        quadrant: The likeliest quadrant.
        probability: Probability of each quadrant.
        strategy: What the paper recommends for the likeliest quadrant (Section 4.4).
        expect: How models tuned on such languages changed in Table 12 of the paper.
        evidence: The kind of evidence (`published`, `tokenizer` or `trained`) and what it is.
    """

    language: str
    quadrant: str
    probability: Mapping[str, float]
    strategy: str
    expect: str
    evidence: str

    def __str__(self) -> str:
        """Return the advice as text for a terminal."""
        chances = ", ".join(f"{name} {share:.0%}" for name, share in self.probability.items())
        return (
            f"{languages.get(self.language).name} ({self.language}): {self.quadrant}\n"
            f"  probability   {chances}\n"
            f"  what to tune  {self.strategy}\n"
            f"  expect        {self.expect}, in LLaMA-7B\n"
            f"  evidence      {self.evidence}"
        )


def recommend(
    language: str,
    *,
    fertility: pd.DataFrame | None = None,
    before: Mapping[str, float] | None = None,
    after: Mapping[str, float] | None = None,
    threshold: float | None = None,
    standard_error: float = 0.05,
    seed: int = 0,
) -> Advice:
    """Advise how to tune a language (Section 4.4).

    With the scores of a trial, Equation 1 decides the quadrant. Without one, a model trained on
    Table 2 predicts it; `compare_predictors` shows how often that is right for unseen languages.

    Args:
        language: The paper's code of the language.
        fertility: What your tokenizer does to the language and to English, as returned by
            `tokenization.analyse` for texts of the same content.
        before: The untuned model's scores by target, for the language and at least one other.
        after: Scores of the model tuned on the language, for the same targets.
        threshold: T of Equation 1. Defaults to the mean of `before`, which needs many targets.
        standard_error: Sampling error of a score as a share of the score. Defaults to 0.05.
        seed: Random seed for drawing that error.

    Raises:
        ValueError: The language is unknown or English; a trial has one side only, its sides have
            different targets, or it lacks the language or any other target; `fertility` lacks the
            language or English.
    """
    if languages.get(language).code == "en":
        raise ValueError("English is the source language; name a language to translate into")
    if (before is None) != (after is None):
        raise ValueError("a trial needs scores before and after tuning; one of them is missing")
    if before is not None and after is not None:
        chances = _trial(language, before, after, threshold, standard_error, seed)
        evidence = f"trained: your trial, {len(before)} targets, Equation 1"
    else:
        if fertility is None:
            known, columns = llama_features(), PREDICTORS["without a tokenizer"]
            evidence = "published: Table 2, by pretraining text, family and script"
        else:
            known, columns = features(fertility), PREDICTORS["all"]
            evidence = "tokenizer: your fertility and overlap, with a model of Table 2"
        if language not in known.index:
            raise ValueError(f"`fertility` has no row for {language}: measure it and English")
        chances = probabilities(_model(columns), known.loc[[language]], columns, QUADRANTS)
        chances = chances.iloc[0].to_dict()
    likely = max(chances, key=chances.__getitem__)
    return Advice(language, likely, chances, STRATEGIES[likely], expectations()[likely], evidence)


@cache
def _model(columns: tuple[str, ...]) -> "Pipeline":
    return fit(examples(), columns)


def _trial(
    language: str,
    before: Mapping[str, float],
    after: Mapping[str, float],
    level: float | None,
    standard_error: float,
    seed: int,
) -> dict[str, float]:
    """Return the probability of each quadrant, from scores before and after tuning."""
    if set(before) != set(after):
        differ = ", ".join(sorted(set(before) ^ set(after)))
        raise ValueError(f"scores before and after tuning have different targets: {differ}")
    others = [target for target in before if target != language]
    if language not in before or not others:
        raise ValueError(f"a trial needs the scores of {language} and of at least one other target")
    row = {"language": language}
    for side, scores in (("pre", before), ("post", after)):
        row[f"bilingual_{side}"] = scores[language]
        row[f"multilingual_{side}"] = np.mean([scores[target] for target in others])
    vanilla = list(before.values()) if level is None else [level]
    drawn = stability(
        pd.DataFrame([row]), vanilla, standard_error=standard_error, rounding=0.0, seed=seed
    ).set_index("quadrant")["probability"]
    return drawn.reindex(QUADRANTS, fill_value=0.0).to_dict()


@cache
def expectations() -> dict[str, str]:
    """Return, by quadrant, how models tuned on its languages changed: medians of Table 12."""
    scores = assign(published(), threshold())
    medians = scores.groupby("quadrant").median(numeric_only=True)
    text = (
        "the language from {bilingual_pre:.1f} to {bilingual_post:.1f} spBLEU, af and ro from "
        "{multilingual_pre:.1f} to {multilingual_post:.1f} (medians of {models} models)"
    )
    models = scores["quadrant"].value_counts()
    return {q: text.format(**medians.loc[q], models=models[q]) for q in QUADRANTS}


def recommendations() -> pd.DataFrame:
    """Return `recommend` for each of the 101 languages, from the language alone.

    Returns:
        One row per language: `language` (its name), `code`, `quadrant` (the likeliest),
        `strategy`, a column per quadrant with its probability, such as `P(stagnant)`, and a column
        per dataset with the quadrant that Table 2 gives (empty if none).
    """
    advice = [recommend(code) for code in llama_features().index]
    table = pd.DataFrame(
        {
            "language": [languages.get(each.language).name for each in advice],
            "code": [each.language for each in advice],
            "quadrant": [each.quadrant for each in advice],
            "strategy": [each.strategy for each in advice],
            **{f"P({q})": [each.probability[q] for each in advice] for q in QUADRANTS},
        }
    )
    found = paper.table(2).query("dataset != 'Summary'")
    wide = found.pivot(index="language", columns="dataset", values="quadrant").fillna("")
    return table.join(wide, on="code").fillna({name: "" for name in wide})


def features(fertility: pd.DataFrame) -> pd.DataFrame:
    """Return what is known of languages before any tuning.

    Args:
        fertility: One row per language, including English, as returned by `tokenization.analyse`
            for texts of the same content.

    Returns:
        A frame indexed by language, without English: `pretraining` (named in LLaMA's Wikipedia
        text), `indo_european` and `latin` (script), each 0 or 1; `relative_length` (log2 of tokens
        per sentence relative to English), `byte_token_share`, and `of_language_weighted` (share of
        running tokens that English also uses).

    Raises:
        ValueError: English is missing, or a language is unknown.
    """
    measured = fertility.set_index("language")
    if "en" not in measured.index:
        raise ValueError("English is missing: lengths are measured relative to it")
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


def llama_features() -> pd.DataFrame:
    """Return the features of all 101 languages for LLaMA's tokenizer on the FLORES-200 devtest."""
    record = tokenization.recorded("fertility")
    return features(record[record["tokenizer"] == "llama"])


def examples() -> pd.DataFrame:
    """Return the quadrants of Table 2 as training examples, without its summary.

    Returns:
        One row per language and dataset: `language`, `dataset`, `quadrant` and the columns of
        `features`.
    """
    rows = paper.table(2).query("dataset != 'Summary'")
    return rows.merge(llama_features(), left_on="language", right_index=True).reset_index(drop=True)


def fit(examples: pd.DataFrame, columns: Sequence[str]) -> "Pipeline":
    """Fit the predictor.

    Args:
        examples: A frame with `quadrant` and the columns below.
        columns: What the model is given. With no columns it learns the frequencies of quadrants.
    """
    return _predictor(columns).fit(_inputs(examples, columns), examples["quadrant"])


def _predictor(columns: Sequence[str]) -> "Pipeline":
    # Imported late because scikit-learn takes a second, and most readers of results do not need it.
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = LogisticRegression(max_iter=1000) if columns else DummyClassifier()
    return make_pipeline(StandardScaler(), model)


def probabilities(
    model: "Pipeline", frame: pd.DataFrame, columns: Sequence[str], quadrants: Sequence[str]
) -> pd.DataFrame:
    """Return one column of probabilities per quadrant, 0 for one absent from the examples."""
    found = pd.DataFrame(
        model.predict_proba(_inputs(frame, columns)), index=frame.index, columns=model.classes_
    )
    return found.reindex(columns=list(quadrants), fill_value=0.0)


def cross_validate(
    examples: pd.DataFrame, columns: Sequence[str], folds: int = 10, seed: int = 0
) -> pd.DataFrame:
    """Predict each language by a model that has not seen it.

    Args:
        examples: A frame as returned by `examples`.
        columns: What the model is given.
        folds: Number of parts that the languages are divided into. Defaults to 10.
        seed: Random seed of the division.

    Returns:
        `examples` with a column of probabilities per quadrant that occurs, and `predicted`, the
        likeliest quadrant.
    """
    from sklearn.model_selection import GroupKFold, cross_val_predict

    chances = cross_val_predict(
        _predictor(columns),
        _inputs(examples, columns),
        examples["quadrant"],
        groups=examples["language"],
        cv=GroupKFold(folds, shuffle=True, random_state=seed),
        method="predict_proba",
    )
    found = pd.DataFrame(chances, examples.index, sorted(examples["quadrant"].unique()))
    return examples.join(found).assign(predicted=found.idxmax(axis=1))


def compare_predictors(
    examples: pd.DataFrame,
    predictors: Mapping[str, Sequence[str]] = PREDICTORS,
    *,
    samples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare sets of columns by how well a model of them predicts unseen languages.

    Args:
        examples: A frame as returned by `examples`.
        predictors: Sets of columns by name.
        samples: Number of bootstrap samples, drawn by language. Defaults to 2000.
        seed: Random seed of the division and the bootstrap.

    Returns:
        One row per set of columns, best last: `right` (share of examples whose likeliest quadrant
        is right) with a 95% interval `low`, `high`, and `log_loss` (mean negative log-probability
        of the right quadrant, in nats; lower is better).
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
    """Return the columns as an array, or a constant column if there are none."""
    return frame[list(columns)].to_numpy(float) if columns else np.zeros((len(frame), 1))
