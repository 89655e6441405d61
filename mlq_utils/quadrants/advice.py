"""Predicts a language's quadrant, measures how good that is, and advises how to tune the language.

The prior is a mean of logistic regressions, each of which is given one kind of knowledge of the
language. The quadrants that Table 2 prints for the language turn it into a posterior, which a trial
updates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from mlq_utils import languages, paper, tokenization
from mlq_utils.languages import Language
from mlq_utils.quadrants.assignment import QUADRANTS, stability
from mlq_utils.quadrants.strategies import plan

Columns = tuple[str, ...]
LANGUAGE: Columns = ("pretraining", "indo_european", "latin")
TOKENIZER: Columns = ("relative_length", "byte_token_share", "of_language_weighted")
PRIOR: Sequence[Columns] = [LANGUAGE, ("after_english",), ("after_english_four",)]
"""Kinds of knowledge that there are of every language. A tokenizer that was measured is added."""
METHODS: Mapping[str, Sequence[Columns]] = {
    "class frequencies": [()],
    "named: reciprocal, else altruistic": [("pretraining",)],
    "pretraining, family and script": [LANGUAGE],
    "recommend": PRIOR,
    "recommend with LLaMA's tokenizer": [*PRIOR, TOKENIZER],
}
"""The predictions that are compared, by the kinds of knowledge that each has."""
CLOSE = 0.1
"""The quadrant is undecided if the two likeliest are no further apart than this."""


@dataclass(frozen=True)
class Trial:
    """The scores of a model before and after it was tuned on a language.

    Attributes:
        before: The untuned model's scores in spBLEU by target, such as `cy 1.2 af 3.4 ro 5.6`. They
            must include the language and at least one other target.
        after: Scores of the model tuned on the language, for the same targets.
        threshold: T of Equation 1, in spBLEU points. Defaults to the mean of `before`, which is a
            good estimate only if there are many targets.
        before_error: Standard errors of scores before tuning in spBLEU points, where known.
        after_error: Standard errors of scores after tuning in spBLEU points, where known.
        standard_error: Sampling error of a score as a share of the score.
    """

    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    threshold: float | None = None
    before_error: dict[str, float] = field(default_factory=dict)
    after_error: dict[str, float] = field(default_factory=dict)
    standard_error: float = 0.05


@dataclass(frozen=True)
class Advice:
    """What to expect of a language and how to tune it.

    Attributes:
        language: The code of the language.
        name: Its English name.
        quadrant: The likeliest quadrant, or "undecided".
        likely: The likeliest quadrant, or the two between which it is undecided.
        probability: The probability of each quadrant.
        gains_itself: The probability that Embed FT improves the language by Equation 1.
        gains_others: The probability that it so improves the mean of af and ro.
        strategy: What to tune, by printed runs on the nearest languages (see `runs`).
        expect: Scores of these runs, before and after tuning, in LLaMA-7B.
        paper: What the paper recommends (Section 4.4), and why it is not followed if it is not.
        evidence: What the probabilities rest on.
    """

    language: str
    name: str
    quadrant: str
    likely: tuple[str, ...]
    probability: Mapping[str, float]
    gains_itself: float
    gains_others: float
    strategy: str
    expect: str
    paper: str
    evidence: str

    def __str__(self) -> str:
        """Return the advice as text for a terminal."""
        chances = ", ".join(f"{name} {share:.0%}" for name, share in self.probability.items())
        between = f" between {' and '.join(self.likely)}" if len(self.likely) > 1 else ""
        return (
            f"{self.name} ({self.language}): {self.quadrant}{between}\n"
            f"  probability   {chances}\n"
            f"  gains         itself {self.gains_itself:.0%}, others {self.gains_others:.0%}\n"
            f"  what to tune  {self.strategy}\n"
            f"  expect        in LLaMA-7B {self.expect}\n"
            f"  the paper     recommends {self.paper}\n"
            f"  evidence      {self.evidence}"
        )


def recommend(
    language: str | Language,
    trial: Trial | None = None,
    *,
    fertility: pd.DataFrame | None = None,
    pairs: int = 10_000,
) -> Advice:
    """Advise how to tune a language. `evaluate` shows how good the probabilities are.

    If all printed datasets agree on another quadrant than the likeliest, and there is no trial,
    then the quadrant is undecided.

    Args:
        language: A language, as `languages.get` takes it. Of one that the paper lacks, the advice
            rests on its script and family, and on the tokenizer and the trial if they are given.
        trial: Scores of your model before and after tuning on the language.
        fertility: What your tokenizer does to the language and to English, see `features`.
        pairs: Number of sentence pairs to tune on. Defaults to 10,000, as in the paper.

    Raises:
        ValueError: The language is unknown or English, the two sides of the trial have different
            targets, or the trial or `fertility` lacks the language or what it is compared with.
    """
    spoken = languages.get(language)
    if (language := spoken.code) == "en":
        raise ValueError("English is the source language; name a language to translate into")
    known, prior, evidence = _knowledge(spoken, fertility)
    own = examples().query("language == @language")
    evidence += f"; Table 2 ({', '.join(own['dataset'] + ' ' + own['quadrant']) or 'nothing'})"
    learned = [
        _fitted(columns, language).predict_proba([known[list(columns)]])[0] for columns in prior
    ]
    record = own["quadrant"].value_counts().reindex(sorted(QUADRANTS), fill_value=0)
    chance = pd.Series(_posterior(np.mean(learned, axis=0), record.to_numpy()), record.index)
    tried = trial is not None and bool(trial.before or trial.after)
    if tried:
        chance *= _tried(language, trial)
        evidence += f"; your trial ({len(trial.before)} targets, Equation 1)"
    chance = (chance / chance.sum())[list(QUADRANTS)]
    first, second = chance.nlargest(2).index
    likely = (first,) if chance[first] - chance[second] > CLOSE else (first, second)
    agreed = own["quadrant"].unique()
    if not tried and len(agreed) == 1 and agreed[0] not in likely:
        likely = (first, agreed[0])
    return Advice(
        language=language,
        name=spoken.name,
        quadrant=first if len(likely) == 1 else "undecided",
        likely=likely,
        probability=chance.to_dict(),
        gains_itself=float(chance["reciprocal"] + chance["selfish"]),
        gains_others=float(chance["reciprocal"] + chance["altruistic"]),
        **plan(spoken, likely, pairs),
        evidence=evidence,
    )


def _knowledge(
    language: Language, fertility: pd.DataFrame | None
) -> tuple[pd.Series, list[Columns], str]:
    """Return what is known of a language, the kinds of it that are complete, and their names."""
    known, prior = _known(), list(PRIOR)
    evidence = "pretraining, family and script"
    if fertility is not None:
        known, prior = features(fertility, language), [*PRIOR, TOKENIZER]
        evidence += ", your tokenizer's fertility and overlap"
    elif language.code not in known.index:
        known = features(further=language)
    if language.code not in known.index:
        raise ValueError(f"`fertility` has no row for {language.code}: measure it and English")
    row = known.loc[language.code]
    prior = [columns for columns in prior if row[list(columns)].notna().all()]
    if ("after_english",) in prior:
        evidence += "; scores after English tasks"
    return row, prior, evidence


def _tried(language: str, trial: Trial) -> pd.Series:
    """Return how probable a trial makes each quadrant, by Equation 1 and the sampling errors."""
    before, after = trial.before, trial.after
    if differ := ", ".join(sorted(set(before) ^ set(after))):
        raise ValueError(f"scores before and after tuning have different targets: {differ}")
    others = [target for target in before if target != language]
    if language not in before or not others:
        raise ValueError(f"a trial needs the scores of {language} and of at least one other target")
    if unknown := sorted({*trial.before_error, *trial.after_error} - set(before)):
        raise ValueError(f"there are errors but no scores of {', '.join(unknown)}")
    sides = {"pre": (before, trial.before_error), "post": (after, trial.after_error)}
    row = {"language": language}
    for side, targets in {"bilingual": [language], "multilingual": others}.items():
        for when, (scores, errors) in sides.items():
            known = [errors.get(t, trial.standard_error * scores[t]) for t in targets]
            row[f"{side}_{when}"] = np.mean([scores[target] for target in targets])
            row[f"{side}_{when}_error"] = np.linalg.norm(known) / len(targets)
    vanilla = list(before.values()) if trial.threshold is None else [trial.threshold]
    drawn = stability(pd.DataFrame([row]), vanilla, rounding=0.0).set_index("quadrant")
    return drawn["probability"].reindex(QUADRANTS, fill_value=0.0)


def features(
    fertility: pd.DataFrame | None = None, further: Language | None = None
) -> pd.DataFrame:
    """Return what is known of languages before any tuning on them.

    Args:
        fertility: One row per language, including English, as returned by `tokenization.analyse`
            for texts of the same content. Defaults to LLaMA's tokenizer on the FLORES-200 devtest.
        further: A language of your own. If it has no row by default, what a tokenizer does to it is
            missing.

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
        if further is not None:
            row = pd.DataFrame({"language": [further.code]})
            fertility = pd.concat([fertility, row]).drop_duplicates("language")
    measured = fertility.set_index("language")
    if "en" not in measured.index:
        raise ValueError("English is missing: lengths are measured relative to it")
    mine = {further.code: further} if further else {}
    spoken = [languages.get(mine.get(code, code)) for code in measured.index]
    languages.check(spoken)
    known = pd.DataFrame(spoken).set_index("code")
    length = measured["tokens_per_sentence"] / measured.loc["en", "tokens_per_sentence"]
    tuned = paper.open_scores(["LLaMA-7B", "LLaMA2-7B", "LLaMA2-13B", "LLaMA3-8B"])
    tuned = tuned.query("tuning == 'Alpaca'").pivot(index="target", columns="model")["spbleu"]
    tuned = np.log2(1 + tuned).reindex(known.index)
    return pd.DataFrame(
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
    ).drop(index="en")


_known = cache(features)  # of LLaMA's tokenizer


@cache
def examples() -> pd.DataFrame:
    """Return the quadrants of Table 2 with `features`, one row per language and dataset.

    The frame is shared and must not be changed.
    """
    rows = paper.table(2).query("dataset != 'Summary'")
    return rows.merge(_known(), left_on="language", right_index=True).reset_index(drop=True)


def classifier(columns: Sequence[str]) -> Any:
    """Return a model for these columns, or one that learns the frequencies if there are none."""
    # Imported late because scikit-learn takes a second, and most readers of results do not need it.
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression()) if columns else DummyClassifier()


@cache
def _fitted(columns: Columns, unseen: str) -> Any:
    """Return a model for these columns that has seen Table 2 but for one language."""
    seen = examples()[examples()["language"] != unseen]
    return classifier(columns).fit(seen[list(columns)].to_numpy(), seen["quadrant"])


def _posterior(prior: np.ndarray, record: np.ndarray) -> np.ndarray:
    """Return the probabilities for a further dataset, given the number of datasets by quadrant.

    The prior counts as a number of datasets, to which the recorded ones are added. Since some
    languages keep to what is known beforehand and others do not, several such numbers are taken as
    equally likely, and the record tells which of them fit it.
    """
    from scipy.stats import dirichlet_multinomial

    if not record.any():
        return prior
    weights = np.array([1, 2, 3, 5, 8, 12, 20, 40])
    chances = [(weight * prior + record) / (weight + record.sum()) for weight in weights]
    fit = dirichlet_multinomial.pmf(record, weights[:, None] * prior, record.sum())
    return fit @ chances / fit.sum()


def held_out(
    examples: pd.DataFrame,
    methods: Mapping[str, Sequence[Columns]] = METHODS,
    splits: Sequence[tuple[np.ndarray, np.ndarray]] | None = None,
) -> pd.DataFrame:
    """Predict each example by models that have seen no dataset of its language.

    Args:
        examples: Columns `language`, `quadrant` and those that the methods need.
        methods: Kinds of knowledge, whose predictions are averaged. Defaults to `METHODS`.
        splits: Places of the examples that are learned from and of those that are predicted, which
            must be all, each once. Defaults to a split per language.

    Returns:
        The examples with the probability of each quadrant, by `method` and `held_out`: `language`
        (the prediction is the prior) or `dataset` (the language's other datasets are its record).
    """
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

    given, groups = examples["quadrant"], examples["language"]
    found = pd.get_dummies(given)
    records = (found.groupby(groups).transform("sum") - found).to_numpy()
    rest = {"groups": groups, "cv": splits or LeaveOneGroupOut(), "method": "predict_proba"}
    each = {
        kind: cross_val_predict(classifier(kind), examples[list(kind)].to_numpy(), given, **rest)
        for kind in set().union(*methods.values())
    }
    frames = []
    for method, known in methods.items():
        prior = np.mean([each[kind] for kind in known], axis=0)
        posterior = np.array(list(map(_posterior, prior, records)))
        for name, chances in {"language": prior, "dataset": posterior}.items():
            chances = dict(zip(found, chances.T, strict=True))
            frames.append(examples.assign(method=method, held_out=name, **chances))
    return pd.concat(frames, ignore_index=True)


def evaluate(predictions: pd.DataFrame | None = None, *, samples: int = 2000) -> pd.DataFrame:
    """Measure how well quadrants are predicted.

    The figures of `recommend` are somewhat optimistic, since its kinds of knowledge and the weights
    of the record were chosen after others had been scored on the same rows of Table 2.

    Args:
        predictions: A frame as returned by `held_out`. Defaults to that of Table 2's datasets.
        samples: Number of bootstrap samples, which are drawn by language. Defaults to 2000.

    Returns:
        One row per `method` and `held_out`: `log_loss` (in nats; lower is better) with a 95%
        interval `low`, `high`, `accuracy` of the likeliest quadrant, `calibration_error` (mean
        distance of probability and frequency in ten equal bins) and `n` (examples).
    """
    predictions = held_out(examples()) if predictions is None else predictions
    kinds = [kind for kind in QUADRANTS if kind in predictions]
    rows = []
    for key, group in predictions.groupby(["method", "held_out"], sort=False):
        chances = group[kinds].to_numpy()
        right = group["quadrant"].to_numpy()[:, None] == np.array(kinds)
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
