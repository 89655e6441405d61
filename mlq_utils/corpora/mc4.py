"""Text of mC4 (Xue et al. 2021) in one language, for building vocabularies (Table 6).

mC4 has gigabytes a language, and a vocabulary needs some thousand lines of them. Its files are
taken in an order that a seed decides, each read from its first page on, and reading stops with the
line that completes what was asked for: nothing else is downloaded. Files are looked for in the
folder `mc4`, in the folder given as `data`, in `MLQ_DATA` and in the download cache; where there is
such a folder, only files that it holds are read. The lines that came from the network are kept in
the cache, whole or not at all, so that they come once.

    mc4/c4-<code>.tfrecord-<number>-of-<files>.json.gz          a page a line: text, timestamp, url
"""

import gzip
import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import requests
import urllib3
from tqdm import tqdm

from mlq_utils import languages
from mlq_utils.data import PACKAGE_DATA, written_whole
from mlq_utils.data import downloads as _downloads

FOLDER = "mc4"
REVISION = "1ddc917116b730e1859edef32896ec5c16be51d0"
"""Of June 2021: mC4 as published. A later branch, mC4_3.1.0, holds another crawl."""
URL = f"https://huggingface.co/datasets/allenai/c4/resolve/{REVISION}/multilingual/{{file}}"
DESCRIPTION = "mC4: pages of Common Crawl in a language, as CLD3 tells them apart"
LICENCE = "ODC-BY"


def find(data: str | os.PathLike | None, cache: Path) -> Path | None:
    """Return the folder that holds files of mC4, or None."""
    return _downloads.local(FOLDER, data, cache)


def load(
    language: languages.Language,
    size: int,
    seed: int,
    data: str | os.PathLike | None,
    cache: Path,
) -> pd.Series:
    """Return lines of mC4, see `corpora.monolingual`.

    Lines are those of the pages, in their order, without blank ones; characters that are no text
    (NUL, lone surrogates) are left out. All there are where `size` asks for more.

    Raises:
        FileNotFoundError: There is a folder, without a file of the language.
        ValueError: A file is damaged (named, with the line), or has no text.
        ConnectionError: The text is not here and cannot be fetched.
    """
    code = language.mc4
    files = shuffled(code, seed)
    folder = find(data, cache)
    kept = cache / "mc4_lines" / f"{code}-{REVISION[:8]}-seed{seed}-{size}.txt.gz"
    if folder is not None:
        here = [folder / file for file in files if (folder / file).is_file()]
        if not here:
            raise FileNotFoundError(
                f"{folder} has no file of {language.name}, such as {files[0]}. Get some from "
                f"{URL.format(file='')}, or take the folder away"
            )
        lines = list(islice(_lines(here), size))
    elif kept.is_file():
        lines = _text(_unpacked(kept))
    else:
        bar = tqdm(islice(_fetched(files), size), f"mC4, {language.name}", size, unit=" lines")
        lines = list(bar)
    if not lines:
        raise ValueError(f"mC4 has no text in {language.name}: no line of its files is left")
    if folder is None and not kept.is_file():
        with written_whole(kept) as aside:
            aside.write_bytes(gzip.compress("\n".join(lines).encode("utf-8"), mtime=0))
    series = pd.Series(lines, name="text")
    digest = hashlib.sha256("\n".join(lines).encode("utf-8")).hexdigest()
    series.attrs |= {"version": REVISION, "size": size, "seed": seed, "sha256": digest}
    return series


def shuffled(code: str, seed: int) -> list[str]:
    """Return the names of a language's files, in the order in which they are read.

    Args:
        code: mC4's code, as in `languages.Language.mc4`.
        seed: Decides the order.
    """
    counts = pd.read_csv(PACKAGE_DATA / "mc4.csv").set_index("language")["files"]
    order = np.random.default_rng(seed).permutation(counts[code])
    return [f"c4-{code}.tfrecord-{n:05d}-of-{counts[code]:05d}.json.gz" for n in order]


def _lines(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        with path.open("rb") as file:
            for page in _pages(file, str(path)):
                yield from _text(page)


def _fetched(files: list[str]) -> Iterator[str]:
    for file in files:
        for page in _remote_pages(URL.format(file=file)):
            yield from _text(page)


def _remote_pages(url: str) -> Iterator[str]:
    """Yield the pages of a file as they come; where it breaks off, read up to there again."""
    done = 0
    for left in reversed(range(_downloads.TRIES)):
        try:
            with requests.get(
                url,
                headers={"Accept-Encoding": "identity"},
                stream=True,
                timeout=_downloads.TIMEOUT,
            ) as response:
                response.raise_for_status()
                for page in islice(_pages(response.raw, url), done, None):
                    done += 1
                    yield page
            return
        except _downloads.NETWORK as error:
            if not left or isinstance(error, requests.RequestException):
                raise ConnectionError(
                    f"mC4 is not here and cannot be read ({_downloads.reason(error)}). Where there "
                    f"is a network, get {url}; here, put it into {FOLDER} in the folder MLQ_DATA"
                ) from None
            time.sleep(_downloads.PAUSE)


def _pages(file: BinaryIO | urllib3.HTTPResponse, name: str) -> Iterator[str]:
    """Yield the text of each page."""
    number = 0
    try:
        for line in gzip.GzipFile(fileobj=file):
            number += 1
            text = json.loads(line)["text"]
            if not isinstance(text, str):
                raise TypeError(f"its text is {text!r}")
            yield text
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{name} is truncated or damaged after line {number} ({error})") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{name}, line {number}: no page of mC4 ({error!r})") from None


def _unpacked(kept: Path) -> str:
    try:
        return gzip.decompress(kept.read_bytes()).decode("utf-8")
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{kept} is damaged ({error}): delete it to fetch it again") from None


def _text(page: str) -> list[str]:
    """Return the lines of a page that hold text, and of it what is text."""
    plain = page.replace("\0", "").encode("utf-8", "ignore").decode("utf-8")
    return [line.strip() for line in plain.split("\n") if line.strip()]
