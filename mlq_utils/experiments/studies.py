"""The runs of the mini world that the book and its claims rest on, and their shipped records.

Example::

    specs("by_language")            # the runs of a study
    records("untuned")              # their shipped records; missing ones are computed
    scores("untuned")               # their scores in tidy form
    ship(("untuned",), workers=2)   # write the records of a study into the package

`data/studies.yaml` lists the runs of each study, all of the packaged base. Shipped records hold
scores, error counts and provenance, but no hypotheses. They are found by the run's identity, so
they stop counting as soon as the base, the data or the semantics of the code change. To compute a
study anew, delete its file in `data/runs` and ship it again.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import yaml

from mlq_utils import experiments, languages, quadrants
from mlq_utils.data import PACKAGE_DATA, one_of
from mlq_utils.experiments.scales import MINI
from mlq_utils.experiments.spec import Spec
from mlq_utils.experiments.store import write_lines
from mlq_utils.modeling import Extension

_LISTS = yaml.safe_load((PACKAGE_DATA / "studies.yaml").read_text("utf8"))
_GROUPS = _LISTS["languages"] | {
    "covered": [code for code in languages.codes("cldr") if code != "en"],
    "pretraining": [c for c in languages.codes() if languages.get(c).pretraining and c != "en"],
}
STUDIES = tuple(_LISTS["studies"])
"""The names of all studies."""
SPARING_RATES = MINI.rates
"""Learning rates by strategy for comparisons on reciprocal languages."""


def group(name: str) -> tuple[str, ...]:
    """Return the codes of a group of languages in `data/studies.yaml`, "covered" or "pretraining".

    Raises:
        ValueError: The group is unknown.
    """
    return _codes([one_of("group of languages", name, _GROUPS)], _GROUPS)


def _codes(names: Iterable[str], groups: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the codes that codes and names of groups stand for, each once."""
    parts = (_codes(groups[name], groups) if name in groups else (name,) for name in names)
    return tuple(dict.fromkeys(itertools.chain.from_iterable(parts)))


def specs(study: str) -> list[Spec]:
    """Return the runs of a study, each once.

    Args:
        study: The study, one of `STUDIES`.

    Raises:
        ValueError: The study is unknown, or `Spec` refuses one of its runs.
    """
    grids = _LISTS["studies"][one_of("study", study, STUDIES)]
    return list(dict.fromkeys(spec for grid in grids for spec in runs(grid)))


def runs(grid: Mapping[str, Any], groups: Mapping[str, Sequence[str]] = _GROUPS) -> Iterator[Spec]:
    """Yield the runs of a grid, one for each combination of the values of its fields.

    Args:
        grid: Fields of `Spec`, each with a value or a list of values. "itself" among the targets
            stands for what is tuned on, and a learning rate "sparing" for `SPARING_RATES`.
        groups: Languages by names that stand for them in `languages` and `targets`.
    """
    for fields in _product({name: grid[name] for name in grid if name != "targets"}, groups):
        own = fields.get("languages", ())
        names = [[*own] if name == "itself" else [name] for name in grid["targets"]]
        if fields.get("learning_rate") == "sparing":
            fields["learning_rate"] = SPARING_RATES[fields["strategy"]]
        yield Spec(targets=_codes(itertools.chain(*names), groups), **fields)


def _product(grid: Mapping[str, Any], groups: Mapping[str, Sequence[str]]) -> Iterator[dict]:
    """Yield each combination of the values of fields."""
    axes = {name: _axis(name, values, groups) for name, values in grid.items()}
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _axis(name: str, values: Any, groups: Mapping[str, Sequence[str]]) -> list[Any]:
    """Return the values of a field, each in the form that `Spec` has it in."""
    if name == "extension":
        return [Extension(**fields) for grid in values for fields in _product(grid, groups)]
    if name == "languages":
        mixtures = [_codes(one, groups) for one in values if isinstance(one, list)]
        return mixtures or [(code,) for code in _codes(values, groups)]
    values = values if isinstance(values, list) else [values]
    return [tuple(value) if isinstance(value, list) else value for value in values]


def records(name: str, **options: Any) -> list[dict[str, Any]]:
    """Return the records of a study, computing those that the store lacks.

    Args:
        name: The study, one of `STUDIES`.
        **options: Passed on to `run_all`.

    Raises:
        ValueError: The study is unknown, or one of its runs failed.
    """
    found = experiments.run_all(specs(name), **options)
    failed = [record for record in found if record["status"] != "done"]
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(found)} runs of the study {name} failed; the first: "
            f"{failed[0]['spec']['languages']}: {failed[0]['error']}"
        )
    return found


def scores(name: str) -> pd.DataFrame:
    """Return the scores of a study in tidy form; see `records` and `experiments.scores`."""
    return experiments.scores(records(name))


def ship(names: tuple[str, ...] = (), /, *, workers: int = 1) -> None:
    """Write the records of studies into the package, computing those that are missing.

    Args:
        names: Names of studies, of `STUDIES`. Defaults to all of them.
        workers: Number of processes, with one thread each. Defaults to 1.

    Raises:
        ValueError: A study is unknown, or one of its runs failed.
    """
    for name in [one_of("study", name, STUDIES) for name in names] or STUDIES:
        found = records(name, workers=workers)
        write_lines(experiments.SHIPPED / f"{name}.jsonl", found)
        print(f"{name}: {len(found)} records", flush=True)


def sides(scores: pd.DataFrame) -> pd.DataFrame:
    """Return own scores and the mean scores of others.

    The others are the group "watched" without Afrikaans, whose score rises in none of the runs.

    Args:
        scores: Scores, as `scores` returns them, of runs that are scored on that group.

    Returns:
        One row per run and side, with the columns `tuned_on`, `strategy`, `learning_rate`, `size`,
        `seed`, `side` ("itself" or "others") and `spbleu`.
    """
    own = scores["target"] == scores["tuned_on"]
    frame = scores.assign(side=own.map({True: "itself", False: "others"}))
    by = ["tuned_on", "strategy", "learning_rate", "size", "seed", "side"]
    frame = frame[own | scores["target"].isin(set(group("watched")) - {"af"})]
    return frame.groupby(by, dropna=False, as_index=False, sort=False)["spbleu"].mean()


def assigned(
    untuned: pd.DataFrame | None = None, tuned: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return `quadrants.assign` of a base: a row per language, by its mean scores over seeds.

    Args:
        untuned: Scores of the untuned base. Defaults to those of the packaged one.
        tuned: Scores of models that are each tuned on one language. Defaults to the study
            by_language.
    """
    untuned = scores("untuned") if untuned is None else untuned
    by_seed = quadrants.trained(untuned, scores("by_language") if tuned is None else tuned)
    means = by_seed.groupby("language", as_index=False).mean().drop(columns="seed")
    return quadrants.assign(means, quadrants.threshold(untuned["spbleu"]))


def live(spec: Spec, targets: Sequence[str]) -> pd.DataFrame:
    """Repeat part of a recorded run on this machine, and set it beside the record.

    Args:
        spec: A run of a study.
        targets: The targets of the run that are scored again.

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
    runs = (experiments.scores([experiments.run(one)]) for one in (spec, part))
    record, again = (scores.set_index("target") for scores in runs)
    columns = {"spbleu": "recorded", "spbleu_low": "low", "spbleu_high": "high"}
    found = record.loc[list(targets), list(columns)].rename(columns=columns)
    return found.assign(live=again["spbleu"]).reset_index()
