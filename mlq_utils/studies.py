"""The lists of runs that the book rests on, and how their records are made and shipped.

    records("untuned")                                   # shipped ones; what is missing is computed
    python -m mlq_utils.studies untuned --workers 2      # computes what is missing and ships all

Each is a list of specifications for the packaged base. Records that are shipped hold scores, error
counts and provenance, no hypotheses; they are found by the run's identity, so they go out of use
when the base, the data or the code's semantics change. To compute a study anew, delete its file.
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from mlq_utils import experiments, languages
from mlq_utils._common import one_of, some_of
from mlq_utils.experiments import Spec
from mlq_utils.pretraining_text import pretraining_languages
from mlq_utils.quadrants import REFERENCE_TARGETS
from mlq_utils.runs import run_all
from mlq_utils.store import Store, write_lines

SEEDS = (0, 1, 2)
PAIRS = 600
MANY_PAIRS = 4000
OUTSIDE = ("af", "vi", "tr", "sw", "km", "th", "te")
"""Languages outside pretraining that are scored beside the 19."""
ALTRUISTIC = ("tr", "lt")
"""Languages that bring others out and hardly themselves, as the study `by_language` shows."""
OVERTOKENISED = "km"
"""A language that falls to bytes."""


def covered() -> list[str]:
    """Return the languages that CLDR covers, English aside."""
    return [code for code in languages.codes("cldr") if code != "en"]


def untuned() -> list[Spec]:
    """Return the run of the base as it is, on every language."""
    return [Spec(targets=tuple(covered()))]


def elicited() -> list[Spec]:
    """Return Embed FT on Romanian, scored on all languages of pretraining and some others."""
    targets = (*pretraining_languages(), *OUTSIDE)
    return [Spec(languages=("ro",), targets=targets, size=PAIRS, seed=seed) for seed in SEEDS]


def by_language() -> list[Spec]:
    """Return Embed FT on every language, scored on itself and on Equation 1's two targets."""
    return [
        Spec(languages=(code,), targets=tuple(dict.fromkeys((code, *REFERENCE_TARGETS))), seed=seed)
        for seed in SEEDS
        for code in covered()
    ]


def strategies() -> list[Spec]:
    """Return altruistic and over-tokenised languages by strategy, scored on itself and the 19.

    Embed FT and full FT with every seed, LoRA and the lowest layer with one.
    """
    return [
        Spec(
            languages=(code,),
            targets=(code, *pretraining_languages()),
            strategy=strategy,
            layers=(0,) if strategy == "layers" else None,
            size=PAIRS,
            seed=seed,
        )
        for strategy, seeds in (
            ("embed", SEEDS),
            ("full", SEEDS),
            ("lora", SEEDS[:1]),
            ("layers", SEEDS[:1]),
        )
        for seed in seeds
        for code in (*ALTRUISTIC, OVERTOKENISED)
    ]


def more_data() -> list[Spec]:
    """Return Embed FT and full FT of an over-tokenised language on more pairs."""
    return [
        Spec(
            languages=(OVERTOKENISED,),
            targets=(OVERTOKENISED,),
            strategy=strategy,
            size=MANY_PAIRS,
            seed=seed,
        )
        for strategy in ("embed", "full")
        for seed in SEEDS
    ]


STUDIES: dict[str, Callable[[], list[Spec]]] = {
    "untuned": untuned,
    "elicited": elicited,
    "by_language": by_language,
    "strategies": strategies,
    "more_data": more_data,
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute what is missing of studies, and ship all of their records."""
    parser = argparse.ArgumentParser(prog="python -m mlq_utils.studies", description=main.__doc__)
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
