"""Executes the notebooks of a book, two at a time, and keeps those that are up to date."""

import asyncio
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from papermill.translators import PythonTranslator

from mlq_utils.data import atomic_write, cache_folder, data_folder, sha256

_KERNEL = {
    "extra_arguments": ["--IPKernelApp.log_level=CRITICAL"],
    "iopub_timeout": 60,  # on a busy machine outputs come late, and none may be lost
    "raise_on_iopub_timeout": True,
    "record_timing": False,
    "startup_timeout": 600,
}


class BookError(Exception):
    """The book cannot be made. The message may have several lines."""


@dataclass(frozen=True)
class Chapter:
    """A notebook of the book.

    Attributes:
        root: Root folder of the repository.
        path: Path of the notebook, relative to the root.
        executed: Path of the executed notebook.
        parameters: Values of the parameters, by name, which replace the defaults.
    """

    root: Path
    path: Path
    executed: Path
    parameters: dict[str, Any]

    def key(self, inputs: str) -> str:
        """Return a key of all that the executed notebook depends on, beside `inputs_key`."""
        parameters = json.dumps(self.parameters, sort_keys=True)
        return _digest(sha256(self.root / self.path), parameters, inputs)

    def is_outdated(self, inputs: str) -> bool:
        """Return whether there is no executed notebook or one that was made from other inputs."""
        try:
            notebook = nbformat.read(self.executed, as_version=4)
        except (OSError, ValueError):  # it does not exist or is damaged
            return True
        return notebook.metadata.get("mlq_key") != self.key(inputs)


class _Loop(asyncio.SelectorEventLoop):
    """An event loop in which Ctrl-C ends all notebooks, where nbclient would end only one."""

    def add_signal_handler(self, *_: Any) -> None:
        raise RuntimeError("asyncio.Runner handles the signals")

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        pass  # nbclient leaves a failed task behind when its kernel ends early


def execute(chapters: Sequence[Chapter], inputs: str, jobs: int = 2) -> None:
    """Execute chapters, `jobs` of them at a time.

    An executed notebook is written only if all its cells succeeded. For `inputs` see `inputs_key`.

    Raises:
        BookError: A cell failed or a kernel died. The other chapters are ended, too.
    """
    room = asyncio.Semaphore(jobs)

    async def run(chapter: Chapter) -> None:
        async with room:
            say(f"{chapter.path}: running")
            await _execute(chapter, chapter.key(inputs))

    async def run_all() -> None:
        await asyncio.gather(*map(run, chapters))

    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(run_all())


async def _execute(chapter: Chapter, key: str) -> None:
    scratch = chapter.root / "_build/scratch"  # no notebook may rely on the folder it runs in
    scratch.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.read(chapter.root / chapter.path, as_version=4)
    if chapter.parameters:
        tagged = ["parameters" in cell.metadata.get("tags", []) for cell in notebook.cells]
        source = PythonTranslator.codify(chapter.parameters, "Parameters")
        tags = {"tags": ["injected-parameters", "remove-cell"]}
        cell = nbformat.v4.new_code_cell(source, metadata=tags)
        notebook.cells.insert(tagged.index(True) + 1, cell)
    resources = {"metadata": {"path": str(scratch)}}
    client = NotebookClient(notebook, resources=resources, **_KERNEL)
    try:
        await client.async_execute()
    except CellExecutionError as error:
        counts = [cell.get("execution_count") or 0 for cell in notebook.cells]
        message = f"{chapter.path}, In [{max(counts)}]: {error.ename}: {error.evalue}"
        raise BookError(f"{error}\n{message}") from error
    except Exception as error:  # a kernel that died is a RuntimeError, and there are others
        if asyncio.current_task().cancelling():  # nbclient says that the kernel died then, too
            raise asyncio.CancelledError from None
        raise BookError(f"{chapter.path}: {error}") from error
    notebook.metadata["mlq_key"] = key
    with atomic_write(chapter.executed) as path:
        nbformat.write(notebook, path)


def inputs_key(root: Path) -> str:
    """Return a key of what every chapter depends on: the package, pins, Python and local data."""
    parts = [sys.version]
    for folder in (Path(__file__).parents[1], root / "benchmarks"):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                parts += [path.relative_to(folder.parent).as_posix(), sha256(path)]
    if (pins := root / "constraints.txt").exists():
        parts.append(sha256(pins))
    for folder in (data_folder(), cache_folder()):
        if folder and folder.is_dir():  # reading gigabytes would cost more than a needless run
            stats = ((p.relative_to(folder), p.stat()) for p in sorted(folder.rglob("*")))
            parts += [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats]
    return _digest(*parts)


def say(line: str) -> None:
    """Print a line about the progress of the book to the standard error."""
    print(line, file=sys.stderr, flush=True)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
