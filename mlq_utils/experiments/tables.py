"""The paper's tables as lists of runs: which run, and which of its scores, stands for each cell.

Example::

    cells(12)                              # the runs behind Table 12, cell by cell
    run_all(specs([12]))                   # make them: LLaMA-7B on TED
    run_all(specs(scale=MINI), workers=2)  # all tables, with the packaged base on CLDR

A model that several tables need is one run, scored on every target that any table asks of it. So
its specification does not depend on which tables are asked for. A cell that no run stands for is
listed with the reason. `comparison` sets printed and trained scores side by side.

What the paper leaves open, and what is taken for it, is in `data/open_settings.csv`, by table. The
released code mentioned there is github.com/CONE-MT/Vocabulary-Sharing-Facilitates-Multilingualism.
"""

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any

import pandas as pd

from mlq_utils import languages, paper
from mlq_utils.data import one_of
from mlq_utils.experiments import studies
from mlq_utils.experiments.scales import DATASETS, PAPER, Scale
from mlq_utils.experiments.spec import Spec
from mlq_utils.modeling import Extension
from mlq_utils.quadrants import REFERENCE_TARGETS

Table = int | str
"""The number of a table, or "figure 2" and "figure 3", whose scores are drawn and not printed."""
Row = dict[str, Any]
MIXTURE = ("hr", "nl", *(code for code in studies.group("mixed") if code not in ("hr", "nl")))
"""Languages of Table 3's mixtures. A mixture of n languages has the first n."""


@dataclass(frozen=True)
class Score:
    """The score of a model on a target.

    Attributes:
        model: The model, with `scales.UNSCORED` for its targets and the first seed of the scale.
        target: The language that the model translates into.
    """

    model: Spec
    target: str


@dataclass(frozen=True)
class Combined:
    """A number made of several scores.

    Attributes:
        how: "mean", "max", "difference" (the first minus the second) or "quadrant" (by Equation 1,
            from all scores that it needs; the first is the tuned model's on its own language).
        of: What the number is made of.
    """

    how: str
    of: tuple["Score | Combined", ...]


Cell = Score | Combined


def scores(cell: Cell | None) -> Iterator[Score]:
    """Yield the scores that a cell is made of."""
    if isinstance(cell, Score):
        yield cell
    elif cell is not None:
        yield from itertools.chain.from_iterable(map(scores, cell.of))


def cells(table: Table, scale: Scale = PAPER) -> pd.DataFrame:
    """Return what stands for each cell of a table.

    Args:
        table: A number, or the name of a figure, of `TABLES`.
        scale: The scale at which runs are made. Defaults to the paper's.

    Returns:
        One row per printed cell: the columns that name it in `paper.table` (Table 9 has its models
        in a column `model`); `printed` (missing for figures, and for languages that Table 2 leaves
        out); `cell` (None if no run stands for it); `derived`, whether it is made of other cells of
        this table; `reason`, why no run stands for it; and `specs`, its runs with the first seed.

    Raises:
        ValueError: The table is unknown, or has no scores of trained models.
    """
    known = {str(name): name for name in TABLES}
    return _complete(scale)[known[one_of("table of trained scores", str(table), known)]].copy()


def specs(tables: Iterable[Table] | None = None, scale: Scale = PAPER) -> list[Spec]:
    """Return the runs that tables need, with every seed, each run once.

    Args:
        tables: Numbers and names of `TABLES`. Defaults to all.
        scale: The scale at which runs are made. Defaults to the paper's.

    Raises:
        ValueError: A table is unknown, or has no scores of trained models.
    """
    needed = (
        spec for table in tables or TABLES for row in cells(table, scale)["specs"] for spec in row
    )
    return [seeded for spec in dict.fromkeys(needed) for seeded in scale.seeded(spec)]


@lru_cache(maxsize=8)
def _complete(scale: Scale) -> dict[Table, pd.DataFrame]:
    """Return `cells` of every table, since only all together tell what a model is scored on."""
    frames, targets = {}, defaultdict(set)
    for table in TABLES:
        frame = _rows(table, scale)
        found = [_cell_or_reason(table, scale, row) for row in frame.to_dict("records")]
        made, reasons = map(list, zip(*found, strict=True))
        known = set(made)
        derived = [isinstance(cell, Combined) and known.issuperset(cell.of) for cell in made]
        frames[table] = frame.assign(cell=made, derived=derived, reason=reasons)
        for score in itertools.chain.from_iterable(map(scores, made)):
            targets[score.model].add(score.target)
    order = languages.codes()
    final = {
        model: dataclasses.replace(model, targets=tuple(sorted(found, key=order.index)))
        for model, found in targets.items()
    }
    for frame in frames.values():
        models = [dict.fromkeys(score.model for score in scores(cell)) for cell in frame["cell"]]
        frame["specs"] = [tuple(map(final.get, row)) for row in models]
    return frames


def _rows(table: Table, scale: Scale) -> pd.DataFrame:
    """Return the columns that name the cells of a table, and the column `printed`."""
    if table == "figure 2":
        tuned_on = studies.group("figure_2")
        targets = [code for code in languages.codes() if code != "en"]
        pairs = itertools.product(tuned_on, targets)
        return pd.DataFrame(pairs, columns=["tuned_on", "target"]).assign(printed=float("nan"))
    if table == "figure 3":
        rows = paper.table(15).query("target != 'AVG' and strategy in ('embed', 'full')")
        rows = rows.rename(columns={"target": "tuned_on"})[["strategy", "size", "tuned_on"]]
        return rows.assign(printed=float("nan")).reset_index(drop=True)
    frame = paper.table(table)
    if table == 9:
        return frame.melt("target", var_name="model", value_name="printed")
    if table == 2:  # what is printed, then the languages that a corpus has besides
        frame = frame.rename(columns={"quadrant": "printed"})[["dataset", "language", "printed"]]
        pairs = [(dataset, code) for dataset in DATASETS for code in scale.trainable(dataset)]
        more = pd.DataFrame(pairs, columns=["dataset", "language"], dtype=object)
        return pd.concat([frame, more]).drop_duplicates(["dataset", "language"], ignore_index=True)
    names = dict.fromkeys(("spbleu", "value", "score"), "printed")
    return frame.rename(columns=names).dropna(subset="printed", ignore_index=True)


def _cell_or_reason(table: Table, scale: Scale, row: Row) -> tuple[Cell | None, str]:
    try:
        cell = _cell(table, scale, row)
    except ValueError as error:
        return None, str(error)
    missing = {score.target for score in scores(cell)} - set(scale.scorable())
    if missing:
        names = " or ".join(languages.get(code).name for code in sorted(missing))
        return None, f"{scale.untuned.test[0]}: no {names}"
    return cell, ""


def _cell(table: Table, scale: Scale, row: Row) -> Cell:
    """Return what stands for a row. An average row is the mean over the languages of its column."""
    for column in ("target", "tuned_on"):
        if row.get(column) == "AVG":
            names = _names(table, column)
            return _mean(_cell(table, scale, row | {column: name}) for name in names)
    return TABLES[table](scale, row)


@cache
def _names(table: int, column: str = "target") -> tuple[str, ...]:
    """Return the languages of a column, without its average."""
    return tuple(name for name in dict.fromkeys(paper.table(table)[column]) if name != "AVG")


@cache
def representatives() -> tuple[str, ...]:
    """Return the languages that models are scored on in Table 12, in the order of its columns."""
    return tuple(paper.table(12).query("role == 'representative'")["target"].unique())


# What stands for a row of each table. A ValueError says why nothing does.


def _mean(cells: Iterable[Cell]) -> Combined:
    return Combined("mean", tuple(cells))


def _on(model: Spec, targets: Iterable[str]) -> Combined:
    return _mean(Score(model, target) for target in targets)


def _by_language(scale: Scale, row: Row, **options: Any) -> Cell:
    """Return the score of a row's model on its own language, or on the targets of Equation 1."""
    own = row.get("target") or row["tuned_on"]
    strategy, _, layers = row["strategy"].partition(" ")
    if layers:  # such as "layers 0-14"
        options["layers"] = scale.lowest(int(layers.split("-")[1]) + 1)
    tuned = strategy != "untuned"
    model = scale.tuned([own], strategy, row["size"], **options) if tuned else scale.untuned
    if "target" in row or row.get("measure") == "bilingual":
        return Score(model, own)
    return _on(model, REFERENCE_TARGETS)


def _by_pair(scale: Scale, row: Row, **options: Any) -> Cell:
    tuned_on = row["tuned_on"]
    model = scale.untuned if tuned_on == "LLaMA" else scale.tuned([tuned_on], **options)
    return Score(model, row["target"])


def _cell_1(scale: Scale, row: Row) -> Cell:
    own, target = row["tuned_on"], row["target"]
    model = scale.untuned if target == "llama" else scale.tuned([own])
    if target == "multilingual":
        return _on(model, REFERENCE_TARGETS)
    return Score(model, own if target in ("llama", "LG") else target)


def _cell_2(scale: Scale, row: Row) -> Cell:
    if row["dataset"] == "Summary":
        raise ValueError("what the datasets agree on, see quadrants.summarise: no run of its own")
    own, model = row["language"], scale.tuned([row["language"]], dataset=row["dataset"])
    scorable = [code for code in representatives() if code in scale.scorable()]
    tuned = (Score(model, code) for code in (own, *REFERENCE_TARGETS, *scorable))
    return Combined("quadrant", (*tuned, Score(scale.untuned, own)))


def _cell_3(scale: Scale, row: Row) -> Cell:
    target = row["target"]
    codes = MIXTURE[: row["n_languages"]] if row["setting"] == "multilingual" else [target]
    return Score(scale.tuned(codes, row["strategy"], row["size"], reciprocal=True), target)


def _cell_6(scale: Scale, row: Row) -> Cell:
    if row["source"] not in scale.texts:
        raise ValueError(f"no text stands for {row['source']} at this scale")
    pieces = max(1, round(row["vocabulary_size"] * scale.piece_share))
    method, text = row["method"].lower(), scale.texts[row["source"]]
    how = Extension(method, pieces, "random", ranked=False, text=text)
    return Score(scale.tuned([row["target"]], "full", 80_000, extension=how), row["target"])


def _cell_7(scale: Scale, row: Row) -> Cell:
    setting, target = row["setting"], row["target"]
    if setting == "ratio":
        raise ValueError("a share of characters, which a tokenizer tells: no run")
    if setting == "delta":
        pair = (_cell_7(scale, row | {"setting": name}) for name in ("shorten", "full"))
        return Combined("difference", tuple(pair))
    if setting == "extend":  # the best of the cells of Table 6 that can be run
        rows = _rows(6, scale).query("target == @target").to_dict("records")
        found, reasons = zip(*(_cell_or_reason(6, scale, row) for row in rows), strict=True)
        if not any(found):
            raise ValueError(reasons[0])
        return Combined("max", tuple(filter(None, found)))
    shorten = "one token" if setting == "shorten" else None
    return Score(scale.tuned([target], "full", 80_000, shorten=shorten), target)


def _cell_9(scale: Scale, row: Row) -> Cell:
    models = {"alpaca": scale.instructed("embed"), "llama": scale.untuned}
    if row["model"] == "delta":
        return Combined("difference", tuple(Score(m, row["target"]) for m in models.values()))
    return Score(models[row["model"]], row["target"])


def _cell_14(scale: Scale, row: Row) -> Cell:
    strategy, layers = row["strategy"], None
    if strategy == "layer":
        strategy, layers = "layers", (scale.layer(int(row["layer"])),)
    return Score(scale.instructed(strategy, layers), row["target"])


def _cell_16(scale: Scale, row: Row) -> Cell:
    if row["model"] != "LLaMA-7B":
        raise ValueError(f"{row['model']} is another model, as its authors released it")
    if row["task"] != "Flores-101":
        raise ValueError("language understanding: accuracy, which no run here measures")
    if row["training_data"] == "Alpaca-X":
        raise ValueError("the paper's translations of Alpaca are not released")
    if row["strategy"] == "untuned":
        return _on(scale.untuned, _names(14))
    if row["training_data"] == "Alpaca-En":
        return _on(scale.instructed(row["strategy"]), _names(14))
    size = int(paper.constants().set_index("name").loc["bilingual_size", "value"])
    return _mean(Score(scale.tuned([code], row["strategy"], size), code) for code in _names(14))


TABLES: dict[Table, Callable[[Scale, Row], Cell]] = {
    1: _cell_1,
    2: _cell_2,
    3: _cell_3,
    4: _by_language,
    5: _by_language,
    6: _cell_6,
    7: _cell_7,
    9: _cell_9,
    12: partial(_by_pair, dataset="Ted"),
    13: _by_language,
    14: _cell_14,
    15: partial(_by_language, reciprocal=True),
    16: _cell_16,
    "figure 2": _by_pair,
    "figure 3": partial(_by_language, reciprocal=True),
}
"""The tables and figures with scores of trained models, and what returns the cell of a row."""
