"""Readers of released text: lines, pairs of sentences, and the pages of mC4."""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlq_utils.corpora.releases import Corpus

MARGIN = 1.04
"""LASER margin that WikiMatrix's authors recommend. Most pairs below it are no translations."""
MISSING = ("__NULL__", "_ _ NULL _ _")
"""What TED writes instead of a sentence. The second form went through a tokenizer."""

Pair = tuple[str, str]


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


def pairs(corpus: Corpus, paths: Sequence[Path], code: str, split: str) -> Iterator[Pair]:
    """Read English sentences and their translations from the files of a release.

    Args:
        corpus: The release.
        paths: Its files that hold the language, either one file per side or one with columns.
        code: The language's code in the release.
        split: The split that the files hold.
    """
    if len(paths) == 2:
        return _parallel(paths, corpus.sentences.get(split), corpus.strict)
    first, second = sorted(("en", code))
    names = [column.format(first=first, second=second) for column in corpus.columns]
    return _table(paths[0], code, names)


def _parallel(paths: Sequence[Path], expected: int | None, strict: bool) -> Iterator[Pair]:
    """Read one file per side. If no number of lines is expected, blank sides are left out."""
    sides = [list(lines(path, strict)) for path in paths]
    count = expected or len(sides[-1])
    for path, side in zip(paths, sides, strict=True):
        if len(side) != count:
            raise ValueError(
                f"{path} has {len(side)} lines where {count} are expected: it or "
                f"{paths[-1].name} is truncated or not the release's"
            )
    found = zip(*sides, strict=True)
    return found if expected else (pair for pair in found if all(map(str.strip, pair)))


def _table(path: Path, code: str, columns: Sequence[str]) -> Iterator[Pair]:
    """Read tab-separated columns. If `columns` is empty, a header names them.

    Pairs with a margin below `MARGIN` are left out, and pairs that lack a side. TED has many of
    these, and in News-Commentary they separate documents.
    """
    rows = enumerate(lines(path), 1)
    columns = columns or next(rows, (1, ""))[1].split("\t")
    for wanted in ("en", code):
        if wanted not in columns:
            raise ValueError(f"{path} has no column {wanted!r}; there are: {', '.join(columns)}")
    english, other = columns.index("en"), columns.index(code)
    for number, line in rows:
        cells = line.split("\t")
        if len(cells) != len(columns):
            found = f"{len(cells)} columns instead of {len(columns)}"
            raise ValueError(f"{path}, line {number}: {found}")
        try:
            margin = float(cells[0]) if columns[0] == "margin" else MARGIN
        except ValueError:
            raise ValueError(f"{path}, line {number}: no number: {cells[0]!r}") from None
        pair = cells[english], cells[other]
        lacking = any(not side.strip() or any(mark in side for mark in MISSING) for side in pair)
        if margin >= MARGIN and not lacking:
            yield pair


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
