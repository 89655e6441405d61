"""The paper's corpora as their publishers release them: NTREX-128, TED, WikiMatrix and so on.

Each is read from the files of its release. A file is looked for in the folder given as `data`, in
`MLQ_DATA` and in the download cache, each time under the release's own name (`Source.folder`), and
then fetched. A folder under `data` or `MLQ_DATA` that is there but incomplete is an error, never a
reason to download.

    NTREX-128/newstest2019-ref.<code>.txt           and newstest2019-src.eng.txt
    ted_talks/all_talks_{train,dev,test}.tsv        a column a language
    WikiMatrix/WikiMatrix.<a>-<b>.tsv.gz            margin, sentence, sentence
    news-commentary/news-commentary-v18.<a>-<b>.tsv.gz
    lego-mt/<code>/train.en                         and train.<code>; nothing to download
    alpaca/alpaca_data.json                         English; alpaca_data_<code>.json: translated

Lines end at U+000A only, as in `corpora`. TED's text is tokenised in the release and stays so.
"""

import dataclasses
import gzip
import itertools
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from mlq_utils import languages
from mlq_utils.data import downloads as _downloads
from mlq_utils.data import sha256

NTREX_SENTENCES = 1997
MARGIN = 1.04
"""The margin that WikiMatrix's authors recommend: pairs below it are mostly no translations."""
_NULL = ("__NULL__", "_ _ NULL _ _")
MARK, NUL = b"\xef\xbb\xbf", b"\0"
"""What no text has: a byte-order mark (within a line U+FEFF joins words, as some do), and NUL."""

Pair = tuple[str, str]


@dataclass(frozen=True)
class Source:
    """Where files are.

    Attributes:
        folder: The folder that holds them.
        origin: Where to get them by hand.
        url: The address of a file, by its name; empty where a person has to get it.
        archive: The address of the one archive that holds all files, in the place of `url`.
        sha256: The archive's checksum; None where nobody who should know gives one.
    """

    folder: str
    origin: str
    url: str = ""
    archive: str = ""
    sha256: str | None = None


@dataclass(frozen=True)
class Release:
    """A released corpus.

    Attributes:
        splits: The names of its splits.
        description, licence: What it is, in a line; the SPDX identifier or a phrase.
        version: Which release, as its publisher names it.
        source: Where its files are.
        files: Returns the files needed, given the language's code in it and the split.
        pairs: Reads English and the other side of each pair, given the paths and the code.
        options: The names of options that `pairs` takes.
        together: Whether a file holds all languages; `pairs` then takes several codes and yields
            each pair after its code.
    """

    splits: tuple[str, ...]
    description: str
    licence: str
    version: str
    source: Source
    files: Callable[[str, str], tuple[str, ...]]
    pairs: Callable[..., Iterator[Any]]
    options: tuple[str, ...] = ()
    together: bool = False


def load(
    name: str,
    language: languages.Language,
    split: str,
    data: str | os.PathLike | None,
    cache: Path,
    **options: Any,
) -> pd.DataFrame:
    """Return the pairs of a release, see `corpora.load`."""
    release = RELEASES[name]
    code = getattr(language, CODES[name])
    paths = _paths(name, release.source, release.files(code, split), data, cache)
    rows = [pair for _, pair in _pairs(release, paths, [code], options)]
    if not rows:
        raise ValueError(f"{paths[-1]} has no pairs of English and {language.name}")
    frame = pd.DataFrame(rows, columns=["source", "target"])
    digests = {path.name: sha256(path) for path in paths}
    frame.attrs |= {"version": release.version, "files": digests, **options}
    return frame


def stream(
    name: str, codes: Sequence[str], split: str, data: str | os.PathLike | None, cache: Path
) -> Iterator[tuple[list[str], Iterator[tuple[str, Pair]]]]:
    """Read what is on this machine, one file after the other, and keep none of it.

    Args:
        name: A key of `RELEASES`.
        codes: The paper's codes.
        split: One of the release's.
        data: As in `corpora.load`; nothing is downloaded.
        cache: The download cache.

    Yields:
        For each file (or files) that is here, the languages that it holds and an iterator over its
        pairs, each after its language.
    """
    release = RELEASES[name]
    folder = _downloads.local(release.source.folder, data, cache)
    known = {getattr(languages.get(code), CODES[name]): code for code in codes}
    groups: dict[tuple[str, ...], list[str]] = {}
    for own in known:
        groups.setdefault(release.files(own, split), []).append(own)
    for files, group in groups.items():
        paths = [folder / file for file in files] if folder else []
        if paths and all(path.is_file() for path in paths):
            pairs = _pairs(release, paths, group, {})
            yield [known[own] for own in group], ((known[own], pair) for own, pair in pairs)


def _pairs(
    release: Release, paths: list[Path], codes: Sequence[str], options: dict[str, Any]
) -> Iterator[tuple[str, Pair]]:
    """Yield the pairs of files, each after its language's code in the release."""
    if release.together:
        return release.pairs(paths, codes, **options)
    (code,) = codes
    return ((code, pair) for pair in release.pairs(paths, code, **options))


def alpaca(code: str, data: str | os.PathLike | None, cache: Path) -> pd.DataFrame:
    """Return Alpaca's instructions (Taori et al. 2023), or a translation of them.

    Only the English ones are downloaded. Translations are published in many places, none of them
    the paper's: put one into the folder, in the same format.

    Args:
        code: The paper's code.
        data: As in `corpora.load`.
        cache: Where the English ones are kept.

    Returns:
        A row an instruction: `instruction`, `input` (often empty) and `output`, as released.

    Raises:
        ValueError: The file is damaged or another's.
        FileNotFoundError: There is no such translation here.
        ConnectionError: The English ones are not here and cannot be downloaded.
    """
    file = "alpaca_data.json" if code == "en" else f"alpaca_data_{code}.json"
    source = _ALPACA if code == "en" else dataclasses.replace(_ALPACA, url="")
    (path,) = _paths("alpaca", source, [file], data, cache)
    try:
        rows = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is truncated or no JSON: {error}") from None
    columns = ["instruction", "input", "output"]
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path} holds no list of instructions")
    for number, row in enumerate(rows):
        texts = [row.get(name) for name in columns] if isinstance(row, dict) else [None]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{path}, entry {number}: no texts for {', '.join(columns)}")
    return pd.DataFrame(rows)[columns]


def _paths(
    name: str,
    source: Source,
    files: Sequence[str],
    data: str | os.PathLike | None,
    cache: Path,
) -> list[Path]:
    """Return the files, which are fetched where they are nowhere on this machine."""
    kept = cache / source.folder
    folder = _downloads.local(source.folder, data, cache) or kept
    if source.archive and not folder.is_dir():
        remedy = f"set MLQ_DATA to the folder that holds {source.folder}/{files[0]}"
        archive = cache / f"{source.folder}.tar.gz"
        _downloads.fetch(source.archive, archive, name, remedy, source.sha256)
        _downloads.unpack(archive, folder, inside=False)
    paths = [folder / file for file in files]
    for path in paths:
        if path.is_file():
            continue
        if folder != kept or not source.url:
            raise FileNotFoundError(
                f"{path} is missing. {source.origin}; {name} is read from {source.folder} in the "
                "folder MLQ_DATA"
            )
        remedy = f"put it into {source.folder} in the folder MLQ_DATA"
        _downloads.fetch(source.url.format(file=path.name), path, name, remedy)
    return paths


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file, unpacked where it is compressed, without their ends."""
    with path.open("rb") as raw:
        source: BinaryIO = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
        number = 0
        try:
            for number, line in enumerate(source, 1):
                if NUL in line or (number == 1 and line.startswith(MARK)):
                    what = "NUL" if NUL in line else "byte-order mark"
                    raise ValueError(f"{path}, line {number}: a {what}")
                yield line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, line {number}: not UTF-8 ({error.reason})") from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"{path} is truncated or damaged after line {number} ({error}): delete it and get "
                "it again"
            ) from None


def _ntrex(paths: list[Path], code: str) -> Iterator[Pair]:
    sides = [list(_lines(path)) for path in paths]
    for path, side in zip(paths, sides, strict=True):
        if len(side) != NTREX_SENTENCES:
            raise ValueError(
                f"{path} has {len(side)} lines where {NTREX_SENTENCES} are expected: the file is "
                "truncated or not the release's"
            )
    return zip(*sides, strict=True)


def _ted(paths: list[Path], codes: Sequence[str]) -> Iterator[tuple[str, Pair]]:
    lines = _lines(paths[0])
    header = next(lines, "").split("\t")
    for wanted in ("en", *codes):
        if wanted not in header:
            raise ValueError(f"{paths[0]} has no column {wanted!r}; there are: {', '.join(header)}")
    english = header.index("en")
    others = [(code, header.index(code)) for code in codes]
    for number, line in enumerate(lines, 2):
        cells = line.split("\t")
        if len(cells) != len(header):
            raise ValueError(
                f"{paths[0]}, line {number}: {len(cells)} columns where the header has "
                f"{len(header)}"
            )
        if not _said(cells[english]):
            continue
        for code, column in others:
            if _said(cells[column]):
                yield code, (cells[english], cells[column])


def _said(cell: str) -> bool:
    """Return whether TED's column has a sentence."""
    return bool(cell.strip()) and not any(null in cell for null in _NULL)


def _wikimatrix(paths: list[Path], code: str, margin: float = MARGIN) -> Iterator[Pair]:
    for number, cells in _columns(paths[0], 3):
        try:
            enough = float(cells[0]) >= margin
        except ValueError:
            raise ValueError(f"{paths[0]}, line {number}: no number: {cells[0]!r}") from None
        if enough:
            yield _english_first(cells[1], cells[2], code)


def _news_commentary(paths: list[Path], code: str) -> Iterator[Pair]:
    for _, cells in _columns(paths[0], 2):
        if cells[0].strip() and cells[1].strip():  # blank ones part the documents
            yield _english_first(cells[0], cells[1], code)


def _columns(path: Path, count: int) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(_lines(path), 1):
        cells = line.split("\t")
        if len(cells) < count:
            raise ValueError(f"{path}, line {number}: {len(cells)} columns instead of {count}")
        yield number, cells


def _english_first(first: str, second: str, code: str) -> Pair:
    return (first, second) if code > "en" else (second, first)


def _lego_mt(paths: list[Path], code: str) -> Iterator[Pair]:
    for pair in itertools.zip_longest(*map(_lines, paths)):
        if None in pair:
            counts = [sum(1 for _ in _lines(path)) for path in paths]
            raise ValueError(
                f"{paths[0]} has {counts[0]} lines and {paths[1]} {counts[1]}: they are no "
                "translations of each other, or one is truncated"
            )
        if all(side.strip() for side in pair):
            yield pair


def _sorted(code: str) -> str:
    return "-".join(sorted(("en", code)))


CODES = {
    "ntrex": "ntrex",
    "ted": "ted",
    "wikimatrix": "wikimatrix",
    "news_commentary": "news_commentary",
    "lego_mt": "code",
}
"""The attribute of `languages.Language` that holds a language's code in each release."""

RELEASES = {
    "ntrex": Release(
        splits=("test",),
        description="NTREX-128: news of WMT 2019, translated by hand",
        licence="CC-BY-SA-4.0",
        version="52b9c57c",
        source=Source(
            folder="NTREX-128",
            origin="It is released at https://github.com/MicrosoftTranslator/NTREX",
            url="https://raw.githubusercontent.com/MicrosoftTranslator/NTREX/"
            "52b9c57c45101e2c48d1d1aa318bcdc854c0d44d/NTREX-128/{file}",
        ),
        files=lambda code, split: (
            "newstest2019-src.eng.txt",
            "newstest2019-src.eng.txt" if code == "eng" else f"newstest2019-ref.{code}.txt",
        ),
        pairs=_ntrex,
    ),
    "ted": Release(
        splits=("train", "dev", "test"),
        description="TED talks in 60 languages, tokenised (Qi et al. 2018)",
        licence="CC-BY-NC-ND-4.0",
        version="ted_talks.tar.gz",
        source=Source(
            folder="ted_talks",
            origin="Unpack http://phontron.com/data/ted_talks.tar.gz",
            archive="http://phontron.com/data/ted_talks.tar.gz",
            # 352,222,045 bytes; the digest that TensorFlow Datasets records (ted_multi_translate).
            sha256="03457b9ebc6d60839f1a48c5a03c940266aff78b81fcda4c6d9e2a5a7fb670ae",
        ),
        files=lambda code, split: (f"all_talks_{split}.tsv",),
        pairs=_ted,
        together=True,
    ),
    "wikimatrix": Release(
        splits=("train",),
        description="WikiMatrix: sentences of Wikipedia, paired by LASER",
        licence="CC-BY-SA-3.0",
        version="v1",
        source=Source(
            folder="WikiMatrix",
            origin="It is released at https://github.com/facebookresearch/LASER",
            url="https://dl.fbaipublicfiles.com/laser/WikiMatrix/v1/{file}",
        ),
        files=lambda code, split: (f"WikiMatrix.{_sorted(code)}.tsv.gz",),
        pairs=_wikimatrix,
        options=("margin",),
    ),
    "news_commentary": Release(
        splits=("train",),
        description="News-Commentary: columns of Project Syndicate",
        licence="free for research",
        version="v18.1",
        source=Source(
            folder="news-commentary",
            origin="It is released at https://data.statmt.org/news-commentary",
            url="https://data.statmt.org/news-commentary/v18.1/training/{file}",
        ),
        files=lambda code, split: (f"news-commentary-v18.{_sorted(code)}.tsv.gz",),
        pairs=_news_commentary,
    ),
    "lego_mt": Release(
        splits=("train",),
        description="Lego-MT: mined and cleaned pairs of the web",
        licence="not stated",
        version="as shared",
        source=Source(
            folder="lego-mt",
            origin="It is shared by a link in https://github.com/CONE-MT/Lego-MT, which only a "
            "person can open",
        ),
        files=lambda code, split: (f"{code}/train.en", f"{code}/train.{code}"),
        pairs=_lego_mt,
    ),
}

_ALPACA = Source(
    folder="alpaca",
    origin="The English one is released at https://github.com/tatsu-lab/stanford_alpaca",
    url="https://raw.githubusercontent.com/tatsu-lab/stanford_alpaca/"
    "7f0853214d2d4cd732d6f33622566a10e317a903/{file}",
)
