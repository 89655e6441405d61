"""How released files are found on this machine, fetched where they are not, and unpacked.

A download that breaks off leaves what has come in a file `<name>.part`, and what the server said
identifies it in `<name>.part.etag`. The next try asks for the rest of that same file; where it has
changed, or the server gives no parts, it begins anew. One process at a time fetches a file, and the
others wait for it.
"""

import errno
import os
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

import filelock
import pooch
import requests
import urllib3
from tqdm import tqdm

from mlq_utils.data import data_folder

ARCHIVE_BYTES = 2 * 2**30
"""The most that an archive may unpack to; FLORES-200 needs about 80 MB, TED over 750."""
TRIES = 5
"""How often a download that breaks off is taken up again, before the reader is told."""
PAUSE = 1.0
"""Seconds before it is."""
TIMEOUT = 10
"""Seconds without any answer."""
NETWORK = (requests.RequestException, urllib3.exceptions.HTTPError)
"""What a connection that fails raises, before and while bytes come."""


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
        ConnectionError: It cannot be fetched; what has come is kept, and continued the next time.
        ValueError: It is not the file that the checksum is of.
        OSError: The disk is full.
    """
    log = pooch.get_logger()
    level = log.level
    log.setLevel("WARNING")  # it would print the cache's path into every notebook
    part = path.with_name(f"{path.name}.part")
    try:
        with _alone(path, what):
            found = pooch.retrieve(
                url,
                known_hash=sha256 and f"sha256:{sha256}",
                fname=path.name,
                path=path.parent,
                downloader=partial(_download, part=part, what=what),
            )
    except NETWORK as error:
        raise ConnectionError(
            f"{what} is not here and cannot be downloaded ({reason(error)}). {_kept(part)}Where "
            f"there is a network, get {url}; here, {remedy}"
        ) from None
    except ValueError as error:
        raise ValueError(f"{url} does not give {what}: {error} Without it, {remedy}") from None
    finally:
        log.setLevel(level)
    return Path(found)


@contextmanager
def _alone(path: Path, what: str) -> Iterator[None]:
    """Hold off other processes that would fetch the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        print(f"{what}: another process is fetching it; waiting", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def reason(error: Exception) -> str:
    """Say in a word or two why there is no connection."""
    if isinstance(error, requests.HTTPError):
        return f"the server answers {error.response.status_code}"
    return type(error).__name__


def _kept(part: Path) -> str:
    if not part.is_file() or not part.stat().st_size:
        return ""
    return f"What has come, {part.stat().st_size:,} bytes, is kept and continued the next time. "


def _download(url: str, to: str, _pooch: object, *, part: Path, what: str) -> None:
    """Write a file to `to`, by way of `part`: the hook that pooch calls."""
    for left in reversed(range(TRIES)):
        try:
            _continue(url, part, what)
            break
        except urllib3.exceptions.HTTPError:  # it broke off; no answer at all is another error
            if not left:
                raise
            time.sleep(PAUSE)
    part.replace(to)
    _mark(part).unlink(missing_ok=True)


def _mark(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _continue(url: str, part: Path, what: str) -> None:
    """Append to a part what it lacks, or begin it anew where the file is another by now.

    Bytes are written as they come, not unpacked: what a server calls its encoding is often the
    file's own, and lengths and ranges are of these bytes.

    Raises:
        requests.RequestException, urllib3.exceptions.HTTPError: There is no connection, the server
            refuses, or it sends less than it announced.
        OSError: The disk is full.
    """
    mark = _mark(part)
    have = part.stat().st_size if part.is_file() and mark.is_file() else 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": mark.read_text()}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        total = _length(response, have)
        if response.status_code == 416 and total == have:
            return  # it had come whole
        if response.status_code == 416 or (response.status_code == 206 and total is None):
            mark.unlink()  # of another length, or another piece than was asked for
            return _continue(url, part, what)
        response.raise_for_status()
        if response.status_code != 206:
            have = 0
            part.unlink(missing_ok=True)
            mark.unlink(missing_ok=True)
            if known := _validator(response):
                mark.write_text(known)
        _check_room(part, what, (total or 0) - have)
        bar = tqdm(desc=what, total=total, initial=have, unit="B", unit_scale=True)
        with part.open("ab") as out, bar:
            for chunk in response.raw.stream(2**18, decode_content=False):
                with _room(part, what):
                    out.write(chunk)
                    out.flush()
                bar.update(len(chunk))
    if total is not None and (came := part.stat().st_size) != total:
        raise urllib3.exceptions.IncompleteRead(came, total - came)


def _length(response: requests.Response, have: int) -> int | None:
    """Return the whole file's length in bytes; None where unknown, or where it isn't the rest."""
    if response.status_code in (206, 416):
        unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
        span, _, total = rest.partition("/")
        fits = unit == "bytes" and (span == "*" or span.partition("-")[0] == str(have))
        return int(total) if fits and total.isdigit() else None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _validator(response: requests.Response) -> str | None:
    """Return what identifies the file among its versions; a weak ETag does not."""
    tag = response.headers.get("ETag", "")
    if tag.startswith('"'):
        return tag
    return response.headers.get("Last-Modified")


def _check_room(part: Path, what: str, needed: int) -> None:
    if needed > shutil.disk_usage(part.parent).free:
        raise OSError(errno.ENOSPC, _full(part, what))


@contextmanager
def _room(part: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, _full(part, what)) from None
        raise


def _full(part: Path, what: str) -> str:
    return (
        f"no room for {what} in {part.parent}: free some, or set XDG_CACHE_HOME to a folder "
        "elsewhere. What has come is kept and continued the next time"
    )


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
