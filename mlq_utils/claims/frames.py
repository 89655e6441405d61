"""The data that the claims are measured on: frames by the names that `claims.yaml` uses.

Scores and changes are in spBLEU. A change is always the score minus the untuned model's, and the
scale is the highest score of the frame.
"""

import dataclasses
from collections.abc import Callable
from functools import cache, partial

import pandas as pd

from mlq_utils import corpora, languages, paper, quadrants, tokenization
from mlq_utils.data import one_of
from mlq_utils.experiments import studies
from mlq_utils.modeling.bases import MINI
from mlq_utils.modeling.extension import Extension


@cache
def frame(name: str) -> pd.DataFrame:
    """Return the frame of this name, a key of `FRAMES`. It is shared and must not be changed."""
    return FRAMES[one_of("frame", name, FRAMES)]()


@cache
def _untuned() -> pd.Series:
    return studies.scores("untuned").set_index("target")["spbleu"]


def _named() -> pd.Series:
    """Return, for each language but English, whether LLaMA's pretraining text contains it."""
    return languages.table().query("code != 'en'").set_index("code")["pretraining"]


# Models, one row per model and target.


def _compared(scores: pd.DataFrame, untuned: pd.Series) -> pd.DataFrame:
    """Add the change, the scale, the target's properties and the number of languages tuned on."""
    target, tuned_on = scores["target"], scores["tuned_on"]
    references = target.isin(quadrants.REFERENCE_TARGETS)
    return scores.assign(
        change=scores["spbleu"] - target.map(untuned),
        untuned=target.map(untuned),
        scale=scores["spbleu"].max(),
        own=target == tuned_on,
        named=target.map(_named()).eq(True),  # English tasks have no target
        group=references.map({True: "references", False: "others"}),
        representative=target.isin(paper.table(11)["language"]),
        n_languages=tuned_on.str.count(r"\+") + 1,
    )


def _ted() -> pd.DataFrame:
    """Return Table 12's models on its twelve targets, and the quadrants of their languages."""
    scores = paper.table(12).query("role == 'representative'")
    vanilla = scores["tuned_on"] == "LLaMA"
    found = _compared(scores[~vanilla], scores[vanilla].set_index("target")["spbleu"])
    quadrant = frame("quadrants of table 12").set_index("language")["quadrant"]
    return found.assign(quadrant=found["tuned_on"].map(quadrant))


def _sides(name: str) -> pd.DataFrame:
    """Return own scores and those of others, and whether the rate is the strategy's sparing one."""
    found = studies.sides(frame(name))
    quadrant = frame("quadrants of the mini world").set_index("language")["quadrant"]
    return found.assign(
        quadrant=found["tuned_on"].map(quadrant),
        sparing=found["learning_rate"] == found["strategy"].map(studies.SPARING_RATES),
        rates=found.query("strategy == 'full'")["learning_rate"].nunique(dropna=False),
        scale=found["spbleu"].max(),
    )


def _altruistic_errors() -> pd.DataFrame:
    """Return the errors on altruistic languages, before and after tuning on themselves."""
    runs = {"before": "tuned_on == ''", "after": "own"}
    return pd.concat(frame("outputs").query(rows).assign(when=n) for n, rows in runs.items())


def extensions() -> pd.DataFrame:
    """Return what runs with an extended vocabulary change against those without.

    There is one row per language and extension of the study `extended` under a scaled limit of new
    tokens. `spbleu`, `spbleu_plain` (without the extension) and `change` are means over seeds.
    """
    run = ["target", "size", "seed"]
    plain = frame("shortened").query("cap.isna() and shorten.isna()").set_index(run)["spbleu"]
    rows = frame("extended").query("cap.isna()").join(plain.rename("spbleu_plain"), on=run)
    ways = ["target", *(field.name for field in dataclasses.fields(Extension))]
    means = rows.groupby(ways, as_index=False, sort=False)[["spbleu", "spbleu_plain"]].mean()
    return means.assign(change=means["spbleu"] - means["spbleu_plain"])


# Languages and their quadrants.


def _described(assigned: pd.DataFrame, words: pd.DataFrame | None = None) -> pd.DataFrame:
    """Add a language's family, whether it is named, and what a tokenizer (LLaMA's) makes of it."""
    if words is None:
        words = tokenization.recorded("fertility").query("tokenizer == 'llama'")
    indo_european = languages.table().set_index("code")["family_1"] == "Indo-European"
    code = assigned["language"]
    found = assigned.assign(indo_european=code.map(indo_european), named=code.map(_named()))
    columns = ["of_language", "of_english", "tokens_per_char"]
    return found.join(words.set_index("language")[columns], on="language")


def _assigned(scores: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Add the quadrants by Equation 1, also with Figure 5's significance factor of 20."""
    at_20 = quadrants.assign(scores, threshold, factor=20.0)["quadrant"]
    return quadrants.assign(scores, threshold).assign(quadrant_at_20=at_20)


def _ted_quadrants() -> pd.DataFrame:
    printed = paper.table(2).query("dataset == 'Ted'").set_index("language")["quadrant"]
    found = _assigned(quadrants.published(), quadrants.threshold())
    return _described(found.assign(printed=found["language"].map(printed)))


def _mini_by_seed() -> pd.DataFrame:
    scores = quadrants.trained(frame("untuned"), frame("by_language"))
    return _assigned(scores, quadrants.threshold(_untuned()))


def _mini_quadrants() -> pd.DataFrame:
    """Return the mini world's quadrants by the mean score of the seeds."""
    by_seed = frame("quadrants of the mini world by seed")
    means = by_seed.groupby("language", sort=False).mean(numeric_only=True).reset_index()
    words = tokenization.analyse(tokenization.load(MINI), corpora.texts("cldr", "test", 200))
    return _described(_assigned(means, quadrants.threshold(_untuned())), words)


def _brevity() -> pd.DataFrame:
    """Return Table 7, with the brevity of outputs that are cut at the limit of new tokens."""
    printed = paper.table(7).pivot(index="target", columns="setting", values="value").drop("AVG")
    shortened = tokenization.recorded("shortening").query("kind == 'one token'")
    return printed.join(shortened.set_index("language")).reset_index(names="language")


FRAMES: dict[str, Callable[[], pd.DataFrame]] = (
    {f"table {n}": partial(paper.table, n) for n in range(1, 17)}
    | {n: lambda n=n: _compared(studies.scores(n), _untuned()) for n in studies.STUDIES}
    | {
        "models of table 9": lambda: paper.table(9).join(_named().rename("named"), on="target"),
        "models of table 12": _ted,
        "reciprocal_sizes by side": partial(_sides, "reciprocal_sizes"),
        "altruistic_sizes by side": partial(_sides, "altruistic_sizes"),
        "tokenizers": lambda: tokenization.recorded("fertility"),
        "errors on altruistic languages": _altruistic_errors,
        "extensions": extensions,
        "quadrants of table 2": lambda: _described(paper.table(2)),
        "quadrants of table 2 by language": lambda: quadrants.summarise(paper.table(2)),
        "quadrants of table 12": _ted_quadrants,
        "quadrants of the mini world": _mini_quadrants,
        "quadrants of the mini world by seed": _mini_by_seed,
        "shortening of LLaMA's tokens": lambda: tokenization.recorded("shortening"),
        "table 7 with brevity": _brevity,
    }
)
"""The frames by name."""
