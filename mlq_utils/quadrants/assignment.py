"""The four quadrants: Equation 1, the assignment, what hangs on its choices, and advice.

Scores are spBLEU, 0 to 100. `post` is a score after tuning, `pre` the same model's before
(Section 3.2; the advice is Section 4.4's).

    recommend("cy")                                          # by what is known of the language
    recommend("cy", fertility=frame)                         # and of your tokenizer
    recommend("cy", before=untuned, after=tuned)             # by a trial on your model
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from mlq_utils import languages, paper
from mlq_utils.quadrants import predictors

QUADRANTS = ("reciprocal", "altruistic", "selfish", "stagnant")
REFERENCE_TARGETS = ("af", "ro")
"""The targets whose mean is the paper's multilingual performance (Section 3.2)."""


STRATEGIES = {
    "reciprocal": "Embed FT",
    "altruistic": "full FT on little data",
    "selfish": "full FT",
    "stagnant": "full FT on much data, with shortened byte sequences",
}
"""What to tune, by quadrant: Section 4.4. It says nothing of the selfish, which improve by tuning
as usual."""


def threshold(scores: Sequence[float] | None = None) -> float:
    """Return T: the vanilla model's mean spBLEU over all non-English targets (Appendix D).

    Args:
        scores: The vanilla model's scores, one a target; the 101 of Table 9 where None.

    Raises:
        ValueError: No scores.
    """
    scores = paper.table(9)["llama"] if scores is None else scores
    if len(scores) == 0:
        raise ValueError("no scores to average: T needs the vanilla model's score of each target")
    return float(np.mean(scores))


def delta(
    post: float | np.ndarray | pd.Series,
    pre: float | np.ndarray | pd.Series,
    threshold: float | np.ndarray,
    factor: float = 2.0,
) -> float | np.ndarray | pd.Series:
    """Return the change of Equation 1; above 0 it counts as significant.

    With `pre` at least `threshold`: post / pre - factor. Below it: (post - factor * threshold) /
    pre, so that a low score must reach `factor` times the threshold. The lower branch divides by
    `pre`, as printed: where `pre` is 0 it is infinite, with the numerator's sign. (Where the
    numerator is 0 as well, the change is 0: not significant.)

    Args:
        post: Scores after tuning; a number, array or Series.
        pre: Scores before, of the same shape or one that broadcasts.
        threshold: T, above 0; a number, or an array that broadcasts with the scores.
        factor: The significance factor; 2 in the paper, varied in Figure 5.

    Raises:
        ValueError: A score is negative or missing, or T or the factor is not above 0.
    """
    if not (np.all(np.asarray(threshold) > 0) and factor > 0):
        raise ValueError(f"T ({threshold}) and the factor ({factor}) must be above 0")
    after, before = np.asarray(post, dtype=float), np.asarray(pre, dtype=float)
    if not ((after >= 0).all() and (before >= 0).all()):
        raise ValueError("scores must be numbers of 0 or more; one is negative or missing")
    low = before < threshold
    numerator = after - factor * np.where(low, threshold, before)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        change = np.where(numerator == 0, 0.0, numerator / before)
    for given in (post, pre):
        if isinstance(given, pd.Series):
            return pd.Series(change, index=given.index, name="delta")
    return change if change.ndim else float(change)


def quadrant(
    bilingual_delta: float | np.ndarray | pd.Series,
    multilingual_delta: float | np.ndarray | pd.Series,
) -> str | np.ndarray | pd.Series:
    """Return the quadrant of a language from its two changes (Equation 1; Figure 1).

    Both significant: `"reciprocal"`; only the multilingual one: `"altruistic"`; only the
    bilingual one: `"selfish"`; neither: `"stagnant"`.

    Raises:
        ValueError: A change is not a number.
    """
    bilingual, multilingual = (
        np.asarray(d, dtype=float) for d in (bilingual_delta, multilingual_delta)
    )
    if np.isnan(bilingual).any() or np.isnan(multilingual).any():
        raise ValueError("a change is not a number: a quadrant needs both")
    names = np.where(
        bilingual > 0,
        np.where(multilingual > 0, "reciprocal", "selfish"),
        np.where(multilingual > 0, "altruistic", "stagnant"),
    )
    for given in (bilingual_delta, multilingual_delta):
        if isinstance(given, pd.Series):
            return pd.Series(names, index=given.index, name="quadrant")
    return names if names.ndim else str(names)


def published(targets: Sequence[str] = REFERENCE_TARGETS) -> pd.DataFrame:
    """Return the paper's scores of the models tuned on TED (Table 12; before tuning: Table 9).

    The vanilla scores are Table 9's, because Table 12 prints them for its twelve columns only.

    Args:
        targets: The targets whose mean is the multilingual score, among Table 12's twelve.

    Returns:
        A row a language, in Table 12's order: `language`, `bilingual_pre`, `bilingual_post`,
        `multilingual_pre`, `multilingual_post`.
    """
    scores = paper.table(12)
    tuned = scores[scores["role"] == "tuned"]
    columns = scores[scores["role"] == "representative"]
    wide = columns.pivot(index="tuned_on", columns="target", values="spbleu")[list(targets)]
    vanilla = paper.table(9).set_index("target")["llama"]
    return pd.DataFrame(
        {
            "language": tuned["tuned_on"].to_numpy(),
            "bilingual_pre": vanilla[tuned["tuned_on"]].to_numpy(),
            "bilingual_post": tuned["spbleu"].to_numpy(),
            "multilingual_pre": wide.loc["LLaMA"].mean(),
            "multilingual_post": wide.loc[tuned["tuned_on"]].mean(axis=1).to_numpy(),
        }
    )


def trained(
    untuned: pd.DataFrame, tuned: pd.DataFrame, targets: Sequence[str] = REFERENCE_TARGETS
) -> pd.DataFrame:
    """Return our own runs' scores in the form of `published`.

    Args:
        untuned: Scores of the untuned model, as `experiments.scores` returns them.
        tuned: Scores of models tuned on one language each, on that language and on `targets`.
        targets: The targets whose mean is the multilingual score.

    Returns:
        A row a language and tuning seed: `language`, `seed` and the columns of `published`.

    Raises:
        KeyError: A score is missing.
    """
    before = untuned.set_index("target")["spbleu"]
    after = tuned.set_index(["tuned_on", "seed", "target"])["spbleu"]
    rows = [
        {
            "language": language,
            "seed": seed,
            "bilingual_pre": before[language],
            "bilingual_post": after[language, seed, language],
            "multilingual_pre": before[list(targets)].mean(),
            "multilingual_post": np.mean([after[language, seed, t] for t in targets]),
        }
        for language, seed in dict.fromkeys(after.index.droplevel("target"))
    ]
    return pd.DataFrame(rows)


def assign(scores: pd.DataFrame, threshold: float, factor: float = 2.0) -> pd.DataFrame:
    """Add the two changes of Equation 1 and the quadrant to a frame such as `published` gives.

    Returns:
        `scores` with `bilingual_delta`, `multilingual_delta` and `quadrant`.
    """
    changes = {
        f"{side}_delta": delta(scores[f"{side}_post"], scores[f"{side}_pre"], threshold, factor)
        for side in ("bilingual", "multilingual")
    }
    return scores.assign(**changes, quadrant=quadrant(*changes.values()))


def agreement(
    scores: pd.DataFrame,
    expected: Mapping[str, str],
    thresholds: Mapping[str, float],
    factor: float = 2.0,
) -> pd.DataFrame:
    """Count the languages that get an expected quadrant, for each of several T.

    Args:
        scores: A frame such as `published` gives.
        expected: The quadrant expected of each language.
        thresholds: Values of T by what they are called.
        factor: The significance factor.

    Returns:
        A row a T, indexed by its name: `T`, `as expected`, `languages`.
    """
    expected = scores["language"].map(expected)
    agreeing = {
        name: (assign(scores, value, factor)["quadrant"] == expected).sum()
        for name, value in thresholds.items()
    }
    return pd.DataFrame(
        {"T": pd.Series(thresholds), "as expected": agreeing, "languages": len(scores)}
    )


def sensitivity(
    scores: pd.DataFrame, thresholds: Sequence[float], factors: Sequence[float]
) -> pd.DataFrame:
    """Count the quadrants over a grid of T and of the significance factor (Figure 5, Appendix D).

    Returns:
        A row a combination and quadrant: `threshold`, `factor`, `quadrant`, `languages` (count).
    """
    rows = []
    for value in thresholds:
        for factor in factors:
            counts = assign(scores, value, factor)["quadrant"].value_counts()
            rows += [(value, factor, name, int(counts.get(name, 0))) for name in QUADRANTS]
    return pd.DataFrame(rows, columns=["threshold", "factor", "quadrant", "languages"])


def stability(
    scores: pd.DataFrame,
    vanilla: Sequence[float],
    *,
    standard_error: float = 0.0,
    rounding: float = 0.05,
    factor: float = 2.0,
    samples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Bootstrap the assignment: how often does a language keep its quadrant?

    Each sample draws T from the vanilla scores resampled with replacement, and each score anew
    within its rounding and, where given, its sampling error (normal, not below 0).

    Args:
        scores: A frame such as `published` gives.
        vanilla: The vanilla model's score of each target, whose mean is T.
        standard_error: Sampling error of a score, as a share of the score. The paper prints
            none, so a value above 0 is an assumption about its models.
        rounding: Half of the last printed digit.
        factor: The significance factor.
        samples: How many samples.
        seed: Of the random draws.

    Returns:
        A row a language and quadrant that occurred: `language`, `quadrant`, `probability`, and
        `assigned` (whether it is the quadrant of the scores as they are).
    """
    rng = np.random.default_rng(seed)
    vanilla = np.asarray(vanilla, dtype=float)
    level = rng.choice(vanilla, (samples, len(vanilla))).mean(axis=1, keepdims=True)

    def drawn(column: str) -> np.ndarray:
        value = scores[column].to_numpy(dtype=float)
        # An untuned score that all languages share is one number: one draw for all of them.
        size = (samples, 1 if column.endswith("_pre") and (value == value[0]).all() else len(value))
        noise = 1 + rng.normal(0, standard_error, size)
        return np.clip(value * noise + rng.uniform(-rounding, rounding, size), 0, None)

    changes = [
        delta(drawn(f"{side}_post"), drawn(f"{side}_pre"), level, factor)
        for side in ("bilingual", "multilingual")
    ]
    names = quadrant(*changes)
    given = assign(scores, threshold(vanilla), factor)["quadrant"]
    rows = [
        (language, name, (names[:, n] == name).mean(), given.iloc[n] == name)
        for n, language in enumerate(scores["language"])
        for name in QUADRANTS
    ]
    frame = pd.DataFrame(rows, columns=["language", "quadrant", "probability", "assigned"])
    return frame[(frame["probability"] > 0) | frame["assigned"]].reset_index(drop=True)


def summarise(assignments: pd.DataFrame) -> pd.DataFrame:
    """Show where datasets agree on a language, and what Table 2's summary prints for it.

    The paper keeps the languages that are stable over its datasets and does not give the rule.
    Two are visible here: the same quadrant everywhere, and gains (or none) on one side everywhere.

    Args:
        assignments: Columns `dataset`, `quadrant`, `language`, as Table 2; its rows of the
            dataset `Summary` are taken as what is printed.

    Returns:
        A row for each language that every dataset has: `language`, a column a dataset with its
        quadrant, `strict` (the quadrant, where all agree; else None), `bilingual_gain` and
        `multilingual_gain` (whether every dataset shows one), `printed` (in the summary; or None).
    """
    printed = assignments[assignments["dataset"] == "Summary"].set_index("language")["quadrant"]
    wide = assignments[assignments["dataset"] != "Summary"].pivot(
        index="language", columns="dataset", values="quadrant"
    )
    wide = wide.dropna()
    agree = wide.nunique(axis=1) == 1
    return wide.assign(
        strict=wide.iloc[:, 0].where(agree, None),
        bilingual_gain=wide.isin(["reciprocal", "selfish"]).all(axis=1),
        multilingual_gain=wide.isin(["reciprocal", "altruistic"]).all(axis=1),
        printed=printed.reindex(wide.index).astype(object).where(lambda s: s.notna(), None),
    ).reset_index()


@dataclass(frozen=True)
class Advice:
    """What to expect of a language, and how to tune it.

    Attributes:
        language: The paper's code.
        quadrant: The likeliest one.
        probability: Of each quadrant.
        strategy: What the paper recommends for the likeliest (Section 4.4).
        expect: What models tuned on such a language did, in the paper's Table 12.
        evidence: The kind of evidence (`published`, `tokenizer` or `trained`) and what it is.
    """

    language: str
    quadrant: str
    probability: Mapping[str, float]
    strategy: str
    expect: str
    evidence: str


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
    """Say how a language is best tuned, from whatever is known (Section 4.4).

    With a trial's scores the quadrant is Equation 1's. Without, it is predicted by a model that has
    learned Table 2, from the language alone or with what a tokenizer makes of it; how often that
    is right for languages that it has not seen, `predictors.compare` tells.

    Args:
        language: The paper's code.
        fertility: What your tokenizer does to the language and to English, as
            `tokenization.analyse` gives it for texts that say the same.
        before: Scores of the untuned model by target: the language and at least one other.
        after: Scores of the model tuned on the language, on the same targets.
        threshold: T of Equation 1; the mean of `before` where None, which wants many targets.
        standard_error: Of a score, as a share of it; sampling error of the trial.
        seed: Of the draws of that error.

    Raises:
        ValueError: The language is unknown or English; a trial has one side only, lacks the
            language or any other target, or its sides differ in targets; `fertility` lacks the
            language or English.
    """
    if languages.get(language).code == "en":
        raise ValueError("English is what is translated from: give the language to translate into")
    if (before is None) != (after is None):
        raise ValueError("a trial needs scores before and after tuning; one of them is missing")
    if before is not None and after is not None:
        chances = _trial(language, before, after, threshold, standard_error, seed)
        evidence = f"trained: your trial, {len(before)} targets, Equation 1"
    else:
        if fertility is None:
            known, columns = predictors.llama(), predictors.PREDICTORS["without a tokenizer"]
            evidence = "published: Table 2, by pretraining text, family and script"
        else:
            known, columns = predictors.features(fertility), predictors.PREDICTORS["all"]
            evidence = "tokenizer: your fertility and overlap, with a model of Table 2"
        if language not in known.index:
            raise ValueError(f"`fertility` has no row for {language}: measure it and English")
        row = predictors.probabilities(_model(columns), known.loc[[language]], columns, QUADRANTS)
        chances = row.iloc[0].to_dict()
    likely = max(chances, key=chances.__getitem__)
    return Advice(language, likely, chances, STRATEGIES[likely], expectations()[likely], evidence)


@cache
def _model(columns: tuple[str, ...]) -> predictors.Pipeline:
    return predictors.fit(predictors.published(), columns)


def _trial(
    language: str,
    before: Mapping[str, float],
    after: Mapping[str, float],
    level: float | None,
    standard_error: float,
    seed: int,
) -> dict[str, float]:
    """Return the probability of each quadrant from scores before and after tuning."""
    if set(before) != set(after):
        differ = ", ".join(sorted(set(before) ^ set(after)))
        raise ValueError(f"scores before and after are of different targets: {differ}")
    others = [target for target in before if target != language]
    if language not in before or not others:
        raise ValueError(f"a trial needs the scores of {language} and of one other target or more")
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
    """Return, by quadrant, what the models tuned on its languages did: medians of Table 12."""
    scores = assign(published(), threshold())
    found = {}
    for name in QUADRANTS:
        rows = scores[scores["quadrant"] == name]
        own, others = (
            f"from {rows[f'{side}_pre'].median():.1f} to {rows[f'{side}_post'].median():.1f}"
            for side in ("bilingual", "multilingual")
        )
        found[name] = (
            f"the language {own} spBLEU, af and ro {others} (medians of {len(rows)} models)"
        )
    return found


def recommendations() -> pd.DataFrame:
    """Return `recommend` for each of the 101 languages, from the language alone.

    Returns:
        A row a language: `language` (name), `code`, `quadrant` (the likeliest), `strategy`, a
        column of probability for each quadrant, as `P(stagnant)`, and the quadrants that the
        paper's datasets gave the language (Table 2), a column each.
    """
    rows = []
    for code in predictors.llama().index:
        advice = recommend(code)
        rows.append(
            {
                "language": languages.get(code).name,
                "code": code,
                "quadrant": advice.quadrant,
                "strategy": advice.strategy,
            }
            | {f"P({name})": value for name, value in advice.probability.items()}
        )
    found = paper.table(2).query("dataset != 'Summary'")
    wide = found.pivot(index="language", columns="dataset", values="quadrant").fillna("")
    return pd.DataFrame(rows).join(wide, on="code").fillna({name: "" for name in wide})
