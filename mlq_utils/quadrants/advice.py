"""Predicts a language's quadrant before any tuning, and advises how to tune the language.

    recommend("cy")                            # from what is known of the language
    recommend("cy", fertility=frame)           # and from what your tokenizer does to it
    recommend("cy", Trial(untuned, tuned))     # from a trial with your model

The predictor is a logistic regression, which is cross-validated on languages that it has not seen.
It sees a language once for each dataset for which Table 2 gives the language's quadrant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mlq_utils import languages, paper, tokenization
from mlq_utils.quadrants.assignment import QUADRANTS, assign, published, stability, threshold

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

_OF_LANGUAGE = ("pretraining", "indo_european", "latin")
_OF_TOKENIZER = ("relative_length", "byte_token_share", "of_language_weighted")
PREDICTORS: Mapping[str, tuple[str, ...]] = {
    "none (class frequencies)": (),
    "named in pretraining": ("pretraining",),
    "family": ("indo_european",),
    "script": ("latin",),
    "fertility": ("relative_length", "byte_token_share"),
    "overlap with English": ("of_language_weighted",),
    "without a tokenizer": _OF_LANGUAGE,
    "all": _OF_LANGUAGE + _OF_TOKENIZER,
}
"""Named sets of columns of `features` that a model may be given."""
STRATEGIES = {
    "reciprocal": "Embed FT",
    "altruistic": "full FT on little data",
    "selfish": "full FT",
    "stagnant": "full FT on much data, with shortened byte sequences",
}
"""What to tune in each quadrant (Section 4.4). The paper recommends nothing for selfish languages,
which improve by tuning as usual."""


@dataclass(frozen=True)
class Trial:
    """The scores of a model before and after it was tuned on a language.

    Attributes:
        before: The untuned model's scores in spBLEU by target, such as `cy 1.2 af 3.4 ro 5.6`. They
            must include the language and at least one other target.
        after: Scores of the model tuned on the language, for the same targets.
        threshold: T of Equation 1, in spBLEU points. Defaults to the mean of `before`, which is a
            good estimate only if there are many targets.
        standard_error: Sampling error of a score as a share of the score.
    """

    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    threshold: float | None = None
    standard_error: float = 0.05


@dataclass(frozen=True)
class Advice:
    """What to expect of a language and how to tune it.

    Attributes:
        language: The paper's code of the language.
        quadrant: The likeliest quadrant.
        probability: The probability of each quadrant.
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
    language: str, trial: Trial | None = None, *, fertility: pd.DataFrame | None = None
) -> Advice:
    """Advise how to tune a language (Section 4.4).

    Equation 1 decides the quadrant if there is a trial. Otherwise a model trained on Table 2
    predicts it, and `compare_predictors` shows how often that is right for unseen languages.

    Args:
        language: The paper's code of the language.
        trial: Scores of your model before and after tuning on the language.
        fertility: What your tokenizer does to the language and to English, as returned by
            `tokenization.analyse` for texts of the same content.

    Raises:
        ValueError: The language is unknown or English, the two sides of the trial have different
            targets, or the trial or `fertility` lacks the language or what it is compared with.
    """
    if languages.get(language).code == "en":
        raise ValueError("English is the source language; name a language to translate into")
    if trial is not None and (trial.before or trial.after):
        chances = _tried(language, trial)
        evidence = f"trained: your trial, {len(trial.before)} targets, Equation 1"
    elif fertility is None:
        chances = _predicted(language, llama_features(), "without a tokenizer")
        evidence = "published: Table 2, by pretraining text, family and script"
    else:
        chances = _predicted(language, features(fertility), "all")
        evidence = "tokenizer: your fertility and overlap, with a model of Table 2"
    likely = max(chances, key=chances.__getitem__)
    return Advice(language, likely, chances, STRATEGIES[likely], expectations()[likely], evidence)


def _tried(language: str, trial: Trial) -> dict[str, float]:
    """Return the probability of each quadrant by a trial."""
    before, after = trial.before, trial.after
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
    vanilla = list(before.values()) if trial.threshold is None else [trial.threshold]
    scores, error = pd.DataFrame([row]), trial.standard_error
    drawn = stability(scores, vanilla, standard_error=error, rounding=0.0).set_index("quadrant")
    return drawn["probability"].reindex(QUADRANTS, fill_value=0.0).to_dict()


def _predicted(language: str, known: pd.DataFrame, predictor: str) -> dict[str, float]:
    """Return the probability of each quadrant by a model of Table 2."""
    if language not in known.index:
        raise ValueError(f"`fertility` has no row for {language}: measure it and English")
    model = fitted(PREDICTORS[predictor])
    chances = model.predict_proba(known.loc[[language]])[0].tolist()
    chance = dict(zip(model.classes_, chances, strict=True))
    return {quadrant: chance[quadrant] for quadrant in QUADRANTS}


@cache
def expectations() -> dict[str, str]:
    """Return how models tuned on languages of each quadrant changed, by medians of Table 12."""
    scores = assign(published(), threshold())
    medians = scores.groupby("quadrant").median(numeric_only=True)
    text = (
        "the language from {bilingual_pre:.1f} to {bilingual_post:.1f} spBLEU, af and ro from "
        "{multilingual_pre:.1f} to {multilingual_post:.1f} (medians of {models} models)"
    )
    models = scores["quadrant"].value_counts()
    return {q: text.format(**medians.loc[q], models=models[q]) for q in QUADRANTS}


def recommendations() -> pd.DataFrame:
    """Return the advice for each of the 101 languages, from the language alone.

    Returns:
        One row per language. The column `P(stagnant)`, for example, has the probability of that
        quadrant, and the columns of the datasets the quadrant that Table 2 gives, if there is one.
    """
    rows = []
    for code in llama_features().index:
        advice = recommend(code)
        row = {"language": languages.get(code).name, "code": code}
        row |= {"quadrant": advice.quadrant, "strategy": advice.strategy}
        rows.append(row | {f"P({q})": chance for q, chance in advice.probability.items()})
    found = paper.table(2).query("dataset != 'Summary'")
    wide = found.pivot(index="language", columns="dataset", values="quadrant")
    return pd.DataFrame(rows).join(wide, on="code").fillna(dict.fromkeys(wide, ""))


def features(fertility: pd.DataFrame) -> pd.DataFrame:
    """Return what is known of languages before any tuning.

    Args:
        fertility: One row per language, including English, as returned by `tokenization.analyse`
            for texts of the same content.

    Returns:
        A frame indexed by language, without English. `pretraining` (whether LLaMA's Wikipedia text
        has the language), `indo_european` and `latin` (the script) are 0 or 1. `relative_length` is
        the log2 of tokens per sentence relative to English, and `of_language_weighted` the share of
        running tokens that English also uses. `byte_token_share` is that of `fertility`.

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
    """Return the quadrants of Table 2 as training examples, with the columns of `features`.

    There is one row per language and dataset. The summary is left out.
    """
    rows = paper.table(2).query("dataset != 'Summary'")
    return rows.merge(llama_features(), left_on="language", right_index=True).reset_index(drop=True)


@cache
def fitted(columns: tuple[str, ...]) -> "Pipeline":
    """Return a model that is given these columns and was fitted to Table 2."""
    known = examples()
    return _predictor(columns).fit(known, known["quadrant"])


def _predictor(columns: Sequence[str]) -> "Pipeline":
    """Return a model that is given these columns, or learns the frequencies if there are none."""
    # Imported late because scikit-learn takes a second, and most readers of results do not need it.
    from sklearn.compose import make_column_transformer
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = LogisticRegression(max_iter=1000) if columns else DummyClassifier()
    return make_pipeline(make_column_transformer((StandardScaler(), list(columns))), model)


def cross_validate(examples: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return the probability of each quadrant by a model that has not seen the language."""
    from sklearn.model_selection import GroupKFold, cross_val_predict

    chances = cross_val_predict(
        _predictor(columns),
        examples,
        examples["quadrant"],
        groups=examples["language"],
        cv=GroupKFold(10, shuffle=True, random_state=0),
        method="predict_proba",
    )
    return pd.DataFrame(chances, examples.index, sorted(examples["quadrant"].unique()))


def compare_predictors(examples: pd.DataFrame, *, samples: int = 2000) -> pd.DataFrame:
    """Compare the sets of columns in `PREDICTORS` by how well they predict unseen languages.

    Args:
        examples: A frame as returned by `examples`.
        samples: Number of bootstrap samples, which are drawn by language. Defaults to 2000.

    Returns:
        One row per set of columns, with the best in the last row: `right` (share of examples whose
        likeliest quadrant is right) with a 95% interval `low`, `high`, and `log_loss` (mean
        negative log-probability of the right quadrant, in nats; lower is better).
    """
    number = examples["language"].nunique()
    drawn = np.random.default_rng(0).integers(number, size=(samples, number))
    rows = {}
    for name, columns in PREDICTORS.items():
        found = cross_validate(examples, columns)
        right = found.idxmax(axis=1) == examples["quadrant"]
        given = [found.loc[row, quadrant] for row, quadrant in examples["quadrant"].items()]
        groups = right.groupby(examples["language"], sort=False).agg(["sum", "size"]).to_numpy()
        shares = groups[drawn].sum(axis=1)
        low, high = np.quantile(shares[:, 0] / shares[:, 1], [0.025, 0.975])
        loss = -np.log(np.clip(given, 1e-6, 1)).mean()
        rows[name] = {"right": right.mean(), "low": low, "high": high, "log_loss": loss}
    return pd.DataFrame(rows).T.sort_values("log_loss", ascending=False)
