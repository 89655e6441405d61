"""Executes the notebooks of a book, two at a time, and keeps those that are up to date."""

import asyncio
import hashlib
import json
import re
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from mlq_utils.data import atomic_write, cache_folder, data_folder

FIRST_GUESS = 30.0
"""Seconds that a chapter, or the site, is expected to take if nothing is known yet."""
_KERNEL = {
    "extra_arguments": ["--IPKernelApp.log_level=CRITICAL"],
    "iopub_timeout": 60,  # on a busy machine outputs come late; none may be lost
    "raise_on_iopub_timeout": True,
    "record_timing": False,
    "startup_timeout": 600,
    "timeout": None,
}


class BookError(Exception):
    """The book cannot be made because a notebook failed or the site did not build."""

    status = 1


class InputError(BookError):
    """The request is wrong or something it needs is missing; nothing has been started."""

    status = 2


@dataclass(frozen=True)
class Chapter:
    """A notebook of the book.

    Attributes:
        path: Path of the notebook, relative to the repository.
        parameters: Values of the parameters that papermill injects, by name.
    """

    path: Path
    parameters: dict[str, Any]


class _Loop(asyncio.SelectorEventLoop):
    """An event loop in which Ctrl-C ends all notebooks, where nbclient would end only one."""

    def add_signal_handler(self, *_: Any) -> None:
        raise RuntimeError("signals belong to asyncio.Runner")

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        pass  # nbclient leaves a failed task behind when its kernel ends early


def outdated(root: Path, profile: str, chapters: Sequence[Chapter], inputs: str) -> list[Chapter]:
    """Return the chapters that have no executed notebook, or one made from other inputs.

    Args:
        root: Root folder of the repository.
        profile: Name of a folder of `notebooks/params`.
        chapters: Chapters of the book.
        inputs: Key of everything else that the chapters depend on, see `inputs_key`.
    """
    return [
        chapter
        for chapter in chapters
        if _kept(executed(root, profile, chapter), "mlq_key") != _key(root, chapter, inputs)
    ]


def execute(
    root: Path, profile: str, chapters: Sequence[Chapter], inputs: str, jobs: int = 2
) -> None:
    """Execute chapters, and say before each how long all that is left will take.

    An executed notebook is written whole and only if all its cells succeeded.

    Args:
        root: Root folder of the repository.
        profile: Name of a folder of `notebooks/params`.
        chapters: The chapters to execute.
        inputs: Key of everything else that the chapters depend on, see `inputs_key`.
        jobs: Number of notebooks that run at a time.

    Raises:
        BookError: A cell failed, a kernel died, or an output shows a path of this machine.
    """
    seconds = {c.path: _kept(executed(root, profile, c), "mlq_seconds") for c in chapters}
    usual = fmean([taken for taken in seconds.values() if taken] or [FIRST_GUESS])
    left = {path: taken or usual for path, taken in seconds.items()}
    room = asyncio.Semaphore(jobs)

    async def run(chapter: Chapter) -> None:
        async with room:
            minutes = max(1, round((FIRST_GUESS + sum(left.values()) / jobs) / 60))
            say(f"{chapter.path}: running; about {minutes} min left in all")
            target = executed(root, profile, chapter)
            await _execute(root, chapter, target, _key(root, chapter, inputs))
            left.pop(chapter.path)

    async def run_all() -> None:
        await asyncio.gather(*map(run, chapters))

    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(run_all())


async def _execute(root: Path, chapter: Chapter, target: Path, key: str) -> None:
    start = perf_counter()
    scratch = root / "_build/scratch"  # no notebook may rely on the folder it runs in
    scratch.mkdir(parents=True, exist_ok=True)
    notebook = load_notebook_node(str(root / chapter.path))
    if chapter.parameters:
        notebook = parameterize_notebook(notebook, chapter.parameters)
    resources = {"metadata": {"path": str(scratch)}}
    kernel = notebook.metadata.kernelspec.name
    client = NotebookClient(notebook, kernel_name=kernel, resources=resources, **_KERNEL)
    try:
        await client.async_execute()
    except CellExecutionError as error:
        counts = [cell.get("execution_count") or 0 for cell in notebook.cells]
        message = f"{chapter.path}, In [{max(counts)}]: {error.ename}: {error.evalue}"
        raise BookError(f"{error}\n{message}") from error
    except Exception as error:  # a dead kernel is a RuntimeError, and there are other failures
        if asyncio.current_task().cancelling():  # nbclient calls that a dead kernel, too
            raise asyncio.CancelledError from None
        raise BookError(f"{chapter.path}: {error}") from error
    _refuse_machine_paths(notebook, chapter.path, root)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata.tags.append("hide-input")
    notebook.metadata.pop("papermill", None)
    notebook.metadata |= {"mlq_key": key, "mlq_seconds": round(perf_counter() - start, 1)}
    with atomic_write(target) as path:
        nbformat.write(notebook, path)


def executed(root: Path, profile: str, chapter: Chapter) -> Path:
    """Return where the executed notebook of a chapter is kept."""
    return root / "_build/runs" / profile / chapter.path


def inputs_key(root: Path) -> str:
    """Return a key of what every chapter depends on: the package, pins, Python and local data.

    Args:
        root: Root folder of the repository.
    """
    paths = {"constraints.txt": root / "constraints.txt"}
    for folder in (Path(__file__).parents[1], root / "benchmarks"):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                paths[path.relative_to(folder.parent).as_posix()] = path
    parts: list[str | bytes] = [sys.version]
    for name, path in paths.items():
        if path.exists():
            parts += [name, path.read_bytes()]
    for folder in _data_folders():  # reading gigabytes would cost more than a needless run
        stats = ((p.relative_to(folder), p.stat()) for p in sorted(folder.rglob("*")))
        parts += [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats]
    return _digest(*parts)


def machine_paths(root: Path) -> re.Pattern[str]:
    """Return a pattern of the paths of this machine, which no page may show.

    Args:
        root: Root folder of the repository.
    """
    places = [root.resolve(), Path.home(), Path(sysconfig.get_path("purelib")), *_data_folders()]
    shown = [re.escape(str(place)) for place in places if len(place.parts) > 1]
    return re.compile(rf"(?<![\w.])(?:{'|'.join(shown)})(?!\w)")


def say(line: str) -> None:
    """Print a line about the progress of the book to the standard error."""
    print(line, file=sys.stderr, flush=True)


def _refuse_machine_paths(notebook: nbformat.NotebookNode, name: Path, root: Path) -> None:
    pattern = machine_paths(root)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = {k: v for k, v in output.get("data", {}).items() if k != "image/png"}
            shown = json.dumps([data, output.get("text")], ensure_ascii=False)
            if found := pattern.search(shown):
                raise BookError(
                    f"{name}, In [{cell.execution_count}]: the output shows a path of this "
                    f"machine: {shown[found.start() : found.end() + 120]}"
                )


def _data_folders() -> list[Path]:
    return [p for p in (data_folder(), cache_folder()) if p and p.is_dir()]


def _key(root: Path, chapter: Chapter, inputs: str) -> str:
    parameters = json.dumps(chapter.parameters, sort_keys=True)
    return _digest((root / chapter.path).read_bytes(), parameters, inputs)


def _digest(*parts: str | bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return whole.hexdigest()


def _kept(path: Path, name: str) -> Any:
    """Return the `mlq_key` or `mlq_seconds` of an executed notebook, or None."""
    try:
        return nbformat.read(path, as_version=4).metadata.get(name)
    except (OSError, ValueError):  # it does not exist or is damaged
        return None
