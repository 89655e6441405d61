"""The runs of the mini world that the book and its claims rest on, and their shipped records.

    records("untuned")             # the shipped records; missing ones are computed
    scores("by_language")          # their scores in tidy form
    ship(("untuned",), workers=2)  # write the records of a study into the package

A study is a list of specifications for the packaged base. Shipped records hold scores, error counts
and provenance, but no hypotheses. They are found by the run's identity, so they stop counting as
soon as the base, the data or the semantics of the code change. To compute a study anew, delete its
file in `mlq_utils/data/runs` and ship it again.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mlq_utils import experiments, languages, modeling, paper
from mlq_utils.data import one_of
from mlq_utils.experiments.spec import Spec
from mlq_utils.experiments.store import Store, write_lines
from mlq_utils.modeling import Extension
from mlq_utils.quadrants import REFERENCE_TARGETS

SEEDS = (0, 1, 2)
PAIRS = 600
MANY_PAIRS = 4000
SIZES = (100, 400, 1600)
"""Numbers of training pairs where the paper varies them. Each is four times the one before."""
WATCHED = ("af", "ro", "fr", "de", "ru", "hu")
"""Targets beside the language tuned on: the two of Equation 1, and four of pretraining."""
OUTSIDE = ("af", "vi", "tr", "sw", "km", "th", "te")
"""Languages outside pretraining that are scored beside its 19."""
RECIPROCAL = ("ro", "bg", "no")
ALTRUISTIC = ("tr", "lt")
"""Languages that bring out others but hardly themselves, as the study `by_language` shows."""
ALTRUISTIC_HERE = ("tr", "lt", "fi", "sw")
"""All languages that are clearly altruistic in the mini world, as that study shows."""
ALTRUISTIC_SIX = ("vi", "ar", *ALTRUISTIC_HERE)
"""The three languages of the paper's Table 4, two of which are not altruistic here, and others."""
OVERTOKENISED = "km"
"""A language whose text falls back to bytes."""
OVERTOKENISED_FOUR = ("km", "lo", "gu", "te")
"""The over-tokenised languages of the paper's Table 7."""
TABLE_5 = (*OVERTOKENISED_FOUR, "es", "no", "bs")
"""Languages of the paper's Table 5: the over-tokenised ones, and three others."""
TABLE_14 = ("ro", "es", "de", "ca", "pt", "da", "no", "bs")
"""The targets of the paper's Table 14."""
FIGURE_2 = ("ro", "no", "ms", "luo")
"""The languages that the models of the paper's Figure 2 are tuned on."""
MIXED = ("hr", "da", "no", "ro", "ca", "cs", "bg", "pl", "es", "fr", "de", "pt", "nl")
MIXED += ("it", "uk", "ru")
"""Languages of mixtures. The first 13 are those of the paper's Table 3, and are scored."""
MIXED_SIZE = 800
"""Number of training pairs in every mixture, shared by its languages."""
EQUAL_STEPS = ("ro", "bg", "mk", "gl", "tr", "lt", "fi", "et", "km", "hi", "ja", "th")
"""Four languages of each populated quadrant, tuned on a tenth of the pairs."""
HELD_OUT = ("cy", "sv")
"""Languages that learning rates are chosen on, outside pretraining and in it. No comparison uses
them."""
RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""The learning rates tried."""
SPARING_RATES = {"embed": 3e-3, "full": 1e-4, "lora": 1e-2, "layers": 3e-4}
"""The learning rate of `RATES` with the best sum of own score and others' mean for Swedish, by
strategy. Comparisons on reciprocal languages use these rates. All others use the rates of the
schedule, which suit languages that the base has yet to learn."""
FIXED_CAP = 60
"""Maximum number of new tokens. It cuts as large a share of the over-tokenised sentences here as
256 tokens cut in FLORES."""
PIECES = (50, 100, 200)
"""Numbers of new pieces for a vocabulary of 3,072. The paper adds 3,000 to 12,000 to 32,000."""
EXTENSION = Extension("bbpe", PIECES[-1])
"""The extension that shortening is compared with: the most pieces, learned as the base's own."""


def covered() -> list[str]:
    """Return the languages that CLDR covers, without English."""
    return [code for code in languages.codes("cldr") if code != "en"]


def _grid(codes: Iterable[str], targets: Iterable[str] = WATCHED, **axes: Any) -> list[Spec]:
    """Return one run per language and combination of `axes`, each a field of `Spec` with values.

    A model is scored on its own language and on `targets`.
    """
    specs = []
    for values in itertools.product(*axes.values()):
        fields = dict(zip(axes, values, strict=True))
        if fields.get("strategy") == "layers":
            fields["layers"] = (0,)
        for code in codes:
            own = dict.fromkeys((code, *targets))
            specs.append(Spec(languages=(code,), targets=tuple(own), **fields))
    return specs


def _sparing(*strategies: str) -> list[dict[str, tuple]]:
    """Return axes for `_grid`: each strategy with its sparing learning rate."""
    return [{"strategy": (s,), "learning_rate": (SPARING_RATES[s],)} for s in strategies]


def untuned() -> list[Spec]:
    """Return the untuned base, scored on every language."""
    return [Spec(targets=tuple(covered()))]


def elicited() -> list[Spec]:
    """Return Embed FT on Romanian, scored on all languages of pretraining and some others."""
    targets = (*modeling.pretraining_languages(), *OUTSIDE)
    return [Spec(languages=("ro",), targets=targets, size=PAIRS, seed=seed) for seed in SEEDS]


def by_language() -> list[Spec]:
    """Return Embed FT on every language, scored on itself and on Equation 1's two targets."""
    return _grid(covered(), REFERENCE_TARGETS, seed=SEEDS)


def every_target() -> list[Spec]:
    """Return Embed FT on each language of Figure 2 and on English tasks, scored on every language.

    The English tasks take the place of Alpaca-En (Appendix C).
    """
    return [
        Spec(languages=(code,), targets=tuple(covered()), size=PAIRS, seed=seed)
        for code in (*FIGURE_2, "en")
        for seed in SEEDS
    ]


def equal_steps() -> list[Spec]:
    """Return Embed FT on a tenth of the pairs, for as many epochs and for as many steps."""
    return _grid(EQUAL_STEPS, REFERENCE_TARGETS, size=(PAIRS // 10,), epochs=(3, 30), seed=SEEDS)


def mirrored() -> list[Spec]:
    """Return Embed FT on every third language, scored on the representatives of Table 11.

    Only one of those twelve is a language of pretraining, so four more are scored.
    """
    representatives = [code for code in paper.table(11)["language"] if code in covered()]
    return _grid(covered()[::3], (*representatives, *WATCHED))


def strategies() -> list[Spec]:
    """Return altruistic and over-tokenised languages by strategy, scored on themselves and the 19.

    Embed FT and full FT have every seed, LoRA and the lowest layer have one.
    """
    codes, targets = (*ALTRUISTIC, OVERTOKENISED), modeling.pretraining_languages()
    specs = _grid(codes, targets, strategy=("embed", "full"), seed=SEEDS)
    return specs + _grid(codes, targets, strategy=("lora", "layers"), seed=SEEDS[:1])


def more_data() -> list[Spec]:
    """Return Embed FT and full FT of an over-tokenised language on more pairs."""
    return _grid([OVERTOKENISED], (), strategy=("embed", "full"), size=(MANY_PAIRS,), seed=SEEDS)


def learning_rates() -> list[Spec]:
    """Return each strategy at several learning rates, on held-out languages."""
    return _grid(HELD_OUT, strategy=tuple(SPARING_RATES), learning_rate=RATES)


def single_layers() -> list[Spec]:
    """Return Embed FT, each layer by itself, and the lower layers together (Tables 14 and 15).

    Models are tuned on English tasks, as in Table 14, and on Romanian. On Romanian they are tuned
    at the sparing rate too.
    """
    lower = [(0,), (1,), (2,), (3,), (0, 1), (0, 1, 2), (0, 1, 2, 3)]
    specs = []
    for code, rate in [("en", None), ("ro", None), ("ro", SPARING_RATES["layers"])]:
        tuned = {"languages": (code,), "targets": TABLE_14, "learning_rate": rate}
        how = [{"strategy": "layers", "layers": layers} for layers in lower]
        if rate is None:
            how.insert(0, {"strategy": "embed"})
        specs += [Spec(**tuned, **one, seed=seed) for one in how for seed in SEEDS]
    return specs


def reciprocal_sizes() -> list[Spec]:
    """Return Embed FT, full FT and LoRA over data sizes for reciprocal languages (Figure 3).

    Each strategy has its sparing learning rate. Full FT has Embed FT's rate too, since the paper
    has one rate for both.
    """
    axes = _sparing("embed", "full", "lora")
    axes.append({"strategy": ("full",), "learning_rate": (SPARING_RATES["embed"],)})
    return [spec for one in axes for spec in _grid(RECIPROCAL, **one, size=SIZES, seed=SEEDS)]


def mixtures() -> list[Spec]:
    """Return mixtures of 1 to 16 languages at one budget, and bilingual models (Table 3).

    A bilingual model is scored on its own language only.
    """
    mixed = [
        Spec(
            languages=MIXED[:count],
            targets=MIXED[:13],
            strategy=strategy,
            learning_rate=SPARING_RATES[strategy],
            size=MIXED_SIZE,
            seed=seed,
        )
        for strategy in ("embed", "full")
        for count in (1, 2, 4, 8, 16)
        for seed in SEEDS
    ]
    axes = _sparing("embed", "full")
    return mixed + [s for one in axes for s in _grid(MIXED[1:13], (), **one, size=(MIXED_SIZE,))]


def altruistic_sizes() -> list[Spec]:
    """Return Embed FT, full FT and LoRA over data sizes for altruistic languages (Table 4)."""
    return _grid(ALTRUISTIC_SIX, strategy=("embed", "full", "lora"), size=SIZES, seed=SEEDS)


def stagnant_sizes() -> list[Spec]:
    """Return full FT on two sizes of data, and LoRA on the larger one, for languages of Table 5.

    The study `more_data` has more pairs for one of these languages.
    """
    full = _grid(TABLE_5, (), strategy=("full",), size=SIZES[1:], seed=SEEDS)
    return full + _grid(TABLE_5, (), strategy=("lora",), size=SIZES[-1:], seed=SEEDS)


def shortened() -> list[Spec]:
    """Return full FT with and without shortening (Table 7).

    Translations have a scaled and a fixed cap on new tokens. One language is tuned on many pairs
    too.
    """
    axes = {"strategy": ("full",), "shorten": (None, "one token"), "seed": SEEDS}
    specs = _grid(OVERTOKENISED_FOUR, (), **axes, size=SIZES[-1:], cap=(None, FIXED_CAP))
    return specs + _grid([OVERTOKENISED], (), **axes, size=(MANY_PAIRS,))


def extended() -> list[Spec]:
    """Return full FT with extended vocabularies, on as many pairs as in `shortened` (Table 6).

    For one language there is every method and number of pieces, with new pieces merged after the
    original ones, as in the released code, and before them. With the most pieces there is every
    start of the new embeddings. The other languages have `EXTENSION`, with both caps.
    """
    ways = [
        Extension(method, pieces, ranked=ranked)
        for method in modeling.METHODS
        for pieces in PIECES
        for ranked in (True, False)
    ]
    starts = ("random", "mean")
    ways += [Extension(m, PIECES[-1], start) for m in modeling.METHODS for start in starts]
    axes = {"strategy": ("full",), "size": SIZES[-1:], "seed": SEEDS}
    specs = _grid([OVERTOKENISED], (), **axes, extension=ways)
    caps = (None, FIXED_CAP)
    specs += _grid(OVERTOKENISED_FOUR, (), **axes, extension=(EXTENSION,), cap=caps)
    return list(dict.fromkeys(specs))


STUDIES: dict[str, Callable[[], list[Spec]]] = {
    study.__name__: study
    for study in (
        *(untuned, elicited, by_language, every_target, strategies, more_data, mirrored),
        *(equal_steps, learning_rates, single_layers, reciprocal_sizes, mixtures),
        *(altruistic_sizes, stagnant_sizes, shortened, extended),
    )
}


def records(name: str, store: Store | None = None, **options: Any) -> list[dict[str, Any]]:
    """Return the records of a study, computing those that the store lacks.

    Args:
        name: The study, a key of `STUDIES`.
        store: Where records are kept. Defaults to `default_store()`.
        **options: Passed on to `run_all`.

    Raises:
        ValueError: The study is unknown, or one of its runs failed.
    """
    found = experiments.run_all(STUDIES[one_of("study", name, STUDIES)](), store, **options)
    failed = [record for record in found if record["status"] != "done"]
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(found)} runs of the study {name} failed; the first: "
            f"{failed[0]['spec']['languages']}: {failed[0]['error']}"
        )
    return found


def scores(name: str, store: Store | None = None, **options: Any) -> pd.DataFrame:
    """Return the scores of a study in tidy form; see `records` and `experiments.scores`."""
    return experiments.scores(records(name, store, **options))


def ship(names: tuple[str, ...] = (), /, *, workers: int = 1) -> None:
    """Write the records of studies into the package, computing those that are missing.

    Args:
        names: Names of studies, keys of `STUDIES`. Defaults to all of them.
        workers: Number of processes, with one thread each. Defaults to 1.

    Raises:
        ValueError: A study is unknown, or one of its runs failed.
    """
    for name in [one_of("study", name, STUDIES) for name in names] or STUDIES:
        found = records(name, workers=workers)
        write_lines(experiments.SHIPPED / f"{name}.jsonl", found)
        print(f"{name}: {len(found)} records", flush=True)


def sides(scores: pd.DataFrame) -> pd.DataFrame:
    """Return own scores and the mean scores of others, of runs that are scored on `WATCHED`.

    The others do not include Afrikaans, whose score rises in none of these runs.

    Args:
        scores: Scores as `scores` returns them.

    Returns:
        One row per run and side, with the columns `tuned_on`, `strategy`, `learning_rate`, `size`,
        `seed`, `side` ("itself" or "others") and `spbleu`.
    """
    own = scores["target"] == scores["tuned_on"]
    frame = scores.assign(side=own.map({True: "itself", False: "others"}))
    by = ["tuned_on", "strategy", "learning_rate", "size", "seed", "side"]
    frame = frame[own | scores["target"].isin(set(WATCHED) - {"af"})]
    return frame.groupby(by, dropna=False, as_index=False, sort=False)["spbleu"].mean()


def live(spec: Spec, targets: Sequence[str], store: Store | None = None) -> pd.DataFrame:
    """Repeat part of a recorded run on this machine, and set it beside the record.

    Args:
        spec: A run of a study.
        targets: The targets of the run that are scored again.
        store: Where the record is looked for and the repeated run is kept. Defaults to
            `default_store()`.

    Returns:
        One row per target, with the columns `target`, `recorded` and `live` (spBLEU), and the
        record's interval `low` and `high`. On another processor rounding differs, and with it the
        translation of a few sentences.

    Raises:
        ValueError: A target is not one of the run's.
    """
    for target in targets:
        one_of("target of this run", target, spec.targets)
    part = dataclasses.replace(spec, targets=tuple(targets))
    record, again = (
        experiments.scores([experiments.run(one, store)]).set_index("target")
        for one in (spec, part)
    )
    columns = {"spbleu": "recorded", "spbleu_low": "low", "spbleu_high": "high"}
    found = record.loc[list(targets), list(columns)].rename(columns=columns)
    return found.assign(live=again["spbleu"]).reset_index()


def examples(
    codes: Sequence[str], strategies: Sequence[str], size: int = 400, store: Store | None = None
) -> pd.DataFrame:
    """Translate one sentence into each language, by the base and by models tuned on this machine.

    Args:
        codes: Languages, each tuned on by itself.
        strategies: Strategies to tune with.
        size: Number of training pairs. Defaults to 400.
        store: Where runs are kept. Defaults to `default_store()`.

    Returns:
        One row per language and model, with the columns `language`, `model` ("source", "reference",
        "untuned" or a strategy) and `text`. The sentence is the first with a source of about median
        length.
    """
    store = store or experiments.default_store()
    runs = {"untuned": {}} | {name: {"strategy": name, "size": size} for name in strategies}
    rows = []
    for code, (name, fields) in itertools.product(codes, runs.items()):
        tuned_on = (code,) if fields else ()
        spec = Spec(languages=tuned_on, targets=(code,), test_size=10, **fields)
        found = store.hypotheses(experiments.run(spec, store)["identity"])
        lengths = found["source"].str.len()
        row = found.loc[(lengths - lengths.median()).abs().idxmin()]
        if name == "untuned":
            rows += [(code, "source", row["source"]), (code, "reference", row["target"])]
        rows.append((code, name, row["hypothesis"]))
    return pd.DataFrame(rows, columns=["language", "model", "text"])


def treated(rows: pd.DataFrame) -> pd.DataFrame:
    """Describe in words how the sequences of runs were treated.

    Args:
        rows: Rows as `scores` or `experiments.costs` return them.

    Returns:
        The rows with two more columns: `sequences` ("plain", "shortened" or "extended") and `limit`
        ("scaled", or the number of tokens).
    """
    kinds = [rows["shorten"].notna(), rows["method"].notna()]
    limit = rows["cap"].map("{:.0f} tokens".format).where(rows["cap"].notna(), "scaled")
    return rows.assign(sequences=np.select(kinds, ["shortened", "extended"], "plain"), limit=limit)
