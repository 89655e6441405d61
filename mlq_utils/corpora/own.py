"""Your own pairs: read from a file, checked, and cleaned before a model is tuned on them.

pairs = Pairs("pairs.tsv")                                # English, and the language
pairs = Pairs("pairs.csv", columns=("english", "basque"))
pairs = Pairs("text.en", "text.eu")                       # two files, line by line
clean(pairs.read(), "Latn").attrs["left_out"]
"""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd
from fontTools.unicodedata import script as script_of

from mlq_utils.corpora import readers
from mlq_utils.corpora.loading import sentence_keys
from mlq_utils.data import one_of

KINDS = (".tsv", ".csv", ".jsonl", ".parquet")
LONGEST = 1000
"""Characters of a sentence from which a pair is left out. Such lines are paragraphs or debris."""
HEADINGS = ("en", "eng", "eng_latn", "source", "src", "target", "tgt", "sentence", "translation")
"""What the first cell of a table may be called. A sentence is none of these."""
HAN = dict.fromkeys(("Hans", "Hant", "Jpan", "Hira", "Kana"), "Hani")
"""Scripts that are taken for one, because Chinese and Japanese share their characters."""


@dataclass(frozen=True)
class Pairs:
    """English sentences and their translations in a file, identified by their content.

    Attributes:
        file: File of UTF-8 text whose name ends in .tsv, .csv or .jsonl, or in .parquet. If there
            is a second file, one English sentence per line. Text may be compressed (.gz).
        second: File with the translations, line by line.
        columns: Names of the columns with English and with the translations. Defaults to the first
            two columns; a .tsv or .csv file then has no header.
        sha256: Checksum of the pairs. It is computed when it is not given, and is all that the
            identity of a run knows of them.
    """

    file: str
    second: str = ""
    columns: tuple[str, str] | None = None
    sha256: str = ""

    def __post_init__(self) -> None:
        """Read the file once, so that what is wrong with it is known before anything is computed.

        Raises:
            ValueError: The file is damaged, has rows of different lengths or an empty column, lacks
                a column, or begins with a header although no columns are named.
            FileNotFoundError: There is no such file.
        """
        if not self.sha256:
            object.__setattr__(self, "sha256", _digest(_rows(self)))

    def read(self) -> pd.DataFrame:
        """Return the pairs as a frame with columns `source` and `target`.

        Raises:
            ValueError: The file is no longer what it was when this value was made; or as above.
        """
        return pd.DataFrame(_checked(self), columns=["source", "target"])


@lru_cache(maxsize=8)
def _checked(pairs: Pairs) -> list[readers.Pair]:
    if _digest(rows := _rows(pairs)) != pairs.sha256:
        raise ValueError(f"{pairs.file} has changed since this run was specified")
    return rows


def _digest(rows: Sequence[readers.Pair]) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _rows(pairs: Pairs) -> list[readers.Pair]:
    """Read and check the pairs of a file."""
    path = Path(pairs.file).expanduser()
    if pairs.second:
        rows = _aligned(path, Path(pairs.second).expanduser())
    else:
        frame = _table(path, header=pairs.columns is not None)
        wanted, names = pairs.columns or frame.columns[:2], list(map(str, frame.columns))
        if len(names) < 2:
            raise ValueError(f"{path} has one column where English and translations are expected")
        places = [names.index(one_of(f"column of {path}", str(name), names)) for name in wanted]
        rows = list(frame.iloc[:, places].itertuples(index=False, name=None))
    for number, row in enumerate(rows, 1):
        if wrong := [cell for cell in row if not isinstance(cell, str)]:
            raise ValueError(f"{path}, row {number}: {wrong[0]} stands where text is expected")
    for side, which in enumerate(("English sentences", "translations")):
        if not any(row[side].strip() for row in rows):
            raise ValueError(f"{path} holds no {which}: the column is empty")
    if not pairs.columns and rows[0][0].strip().casefold() in HEADINGS:
        raise ValueError(f"{path} begins with a header: name the columns, {' and '.join(rows[0])}")
    return rows


def _aligned(english: Path, other: Path) -> list[readers.Pair]:
    sides = list(readers.lines(english)), list(readers.lines(other))
    if len(sides[0]) != len(sides[1]):
        counts = f"{english} has {len(sides[0])} lines and {other} {len(sides[1])}"
        raise ValueError(f"{counts}: they are not aligned line by line")
    return list(zip(*sides, strict=True))


def _table(path: Path, header: bool) -> pd.DataFrame:
    """Read a table, whose text is checked line by line before it is parsed."""
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if one_of("kind of file with pairs", kind, KINDS) != ".parquet":
        text = io.StringIO("".join(f"{line}\n" for line in readers.lines(path)), newline="")
    elif not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        if kind == ".parquet":
            return pd.read_parquet(path)
        if kind == ".jsonl":
            return pd.read_json(text, lines=True, dtype=False)
        how = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if kind == ".tsv" else {}
        rows = list(csv.reader(text, strict=True, **how))
        for number, row in enumerate(rows, 1):  # pandas would fill the short ones
            if len(row) != len(rows[0]):
                raise ValueError(f"row {number} has {len(row)} columns, and row 1 {len(rows[0])}")
        return pd.DataFrame(rows[header:], columns=rows[0] if header and rows else None)
    except (ValueError, OSError, csv.Error) as error:
        raise ValueError(f"{path} is no table of pairs: {str(error).strip()}") from None


def clean(frame: pd.DataFrame, script: str, tested: pd.DataFrame | None = None) -> pd.DataFrame:
    """Leave out the pairs that a model should not be tuned on.

    Args:
        frame: Columns `source` and `target`.
        script: ISO 15924 code of the language's script.
        tested: The test set. Sentences are compared with it by their letters and digits alone.

    Returns:
        The other pairs, stripped. `attrs` holds the number `read` and, in `left_out`, the number by
        the first reason that applies: `empty`, `identical` (source and target), `too_long` (see
        `LONGEST`), `wrong_script` (of most letters of the target), `repeated` or `in_test`.
    """
    sides = frame[["source", "target"]].apply(lambda side: side.str.strip())
    keys = sides.apply(sentence_keys)
    known = set() if tested is None else set(tested.apply(sentence_keys).to_numpy().ravel()) - {""}
    scripts = sides["target"].map(main_script)
    reasons = {
        "empty": (sides == "").any(axis=1),
        "identical": sides["source"] == sides["target"],
        "too_long": sides.map(len).gt(LONGEST).any(axis=1),
        "wrong_script": scripts.notna() & (scripts != HAN.get(script, script)),
        "repeated": keys.duplicated(),
        "in_test": keys.isin(known).any(axis=1),
    }
    table = pd.DataFrame(reasons)
    first = table.idxmax(axis=1).where(table.any(axis=1))
    left = sides[first.isna()].reset_index(drop=True)
    counts = first.value_counts()
    left.attrs = {"read": len(frame), "left_out": {k: int(counts.get(k, 0)) for k in reasons}}
    return left


def main_script(text: str) -> str | None:
    """Return the ISO 15924 code of the script of most letters, or None if there are no letters."""
    scripts = (script_of(letter) for letter in text if letter.isalpha())
    counts = Counter(HAN.get(script, script) for script in scripts)
    return counts.most_common(1)[0][0] if counts else None
