"""The paper's Tables 1-16 and constants as tidy data, and the checks that its redundancy allows.

The tables hold what is printed, contradictions included: nothing is corrected but damage of the
scan, which `tables.csv` records table by table. What one part of the paper says about another (an
average, a difference, a cell printed twice, a count) is a row of `checks.csv`. A check compares two
sides; each is a table, the rows meant, the columns that name a cell, an expression for its value
and how the values of one name are combined. The cells known to fail are listed beside the check,
with the contradiction (`contradictions.csv`) that they belong to.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from mlq_utils.data import PACKAGE_DATA

FOLDER = PACKAGE_DATA / "paper"

# For each table the number of rows and its columns: text unless marked; `?` may be empty.
_SCHEMA = {
    1: (70, "tuned_on target spbleu:float"),
    2: (225, "dataset quadrant language"),
    3: (168, "setting strategy n_languages:int size:int target spbleu:float"),
    4: (80, "strategy size:int? tuned_on measure spbleu:float"),
    5: (176, "target ratio:float strategy size:int? spbleu:float"),
    6: (72, "target baseline:float source method vocabulary_size:int spbleu:float?"),
    7: (25, "target setting value:float"),
    8: (102, "family_1 family_2 family_3 code language"),
    9: (101, "target alpaca:float llama:float delta:float"),
    10: (3, "dataset n_languages:int domain"),
    11: (12, "language family"),
    12: (662, "tuned_on target role spbleu:float"),
    13: (231, "target ratio:float strategy size:int? spbleu:float"),
    14: (315, "strategy layer:int? target spbleu:float"),
    15: (144, "strategy size:int target spbleu:float"),
    16: (77, "training_data model strategy task score:float"),
}

# How the values that share a name become one. "in all three" counts the datasets of Table 2.
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

# Binary floats cannot hold a printed decimal: 0.1 must not fail against a tolerance of 0.1.
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
    """Return a table of the paper, tidy: one printed cell a row.

    Scores are in spBLEU (Table 16: accuracy in percent, and spBLEU for Flores-101), sizes in
    sentence pairs, Table 7's ratio in percent.

    Args:
        n: The table's number in the paper.

    Returns:
        A copy that may be changed; `.attrs` has its title, unit, source (the section) and note
        (how to read it, and what was repaired of the scan).

    Raises:
        ValueError: There is no such table, or its file is not what the paper prints: a column or
            row is missing, a cell is no number, or a check within the table fails (or holds)
            where it does not in print.
    """
    if n not in _SCHEMA:
        raise ValueError(f"unknown table {n!r}; the paper has Tables 1 to {max(_SCHEMA)}")
    return _checked(FOLDER, int(n)).copy()


def constants() -> pd.DataFrame:
    """Return the constants of the equations, the settings and the claims made in prose.

    Returns:
        One constant a row: name, value (missing for `threshold`, for which the paper gives a rule
        and no number), unit, source (section, equation or caption) and statement.
    """
    return _constants(FOLDER).copy()


def checks(n: int | None = None) -> pd.DataFrame:
    """Return every check that the paper's redundancy allows, one compared cell a row.

    Args:
        n: A table's number, for the checks that involve it; all where it is None.

    Returns:
        table (the tables compared, "5, 13"), check (the rule in words), where (the cell's names),
        printed, recomputed (both in the tables' units), tolerance (the rounding that the printed
        digits allow), relation (of printed to recomputed), holds, and contradiction (the id in
        `contradictions`, empty where the check holds).

    Raises:
        ValueError: There is no such table, or a file is damaged (see `table`).
    """
    cells = _compared(FOLDER)
    if n is not None:
        table(n)  # refuses a number that no table has
        cells = cells[cells.table.str.split(", ").map(lambda tables: str(n) in tables)]
    return cells.reset_index(drop=True)


def contradictions() -> pd.DataFrame:
    """Return each place where the printed paper contradicts itself.

    Returns:
        id, where (tables and sections), printed (what stands there), conflict (what speaks
        against it), explanation, reading ("plain"; "arguable" where the paper can be read
        otherwise; "outside" where the conflict is with a fact that the paper does not print), and,
        from the checks: cells (how many fail), of (how many were compared) and computed (the
        failing cells in words; empty where no check can tell).
    """
    listed = _read(FOLDER / "contradictions.csv")
    found = checks()
    related = _rules(FOLDER).set_index("check").contradiction
    found["id"] = found.check.map(related)
    failing = found[~found.holds]
    listed["cells"] = listed.id.map(failing.groupby("id").size()).fillna(0).astype(int)
    listed["of"] = listed.id.map(found.groupby("id").size()).fillna(0).astype(int)
    listed["computed"] = listed.id.map(failing.groupby("id").apply(_words)).fillna("")
    return listed


def _words(failing: pd.DataFrame) -> str:
    """Say in words which cells fail, check by check."""
    return "; ".join(
        f"{check}: "
        + ", ".join(
            f"{c.where} {c.printed:g} against {c.recomputed:.4g}" for c in cells.itertuples()
        )
        for check, cells in failing.groupby("check", sort=False)
    )


def _read(path: Path) -> pd.DataFrame:
    """Read a CSV as text: nothing is guessed, and an empty cell is an empty string."""
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False).fillna("")
    except ValueError as error:  # what pandas raises for a file that is no CSV in UTF-8
        raise ValueError(f"{path}: {error}; {_REMEDY}") from error


@lru_cache
def _constants(folder: Path) -> pd.DataFrame:
    """Read the constants."""
    frame = _read(folder / "constants.csv")
    frame["value"] = pd.to_numeric(frame.value)
    return frame


@lru_cache
def _rules(folder: Path) -> pd.DataFrame:
    """Read the checks, each a rule that compares many cells."""
    frame = _read(folder / "checks.csv")
    frame["tolerance"] = pd.to_numeric(frame.tolerance)
    return frame


@lru_cache
def _typed(folder: Path, n: int) -> pd.DataFrame:
    """Read a table's file and give its columns their types."""
    path = folder / f"table_{n:02d}.csv"
    n_rows, schema = _SCHEMA[n]
    frame = _read(path)
    columns = [column.split(":") for column in schema.split()]
    names = [name for name, *_ in columns]
    if list(frame) != names:
        raise ValueError(f"{path}: has columns {list(frame)}, not {names}; {_REMEDY}")
    if len(frame) != n_rows:
        raise ValueError(f"{path}: has {len(frame)} rows, not {n_rows}; {_REMEDY}")
    for name, *kind in columns:
        if kind:
            frame[name] = _numbers(path, frame[name], kind[0])
    about = _read(folder / "tables.csv").set_index("table").loc[str(n)]
    frame.attrs = {key: about[key] for key in ("title", "unit", "source", "note")}
    return frame


def _numbers(path: Path, cells: pd.Series, kind: str) -> pd.Series:
    """Turn a column into numbers of a kind, or say which cell is none."""
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
    """Return a table whose own checks fail where the paper's fail, and nowhere else."""
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
    """Return one side of a check: the cells meant, by their names."""
    frame = _constants(folder) if name == "constants" else _typed(folder, int(name))
    if rows:
        frame = frame.query(rows, engine="python")
    values = pd.Series(frame.eval(value, engine="python"), index=frame.index)
    # A name is its columns' values in words, so that tables that name columns differently align.
    keys = frame[by.split()].astype(object).fillna("-").itertuples(index=False)
    names = [" / ".join(map(str, key)) for key in keys] if by else [_WHOLE] * len(frame)
    return _HOW[how](values.groupby(names, sort=False))


@lru_cache
def _compared(folder: Path) -> pd.DataFrame:
    """Run every check."""
    return pd.concat([_compare(folder, rule) for rule in _rules(folder).to_dict("records")])


def _compare(folder: Path, rule: dict) -> pd.DataFrame:
    """Compare the two sides of a check cell by cell."""
    sides = [
        _side(folder, *(rule[f"{side}_{part}"] for part in ("table", "rows", "by", "value", "how")))
        for side in ("printed", "other")
    ]
    if not rule["other_by"]:  # one value for all of the printed side
        sides[1] = pd.Series(sides[1].iloc[0], index=sides[0].index)
    cells = pd.concat(sides, axis=1, keys=["printed", "recomputed"], join="outer", sort=False)
    # Where one side counts, what it does not have counts as none.
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
