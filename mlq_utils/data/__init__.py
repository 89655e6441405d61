"""The packaged data, and how files are found, fetched and written.

Released files are looked for in the user's folder (`MLQ_DATA`) and in the download cache before
they are fetched from their publisher. Files and folders are written completely or not at all.
"""

import contextlib
import difflib
import errno
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import filelock
import pooch
import requests
import urllib3
from tqdm import tqdm

__all__ = [
    "ARCHIVE_BYTES",
    "HUB_NAME",
    "PACKAGE_DATA",
    "atomic_write",
    "cache_folder",
    "data_folder",
    "fetch",
    "find_folder",
    "from_hub",
    "one_of",
    "sha256",
    "unpack",
]
PACKAGE_DATA = Path(__file__).parent
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""The form of a repository's name on the Hugging Face Hub: owner/name."""
ARCHIVE_BYTES = 2 * 2**30
"""Largest total size that an archive may unpack to. TED needs about 750 MB, FLORES-200 80 MB."""


def one_of(kind: str, value: str, options: Iterable[str]) -> str:
    """Return `value` if it is one of `options`, or raise ValueError with the nearest of them.

    The message calls the value a `kind`, such as "language" or "split".
    """
    options = list(options)
    if value in options:
        return value
    near = difflib.get_close_matches(str(value), options, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"unknown {kind} {value!r}.{hint} There are: {', '.join(options)}")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def atomic_write(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path to write to, which is synced and becomes `path` at the end.

    Readers find either the old file or the new one, whatever happens to the writer. Without
    `overwrite`, an old file stays and FileExistsError is raised.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(path)
        else:
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def data_folder(data: str | os.PathLike | None = None) -> Path | None:
    """Return the folder `data`, which defaults to `MLQ_DATA`, or None if neither is given."""
    given = data if data is not None else os.environ.get("MLQ_DATA") or None
    if given is None:
        return None
    if not (folder := Path(given).expanduser()).is_dir():
        raise FileNotFoundError(
            f"the data folder {str(given)!r} does not exist; set MLQ_DATA to a folder that does, "
            "or unset it"
        )
    return folder


def cache_folder() -> Path:
    """Return the folder that keeps downloads between runs. `XDG_CACHE_HOME` can move it."""
    return Path(pooch.os_cache("mlq_utils"))


def find_folder(name: str) -> Path | None:
    """Return the first folder called `name` in `MLQ_DATA` and the cache, or None."""
    folders = (place / name for place in (data_folder(), cache_folder()) if place)
    return next((folder for folder in folders if folder.is_dir()), None)


def from_hub(kind: str, name: str, revision: str | None, files: Iterable[str], remedy: str) -> Path:
    """Fetch some files of a repository of the Hugging Face Hub and return their folder.

    Args:
        kind: What is fetched, for messages, such as "tokenizer".
        name: The repository, owner/name.
        revision: Branch, tag or commit.
        files: Patterns of the files that are fetched.
        remedy: What to do if the Hub cannot be reached, for the message.

    Raises:
        FileNotFoundError: The Hub has no such repository, or refuses access.
        ConnectionError: The Hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    missing = f"no {kind} {name!r}: no such folder here, and the Hub"
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except HfHubHTTPError as error:
        raise FileNotFoundError(f"{missing} answers: {error}") from error
    except (OSError, LocalEntryNotFoundError) as error:
        raise ConnectionError(f"{missing} cannot be reached. {remedy}") from error


def fetch(url: str, path: Path, what: str, remedy: str, sha256: str | None = None) -> None:
    """Fetch a file, unless it is already there with the right checksum.

    Of several processes that want the same file, one fetches it and the others wait.

    Args:
        url: The file's address.
        path: Where the file is put.
        what: The file's name in messages.
        remedy: What to do if the file cannot be fetched, for the messages.
        sha256: The file's checksum. None if the publisher provides none.

    Raises:
        ConnectionError: The file cannot be fetched.
        ValueError: The checksum does not match.
        OSError: The disk is full.
    """
    pooch.get_logger().setLevel("WARNING")  # it would print the cache's path into every notebook
    path.parent.mkdir(parents=True, exist_ok=True)
    known = sha256 and f"sha256:{sha256}"
    with filelock.FileLock(path.with_name(f".{path.name}.lock")):
        try:
            pooch.retrieve(url, known, path.name, path.parent, downloader=_download)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            why = f"the server answers {status}" if status else type(error).__name__
            raise ConnectionError(
                f"{what} is not here and cannot be downloaded ({why}). With a network, get {url}; "
                f"without one, {remedy}"
            ) from None
        except ValueError as error:
            raise ValueError(f"{url} does not give {what}: {error} Without it, {remedy}") from None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            full = f"no room for {what} in {path.parent}: free some, or set XDG_CACHE_HOME"
            raise OSError(error.errno, f"{full} to a folder on another disk") from None


def _download(url: str, target: str, _: object) -> None:
    """Write a file to `target`, as pooch asks of its downloaders."""
    headers = {"Accept-Encoding": "identity"}
    with requests.get(url, headers=headers, stream=True, timeout=10) as response:
        response.raise_for_status()
        total = int(response.headers.get("Content-Length", 0))
        if total > shutil.disk_usage(Path(target).parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        name = url.rpartition("/")[2]
        with open(target, "wb") as file, tqdm(None, name, total or None, unit_scale=True) as bar:
            # It is not decoded, since some servers call a .gz file's own compression an encoding.
            for chunk in response.raw.stream(2**18, decode_content=False):
                bar.update(file.write(chunk))


def unpack(archive: Path, folder: Path, needed: str) -> Path:
    """Unpack a tar archive to `folder`, which appears by a rename at the end.

    The archive holds a folder of that name or the folder's contents, with the file `needed`.

    Raises:
        ValueError: The archive lacks that file, or holds links, devices, paths that lead outside
            or more than `ARCHIVE_BYTES`.
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
            tar.extractall(Path(scratch, "all"), filter="data")
        inside = Path(scratch, "all", folder.name)
        whole = inside if inside.is_dir() else inside.parent
        if not (whole / needed).is_file():
            raise ValueError(f"{archive.name} holds no {folder.name}/{needed}")
        try:
            whole.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster
                raise
    return folder
