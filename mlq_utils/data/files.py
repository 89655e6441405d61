"""What several modules share: how files are found and written, how unknown names are refused."""

import argparse
import contextlib
import difflib
import hashlib
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE_DATA = Path(__file__).parent
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""What a name of the Hugging Face Hub looks like: owner/name."""


def one_of(kind: str, value: str, options: Iterable[str]) -> str:
    """Return `value` if it is one of `options`.

    Args:
        kind: What the value names, for the message ("language", "split").
        value: The name to check.
        options: The names that exist.

    Raises:
        ValueError: The name is unknown; the message gives the nearest names and all that exist.
    """
    options = list(options)
    if value in options:
        return value
    near = difflib.get_close_matches(str(value), options, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"unknown {kind} {value!r}.{hint} There are: {', '.join(options)}")


def some_of(
    parser: argparse.ArgumentParser, kind: str, names: Iterable[str], options: Iterable[str]
) -> list[str]:
    """Return the names given on a command line, all there are where none is given.

    An unknown one ends the command with the message of `one_of`.
    """
    options = list(options)
    try:
        return [one_of(kind, name, options) for name in names] or options
    except ValueError as error:
        parser.error(str(error))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file of any size, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a path to write to; what is written there is synced and renamed to `path`.

    Whatever becomes of the writer, a reader finds the old file or the new one, and after an error
    nothing is left aside.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def data_folder(data: str | os.PathLike | None = None) -> Path | None:
    """Return the folder searched before anything is downloaded.

    Args:
        data: A folder; the environment variable `MLQ_DATA` where it is None.

    Returns:
        The folder, or None where neither is given.

    Raises:
        FileNotFoundError: The folder does not exist.
    """
    given = data if data is not None else os.environ.get("MLQ_DATA") or None
    if given is None:
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"the data folder {str(given)!r} does not exist; set MLQ_DATA to a folder that does, "
            "or unset it"
        )
    return folder


def from_hub(kind: str, name: str, revision: str | None, files: Iterable[str], remedy: str) -> Path:
    """Fetch files of a repository of the Hugging Face Hub, and nothing else of it.

    Args:
        kind: What is fetched, for the messages ("tokenizer", "model").
        name: The repository, owner/name.
        revision: Branch, tag or commit.
        files: Patterns of the files wanted.
        remedy: What to do where the Hub cannot be reached.

    Returns:
        The folder that holds them.

    Raises:
        FileNotFoundError: The Hub has no such repository, or refuses it.
        ConnectionError: The Hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except HfHubHTTPError as error:
        raise FileNotFoundError(
            f"no {kind} {name!r}: no such folder here, and the Hub answers: {error}"
        ) from error
    except (OSError, LocalEntryNotFoundError) as error:
        raise ConnectionError(
            f"no {kind} {name!r}: no such folder here, and the Hub cannot be reached. {remedy}"
        ) from error
