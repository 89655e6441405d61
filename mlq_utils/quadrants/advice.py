"""Advises how to tune a language.

recommend("cy")                            # from what is known of the language
recommend("cy", fertility=frame)           # and from what your tokenizer does to it
recommend("cy", Trial(untuned, tuned))     # and from a trial with your model
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from mlq_utils import languages
from mlq_utils.quadrants import prediction
from mlq_utils.quadrants.assignment import QUADRANTS, stability
from mlq_utils.quadrants.strategies import plan

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
        standard_error: Sampling error of a score as a share of the score.
        before_error: Sampling errors of scores before tuning in spBLEU points, for the targets
            whose error is known.
        after_error: The same for scores after tuning.
    """

    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    threshold: float | None = None
    standard_error: float = 0.05
    before_error: dict[str, float] = field(default_factory=dict)
    after_error: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Advice:
    """What to expect of a language and how to tune it.

    Attributes:
        language: The paper's code of the language.
        quadrant: The likeliest quadrant, or "undecided".
        likely: The likeliest quadrant, or the two between which it is undecided.
        probability: The probability of each quadrant.
        gains_itself: The probability that the language improves by Equation 1.
        gains_others: The probability that the mean of af and ro does.
        strategy: What to tune, by printed runs on the nearest languages (see `runs`).
        expect: Scores of these runs, before and after tuning, in LLaMA-7B.
        paper: What the paper recommends (Section 4.4), and why it is not followed if it is not.
        evidence: What the probabilities rest on.
    """

    language: str
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
            f"{languages.get(self.language).name} ({self.language}): {self.quadrant}{between}\n"
            f"  probability   {chances}\n"
            f"  gains         itself {self.gains_itself:.0%}, others {self.gains_others:.0%}\n"
            f"  what to tune  {self.strategy}\n"
            f"  expect        in LLaMA-7B {self.expect}\n"
            f"  the paper     recommends {self.paper}\n"
            f"  evidence      {self.evidence}"
        )


def recommend(
    language: str,
    trial: Trial | None = None,
    *,
    fertility: pd.DataFrame | None = None,
    pairs: int = 10_000,
) -> Advice:
    """Advise how to tune a language.

    The prior is what is known of the language and of your tokenizer. Its quadrants in Table 2 turn
    it into a posterior, which your trial updates. `evaluate` shows how good the posterior is. If
    all printed datasets agree on another quadrant than the likeliest, and there is no trial, then
    the quadrant is undecided.

    Args:
        language: The paper's code of the language.
        trial: Scores of your model before and after tuning on the language.
        fertility: What your tokenizer does to the language and to English, as returned by
            `tokenization.analyse` for texts of the same content.
        pairs: Number of sentence pairs to tune on. Defaults to 10,000, as in the paper.

    Raises:
        ValueError: The language is unknown or English, there are no pairs, the two sides of the
            trial have different targets, or the trial or `fertility` lacks the language or what it
            is compared with.
    """
    if languages.get(language).code == "en":
        raise ValueError("English is the source language; name a language to translate into")
    if pairs < 1:
        raise ValueError(f"pairs must be 1 or more, not {pairs}")
    known, columns = prediction.features().loc[[language]], prediction.PRIOR
    evidence = ["pretraining, family and script; scores after English tasks"]
    if fertility is not None:
        measured = prediction.features(fertility)
        if language not in measured.index:
            raise ValueError(f"`fertility` has no row for {language}: measure it and English")
        known, columns = measured.loc[[language]], (*columns, prediction.TOKENIZER)
        evidence.append("your tokenizer's fertility and overlap")
    rows = prediction.examples()
    own, others = (rows[rows["language"].eq(language) == mine] for mine in (True, False))
    prior = np.mean([prediction.learned(others, group, known) for group in columns], axis=0)
    record = own["quadrant"].value_counts().reindex(QUADRANTS, fill_value=0)
    chances = prediction.posterior(prior, record.to_numpy())
    printed = " and ".join(own["dataset"] + " " + own["quadrant"]) or "nothing"
    evidence.append(f"Table 2: {printed}")
    tried = trial is not None and bool(trial.before or trial.after)
    if tried:
        chances = chances * _tried(language, trial)
        chances = chances / chances.sum()
        evidence.append(f"your trial: {len(trial.before)} targets, Equation 1")
    chance = dict(zip(QUADRANTS, chances.tolist(), strict=True))
    first, second, *_ = sorted(QUADRANTS, key=chance.__getitem__, reverse=True)
    likely = (first,) if chance[first] - chance[second] > CLOSE else (first, second)
    if not tried and set(own["quadrant"]).isdisjoint(likely) and own["quadrant"].nunique() == 1:
        likely = (first, own["quadrant"].iloc[0])
    quadrant = first if len(likely) == 1 else "undecided"
    itself, to_others = (chance["reciprocal"] + chance[q] for q in ("selfish", "altruistic"))
    texts = plan(language, likely, pairs) | {"evidence": "; ".join(evidence)}
    return Advice(language, quadrant, likely, chance, itself, to_others, **texts)


def _tried(language: str, trial: Trial) -> np.ndarray:
    """Return how probable a trial makes each quadrant, by Equation 1 and the sampling errors."""
    before, after = trial.before, trial.after
    if set(before) != set(after):
        differ = ", ".join(sorted(set(before) ^ set(after)))
        raise ValueError(f"scores before and after tuning have different targets: {differ}")
    others = [target for target in before if target != language]
    if language not in before or not others:
        raise ValueError(f"a trial needs the scores of {language} and of at least one other target")
    if unknown := sorted({*trial.before_error, *trial.after_error} - set(before)):
        raise ValueError(f"errors without a score: {', '.join(unknown)}")
    row = {"language": language}
    for side, targets in {"bilingual": [language], "multilingual": others}.items():
        for when, scores in {"pre": before, "post": after}.items():
            known = trial.before_error if when == "pre" else trial.after_error
            errors = [known.get(t, trial.standard_error * scores[t]) for t in targets]
            row[f"{side}_{when}"] = np.mean([scores[target] for target in targets])
            row[f"{side}_{when}_error"] = np.linalg.norm(errors) / len(targets)
    vanilla = list(before.values()) if trial.threshold is None else [trial.threshold]
    drawn = stability(pd.DataFrame([row]), vanilla, rounding=0.0).set_index("quadrant")
    return drawn["probability"].reindex(QUADRANTS, fill_value=0.0).to_numpy()
