"""What several modules share: where files are found, and one way to refuse an unknown name."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

PACKAGE_DATA = Path(__file__).parent / "data"


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
