"""The store of records: one JSON file per run, written atomically and only once.

    store = Store("_build/store")
    store = Store("s3://bucket/prefix")  # or gs://…; credentials come from the environment

A process that is killed leaves a whole record or none, and several processes may share a store: the
first to finish a run wins, and the others take its record. Each record carries a checksum; one that
does not match counts as missing.
"""

import contextlib
import hashlib
import json
import os
import re
import time
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from mlq_utils.data import atomic_write

CONFLICT_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds before a conflicting write is sent again, as S3 asks its clients to do."""
LEFTOVER_SECONDS = 3600
"""Age from which the unfinished files of killed writers are removed."""
LEFTOVER = re.compile(r"\.[\w.-]+[.-][0-9a-f]{32}")


class Store:
    """A folder of records, on this machine or in an object store.

    Attributes:
        url: Absolute path or URL. `Store(store.url)` is the same store in another process.
    """

    def __init__(self, folder: str | os.PathLike, shipped: str | os.PathLike | None = None) -> None:
        """Open a store without reading anything.

        Args:
            folder: Path or fsspec URL. The folder need not exist, but the bucket of a URL must.
            shipped: Folder of `*.jsonl` files whose records are returned if the store has none.

        Raises:
            ImportError: fsspec lacks the package for this kind of URL.
            ValueError: fsspec does not know this kind of URL, or pathlib has mangled it.
        """
        text = os.fspath(folder)
        if isinstance(folder, Path) and re.match(r"[a-z][a-z0-9]+:/", text):
            raise ValueError(f"{text!r}: pathlib removes a slash from URLs; pass it as a string")
        try:
            # Cached listings would hide what other processes write. With max_concurrency=1, s3fs
            # reads a file in one request instead of asking for its size first.
            self._fs, root = url_to_fs(text, use_listings_cache=False, max_concurrency=1)
        except (ImportError, ValueError) as error:
            raise type(error)(f"the store {text} cannot be opened: {error}") from error
        self._root = root.rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)
        self.url = self._root if self._local else text
        self._shipped = shipped and Path(shipped)

    @cached_property
    def shipped_records(self) -> dict[str, dict[str, Any]]:
        """The shipped records by identity, without damaged ones, of which a warning tells."""
        records, damaged = {}, []
        for file in sorted(self._shipped.glob("*.jsonl")) if self._shipped else ():
            for number, line in enumerate(file.read_text("utf8").splitlines(), 1):
                try:
                    record = _checked(line)
                    records[record["identity"]] = record
                except (ValueError, KeyError):
                    damaged.append(f"{file.name}:{number}")
        if damaged:
            warnings.warn(f"{self._shipped}: damaged records: {damaged}", stacklevel=2)
        return records

    def check(self) -> None:
        """Write a file and remove it, and clear what killed writers have left.

        Raises:
            OSError: The store cannot be read or written to; the message says why.
        """
        name = f".check.{uuid.uuid4().hex}"
        try:
            self.get(name)
            first, again = (self._create(name, content) for content in (b"1", b"2"))
            self._ask("rm_file", name)
            # Object stores show complete files only.
            for path in Path(self._root).glob(".*") if self._local else ():
                with contextlib.suppress(FileNotFoundError):
                    old = time.time() - path.stat().st_mtime > LEFTOVER_SECONDS
                    if old and LEFTOVER.fullmatch(path.name):
                        path.unlink()
        except OSError as error:
            raise OSError(f"the store {self.url} cannot be used: {error}") from error
        if again or not first:
            warnings.warn(f"{self.url} overwrites records: the last one is kept", stacklevel=2)

    def keys(self) -> Iterator[str]:
        """Return the keys of all records in the store, whole or damaged, in order."""
        paths = self._ask("find", "") if self._ask("exists", "") else []
        names = [path[len(self._root) :].lstrip("/") for path in paths]
        found = [re.fullmatch(r"([^./][^/]*?)\.json", name) for name in names]
        return iter(sorted(match[1] for match in found if match))

    def get(self, key: str) -> dict[str, Any] | None:
        """Return a record, or None if there is none or it is damaged, which a warning says.

        Raises:
            OSError: The store cannot be read.
        """
        try:
            return self._read(key)[0]
        except FileNotFoundError:
            pass
        except ValueError as error:
            warnings.warn(f"the record {key} is damaged and ignored: {error}", stacklevel=2)
        return self.shipped_records.get(key)

    def get_all(self, keys: Iterable[str]) -> dict[str, dict[str, Any] | None]:
        """Return what `get` returns for each key, reading several records at a time."""
        keys = list(dict.fromkeys(keys))
        with ThreadPoolExecutor(16) as pool:
            return dict(zip(keys, pool.map(self.get, keys), strict=True))

    def hypotheses(self, key: str) -> pd.DataFrame:
        """Return the hypotheses of a record.

        Raises:
            FileNotFoundError: The record has none, is missing or damaged, or is a shipped one.
        """
        with contextlib.suppress(ValueError):
            if (frame := self._read(key)[1]) is not None:
                return frame
        raise FileNotFoundError(f"no hypotheses of {key} in {self.url}")

    def put(
        self, key: str, record: Mapping[str, Any], hypotheses: pd.DataFrame | None = None
    ) -> dict[str, Any]:
        """Write a record, unless there is one already, and return the one that is kept.

        A damaged record is renamed to `.damaged-…`.

        Args:
            key: The run's identity.
            record: What JSON can hold.
            hypotheses: Table that is kept with the record.

        Raises:
            OSError: The store cannot be written to. Nothing of the record is left in it.
        """
        whole = record = json.loads(json.dumps(record))  # what a reader gets: tuples become lists
        if hypotheses is not None:
            whole = record | {"hypotheses": hypotheses.to_dict("list")}
        text = json.dumps(whole | {"sha256": _digest(whole)}, indent=1, ensure_ascii=False)
        while not self._create(f"{key}.json", text.encode()):
            try:
                return self._read(key)[0]
            except (FileNotFoundError, ValueError):
                damaged = f"{self._root}/.damaged-{key}-{uuid.uuid4().hex[:8]}.json"
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    self._ask("mv", f"{key}.json", damaged)
        return record

    def remove(self, key: str) -> None:
        """Remove a record.

        Raises:
            FileNotFoundError: There is none.
        """
        if not self._ask("exists", f"{key}.json"):
            raise FileNotFoundError(f"no record {key} in {self.url}")
        self._ask("rm", f"{key}.json")

    def _read(self, key: str) -> tuple[dict[str, Any], pd.DataFrame | None]:
        """Return a record and its hypotheses; raise ValueError if it is damaged."""
        record = _checked(self._ask("cat_file", f"{key}.json"))
        columns = record.pop("hypotheses", None)
        return record, None if columns is None else pd.DataFrame(columns)

    def _create(self, name: str, content: bytes) -> bool:
        """Write a file atomically; return False, and change nothing, if it exists."""
        for pause in (*CONFLICT_PAUSES, None):
            try:
                if self._local:
                    with atomic_write(Path(self._root) / name, overwrite=False) as aside:
                        aside.write_bytes(content)
                else:
                    self._ask("pipe_file", name, content, mode="create")
                return True
            except FileExistsError:
                return False
            except OSError as error:
                if pause is None or "ConditionalRequestConflict" not in str(error):
                    raise
                time.sleep(pause)

    def _ask(self, what: str, name: str, *arguments: Any, **options: Any) -> Any:
        """Call fsspec for a file of the store; all errors become OSErrors."""
        try:
            call = getattr(self._fs, what)
            return call(f"{self._root}/{name}".rstrip("/"), *arguments, **options)
        except OSError:
            raise
        except Exception as error:  # no credentials, no connection: each library has its own
            raise OSError(f"{self.url}: {type(error).__name__}: {error}") from error


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records to a file of JSON lines, atomically, in the order of their identities."""
    ordered = sorted(records, key=lambda record: record["identity"])
    lines = [json.dumps({**record, "sha256": _digest(record)}) for record in ordered]
    with atomic_write(path) as aside:
        aside.write_text("".join(f"{line}\n" for line in lines), "utf8", newline="\n")


def _checked(text: str | bytes) -> dict[str, Any]:
    """Return a record without its checksum; raise ValueError if that does not match."""
    with contextlib.suppress(ValueError, KeyError, AttributeError, TypeError):
        record = json.loads(text)
        if record.pop("sha256") == _digest(record):
            return record
    raise ValueError("it was edited or cut short")


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
