"""FLORES-101 and FLORES-200 as released: the same number of sentences in every language.

A release is looked for, in this order, in the folder given as `data`, in `MLQ_DATA`, and in the
download cache; only then is its archive fetched and unpacked. Each of these folders holds
`flores200_dataset/<split>/<code>.<split>` or `flores101_dataset/<split>/<code>.<split>`, as the
archives do. A folder that is there but incomplete is an error, never a reason to download.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mlq_utils import languages
from mlq_utils.corpora.released import MARK, NUL
from mlq_utils.data import downloads as _downloads

SENTENCES = {"dev": 997, "devtest": 1012}
"""The splits and the number of sentences of each, the same in every language and release."""


@dataclass(frozen=True)
class Release:
    """A release of FLORES.

    Attributes:
        url: The address of its archive, which holds a folder of the archive's name.
        sha256: The archive's checksum; None where nobody who should know gives one.
        description: What it is, in a line.
    """

    url: str
    sha256: str | None
    description: str

    @property
    def folder(self) -> str:
        """The folder that holds its files."""
        return self.url.rpartition("/")[2].removesuffix(".tar.gz")


RELEASES = {
    "flores200": Release(
        "https://dl.fbaipublicfiles.com/nllb/flores200_dataset.tar.gz",
        # 25,585,843 bytes; the digest of MLCommons' Croissant record of FLORES-200.
        "b8b0b76783024b85797e5cc75064eb83fc5288b41e9654dabc7be6ae944011f6",
        "FLORES-200: sentences of English Wikimedia projects, translated by hand",
    ),
    "flores101": Release(
        "https://dl.fbaipublicfiles.com/flores101/dataset/flores101_dataset.tar.gz",
        None,
        "FLORES-101: the paper's test set, the same sentences as FLORES-200 in fewer languages",
    ),
}


def find(name: str, data: str | os.PathLike | None, cache: Path) -> Path | None:
    """Return the folder of a release on this machine, or None."""
    return _downloads.local(RELEASES[name].folder, data, cache)


def load(
    name: str,
    language: languages.Language,
    split: str,
    data: str | os.PathLike | None,
    cache: Path,
) -> pd.DataFrame:
    """Return the sentences of a release, see `corpora.load`."""
    folder = find(name, data, cache) or _download(RELEASES[name], cache)
    column = languages.COVERAGE[name]
    (source, source_sha256), (target, target_sha256) = (
        sentences(folder / split / f"{getattr(side, column)}.{split}", SENTENCES[split])
        for side in (languages.get("en"), language)
    )
    frame = pd.DataFrame({"source": source, "target": target})
    frame.attrs |= {
        "version": f"{RELEASES[name].folder}.tar.gz",
        "source_sha256": source_sha256,
        "target_sha256": target_sha256,
    }
    return frame


def sentences(path: Path, expected: int) -> tuple[list[str], str]:
    """Return the lines of a file and its SHA-256.

    Lines end at U+000A only: `str.splitlines` would also cut at U+2028 or U+0085, which occur
    within sentences, and shift every later pair.

    Raises:
        ValueError: The file has another number of lines, an empty one, or what no text has: the
            message names the file and the line.
        FileNotFoundError: There is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the local copy is incomplete")
    raw = path.read_bytes()

    def refuse(what: str, at: int) -> ValueError:
        return ValueError(f"{path}, line {raw.count(10, 0, at) + 1}: {what}")

    for bad, what in ((MARK, "byte-order mark"), (NUL, "NUL"), (b"\r", "CR")):
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


def _download(release: Release, cache: Path) -> Path:
    """Fetch, check and unpack a release; the folder appears whole or not at all."""
    folder = cache / release.folder
    archive = _downloads.fetch(
        release.url,
        cache / f"{release.folder}.tar.gz",
        release.description.partition(":")[0],
        f"set MLQ_DATA to the folder that holds {release.folder}/dev and {release.folder}/devtest",
        release.sha256,
    )
    return _downloads.unpack(archive, folder)
