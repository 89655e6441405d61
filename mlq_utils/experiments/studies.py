"""The lists of runs that the book rests on, and how their records are made and shipped.

    records("untuned")                                   # shipped ones; what is missing is computed
    python -m mlq_utils.experiments.studies untuned --workers 2      # computes what is missing and ships all

Each is a list of specifications for the packaged base. Records that are shipped hold scores, error
counts and provenance, no hypotheses; they are found by the run's identity, so they go out of use
when the base, the data or the code's semantics change. To compute a study anew, delete its file.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mlq_utils import experiments, languages, paper
from mlq_utils.data import one_of, some_of
from mlq_utils.experiments.executors import run_all
from mlq_utils.experiments.spec import Spec
from mlq_utils.experiments.store import Store, write_lines
from mlq_utils.modeling import extension
from mlq_utils.modeling.extension import Extension
from mlq_utils.modeling.pretraining_text import pretraining_languages
from mlq_utils.quadrants import REFERENCE_TARGETS

SEEDS = (0, 1, 2)
PAIRS = 600
MANY_PAIRS = 4000
OUTSIDE = ("af", "vi", "tr", "sw", "km", "th", "te")
"""Languages outside pretraining that are scored beside the 19."""
ALTRUISTIC = ("tr", "lt")
"""Languages that bring others out and hardly themselves, as the study `by_language` shows."""
OVERTOKENISED = "km"
"""A language that falls to bytes."""
FIGURE_2 = ("ro", "no", "ms", "luo")
"""What the models of the paper's Figure 2 are tuned on."""
SIZES = (100, 400, 1600)
"""Pairs, where the paper varies them: each four times the one before."""
WATCHED = ("af", "ro", "fr", "de", "ru", "hu")
"""Scored beside the language tuned on: Equation 1's two, and four more of pretraining."""
MIXED = tuple(
    ["hr", "da", "no", "ro", "ca", "cs", "bg", "pl", "es", "fr", "de", "pt", "nl", "it", "uk", "ru"]
)
"""Languages of mixtures: the first thirteen are Table 3's, in its order, and are scored."""
MIXED_SIZE = 800
"""Pairs of every mixture, shared by its languages."""
TABLE_14 = ("ro", "es", "de", "ca", "pt", "da", "no", "bs")
"""The targets of the paper's Table 14."""
RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""Learning rates tried."""
SPARING_RATES = {"embed": 3e-3, "full": 1e-4, "lora": 1e-2, "layers": 3e-4}
"""Of those, by strategy, the one with the best sum of own score and others' mean for Swedish, the
held-out language of pretraining: for comparisons on reciprocal languages. Elsewhere the schedule's
own rates hold, which suit languages that the base has to learn."""
HELD_OUT = ("cy", "sv")
"""Languages that rates are judged on, outside pretraining and in it; comparisons avoid them."""
EQUAL_STEPS = ("ro", "bg", "mk", "gl", "tr", "lt", "fi", "et", "km", "hi", "ja", "th")
"""Four languages of each populated quadrant, tuned on a tenth of the pairs."""
RECIPROCAL = ("ro", "bg", "no")
ALTRUISTIC_HERE = ("tr", "lt", "fi", "sw")
"""Languages that are altruistic in the mini world, as the study `by_language` shows."""
ALTRUISTIC_SIX = ("vi", "ar", *ALTRUISTIC_HERE)
"""Table 4's three, of which two are not, and those others."""
OVERTOKENISED_FOUR = ("km", "lo", "gu", "te")
"""The over-tokenised languages of Table 7."""
TABLE_5 = (*OVERTOKENISED_FOUR, "es", "no", "bs")
"""Of Table 5: those four, and three others."""
FIXED_CAP = 60
"""Tokens: cuts as large a share of these languages' sentences here as 256 does in FLORES."""
PIECES = (50, 100, 200)
"""New pieces in a vocabulary of 3,072; the paper adds 3,000 to 12,000 to 32,000."""
EXTENSION = Extension("bbpe", PIECES[-1])
"""What is compared with shortening: pieces learned as the base's own, the most of them."""


def covered() -> list[str]:
    """Return the languages that CLDR covers, English aside."""
    return [code for code in languages.codes("cldr") if code != "en"]


def _specs(languages: Iterable[str], targets: Iterable[str] = WATCHED, **axes: Any) -> list[Spec]:
    """Return a run for each language and combination of `axes`, which are fields of `Spec`.

    A language is scored on itself and on `targets`. Each axis is a tuple of values.
    """
    return [
        Spec(
            languages=(code,),
            targets=tuple(dict.fromkeys((code, *targets))),
            **dict(zip(axes, values, strict=True)),
        )
        for values in itertools.product(*axes.values())
        for code in languages
    ]


def untuned() -> list[Spec]:
    """Return the run of the base as it is, on every language."""
    return [Spec(targets=tuple(covered()))]


def elicited() -> list[Spec]:
    """Return Embed FT on Romanian, scored on all languages of pretraining and some others."""
    targets = (*pretraining_languages(), *OUTSIDE)
    return [Spec(languages=("ro",), targets=targets, size=PAIRS, seed=seed) for seed in SEEDS]


def by_language() -> list[Spec]:
    """Return Embed FT on every language, scored on itself and on Equation 1's two targets."""
    return _specs(covered(), REFERENCE_TARGETS, seed=SEEDS)


def every_target() -> list[Spec]:
    """Return Embed FT on each language of Figure 2, and on English tasks, scored on every language.

    The latter are in the place of Alpaca-En (Appendix C).
    """
    return [
        Spec(languages=(code,), targets=tuple(covered()), size=PAIRS, seed=seed)
        for code in (*FIGURE_2, "en")
        for seed in SEEDS
    ]


def equal_steps() -> list[Spec]:
    """Return Embed FT on a tenth of the pairs, in as many epochs and in as many steps."""
    return _specs(EQUAL_STEPS, REFERENCE_TARGETS, size=(PAIRS // 10,), epochs=(3, 30), seed=SEEDS)


def mirrored() -> list[Spec]:
    """Return Embed FT on every third language, scored on the representatives of Table 11.

    And on four languages of pretraining, which are but one of the twelve there.
    """
    representatives = [code for code in paper.table(11)["language"] if code in covered()]
    return _specs(covered()[::3], dict.fromkeys((*representatives, *WATCHED)))


def strategies() -> list[Spec]:
    """Return altruistic and over-tokenised languages by strategy, scored on itself and the 19.

    Embed FT and full FT with every seed, LoRA and the lowest layer with one.
    """
    codes, targets = (*ALTRUISTIC, OVERTOKENISED), pretraining_languages()
    return [
        spec
        for strategy, seeds in (
            ("embed", SEEDS),
            ("full", SEEDS),
            ("lora", SEEDS[:1]),
            ("layers", SEEDS[:1]),
        )
        for spec in _specs(
            codes,
            targets,
            strategy=(strategy,),
            layers=((0,) if strategy == "layers" else None,),
            seed=seeds,
        )
    ]


def more_data() -> list[Spec]:
    """Return Embed FT and full FT of an over-tokenised language on more pairs."""
    return _specs([OVERTOKENISED], (), strategy=("embed", "full"), size=(MANY_PAIRS,), seed=SEEDS)


def learning_rates() -> list[Spec]:
    """Return each strategy at several learning rates, on held-out languages."""
    strategies = ("embed", "full", "lora", "layers")
    return [
        dataclasses.replace(spec, layers=(0,) if spec.strategy == "layers" else None)
        for spec in _specs(HELD_OUT, strategy=strategies, learning_rate=RATES)
    ]


def single_layers() -> list[Spec]:
    """Return each layer by itself, lower layers together, and Embed FT (Tables 14 and 15).

    On Romanian, at the schedule's rate and at the sparing one; on English tasks, as Table 14, at
    the former.
    """
    layers = [(0,), (1,), (2,), (3,), (0, 1), (0, 1, 2), (0, 1, 2, 3)]
    rates = [("en", None), ("ro", None), ("ro", SPARING_RATES["layers"])]
    return [
        Spec(
            languages=(code,),
            targets=TABLE_14,
            strategy=strategy,
            layers=which,
            learning_rate=rate,
            seed=seed,
        )
        for code, rate in rates
        for strategy, which in [("embed", None), *(("layers", one) for one in layers)]
        if strategy == "layers" or rate is None
        for seed in SEEDS
    ]


def reciprocal_sizes() -> list[Spec]:
    """Return Embed FT, full FT and LoRA over data sizes for reciprocal languages (Figure 3).

    Each at its sparing rate; and full FT at Embed FT's, since the paper has one for both.
    """
    rates = [*SPARING_RATES.items(), ("full", SPARING_RATES["embed"])]
    return [
        spec
        for strategy, rate in rates
        if strategy != "layers"
        for spec in _specs(
            RECIPROCAL, strategy=(strategy,), learning_rate=(rate,), size=SIZES, seed=SEEDS
        )
    ]


def mixtures() -> list[Spec]:
    """Return mixtures of 1 to 16 languages at one budget, and bilingual models (Table 3).

    The bilingual ones, a language each, are scored on themselves only.
    """
    rates = [(name, SPARING_RATES[name]) for name in ("embed", "full")]
    mixed = [
        Spec(
            languages=MIXED[:count],
            targets=MIXED[:13],
            strategy=strategy,
            learning_rate=rate,
            size=MIXED_SIZE,
            seed=seed,
        )
        for strategy, rate in rates
        for count in (1, 2, 4, 8, 16)
        for seed in SEEDS
    ]
    bilingual = [
        spec
        for strategy, rate in rates
        for spec in _specs(
            MIXED[1:13], (), strategy=(strategy,), learning_rate=(rate,), size=(MIXED_SIZE,)
        )
    ]
    return mixed + bilingual


def altruistic_sizes() -> list[Spec]:
    """Return Embed FT, full FT and LoRA over data sizes for altruistic languages (Table 4)."""
    return _specs(ALTRUISTIC_SIX, strategy=("embed", "full", "lora"), size=SIZES, seed=SEEDS)


def stagnant_sizes() -> list[Spec]:
    """Return full FT on two sizes of data, and LoRA on the larger, for languages of Table 5.

    The study `more_data` has more pairs for one language.
    """
    full = _specs(TABLE_5, (), strategy=("full",), size=SIZES[1:], seed=SEEDS)
    return full + _specs(TABLE_5, (), strategy=("lora",), size=SIZES[-1:], seed=SEEDS)


def shortened() -> list[Spec]:
    """Return full FT with and without shortening (Table 7).

    Under a limit of new tokens that is scaled to the language, and under a fixed one; and for one
    language on many pairs.
    """
    shared = {"strategy": ("full",), "shorten": (None, "one token"), "seed": SEEDS}
    return _specs(
        OVERTOKENISED_FOUR, (), **shared, size=SIZES[-1:], cap=(None, FIXED_CAP)
    ) + _specs([OVERTOKENISED], (), **shared, size=(MANY_PAIRS,))


def extended() -> list[Spec]:
    """Return full FT with extended vocabularies, as many pairs as `shortened` (Table 6).

    For one language each method and size, with new pieces above the original merges, as released,
    and below them; and the largest size with new embeddings that start elsewhere. For the others
    `EXTENSION`, also under the fixed limit of `shortened`.
    """
    ways = [
        Extension(method, pieces, ranked=ranked)
        for method in extension.METHODS
        for pieces in PIECES
        for ranked in (True, False)
    ]
    ways += [
        Extension(method, PIECES[-1], start)
        for method in extension.METHODS
        for start in ("random", "mean")
    ]
    shared = {"strategy": ("full",), "size": SIZES[-1:], "seed": SEEDS}
    every = _specs([OVERTOKENISED], (), **shared, extension=ways)
    caps = (None, FIXED_CAP)
    one = _specs(OVERTOKENISED_FOUR, (), **shared, extension=(EXTENSION,), cap=caps)
    return list(dict.fromkeys(every + one))


STUDIES: dict[str, Callable[[], list[Spec]]] = {
    "untuned": untuned,
    "elicited": elicited,
    "by_language": by_language,
    "every_target": every_target,
    "strategies": strategies,
    "more_data": more_data,
    "mirrored": mirrored,
    "equal_steps": equal_steps,
    "learning_rates": learning_rates,
    "single_layers": single_layers,
    "reciprocal_sizes": reciprocal_sizes,
    "mixtures": mixtures,
    "altruistic_sizes": altruistic_sizes,
    "stagnant_sizes": stagnant_sizes,
    "shortened": shortened,
    "extended": extended,
}


def records(name: str, store: Store | None = None, **options: Any) -> list[dict[str, Any]]:
    """Return the records of a study.

    Args:
        name: A key of `STUDIES`.
        store: As in `runs.run_all`.
        options: Passed on to it.

    Raises:
        ValueError: There is no such study, or one of its runs failed.
    """
    found = run_all(STUDIES[one_of("study", name, STUDIES)](), store, **options)
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


def sides(scores: pd.DataFrame) -> pd.DataFrame:
    """Return own scores, and means of others, of runs that are scored on `WATCHED`.

    Afrikaans is left out of the others: it rises in none of these runs, whatever the strategy.

    Args:
        scores: As `scores` returns them.

    Returns:
        A row a run and side: `tuned_on`, `strategy`, `learning_rate`, `size`, `seed`, `side`
        ("itself" or "others") and `spbleu`.
    """
    own = scores["target"] == scores["tuned_on"]
    frame = scores.assign(side=own.map({True: "itself", False: "others"}))
    by = ["tuned_on", "strategy", "learning_rate", "size", "seed", "side"]
    frame = frame[own | scores["target"].isin(set(WATCHED) - {"af"})]
    return frame.groupby(by, dropna=False, as_index=False, sort=False)["spbleu"].mean()


def live(spec: Spec, targets: Sequence[str], store: Store | None = None) -> pd.DataFrame:
    """Do part of a recorded run again, here, and set it beside the record.

    Args:
        spec: A run of a study.
        targets: Some of its targets, to be scored again.
        store: As in `experiments.run`; the record is looked for in it too.

    Returns:
        A row a target: `target`; `recorded`, `live` (spBLEU), and the record's interval `low` and
        `high`. On other processors rounding differs, and with it a sentence here or there.

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
    """Translate a sentence of each language, untuned and tuned on it, by runs made here.

    Args:
        codes: Languages.
        strategies: How to tune.
        size: Training pairs.
        store: As in `experiments.run`.

    Returns:
        A row a language and model: `language`, `model` ("source", "reference", "untuned" or a
        strategy), `text`. The sentence is the first whose source is of the median length.
    """
    store = store or experiments.default_store()
    runs = {"untuned": {}} | {name: {"strategy": name, "size": size} for name in strategies}
    rows = []
    for code in codes:
        for name, fields in runs.items():
            tuned = (code,) if name != "untuned" else ()
            spec = Spec(languages=tuned, targets=(code,), test_size=10, **fields)
            found = store.hypotheses(experiments.run(spec, store)["identity"])
            sizes = found["source"].str.len()
            row = found.loc[(sizes - sizes.median()).abs().idxmin()]
            if name == "untuned":
                rows += [(code, "source", row["source"]), (code, "reference", row["target"])]
            rows.append((code, name, row["hypothesis"]))
    return pd.DataFrame(rows, columns=["language", "model", "text"])


def treated(rows: pd.DataFrame) -> pd.DataFrame:
    """Say in words how sequences were treated.

    Args:
        rows: As `scores` or `experiments.costs` return them.

    Returns:
        The rows, with `sequences` ("plain", "shortened" or "extended") and `limit` ("scaled", or
        the number of tokens).
    """
    kinds = [rows["shorten"].notna(), rows["method"].notna()]
    limit = rows["cap"].map("{:.0f} tokens".format).where(rows["cap"].notna(), "scaled")
    return rows.assign(sequences=np.select(kinds, ["shortened", "extended"], "plain"), limit=limit)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute what is missing of studies, and ship all of their records."""
    parser = argparse.ArgumentParser(
        prog="python -m mlq_utils.experiments.studies", description=main.__doc__
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(STUDIES))
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    given = parser.parse_args(arguments)
    names = some_of(parser, "study", given.names, STUDIES)
    try:
        for name in names:
            print(name, flush=True)
            found = records(name, workers=given.workers)
            write_lines(experiments.SHIPPED / f"{name}.jsonl", found)
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
