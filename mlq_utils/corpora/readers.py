"""Readers of released text: one checked reader of lines, and one reader per format of pairs.

A reader of pairs takes the paths of a release's files and the languages' codes in that release. It
yields (code, (English sentence, translation)). Only TED has several languages in one file, so only
its reader takes several codes.
"""

import gzip
import itertools
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

FLORES_SENTENCES = {"dev": 997, "devtest": 1012}
"""Number of sentences in each split of FLORES, the same in every language and release."""
NTREX_SENTENCES = 1997
MARGIN = 1.04
"""LASER margin that WikiMatrix's authors recommend. Most pairs below it are no translations."""

Row = tuple[str, tuple[str, str]]


def lines(path: Path, strict: bool = False) -> Iterator[str]:
    """Yield the lines of a UTF-8 file without their ends, decompressed if its name ends in .gz.

    Lines end at U+000A only. `str.splitlines` would also cut at U+2028 or U+0085, which occur
    within sentences, and so shift every later pair.

    Args:
        path: The file.
        strict: Whether blank lines, carriage returns and a last line without an end are errors
            too. Defaults to False.

    Raises:
        ValueError: The file is damaged or holds what no text has, such as NUL or a byte-order mark.
            The message names the file and the line.
    """
    number = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if fault := _fault(line, number, strict):
                    raise ValueError(f"{path}, line {number}: a {fault}")
                yield line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, line {number}: not UTF-8 ({error.reason})") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        where = f"{path} is truncated or damaged after line {number} ({error})"
        raise ValueError(f"{where}: delete it and get it again") from None


def _fault(line: bytes, number: int, strict: bool) -> str:
    """Return what the line should not hold, if anything."""
    if b"\0" in line:
        return "NUL"
    if number == 1 and line.startswith(b"\xef\xbb\xbf"):  # elsewhere U+FEFF joins words
        return "byte-order mark"
    if strict and b"\r" in line:
        return "carriage return"
    if strict and not line.endswith(b"\n"):
        return "last line without an end: the file is truncated"
    return "blank line" if strict and not line.decode("utf-8").strip() else ""


def flores(paths: Sequence[Path], codes: Sequence[str]) -> Iterator[Row]:
    """Read FLORES-101 or FLORES-200, whose splits are told by the ends of file names."""
    return _test_set(paths, codes, FLORES_SENTENCES[paths[0].suffix[1:]], strict=True)


def ntrex(paths: Sequence[Path], codes: Sequence[str]) -> Iterator[Row]:
    """Read NTREX-128."""
    return _test_set(paths, codes, NTREX_SENTENCES, strict=False)


def _test_set(
    paths: Sequence[Path], codes: Sequence[str], expected: int, strict: bool
) -> Iterator[Row]:
    """Read one file per side, each with the same known number of lines."""
    sides = [list(lines(path, strict)) for path in paths]
    for path, side in zip(paths, sides, strict=True):
        if len(side) != expected:
            raise ValueError(
                f"{path} has {len(side)} lines where {expected} are expected: the file is "
                "truncated or not the release's"
            )
    return zip(itertools.repeat(codes[0]), zip(*sides, strict=True))


def ted(paths: Sequence[Path], codes: Sequence[str]) -> Iterator[Row]:
    """Read TED, one file with a column per language, in which many sentences are missing."""
    (path,) = paths
    rows = lines(path)
    header = next(rows, "").split("\t")
    for wanted in ("en", *codes):
        if wanted not in header:
            raise ValueError(f"{path} has no column {wanted!r}; there are: {', '.join(header)}")
    columns = {code: header.index(code) for code in ("en", *codes)}
    for number, line in enumerate(rows, 2):
        cells = line.split("\t")
        if len(cells) != len(header):
            found = f"{len(cells)} columns where the header has {len(header)}"
            raise ValueError(f"{path}, line {number}: {found}")
        said = {code: cells[n] for code, n in columns.items() if _said(cells[n])}
        if "en" in said:
            yield from ((code, (said["en"], said[code])) for code in codes if code in said)


def _said(cell: str) -> bool:
    """Return whether TED has a sentence; the second mark of none went through a tokenizer."""
    return bool(cell.strip()) and "__NULL__" not in cell and "_ _ NULL _ _" not in cell


def wikimatrix(paths: Sequence[Path], codes: Sequence[str]) -> Iterator[Row]:
    """Read WikiMatrix, whose columns are the margin and the sentences; keep pairs from `MARGIN`."""
    for number, cells in _cells(paths[0], 3):
        try:
            kept = float(cells[0]) >= MARGIN
        except ValueError:
            raise ValueError(f"{paths[0]}, line {number}: no number: {cells[0]!r}") from None
        if kept:
            yield _english_first(codes[0], cells[1], cells[2])


def news_commentary(paths: Sequence[Path], codes: Sequence[str]) -> Iterator[Row]:
    """Read News-Commentary, in which lines with an empty side separate documents."""
    for _, cells in _cells(paths[0], 2):
        if cells[0].strip() and cells[1].strip():
            yield _english_first(codes[0], cells[0], cells[1])


def _cells(path: Path, count: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line and its cells, which are at least `count`."""
    for number, line in enumerate(lines(path), 1):
        cells = line.split("\t")
        if len(cells) < count:
            raise ValueError(f"{path}, line {number}: {len(cells)} columns instead of {count}")
        yield number, cells


def _english_first(code: str, first: str, second: str) -> Row:
    """Return a pair whose sides stand in the alphabetical order of their codes."""
    return code, (first, second) if code > "en" else (second, first)


def lego_mt(paths: Sequence[Path], codes: Sequence[str]) -> Iterator[Row]:
    """Read Lego-MT, one file per side; pairs with a blank side are left out."""
    for pair in itertools.zip_longest(*map(lines, paths)):
        if None in pair:
            counts = [sum(1 for _ in lines(path)) for path in paths]
            raise ValueError(
                f"{paths[0]} has {counts[0]} lines and {paths[1]} {counts[1]}: they are no "
                "translations of each other, or one is truncated"
            )
        if all(side.strip() for side in pair):
            yield codes[0], pair


def mc4(path: Path) -> Iterator[str]:
    """Yield the lines of a file of mC4, which holds one page per line as JSON.

    Blank lines and characters that are no text (NUL, lone surrogates) are left out.
    """
    for number, page in enumerate(lines(path), 1):
        try:
            text = json.loads(page)["text"].replace("\0", "").encode("utf-8", "ignore")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: no page of mC4 ({error!r})") from None
        yield from filter(None, map(str.strip, text.decode("utf-8").split("\n")))
