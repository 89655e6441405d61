"""Where the records of runs are kept: a folder a run, written once, whole, or not at all.

    store = Store("_build/store")
    store = Store("s3://bucket/prefix")  # or gs://…: needs s3fs or gcsfs

A store is a local folder or a prefix of an object store. A record appears at once and only where
there is none, so a process that is killed leaves either the whole record or none, and several
processes may share a store: the first to finish a run wins, and the others take its record. Each
record carries a checksum of itself and of the hypotheses beside it; one that does not match counts
as missing, and is set aside when the run is done again.

What an object store needs to know besides (credentials, a region, an endpoint) is in the
environment, as its own tools want it, of every process that uses the store.

Records that are shipped stand in files of JSON lines, without hypotheses: `write_lines` and
`read_lines`. A store may have a folder of such files behind it.
"""

import csv
import hashlib
import io
import json
import os
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from mlq_utils.data import written_whole
from mlq_utils.experiments import places as _places
from mlq_utils.experiments.places import RECORD

HYPOTHESES = "hypotheses.csv"


class Store:
    """A folder of records, here or in an object store.

    Attributes:
        url: Where it lies, an absolute path or a URL: `Store(store.url)` is the same store in
            another process.
        shipped: A folder of `*.jsonl` files whose records are returned where the store has none.
    """

    def __init__(self, folder: str | os.PathLike, shipped: str | os.PathLike | None = None) -> None:
        """Open a store, which need not exist yet; nothing is asked of it.

        Args:
            folder: A path, or a URL of fsspec: `s3://bucket/prefix`, `gs://bucket/prefix`. The
                bucket must exist.
            shipped: As above.

        Raises:
            ModuleNotFoundError: fsspec lacks the package for this kind of URL.
            ValueError: fsspec does not know this kind of URL.
        """
        self._place = _places.at(folder)
        self.url = self._place.url
        self.shipped = shipped and Path(shipped)

    @cached_property
    def _lines(self) -> dict[str, dict[str, Any]]:
        files = sorted(self.shipped.glob("*.jsonl")) if self.shipped else []
        return {key: record for file in files for key, record in read_lines(file).items()}

    def check(self) -> None:
        """Write a record and remove it: what is refused is refused before anything is computed.

        Raises:
            OSError: The store cannot be read or written to; the message says why.
        """
        key = f".check-{uuid.uuid4().hex}"
        try:
            self.get(key)
            first, again = (self._place.put(key, {RECORD: text}) for text in (b"1", b"2"))
            self._place.remove(key, [])
        except OSError as error:
            raise OSError(f"the store {self.url} cannot be used: {error}") from error
        if again or not first:
            warnings.warn(
                f"{self.url} writes over what is there: where two processes do the same run, the "
                "record of the last is kept, not of the first",
                stacklevel=2,
            )

    def keys(self) -> Iterator[str]:
        """Return the keys of all records in the folder, whole or damaged."""
        return iter(self._place.keys())

    def get(self, key: str) -> dict[str, Any] | None:
        """Return a record, or None where there is none; a damaged one counts as none.

        Raises:
            OSError: The store cannot be read.
        """
        try:
            return self._read(key)[0]
        except FileNotFoundError:
            pass
        except ValueError as error:
            warnings.warn(f"the record {key} is damaged ({error}), counts as none", stacklevel=2)
        return self._lines.get(key)

    def get_all(self, keys: Iterable[str]) -> dict[str, dict[str, Any] | None]:
        """Return what `get` returns, by key, reading several at a time."""
        keys = list(dict.fromkeys(keys))
        with ThreadPoolExecutor(16) as pool:
            return dict(zip(keys, pool.map(self.get, keys), strict=True))

    def hypotheses(self, key: str) -> pd.DataFrame:
        """Return the hypotheses of a record that has them.

        Raises:
            FileNotFoundError: It has none, or is damaged; shipped records come without.
        """
        try:
            (content,) = self._read(key)[1].values()
        except ValueError as error:
            raise FileNotFoundError(f"no hypotheses of {key} in {self.url}") from error
        return pd.read_csv(
            io.BytesIO(content),
            keep_default_na=False,
            dtype={"source": str, "hypothesis": str, "target": str},
        )

    def put(
        self, key: str, record: Mapping[str, Any], hypotheses: pd.DataFrame | None = None
    ) -> dict[str, Any]:
        """Write a record, unless there is one already, and return the one that is kept.

        A damaged one is moved to `.damaged-…`, with a warning.

        Args:
            key: The run's identity.
            record: What JSON can hold.
            hypotheses: Written beside it.

        Raises:
            OSError: The store cannot be written to; nothing of the record is left in it.
        """
        files = {}
        if hypotheses is not None:
            # All text in quotes: a reader takes a bare carriage return for the end of a row.
            text = hypotheses.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
            files[self._place.own_name(HYPOTHESES)] = text.encode()
        record = dict(record) | {"files": {name: _sha256(files[name]) for name in files}}
        record = json.loads(json.dumps(record))  # what a reader will get, tuples as lists
        files[RECORD] = json.dumps(record | {"sha256": _digest(record)}, indent=1).encode()
        while not self._place.put(key, files):
            try:
                return self._read(key)[0]
            except (FileNotFoundError, ValueError) as error:
                self._set_aside(key, error)
        return record

    def remove(self, key: str) -> None:
        """Remove a record, at once.

        Raises:
            FileNotFoundError: There is none.
        """
        try:
            names = list(self._read(key)[1])
        except ValueError:
            names = []
        self._place.remove(key, names)

    def _read(self, key: str) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return a record and the files that it names; ValueError where it is damaged."""
        text = self._place.read(key, RECORD)
        try:
            record = json.loads(text)
            if record.pop("sha256") == _digest(record):
                files = {n: self._place.read(key, n) for n in record.get("files", {})}
                if {n: _sha256(files[n]) for n in files} == record.get("files", {}):
                    return record, files
        except (ValueError, KeyError, AttributeError, FileNotFoundError):
            pass
        raise ValueError("it was edited or cut short")

    def _set_aside(self, key: str, reason: Exception) -> None:
        damaged = f".damaged-{key}-{uuid.uuid4().hex[:8]}"
        if self._place.move(key, damaged):
            reason = "it has no record.json" if isinstance(reason, OSError) else reason
            warnings.warn(
                f"the record {key} is damaged ({reason}): set aside as {damaged}", stacklevel=3
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


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
