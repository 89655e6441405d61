"""What stands for each cell of the paper's tables: a score of a model, or a number made of scores.

Where the paper leaves a setting open, `OPEN` says what is taken for it and why; what is called
released is the code at github.com/CONE-MT/Vocabulary-Sharing-Facilitates-Multilingualism.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd

from mlq_utils import languages, paper
from mlq_utils.experiments import studies
from mlq_utils.experiments.scales import DATASETS, PIECES, Scale, representatives
from mlq_utils.experiments.spec import Spec
from mlq_utils.modeling.extension import Extension
from mlq_utils.quadrants import REFERENCE_TARGETS

Table = int | str
MIXTURE = ("hr", "nl", *(code for code in studies.MIXED if code not in ("hr", "nl")))
"""The languages of Table 3's mixtures, the first so many of them."""
ALPACA_TARGETS = studies.TABLE_14
INSTRUCTIONS = "Alpaca-En"
_LEGO_BY_TABLE_6 = (
    "The corpus is not stated: the cells on 80k pairs are the baselines of Table 6, which is on "
    "Lego-MT."
)
OPEN: dict[Table, tuple[str, ...]] = {
    1: (
        "Corpus, strategy and size are not stated: Embed FT on at most 10k pairs (the setting of "
        "the section) of Lego-MT, the only corpus with all of its languages.",
    ),
    2: (
        "Which pairs are drawn is not stated, nor the margin of WikiMatrix: see "
        "`corpora.training_pairs` and `corpora.MARGIN`.",
        "The two corpora of New are drawn from together.",
        "Languages that a corpus has and the table does not print are run too.",
    ),
    3: (
        "The corpus is not stated: cells are those of Tables 5 and 13.",
        "The languages of a mixture are not named. In that of two, hr and nl alone score about as "
        "by themselves on 80k pairs, and are taken to be the two; the others follow in the "
        "order of the columns, and uk, ru and it make them 16.",
    ),
    4: ("The corpus is not stated: Lego-MT, as in the rest of Section 4.",),
    5: (_LEGO_BY_TABLE_6,),
    6: (
        "How new pieces rank and where their embeddings start is not stated: above all original "
        "merges and at noise, as in the released code.",
        "How much text pieces are learned from is not stated.",
        "The released script for it has a seed of its own; here it is the scale's.",
    ),
    7: (
        "The released code drops one token, 227, whatever the language; here it is chosen on the "
        "training pairs.",
        "The best extension is the best of those cells of Table 6 that can be run.",
    ),
    9: ("The strategy is not stated: Embed FT, whose scores in Table 14 are the nearest.",),
    12: (),
    13: (_LEGO_BY_TABLE_6,),
    14: ("The learning rate of single layers is not stated: that of full FT.",),
    15: ("The corpus is not stated: cells are those of Tables 5 and 13.",),
    16: ("For the Bilingual rows each of the eight scores is of a model of its own.",),
    "figure 2": ("Strategy and size are not stated: as in Section 3.2.",),
    "figure 3": (
        "What the lines show is not printed; multilingual is taken as in Section 3.2, and the "
        "sizes as in Table 15.",
    ),
}
"""What the paper leaves open, by table, and what is taken for it. Tables 8, 10 and 11 hold no
scores."""


@dataclass(frozen=True)
class Score:
    """A score: a model, and what it is scored on."""

    spec: Spec
    target: str


@dataclass(frozen=True)
class Combined:
    """A number made of scores.

    Attributes:
        how: "mean", "max", "difference" (the first less the second) or "quadrant" (of Equation 1,
            whose scores those are).
        of: What it is made of.
    """

    how: str
    of: tuple["Score | Combined", ...]


Cell = Score | Combined


def scores(cell: Cell) -> Iterator[Score]:
    """Yield the scores that a cell is made of."""
    if isinstance(cell, Score):
        yield cell
    else:
        for part in cell.of:
            yield from scores(part)


def printed(table: int, scale: Scale) -> pd.DataFrame:
    """Return the printed cells of a table of one score a row, the score in `printed`."""
    values = {"spbleu": "printed", "value": "printed", "score": "printed"}
    frame = paper.table(table).rename(columns=values).dropna(subset="printed")
    return frame.reset_index(drop=True)


def _printed_2(table: int, scale: Scale) -> pd.DataFrame:
    sorted_ = paper.table(2)[["dataset", "language", "quadrant"]]
    known = set(zip(sorted_["dataset"], sorted_["language"], strict=True))
    more = [
        (dataset, code, None)
        for dataset in DATASETS
        for code in scale.trainable(dataset)
        if (dataset, code) not in known
    ]
    more = pd.DataFrame(more, columns=list(sorted_), dtype=object)
    return pd.concat([sorted_, more], ignore_index=True).rename(columns={"quadrant": "printed"})


def _printed_9(table: int, scale: Scale) -> pd.DataFrame:
    return paper.table(9).melt("target", var_name="model", value_name="printed")


def _drawn_2(table: str, scale: Scale) -> pd.DataFrame:
    pairs = [(a, b) for a in studies.FIGURE_2 for b in languages.codes() if b != "en"]
    return pd.DataFrame(pairs, columns=["tuned_on", "target"]).assign(printed=float("nan"))


def _drawn_3(table: str, scale: Scale) -> pd.DataFrame:
    rows = paper.table(15).query("target != 'AVG' and strategy in ('embed', 'full')")
    rows = rows.rename(columns={"target": "tuned_on"})[["strategy", "size", "tuned_on"]]
    return rows.assign(printed=float("nan")).reset_index(drop=True)


ROWS: dict[Table, Callable[[Any, Scale], pd.DataFrame]] = {
    2: _printed_2,
    9: _printed_9,
    "figure 2": _drawn_2,
    "figure 3": _drawn_3,
}
"""The cells of what is not a table of one printed score a row."""


def _mean(parts: Iterable[Cell]) -> Combined:
    return Combined("mean", tuple(parts))


def _on(spec: Spec, targets: Iterable[str]) -> Combined:
    return _mean(Score(spec, target) for target in targets)


@cache
def _names(table: int, column: str = "target") -> tuple[str, ...]:
    """Return the languages of a column that ends in their average."""
    return tuple(name for name in dict.fromkeys(paper.table(table)[column]) if name != "AVG")


def _cell_1(scale: Scale, row: dict) -> Cell:
    own, target = row["tuned_on"], row["target"]
    if target == "llama":
        return Score(scale.untuned(), own)
    model = scale.tuned([own])
    if target == "multilingual":
        return _on(model, REFERENCE_TARGETS)
    return Score(model, own if target == "LG" else target)


def _cell_2(scale: Scale, row: dict) -> Cell:
    if row["dataset"] == "Summary":
        raise ValueError("what the datasets agree on, see quadrants.summarise: no run of its own")
    model = scale.tuned([row["language"]], dataset=row["dataset"])
    here = set(scale.scorable())
    asked = [row["language"], *REFERENCE_TARGETS]
    asked += [code for code in representatives() if code in here]
    pairs = [(model, code) for code in asked] + [(scale.untuned(), row["language"])]
    return Combined("quadrant", tuple(Score(*pair) for pair in pairs))


def _cell_3(scale: Scale, row: dict) -> Cell:
    targets = _names(3) if row["target"] == "AVG" else (row["target"],)

    def model(target: str) -> Spec:
        mixed = row["setting"] == "multilingual"
        codes = MIXTURE[: row["n_languages"]] if mixed else [target]
        return scale.tuned(codes, row["strategy"], row["size"], reciprocal=True)

    found = [Score(model(target), target) for target in targets]
    return _mean(found) if row["target"] == "AVG" else found[0]


def _cell_4(scale: Scale, row: dict) -> Cell:
    average = row["tuned_on"] == "AVG"

    def cell(code: str) -> Cell:
        model = _sized(scale, code, row)
        own = row["measure"] == "bilingual"
        return Score(model, code) if own else _on(model, REFERENCE_TARGETS)

    return _mean(map(cell, _names(4, "tuned_on"))) if average else cell(row["tuned_on"])


def _cell_5(scale: Scale, row: dict) -> Cell:
    return Score(_sized(scale, row["target"], row), row["target"])


def _sized(scale: Scale, code: str, row: dict) -> Spec:
    """Return the model of a language that a row's strategy and size tell; or the base."""
    untuned = row["strategy"] == "untuned"
    return scale.untuned() if untuned else scale.tuned([code], row["strategy"], row["size"])


def _cell_6(scale: Scale, row: dict) -> Cell:
    if row["source"] not in scale.texts:
        raise ValueError(f"no text stands for {row['source']} at this scale")
    pieces = scale.pieces[PIECES.index(row["vocabulary_size"])]
    how = Extension(
        row["method"].lower(), pieces, "random", ranked=False, text=scale.texts[row["source"]]
    )
    return Score(scale.tuned([row["target"]], "full", 80_000, extension=how), row["target"])


def _cell_7(scale: Scale, row: dict) -> Cell:
    setting = row["setting"]
    if setting == "ratio":
        raise ValueError("a share of characters, which a tokenizer tells: no run")

    def cell(setting: str, code: str) -> Cell:
        if setting == "extend":
            return Combined("max", tuple(_extended(scale, code)))
        shorten = {"shorten": "one token"} if setting == "shorten" else {}
        return Score(scale.tuned([code], "full", 80_000, **shorten), code)

    def column(setting: str) -> Cell:
        if row["target"] == "AVG":
            return _mean(cell(setting, code) for code in _names(7))
        return cell(setting, row["target"])

    if setting == "delta":
        return Combined("difference", (column("shorten"), column("full")))
    return column(setting)


def _extended(scale: Scale, code: str) -> Iterator[Cell]:
    """Yield the cells of Table 6 of a language that can be run."""
    refused: ValueError | None = None
    some = False
    for row in printed(6, scale).query("target == @code").to_dict("records"):
        try:
            yield _cell_6(scale, row)
            some = True
        except ValueError as error:
            refused = refused or error
    if not some and refused:
        raise refused


def _cell_9(scale: Scale, row: dict) -> Cell:
    tuned, untuned = (
        Score(model, row["target"]) for model in (scale.instructed("embed"), scale.untuned())
    )
    made = {"alpaca": tuned, "llama": untuned, "delta": Combined("difference", (tuned, untuned))}
    return made[row["model"]]


def _cell_12(scale: Scale, row: dict) -> Cell:
    untuned = row["tuned_on"] == "LLaMA"
    model = scale.untuned() if untuned else scale.tuned([row["tuned_on"]], dataset="Ted")
    return Score(model, row["target"])


def _cell_14(scale: Scale, row: dict) -> Cell:
    if row["strategy"] == "layer":
        model = scale.instructed("layers", (scale.layer(int(row["layer"])),))
    else:
        model = scale.instructed(row["strategy"])
    average = row["target"] == "AVG"
    return _on(model, ALPACA_TARGETS) if average else Score(model, row["target"])


def _cell_15(scale: Scale, row: dict) -> Cell:
    if row["target"] == "AVG":
        return _mean(Score(_model_15(scale, code, row), code) for code in _names(15))
    return Score(_model_15(scale, row["target"], row), row["target"])


def _model_15(scale: Scale, code: str, row: dict) -> Spec:
    strategy, _, numbers = row["strategy"].partition(" ")
    layers = scale.lowest(int(numbers.split("-")[1]) + 1) if numbers else None
    return scale.tuned([code], strategy, row["size"], layers=layers, reciprocal=True)


def _cell_16(scale: Scale, row: dict) -> Cell:
    if row["model"] != "LLaMA-7B":
        raise ValueError(f"{row['model']} is another model, as its authors released it")
    if row["task"] != "Flores-101":
        raise ValueError("language understanding: accuracy, which no run here measures")
    if row["strategy"] == "untuned":
        return _on(scale.untuned(), ALPACA_TARGETS)
    if row["training_data"] == INSTRUCTIONS:
        return _on(scale.instructed(row["strategy"]), ALPACA_TARGETS)
    if row["training_data"] == "Alpaca-X":
        raise ValueError("the paper's translations of Alpaca are not released")
    size = int(paper.constants().set_index("name").loc["bilingual_size", "value"])
    models = {code: scale.tuned([code], row["strategy"], size) for code in ALPACA_TARGETS}
    return _mean(Score(model, code) for code, model in models.items())


def _cell_figure_2(scale: Scale, row: dict) -> Cell:
    return Score(scale.tuned([row["tuned_on"]]), row["target"])


def _cell_figure_3(scale: Scale, row: dict) -> Cell:
    return _on(_model_15(scale, row["tuned_on"], row), REFERENCE_TARGETS)


CELLS: dict[Table, Callable[[Scale, dict], Cell]] = {
    1: _cell_1,
    2: _cell_2,
    3: _cell_3,
    4: _cell_4,
    5: _cell_5,
    6: _cell_6,
    7: _cell_7,
    9: _cell_9,
    12: _cell_12,
    13: _cell_5,
    14: _cell_14,
    15: _cell_15,
    16: _cell_16,
    "figure 2": _cell_figure_2,
    "figure 3": _cell_figure_3,
}
"""What stands for a row of each table; a ValueError says why nothing does."""
