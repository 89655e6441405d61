"""The paper's Tables 1-16 and constants as tidy data, their checks, and others' published scores.

The tables hold what is printed, contradictions included. Only damage of the scan is corrected,
which `tables.csv` records table by table. Whatever one part of the paper says about another (an
average, a difference, a cell printed twice, a count) is a row of `checks.csv`. A check compares two
sides. Each side is a table, the rows to take, the columns that name a cell, an expression for its
value, and how the values that share a name are combined. The cells known to fail are listed beside
the check, with the contradiction (`contradictions.csv`) that they belong to.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from mlq_utils.data import PACKAGE_DATA, one_of

FOLDER = PACKAGE_DATA / "paper"

# How the values that share a name are combined. "in all three" tells whether the name occurs in all
# three datasets of Table 2.
_HOW: dict[str, Callable[[pd.api.typing.SeriesGroupBy], pd.Series]] = {
    "value": lambda groups: groups.first(),
    "mean": lambda groups: groups.mean(),
    "sum": lambda groups: groups.sum(),
    "sum / 5": lambda groups: groups.sum() / 5,
    "max": lambda groups: groups.max(),
    "count": lambda groups: groups.size(),
    "distinct": lambda groups: groups.nunique(),
    "last - first": lambda groups: groups.last() - groups.first(),
    "in all three": lambda groups: (groups.size() == 3).astype(int),
}

# Binary floats cannot hold printed decimals, and 0.1 must not fail against a tolerance of 0.1.
_SLACK = 1e-9
_RELATIONS = {
    "=": lambda printed, other, tolerance: abs(printed - other) <= tolerance + _SLACK,
    "<=": lambda printed, other, tolerance: printed <= other + tolerance + _SLACK,
    ">=": lambda printed, other, tolerance: printed >= other - tolerance - _SLACK,
    "!=": lambda printed, other, tolerance: abs(printed - other) > tolerance + _SLACK,
}

_WHOLE = "as a whole"
_REMEDY = "restore the file from the repository or reinstall mlq_utils"


def table(n: int) -> pd.DataFrame:
    """Return a table of the paper in tidy form, with one row per printed cell.

    Scores are in spBLEU, except that those of Table 16 are accuracies in percent (without
    Flores-101). Sizes are in sentence pairs, and the ratio of Table 7 is in percent.

    Args:
        n: The table's number in the paper.

    Returns:
        A copy that may be changed. Its `attrs` hold the title, unit, source (the section) and note
        (how to read it, and what was repaired of the scan).

    Raises:
        ValueError: There is no such table, or its file is damaged. Then a column or row is missing,
            a cell is not a number, or a check of the table has another outcome than in print.
    """
    if n not in range(1, 17):
        raise ValueError(f"unknown table {n!r}; the paper has Tables 1 to 16")
    return _checked(FOLDER, int(n)).copy()


def constants() -> pd.DataFrame:
    """Return the constants of the equations, the settings and the claims made in prose.

    Returns:
        One row per constant: name, value (missing for `threshold`, for which the paper gives a rule
        and no number), unit, source (section, equation or caption) and statement.
    """
    return _numbered(FOLDER / "constants.csv", "value").copy()


def checks() -> pd.DataFrame:
    """Return every check that the paper's redundancy allows, with one row per compared cell.

    Returns:
        A frame with columns `table` (the tables compared, such as "5, 13"), `check` (the rule in
        words), `where` (the cell's names), `printed` and `recomputed` (in the tables' units),
        `tolerance` (the rounding that the printed digits allow), `relation` (of printed to
        recomputed), `holds` and `contradiction` (the id in `contradictions`, empty if the check
        holds).

    Raises:
        ValueError: A file is damaged (see `table`).
    """
    return _compared(FOLDER).copy()


def contradictions() -> pd.DataFrame:
    """Return each place where the printed paper contradicts itself.

    Returns:
        A frame with columns `id`, `where` (tables and sections), `printed`, `conflict` (what
        contradicts it), `explanation`, `reading` ("plain", "arguable" if the paper can be read
        otherwise, or "outside" if the conflict is with a fact that the paper does not print), and
        from the checks `cells` (how many fail) and `computed` (the failing cells in words, empty if
        no check covers the place).
    """
    listed = _read(FOLDER / "contradictions.csv")
    found = checks()
    related = _rules(FOLDER).set_index("check").contradiction
    found["id"] = found.check.map(related)
    failing = found[~found.holds]
    listed["cells"] = listed.id.map(failing.groupby("id").size()).fillna(0).astype(int)
    listed["computed"] = listed.id.map(failing.groupby("id").apply(_words)).fillna("")
    return listed


def _words(failing: pd.DataFrame) -> str:
    """Return in words which cells fail, check by check."""
    words = []
    for check, cells in failing.groupby("check", sort=False):
        rows = cells[["where", "printed", "recomputed"]].itertuples(index=False)
        words.append(f"{check}: " + ", ".join(f"{c} {a:g} against {b:.4g}" for c, a, b in rows))
    return "; ".join(words)


def _read(path: Path) -> pd.DataFrame:
    """Read a CSV file as text, in which empty cells are empty strings."""
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False).fillna("")
    except ValueError as error:  # pandas raises it if the file is not CSV in UTF-8
        raise ValueError(f"{path}: {error}; {_REMEDY}") from error


@lru_cache
def _numbered(path: Path, column: str) -> pd.DataFrame:
    """Read a CSV file of which one column holds numbers."""
    frame = _read(path)
    return frame.assign(**{column: pd.to_numeric(frame[column])})


def _rules(folder: Path) -> pd.DataFrame:
    """Return the checks, each a rule that compares many cells."""
    return _numbered(folder / "checks.csv", "tolerance")


@lru_cache
def _typed(folder: Path, n: int) -> pd.DataFrame:
    """Read a table's file and give its columns their types.

    `tables.csv` has the number of rows and the columns, which are text if no type follows. Those
    with `?` may have empty cells.
    """
    path = folder / f"table_{n:02d}.csv"
    about = _read(folder / "tables.csv").set_index("table").loc[str(n)]
    columns = [column.split(":") for column in about["columns"].split()]
    frame = _read(path)
    names = [name for name, *_ in columns]
    if list(frame) != names:
        raise ValueError(f"{path}: has columns {list(frame)}, not {names}; {_REMEDY}")
    if len(frame) != int(about["rows"]):
        raise ValueError(f"{path}: has {len(frame)} rows, not {about['rows']}; {_REMEDY}")
    for name, *kind in columns:
        if kind:
            frame[name] = _numbers(path, frame[name], kind[0])
    frame.attrs = {key: about[key] for key in ("title", "unit", "source", "note")}
    return frame


def _numbers(path: Path, cells: pd.Series, kind: str) -> pd.Series:
    """Convert a column to numbers. The error names the first cell that is not a number."""
    numbers = pd.to_numeric(cells, errors="coerce")
    wrong = ~np.isfinite(numbers) & ~(cells.eq("") & kind.endswith("?"))
    if kind.startswith("int"):
        wrong |= numbers.mod(1).gt(0)
    if wrong.any():
        row = wrong.idxmax()
        # The first row of cells is the file's second line.
        raise ValueError(
            f"{path}: line {row + 2}, column {cells.name}: {cells[row]!r} is no number; {_REMEDY}"
        )
    return numbers.astype({"int": "int64", "int?": "Int64"}.get(kind, "float64"))


@lru_cache
def _checked(folder: Path, n: int) -> pd.DataFrame:
    """Return a table after comparing the outcome of its own checks with the recorded outcome."""
    frame = _typed(folder, n)
    rules = _rules(folder)
    own = rules[["printed_table", "other_table"]].eq(str(n)).all(axis=1)
    for rule in rules[own].to_dict("records"):
        cells = _compare(folder, rule)
        for cell in cells[cells.holds == cells.contradiction.ne("")].itertuples():
            verb = "holds though not in print" if cell.holds else "fails"
            raise ValueError(
                f"{folder / f'table_{n:02d}.csv'}: row {cell.where!r}: the check "
                f"{cell.check!r} {verb}: {cell.printed:g} is in the file, {cell.recomputed:.4g} "
                f"recomputed (tolerance {cell.tolerance:g}); {_REMEDY}"
            )
    return frame


def _side(folder: Path, name: str, rows: str, by: str, value: str, how: str) -> pd.Series:
    """Return one side of a check as a series of values by cell name."""
    path = folder / "constants.csv"
    frame = _numbered(path, "value") if name == "constants" else _typed(folder, int(name))
    if rows:
        frame = frame.query(rows, engine="python")
    values = pd.Series(frame.eval(value, engine="python"), index=frame.index)
    # Names are the columns' values in words, so that tables with other column names align.
    keys = frame[by.split()].astype(object).fillna("-").itertuples(index=False)
    names = [" / ".join(map(str, key)) for key in keys] if by else [_WHOLE] * len(frame)
    return _HOW[how](values.groupby(names, sort=False))


@lru_cache
def _compared(folder: Path) -> pd.DataFrame:
    rules = _rules(folder).to_dict("records")
    return pd.concat([_compare(folder, rule) for rule in rules], ignore_index=True)


def _compare(folder: Path, rule: dict) -> pd.DataFrame:
    """Compare the two sides of a check cell by cell."""
    sides = [
        _side(folder, *(rule[f"{side}_{part}"] for part in ("table", "rows", "by", "value", "how")))
        for side in ("printed", "other")
    ]
    if not rule["other_by"]:  # then all of the printed side is compared with one value
        sides[1] = pd.Series(sides[1].iloc[0], index=sides[0].index)
    cells = pd.concat(sides, axis=1, keys=["printed", "recomputed"], join="outer", sort=False)
    # If one side counts something, then a cell missing there means a count of zero.
    cells = cells.dropna() if rule["join"] == "inner" else cells.fillna(0)
    if rule["join"] == "left":
        cells = cells.loc[sides[0].index]
    cells = cells.astype(float).rename_axis("where").reset_index()
    names = dict.fromkeys(rule[f"{side}_table"] for side in ("printed", "other"))
    cells.insert(0, "check", rule["check"])
    cells.insert(0, "table", ", ".join(names))
    cells["tolerance"], cells["relation"] = rule["tolerance"], rule["relation"]
    holds = _RELATIONS[rule["relation"]](cells.printed, cells.recomputed, rule["tolerance"])
    known = cells["where"].isin(rule["known"].split("; "))
    return cells.assign(
        holds=holds, contradiction=np.where(known, rule["contradiction"], "").astype(str)
    )


def _published(name: str) -> pd.DataFrame:
    """Read figures of others that stand in a column per language, and return one row per figure."""
    path = PACKAGE_DATA / "published" / f"{name}.csv"
    codes = ["en", *table(9)["target"]]
    frame = pd.read_csv(path, keep_default_na=False, na_values=dict.fromkeys(codes, ""))
    if absent := [code for code in codes if code not in frame]:
        raise ValueError(f"{path} has no figures for {', '.join(absent)}; {_REMEDY}")
    return frame.melt([name for name in frame if name not in codes], codes, "language", "value")


def published_scores(
    direction: str = "en-x", metric: str = "spBLEU", systems: Sequence[str] = ()
) -> pd.DataFrame:
    """Return what 18 systems score on FLORES-101, as the LLaMAX project published it.

    These are its experiment results (CONE-MT/LLaMAX at commit 0eeec0be, MIT licence). The authors
    tuned some of the systems and scored all. Two of them they scored with Chinese or Japanese only.

    Args:
        direction: `en-x` for translation from English and `x-en` for translation into it. The same
            with `zh` and `ja`. Defaults to "en-x".
        metric: `spBLEU` (0 to 100) or `comet` (in percent). Defaults to "spBLEU".
        systems: Names of systems. Defaults to all that were scored in this direction.

    Returns:
        One row per system and language: `system`, `language` and `score`.

    Raises:
        ValueError: A system, direction or metric is unknown, or the file lacks a score.
    """
    scores = _published("llamax").rename(columns={"value": "score"})
    one_of("metric", metric, scores["metric"].unique())
    one_of("direction", direction, scores["direction"].unique())
    scores = scores[scores["metric"].eq(metric) & scores["direction"].eq(direction)]
    for system in systems:
        one_of(f"system of {direction}", system, scores["system"].unique())
    scores = scores[scores["system"].isin(systems or scores["system"])]
    scores = scores[~scores["language"].isin(direction.split("-"))].reset_index(drop=True)
    if (absent := scores[scores["score"].isna()]).size:
        system, language = absent[["system", "language"]].iloc[0]
        raise ValueError(
            f"llamax.csv has no {direction} score of {system} in {language}; {_REMEDY}"
        )
    return scores[["system", "language", "score"]]


def token_counts() -> pd.DataFrame:
    """Return how many tokens 27 tokenizers need for FLORES-200, its dev and devtest together.

    The counts were published beside "Language Model Tokenizers Introduce Unfairness Between
    Languages" (AleksandarPetrov/tokenization-fairness at commit 365c3f85, MIT licence).

    Returns:
        One row per tokenizer and language: `tokenizer`, `language`, `tokens` and `unknown`, the
        share of unknown tokens from 0 to 1. A tokenizer that knows few tokens needs few.
    """
    counts = _published("fairness").pivot(index=["tokenizer", "language"], columns="measure")
    return counts["value"].reset_index().rename_axis(columns=None)


def open_scores(models: Sequence[str]) -> pd.DataFrame:
    """Return en→x spBLEU on FLORES-101 of LLaMA models, untuned and Alpaca-tuned.

    The scores of LLaMA-7B are the paper's (Table 9). Those of the others are `published_scores`.

    Args:
        models: Some of `LLaMA-7B`, `LLaMA2-7B`, `LLaMA2-13B` and `LLaMA3-8B`.

    Returns:
        One row per model, tuning and target: `model`, `tuning` (`none` or `Alpaca`), `target`,
        `spbleu` (0 to 100), and `label` (the model, with " + Alpaca" if tuned).

    Raises:
        ValueError: A model is unknown.
    """
    ours = table(9).rename(columns={"llama": "none", "alpaca": "Alpaca"})
    ours = ours.melt("target", ["none", "Alpaca"], "tuning", "spbleu").assign(model="LLaMA-7B")
    others = published_scores().rename(columns={"language": "target", "score": "spbleu"})
    others[["model", "tuning"]] = others.pop("system").str.extract(r"^(LLaMA\d-\d+B)(?:-(\w+))?$")
    others = others.dropna(subset="model").fillna({"tuning": "none"})
    scores = pd.concat([ours, others], ignore_index=True)
    for model in models:
        one_of("model", model, scores["model"].unique())
    label = scores["model"] + scores["tuning"].map({"none": "", "Alpaca": " + Alpaca"})
    return scores.assign(label=label)[scores["model"].isin(models)]


def harness_scores() -> pd.DataFrame:
    """Return zero-shot accuracies of LLaMA-7B on four tasks of Table 16, language by language.

    The results were published by lm-evaluation-harness in 2023 (EleutherAI, MIT licence,
    `results/llama/llama-7B` at commit 8085723). There are none for MGSM, and XNLI was scored on its
    test set then.

    Returns:
        One row per task and language: `task`, `language` and `score` (percent).
    """
    return pd.read_csv(PACKAGE_DATA / "published/harness_llama_7b.csv", keep_default_na=False)
