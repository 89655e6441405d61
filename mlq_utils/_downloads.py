"""How released files are found on this machine, fetched where they are not, and unpacked."""

import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pooch
import requests

from mlq_utils._common import data_folder

ARCHIVE_BYTES = 500 * 2**20
"""The most that an archive may unpack to; FLORES-200 needs about 80 MB, TED about 340."""


def cache_folder() -> Path:
    """Return where downloads are kept between runs."""
    return Path(pooch.os_cache("mlq_utils"))


def local(name: str, data: str | os.PathLike | None, cache: Path) -> Path | None:
    """Return the first folder of a name in `data`, `MLQ_DATA` and the cache, or None."""

    def folders() -> Iterator[Path | None]:
        yield data_folder(data)
        yield data_folder()
        yield cache

    found = (folder / name for folder in folders() if folder)
    return next((folder for folder in found if folder.is_dir()), None)


def fetch(url: str, path: Path, what: str, remedy: str, sha256: str | None = None) -> Path:
    """Fetch a file; it appears whole or not at all.

    Args:
        url: Its address.
        path: Where it goes. A file that is there is taken where its checksum fits.
        what: Its name, for the message.
        remedy: What to do where there is no network.
        sha256: Its checksum, None where its publisher gives none.

    Raises:
        ConnectionError: It cannot be fetched.
        ValueError: It is not the file that the checksum is of.
    """
    log = pooch.get_logger()
    level = log.level
    log.setLevel("WARNING")  # it would print the cache's path into every notebook
    try:
        found = pooch.retrieve(
            url,
            known_hash=sha256 and f"sha256:{sha256}",
            fname=path.name,
            path=path.parent,
            downloader=pooch.HTTPDownloader(progressbar=True, timeout=10),
        )
    except requests.RequestException as error:
        raise ConnectionError(
            f"{what} is not here and cannot be downloaded ({type(error).__name__}). Where there "
            f"is a network, get {url}; here, {remedy}"
        ) from None
    finally:
        log.setLevel(level)
    return Path(found)


def unpack(archive: Path, folder: Path, *, inside: bool = True) -> Path:
    """Unpack an archive to `folder`, which appears by a rename at the end.

    Only the contents of regular files are written, by this code and not by `tarfile`: no links,
    devices, owners or modes.

    Args:
        archive: A tar archive, compressed or not.
        folder: Where its contents go.
        inside: Whether the archive holds a folder of that name; else it holds the files themselves.

    Raises:
        ValueError: It holds anything else, or too much.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="unpacking-") as scratch:
        aside = Path(scratch, folder.name)
        into = Path(scratch) if inside else aside
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
                target = into / name
                (target if member.isdir() else target.parent).mkdir(parents=True, exist_ok=True)
                if member.isreg():
                    with target.open("xb") as out:
                        shutil.copyfileobj(tar.extractfile(member), out)
        if not aside.is_dir():
            raise ValueError(f"{archive.name} holds no folder {folder.name}")
        try:
            aside.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    return folder
