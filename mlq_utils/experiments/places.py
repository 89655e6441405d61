"""Where a store's files lie: a local folder, or a prefix of an object store that fsspec reaches.

Both can do the same: take the files of a record all together, whole, where there are none yet, or
say that another was first. A local folder does so by renaming a folder; an object store, which
renames nothing, by creating the record last and only where there is none (`If-None-Match` of S3,
`ifGenerationMatch` of GCS), once all that it names is there.
"""

import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

RECORD = "record.json"
CONFLICTS = 6  # how often a write is sent that conflicts with another


class Folder:
    """A local folder, with a folder a key in it; names that begin with a dot are no keys."""

    def __init__(self, path: Path) -> None:
        """Name a folder, which need not exist yet."""
        self._path = path.absolute()
        self.url = str(self._path)

    def own_name(self, name: str) -> str:
        """Return the name that a writer gives a file: folders are renamed whole, so any will do."""
        return name

    def read(self, key: str, name: str) -> bytes:
        """Return a file's content; FileNotFoundError where there is none."""
        return (self._path / key / name).read_bytes()

    def keys(self) -> list[str]:
        """Return what has a record, in order."""
        return sorted(path.parent.name for path in self._path.glob(f"[!.]*/{RECORD}"))

    def put(self, key: str, files: Mapping[str, bytes]) -> bool:
        """Write files aside, sync them, rename them into place; False where the place is taken."""
        aside = self._path / f".{key}.{uuid.uuid4().hex}"
        try:
            aside.mkdir(parents=True)
            for name, content in files.items():
                with (aside / name).open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            return self._rename(aside, key)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _rename(self, aside: Path, key: str) -> bool:
        try:
            aside.rename(self._path / key)
        except OSError:
            if (self._path / key).is_dir():  # another process was faster
                return False
            raise
        return True

    def move(self, key: str, name: str) -> bool:
        """Rename what is at a key; False where another process has done so."""
        try:
            (self._path / key).rename(self._path / name)
        except FileNotFoundError:
            return False
        return True

    def remove(self, key: str, names: Iterable[str]) -> None:
        """Remove what is at a key, at once."""
        aside = self._path / f".removed-{uuid.uuid4().hex}"
        (self._path / key).rename(aside)
        shutil.rmtree(aside)


class Prefix:
    """A prefix of an object store, laid out as a folder is.

    Its errors are OSErrors. What is worth another try, fsspec's file systems have tried again
    themselves, but for a conflict of two conditional writes, which S3 asks its clients to repeat.
    """

    def __init__(self, url: str) -> None:
        """Name a prefix, whose bucket must exist.

        Raises:
            ModuleNotFoundError: fsspec lacks the package for this kind of URL.
            ValueError: fsspec does not know this kind of URL.
        """
        from fsspec.core import url_to_fs

        try:  # without the cache of listings, which hides what other processes have written
            self._system, path = url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            raise ModuleNotFoundError(f"the store {url} needs a package: {error}") from error
        except ValueError as error:
            raise ValueError(f"the store {url} is at no place that is known: {error}") from error
        self._root = path.rstrip("/")
        self.url = url

    def own_name(self, name: str) -> str:
        """Return a name of its own for a writer's file: another's of the same key must stay."""
        stem, suffix = os.path.splitext(name)
        return f"{stem}-{uuid.uuid4().hex}{suffix}"

    def read(self, key: str, name: str) -> bytes:
        """Return a file's content; FileNotFoundError where there is none."""
        path = self._name(key, name)
        try:  # from its first byte on: s3fs would ask for the size of a whole file first
            return self._ask("cat_file", path, start=0)
        except FileNotFoundError:
            raise
        except OSError as error:
            if "range" not in str(error).lower():
                raise
            return self._ask("cat_file", path)  # an empty file has no first byte

    def keys(self) -> list[str]:
        """Return what has a record, in order."""
        try:
            found = self._ask("find", self._root)
        except FileNotFoundError:
            return []
        places = [path[len(self._root) + 1 :].split("/") for path in found]
        return sorted(p[0] for p in places if p[1:] == [RECORD] and not p[0].startswith("."))

    def put(self, key: str, files: Mapping[str, bytes]) -> bool:
        """Write files, the record last, and only where there is none; False where there is."""
        others = [name for name in files if name != RECORD]
        try:
            for name in others:
                self._ask("pipe_file", self._name(key, name), files[name])
            self._create(self._name(key, RECORD), files[RECORD])
        except OSError as error:
            # A request whose answer was lost is sent again, and then meets its own record.
            if self._holds(key, files[RECORD]):
                return True
            for name in others:
                with contextlib.suppress(OSError):
                    self._ask("rm_file", self._name(key, name))
            if isinstance(error, FileExistsError):
                return False
            raise
        return True

    def move(self, key: str, name: str) -> bool:
        """Copy a record and remove it; False where another process has done so.

        What it names stays where it is: a file there may be of a record that is being written.
        """
        try:
            self._ask("cp_file", self._name(key, RECORD), self._name(name, RECORD))
            self._ask("rm_file", self._name(key, RECORD))
        except FileNotFoundError:
            return False
        return True

    def remove(self, key: str, names: Iterable[str]) -> None:
        """Remove a record, then the files that it names."""
        for name in (RECORD, *names):
            self._ask("rm_file", self._name(key, name))

    def _name(self, key: str, name: str) -> str:
        return f"{self._root}/{key}/{name}"

    def _holds(self, key: str, record: bytes) -> bool:
        try:
            return self.read(key, RECORD) == record
        except FileNotFoundError:
            return False

    def _create(self, path: str, content: bytes) -> None:
        for attempt in range(CONFLICTS):
            try:
                return self._ask("pipe_file", path, content, mode="create")
            except OSError as error:
                if "ConditionalRequestConflict" not in str(error) or attempt == CONFLICTS - 1:
                    raise
            time.sleep(0.1 * 2**attempt)

    def _ask(self, what: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self._system, what)(*arguments, **options)
        except OSError:
            raise
        except Exception as error:  # no credentials, no connection: each library has its own
            raise OSError(f"{self.url}: {type(error).__name__}: {error}") from error


def at(place: str | os.PathLike) -> Folder | Prefix:
    """Return the place that a path or a URL names.

    Raises:
        ModuleNotFoundError: fsspec lacks the package for this kind of URL.
        ValueError: fsspec does not know this kind of URL, or a URL was made a path.
    """
    text = os.fspath(place)
    if text.startswith(("file://", "local://")):
        from fsspec.implementations.local import LocalFileSystem

        return Folder(Path(LocalFileSystem._strip_protocol(text)))
    if "://" in text:
        return Prefix(text)
    if isinstance(place, Path) and re.match(r"[a-z][a-z0-9]+:/", text):
        raise ValueError(f"{text!r}: pathlib has taken a slash from this URL; give it as a string")
    return Folder(Path(text))
