"""Parallel text, English to each language: one `load` for every corpus.

    load("flores200", "ro", "devtest")          # the official release, or a local copy
    load("cldr", "ro", "train", size=600)       # composed on the spot, nothing to download

FLORES-200 is looked for, in this order, in the folder given as `data`, in `MLQ_DATA`, and in the
download cache; only then is the release fetched, checked against its SHA-256 and unpacked. Each of
these folders holds `flores200_dataset/<split>/<code>.<split>`, as the release does. A folder that
is there but incomplete is an error, never a reason to download.
"""

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import babel
import pandas as pd
import pooch
import requests
from babel import localedata
from babel.core import get_cldr_version

from mlq_utils import cldr, languages
from mlq_utils._common import data_folder, one_of

FLORES_SENTENCES = {"dev": 997, "devtest": 1012}
"""The splits of FLORES-200 and the number of sentences of each, the same in every language."""

FLORES_RELEASE = {
    "url": "https://dl.fbaipublicfiles.com/nllb/flores200_dataset.tar.gz",
    # 25,585,843 bytes; the digest that MLCommons publishes in its Croissant record of FLORES-200.
    "sha256": "b8b0b76783024b85797e5cc75064eb83fc5288b41e9654dabc7be6ae944011f6",
}
FLORES_FOLDER = "flores200_dataset"
ARCHIVE_BYTES = 500 * 2**20
"""The most that an archive may unpack to; FLORES-200 needs about 80 MB."""


def load(
    name: str,
    language: str,
    split: str,
    *,
    data: str | os.PathLike | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Return English sentences and their translation.

    Args:
        name: One of `NAMES`.
        language: The paper's code; "en" gives each source as its own target.
        split: "dev" or "devtest" of flores200, "train" or "test" of cldr.
        data: A folder searched before `MLQ_DATA`, the cache and the network.
        **options: For cldr `size` (pairs) and `seed`, see `cldr.pairs`.

    Returns:
        A frame with columns `source` and `target`, one row a sentence. Its `attrs` say where it
        comes from: corpus, language, split, pairs, description, version, licence; for flores200
        `source_sha256` and `target_sha256` of the two files, for cldr the options used.

    Raises:
        ValueError: Unknown name, language, split or option, a language that the corpus lacks, or a
            damaged file (named, with the line or the counts).
        FileNotFoundError: A folder or a file in it is missing.
        ConnectionError: The corpus must be downloaded and cannot be.
    """
    corpus = CORPORA[one_of("corpus", name, CORPORA)]
    record = languages.get(language)
    one_of("language of " + name, language, languages.codes(name))
    one_of(f"split of {name}", split, corpus.splits)
    for option in options:
        one_of(f"option of {name}", option, corpus.options)
    frame = corpus.load(record, split, data, **options)
    frame.attrs |= {
        "corpus": name,
        "language": language,
        "split": split,
        "pairs": len(frame),
        "description": corpus.description,
        "licence": corpus.licence,
    }
    return frame


def find(name: str, data: str | os.PathLike | None = None) -> Path | None:
    """Return the folder that `load` would read, without downloading anything.

    Args:
        name: One of `NAMES`.
        data: A folder searched before `MLQ_DATA` and the cache.

    Returns:
        The corpus's folder (for cldr Babel's own), or None where it would have to be downloaded.

    Raises:
        ValueError: Unknown name.
        FileNotFoundError: The folder given, or `MLQ_DATA`, does not exist.
    """
    return CORPORA[one_of("corpus", name, CORPORA)].find(data)


def cache_folder() -> Path:
    """Return where downloads are kept between runs."""
    return Path(pooch.os_cache("mlq_utils"))


def _find_flores(data: str | os.PathLike | None) -> Path | None:
    def folders() -> Iterator[Path | None]:
        yield data_folder(data)
        yield data_folder()
        yield cache_folder()

    found = (folder / FLORES_FOLDER for folder in folders() if folder)
    return next((folder for folder in found if folder.is_dir()), None)


def _load_flores(
    language: languages.Language, split: str, data: str | os.PathLike | None
) -> pd.DataFrame:
    folder = _find_flores(data) or _download_flores()
    english = languages.get("en").flores
    (source, source_sha256), (target, target_sha256) = (
        _sentences(folder / split / f"{code}.{split}", FLORES_SENTENCES[split])
        for code in (english, language.flores)
    )
    frame = pd.DataFrame({"source": source, "target": target})
    frame.attrs |= {
        "version": "flores200_dataset.tar.gz",
        "source_sha256": source_sha256,
        "target_sha256": target_sha256,
    }
    return frame


def _sentences(path: Path, expected: int) -> tuple[list[str], str]:
    """Return the lines of a file and its SHA-256.

    Lines end at U+000A only: `str.splitlines` would also cut at U+2028 or U+0085, which occur
    within sentences, and shift every later pair.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the local copy is incomplete")
    raw = path.read_bytes()

    def refuse(what: str, at: int) -> ValueError:
        return ValueError(f"{path}, line {raw.count(10, 0, at) + 1}: {what}")

    for bad, what in ((b"\xef\xbb\xbf", "byte-order mark"), (b"\0", "NUL"), (b"\r", "CR")):
        if (at := raw.find(bad)) >= 0:
            raise refuse(f"a {what}, which the release does not have", at)
    try:
        lines = raw.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise refuse(f"not UTF-8 ({error.reason})", error.start) from None
    if lines.pop() or len(lines) != expected:
        raise ValueError(
            f"{path} has {raw.count(10)} whole lines where {expected} are expected: the file is "
            "truncated or not the release's"
        )
    if blank := next((n for n, line in enumerate(lines, 1) if not line.strip()), None):
        raise ValueError(f"{path}, line {blank}: an empty sentence")
    return lines, hashlib.sha256(raw).hexdigest()


def _download_flores() -> Path:
    """Fetch, check and unpack the release; the folder appears whole or not at all."""
    cache = cache_folder()
    log = pooch.get_logger()
    level = log.level
    log.setLevel("WARNING")  # it would print the cache's path into every notebook
    try:
        archive = pooch.retrieve(
            FLORES_RELEASE["url"],
            known_hash=f"sha256:{FLORES_RELEASE['sha256']}",
            fname=f"{FLORES_FOLDER}.tar.gz",
            path=cache,
            downloader=pooch.HTTPDownloader(progressbar=True, timeout=10),
        )
    except requests.RequestException as error:
        raise ConnectionError(
            f"FLORES-200 is not here and cannot be downloaded ({type(error).__name__}). Where "
            f"there is a network, unpack {FLORES_RELEASE['url']}; here, set MLQ_DATA to the folder "
            f"that holds {FLORES_FOLDER}/dev/eng_Latn.dev and so on"
        ) from None
    finally:
        log.setLevel(level)
    return _unpack(Path(archive), cache / FLORES_FOLDER)


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack the folder that an archive holds to `folder`, which appears by a rename at the end.

    Only the contents of regular files are written, by this code and not by `tarfile`: no links,
    devices, owners or modes. Everything else, and too large a whole, is a ValueError.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="unpacking-") as scratch:
        total = 0
        with tarfile.open(archive) as tar:
            for member in tar:  # sizes are summed before the data behind them is read
                name = PurePosixPath(member.name)
                total += member.size
                if name.is_absolute() or ".." in name.parts or "\\" in member.name:
                    raise ValueError(f"{archive.name}: {member.name!r} leads outside the folder")
                if not (member.isreg() or member.isdir()) or member.issparse():
                    raise ValueError(f"{archive.name}: {member.name!r} is no plain file")
                if total > ARCHIVE_BYTES:
                    raise ValueError(f"{archive.name} unpacks to over {ARCHIVE_BYTES:,} bytes")
                target = Path(scratch, name)
                (target if member.isdir() else target.parent).mkdir(parents=True, exist_ok=True)
                if member.isreg():
                    with target.open("xb") as out:
                        shutil.copyfileobj(tar.extractfile(member), out)
        unpacked = Path(scratch, folder.name)
        if not unpacked.is_dir():
            raise ValueError(f"{archive.name} holds no folder {folder.name}")
        try:
            unpacked.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    return folder


def _load_cldr(
    language: languages.Language, split: str, data: object, **options: Any
) -> pd.DataFrame:
    frame = cldr.pairs(language.code, split, **options)
    frame.attrs |= {
        "version": f"CLDR {get_cldr_version()} in Babel {babel.__version__}",
        "size": len(frame),
        "seed": options.get("seed", 0),
    }
    return frame


@dataclass(frozen=True)
class Corpus:
    """What `load` needs to know of a corpus.

    Attributes:
        splits: The names of its splits.
        description, licence: What it is, in a line; the SPDX identifier.
        find: Returns the local folder or None, given `data`.
        load: Returns the pairs, given the language, the split, `data` and the options.
        options: The names of its options.
    """

    splits: tuple[str, ...]
    description: str
    licence: str
    find: Callable[..., Path | None]
    load: Callable[..., pd.DataFrame]
    options: tuple[str, ...] = ()


CORPORA = {
    "flores200": Corpus(
        splits=tuple(FLORES_SENTENCES),
        description="FLORES-200: sentences of English Wikimedia projects, translated by hand",
        licence="CC-BY-SA-4.0",
        find=_find_flores,
        load=_load_flores,
    ),
    "cldr": Corpus(
        splits=tuple(cldr.SPLITS),
        description="CLDR phrases: names, amounts, dates and relative times, composed",
        licence="Unicode-3.0",
        find=lambda data=None: Path(localedata.resolve_locale_filename("root")).parent,
        load=_load_cldr,
        options=("size", "seed"),
    ),
}
NAMES = tuple(CORPORA)
"""The corpora that `load` knows."""
