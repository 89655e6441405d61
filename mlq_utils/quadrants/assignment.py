"""Equation 1, the assignment of quadrants, and how much it depends on its constants.

Scores are in spBLEU, from 0 to 100. `post` is a score after tuning and `pre` the score of the same
model before tuning (Section 3.2). `scores` is a frame with the columns of `published`, `threshold`
is T of Equation 1, and `factor` is its significance factor, which is 2 in the paper.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from mlq_utils import paper

QUADRANTS = ("reciprocal", "altruistic", "selfish", "stagnant")
REFERENCE_TARGETS = ("af", "ro")
"""The targets whose mean score is the paper's multilingual performance (Section 3.2)."""
Values = float | np.ndarray | pd.Series


def threshold(scores: Sequence[float] | None = None) -> float:
    """Return T, the untuned model's mean spBLEU over all non-English targets (Appendix D).

    Args:
        scores: The untuned model's score of each target. Defaults to the 101 of Table 9.

    Raises:
        ValueError: There are no scores.
    """
    scores = paper.table(9)["llama"] if scores is None else scores
    if len(scores) == 0:
        raise ValueError("there are no scores: T needs the untuned model's score of each target")
    return float(np.mean(scores))


def delta(post: Values, pre: Values, threshold: Values, factor: float = 2.0) -> Values:
    """Return the change of Equation 1, which counts as significant if it is above 0.

    If `pre` is at least the threshold, the change is post / pre - factor. Below the threshold it
    is (post - factor * threshold) / pre, so that a low score must reach `factor` times the
    threshold. Division by a `pre` of 0 gives an infinite change with the sign of the numerator,
    and 0 if the numerator is 0.

    Scores and T may be numbers, Series or arrays that broadcast. Figure 5 varies the factor.

    Raises:
        ValueError: A score is negative or missing, or T or the factor is not above 0.
    """
    if not (np.all(np.asarray(threshold) > 0) and factor > 0):
        raise ValueError(f"T ({threshold}) and the factor ({factor}) must be above 0")
    if not (np.all(np.asarray(post) >= 0) and np.all(np.asarray(pre) >= 0)):
        raise ValueError("scores must be 0 or more; one is negative or missing")
    numerator = post - factor * np.maximum(pre, threshold)
    with np.errstate(divide="ignore", over="ignore"):
        return numerator / np.where(numerator == 0, 1.0, pre)


def quadrant(bilingual_delta: Values, multilingual_delta: Values) -> str | np.ndarray:
    """Return the quadrant of a language from its two changes (Equation 1, Figure 1).

    The quadrant is reciprocal if both changes are significant, altruistic if only the multilingual
    one is, selfish if only the bilingual one is, and stagnant if neither is.

    Raises:
        ValueError: A change is not a number.
    """
    if np.isnan(bilingual_delta).any() or np.isnan(multilingual_delta).any():
        raise ValueError("a change is not a number; a quadrant needs both changes")
    place = (np.asarray(bilingual_delta) <= 0) + 2 * (np.asarray(multilingual_delta) <= 0)
    return np.array(QUADRANTS)[place]


def published(targets: Sequence[str] = REFERENCE_TARGETS) -> pd.DataFrame:
    """Return the paper's scores of the models tuned on TED (Table 12).

    Scores before tuning are from Table 9, because Table 12 has them for its twelve targets only.

    Args:
        targets: The targets whose mean is the multilingual score, among the twelve of Table 12.

    Returns:
        One row per language in the order of Table 12: `language`, `bilingual_pre`,
        `bilingual_post`, `multilingual_pre`, `multilingual_post`.
    """
    untuned = paper.table(9).rename(columns={"llama": "spbleu"})
    # Table 12 prints a score twice if the language is one of its twelve targets.
    tuned = paper.table(12).drop_duplicates(["tuned_on", "target"]).query("tuned_on != 'LLaMA'")
    return trained(untuned, tuned.assign(seed=0), targets).drop(columns="seed")


def trained(
    untuned: pd.DataFrame, tuned: pd.DataFrame, targets: Sequence[str] = REFERENCE_TARGETS
) -> pd.DataFrame:
    """Return the scores of our own runs with the columns of `published`.

    Args:
        untuned: Scores of the untuned model, as `experiments.scores` returns them.
        tuned: Scores of models tuned on one language each, for that language and for `targets`.
        targets: The targets whose mean is the multilingual score.

    Returns:
        One row per language and tuning seed: `language`, `seed` and the columns of `published`.
        `bilingual_pre_error` and so on are the standard errors that the scores' 95% intervals
        tell, if the scores have intervals.

    Raises:
        KeyError: A score is missing.
    """
    runs = tuned.set_index(["tuned_on", "seed"])
    found = pd.DataFrame(index=runs.index.unique())
    own = runs[runs["target"] == runs.index.get_level_values("tuned_on")]
    others = runs[runs["target"].isin(targets)]
    for side, after, size in (("bilingual", own, 1), ("multilingual", others, len(targets))):
        if not after.groupby(found.index.names).size().reindex(found.index).eq(size).all():
            raise KeyError(f"a model lacks a score of its language or of {', '.join(targets)}")
        before = untuned.set_index("target").loc[after["target"]].set_axis(after.index)
        for when, cells in {"pre": before, "post": after}.items():
            found[f"{side}_{when}"] = cells["spbleu"].groupby(found.index.names).mean()
            if "spbleu_low" in cells:
                variance = ((cells["spbleu_high"] - cells["spbleu_low"]) / (2 * 1.96)) ** 2
                summed = variance.groupby(found.index.names).sum()
                found[f"{side}_{when}_error"] = np.sqrt(summed) / size
    return found.reset_index().rename(columns={"tuned_on": "language"})


def assign(scores: pd.DataFrame, threshold: float, factor: float = 2.0) -> pd.DataFrame:
    """Add the columns `bilingual_delta`, `multilingual_delta` and `quadrant` to scores."""
    changes = {
        f"{side}_delta": delta(scores[f"{side}_post"], scores[f"{side}_pre"], threshold, factor)
        for side in ("bilingual", "multilingual")
    }
    return scores.assign(**changes, quadrant=quadrant(*changes.values()))


def sensitivity(
    scores: pd.DataFrame, thresholds: Sequence[float], factors: Sequence[float]
) -> pd.DataFrame:
    """Count the languages per quadrant for a grid of T and the factor (Figure 5, Appendix D).

    Returns:
        One row per combination and quadrant: `threshold`, `factor`, `quadrant`, `languages`.
    """
    rows = []
    for threshold, factor in product(thresholds, factors):
        counts = assign(scores, threshold, factor)["quadrant"].value_counts()
        rows += [(threshold, factor, name, int(counts.get(name, 0))) for name in QUADRANTS]
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
    """Estimate how often each language keeps its quadrant, by a bootstrap.

    For each sample, T is computed from untuned scores that are drawn with replacement, and each
    score is drawn within its rounding and its sampling error (which is normal, clipped at 0).

    Args:
        scores: Scores with the columns of `published`, and standard errors as in `trained`.
        vanilla: The untuned model's score of each target, whose mean is T.
        standard_error: Sampling error as a share of a score that has none. Defaults to 0. The paper
            prints none, so a larger value is an assumption.
        rounding: Half of the last printed digit. Defaults to 0.05.
        factor: The significance factor. Defaults to 2.
        samples: Number of bootstrap samples. Defaults to 1000.
        seed: Random seed of the bootstrap. Defaults to 0.

    Returns:
        One row per language and quadrant that occurred: `language`, `quadrant`, `probability`, and
        `assigned` (whether the unperturbed scores give this quadrant).
    """
    rng = np.random.default_rng(seed)
    vanilla = np.asarray(vanilla, dtype=float)
    level = rng.choice(vanilla, (samples, len(vanilla))).mean(axis=1, keepdims=True)

    def drawn(column: str) -> np.ndarray:
        value = scores[column].to_numpy(dtype=float)
        # If all languages share an untuned score, it is one number, which is drawn once.
        size = (samples, 1 if column.endswith("_pre") and (value == value[0]).all() else len(value))
        error = np.asarray(scores.get(f"{column}_error", standard_error * value), dtype=float)
        noise = rng.normal(0, 1, size) * error[: size[1]] + rng.uniform(-rounding, rounding, size)
        return np.clip(value[: size[1]] + noise, 0, None)

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
    """Compare the datasets' quadrants with what the summary of Table 2 prints.

    The paper keeps the languages that are stable over its datasets, and does not give the rule. Two
    rules fit: the quadrant is the same in all datasets, or the language itself gains in all.

    Args:
        assignments: Columns `dataset`, `quadrant`, `language`, as in Table 2. Rows of the dataset
            `Summary` hold what is printed.

    Returns:
        One row per language that every dataset has: `language`, the quadrant in each dataset by its
        name, `strict` (the quadrant, if all agree), `bilingual_gain` (whether every dataset shows
        one) and `printed` (from the summary, if it has the language).
    """
    wide = assignments.pivot(index="language", columns="dataset", values="quadrant")
    printed = wide.pop("Summary")
    wide = wide.dropna()
    return wide.assign(
        strict=wide.iloc[:, 0].where(wide.nunique(axis=1) == 1),
        bilingual_gain=wide.isin(["reciprocal", "selfish"]).all(axis=1),
        printed=printed,
    ).reset_index()
