"""Where the records of runs are kept: a folder a run, written once, whole, or not at all.

A record is written aside, flushed to the disk, and renamed into place, so a process that is killed
leaves either the whole record or none, and several processes may share a store: the first to finish
a run wins, and the others take its record. Each record carries a checksum of itself and of the
hypotheses beside it; one that does not match is set aside and counts as missing.

Records that are shipped stand in files of JSON lines, without hypotheses: `write_lines` and
`read_lines`. A store may have a folder of such files behind it.
"""

import hashlib
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from mlq_utils._common import sha256, written_whole

RECORD = "record.json"
HYPOTHESES = "hypotheses.csv"


class Store:
    """A folder of records.

    Attributes:
        folder: Where it lies; made when the first record is written.
        shipped: A folder of `*.jsonl` files whose records are returned where the store has none.
    """

    def __init__(self, folder: str | os.PathLike, shipped: str | os.PathLike | None = None) -> None:
        """Open a store, which need not exist yet."""
        self.folder = Path(folder)
        self.shipped = shipped and Path(shipped)

    @cached_property
    def _lines(self) -> dict[str, dict[str, Any]]:
        files = sorted(self.shipped.glob("*.jsonl")) if self.shipped else []
        return {key: record for file in files for key, record in read_lines(file).items()}

    def keys(self) -> Iterator[str]:
        """Return the keys of all records in the folder, whole or damaged."""
        return (path.parent.name for path in sorted(self.folder.glob(f"[!.]*/{RECORD}")))

    def get(self, key: str) -> dict[str, Any] | None:
        """Return a record, or None where there is none.

        A damaged record is renamed to `.damaged-…`, with a warning, and counts as none.
        """
        path = self.folder / key / RECORD
        if not path.parent.is_dir():
            return self._lines.get(key)
        try:  # after the folder was seen: it is renamed into place with the record in it
            text = path.read_text(encoding="utf8")
        except FileNotFoundError:
            self._set_aside(key, "it has no record.json")
            return self._lines.get(key)
        try:
            record = json.loads(text)
            whole = record.pop("sha256") == _digest(record)
            files = {n: sha256(path.parent / n) for n in record.get("files", {})}
            whole = whole and files == record.get("files", {})
        except (ValueError, KeyError, AttributeError, OSError):
            whole = False
        if not whole:
            self._set_aside(key, "it was edited or cut short")
            return self._lines.get(key)
        return record

    def hypotheses(self, key: str) -> pd.DataFrame:
        """Return the hypotheses of a record that has them.

        Raises:
            FileNotFoundError: It has none: shipped records come without.
        """
        return pd.read_csv(
            self.folder / key / HYPOTHESES,
            keep_default_na=False,
            dtype={"hypothesis": str, "target": str},
        )

    def put(
        self, key: str, record: Mapping[str, Any], hypotheses: pd.DataFrame | None = None
    ) -> dict[str, Any]:
        """Write a record, unless there is one already, and return the one that is kept.

        Args:
            key: The run's identity.
            record: What JSON can hold.
            hypotheses: Written beside it.

        Raises:
            OSError: The store cannot be written to; nothing of the record is left in it.
        """
        aside = self.folder / f".{key}.{uuid.uuid4().hex}"
        try:
            aside.mkdir(parents=True)
            record = dict(record) | {"files": {}}
            if hypotheses is not None:
                path = aside / HYPOTHESES
                with path.open("w", encoding="utf8", newline="") as file:
                    hypotheses.to_csv(file, index=False, lineterminator="\n")
                    _flush(file)
                record["files"] = {HYPOTHESES: sha256(path)}
            record = json.loads(json.dumps(record))  # what a reader will get, tuples as lists
            with (aside / RECORD).open("w", encoding="utf8") as file:
                json.dump(record | {"sha256": _digest(record)}, file, indent=1)
                _flush(file)
            kept = self._place(aside, key)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return record if kept else self.get(key) or self.put(key, record, hypotheses)

    def remove(self, key: str) -> None:
        """Remove a record, at once."""
        aside = self.folder / f".removed-{uuid.uuid4().hex}"
        (self.folder / key).rename(aside)
        shutil.rmtree(aside)

    def _place(self, aside: Path, key: str) -> bool:
        """Rename a finished folder to its key; say whether it was the first."""
        self.get(key)  # sets a damaged one aside, so that the name is free
        try:
            aside.rename(self.folder / key)
        except OSError:
            if (self.folder / key).is_dir():  # another process was faster
                return False
            raise
        return True

    def _set_aside(self, key: str, reason: str) -> None:
        damaged = self.folder / f".damaged-{key}-{uuid.uuid4().hex[:8]}"
        try:
            (self.folder / key).rename(damaged)
        except FileNotFoundError:  # another process has done so
            return
        warnings.warn(
            f"the record {key} is damaged ({reason}): set aside as {damaged.name}", stacklevel=3
        )


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records into a file, whole or not at all, in the order of their identities.

    Args:
        path: The file.
        records: As `Store.get` returns them; their hypotheses are left out.
    """
    plain = [{k: v for k, v in record.items() if k != "files"} for record in records]
    lines = [
        json.dumps(record | {"sha256": _digest(record)})
        for record in sorted(plain, key=lambda record: record["identity"])
    ]
    with written_whole(path) as aside, aside.open("w", encoding="utf8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)


def read_lines(path: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a file by identity; damaged ones are left out, with a warning."""
    records, damaged = {}, []
    for number, line in enumerate(path.read_text("utf8").splitlines(), 1):
        try:
            record = json.loads(line)
            if record.pop("sha256") != _digest(record):
                raise ValueError("another checksum")
            records[record["identity"]] = record
        except (ValueError, KeyError, AttributeError):
            damaged.append(number)
    if damaged:
        warnings.warn(f"{path}: the records of lines {damaged} are damaged", stacklevel=2)
    return records


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
