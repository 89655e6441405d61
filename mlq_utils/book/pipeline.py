"""The pipeline of the book: check the notebooks, run them with papermill, stage, build the site.

    python -m mlq_utils.book.pipeline --profile mini

Everything it makes lies in `_build`: executed notebooks in `runs/<profile>`, the tree that
Jupyter Book reads in `source/<profile>`, and the site in `html`.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import nbformat
import papermill
import tyro
import yaml
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from papermill.exceptions import PapermillExecutionError
from sphinx_external_toc.parsing import parse_toc_yaml

from mlq_utils import corpora, paper, tokenization
from mlq_utils.book.pages import declarations, validate
from mlq_utils.data import atomic_write, cache_folder, data_folder, one_of
from mlq_utils.experiments.store import Store

# A kernel writes into its page: no bars, no chatter.
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm.auto misses widgets; we want none
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


FIRST_GUESS = 30.0
"""Seconds that a chapter, or the site, is expected to take where nothing is known yet."""


class BookError(Exception):
    """The book cannot be made: a notebook failed, or the site did not build."""

    status = 1


class InputError(BookError):
    """What was asked for is wrong; nothing has been started."""

    status = 2


@dataclass(frozen=True)
class Chapter:
    """A notebook of the book.

    Attributes:
        path: Where it lies, relative to the repository.
        parameters: What papermill gives it.
    """

    path: Path
    parameters: dict[str, Any]


def chapters(root: Path, profile: str) -> list[Chapter]:
    """Return the notebooks that the table of contents lists, each checked before any is run.

    Args:
        root: The repository.
        profile: A folder of `notebooks/params`.

    Raises:
        InputError: The profile, a page, a kernel or a parameter does not exist, or a parameter has
            the wrong type.
    """
    try:
        one_of("profile", profile, sorted(p.name for p in (root / "notebooks/params").iterdir()))
    except ValueError as error:
        raise InputError(error) from error
    found = []
    for page in parse_toc_yaml(root / "_toc.yml"):
        path = Path(f"{page}.ipynb")
        if (root / path).exists():
            found.append(_chapter(root, path, profile))
        elif not (root / f"{page}.md").exists():
            raise InputError(f"_toc.yml lists {page!r}: there is no such page")
    return found


def _chapter(root: Path, path: Path, profile: str) -> Chapter:
    given = Path("notebooks/params", profile, f"{path.stem}.yaml")
    try:
        notebook = nbformat.read(root / path, as_version=4)
        KernelSpecManager().get_kernel_spec(notebook.metadata.get("kernelspec", {}).get("name", ""))
        declared = [c.source for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
        if not declared:
            return Chapter(path, {})
        if not (root / given).exists():
            raise InputError(f"{path}: its parameters file {given} does not exist")
        parameters = dict(yaml.safe_load((root / given).read_text(encoding="utf8")) or {})
        validate(parameters, declarations(declared[0]))
    except (NoSuchKernel, TypeError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path}, {given}: {error}") from error
    return Chapter(path, parameters)


def run(root: Path, profile: str, chapter: Chapter, inputs: str) -> Path:
    """Run a notebook, or take the run that exists where nothing it depends on has changed.

    Papermill saves as it goes, so it is given no file: the run is written once, whole, when it has
    succeeded.

    Args:
        root: The repository.
        profile: Whose runs are used and added to.
        chapter: What to run.
        inputs: The state of all else that the run depends on, see `inputs_key`.

    Returns:
        The executed notebook.

    Raises:
        BookError: A cell failed, the kernel died, or an output shows a path of this machine.
    """
    key, target = _wanted(root, profile, chapter, inputs)
    if _kept(target, "mlq_key") == key:
        return target
    start = perf_counter()
    scratch = root / "_build/scratch"  # no notebook may rely on where it runs
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        notebook = papermill.execute_notebook(
            root / chapter.path,
            None,
            chapter.parameters,
            progress_bar=False,
            cwd=scratch,
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        )
    except PapermillExecutionError as error:
        raise BookError(
            f"{error}\n{chapter.path}, In [{error.exec_count}]: {error.ename}: {error.evalue}"
        ) from error
    except Exception as error:  # a dead kernel is a RuntimeError, and there are other ways to fail
        raise BookError(f"{chapter.path}: {error}") from error
    _refuse_machine_paths(notebook, chapter.path, root)
    _tidy(notebook, key)
    notebook.metadata["mlq_seconds"] = round(perf_counter() - start, 1)
    with atomic_write(target) as path:
        nbformat.write(notebook, path)
    return target


def inputs_key(root: Path) -> str:
    """Return a key of what every run depends on: the package, the pins, Python and the local data.

    Args:
        root: The repository.
    """
    package = Path(__file__).parents[1]
    files = [p for p in sorted(package.rglob("*")) if p.is_file() and "__pycache__" not in p.parts]
    pins = [root / name for name in ("requirements.txt", "constraints.txt")]
    parts = [sys.version, *(p.relative_to(package).as_posix() for p in files)]
    parts += [p.read_bytes() for p in [*files, *pins] if p.exists()]
    for folder in _data_folders():  # to read gigabytes would cost more than a needless run
        stats = ((p.relative_to(folder), p.stat()) for p in sorted(folder.rglob("*")))
        parts += [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats]
    return _digest(*parts)


def _data_folders() -> list[Path]:
    return [p for p in (data_folder(), cache_folder()) if p and p.is_dir()]


def _digest(*parts: str | bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return whole.hexdigest()


def _wanted(root: Path, profile: str, chapter: Chapter, inputs: str) -> tuple[str, Path]:
    """Return the key of a chapter's run and where the run is kept."""
    text = (root / chapter.path).read_bytes()
    key = _digest(text, json.dumps(chapter.parameters, sort_keys=True), inputs)
    return key, root / "_build/runs" / profile / chapter.path


def _kept(path: Path, name: str) -> Any:
    """Return what a run says of itself: its `mlq_key` or `mlq_seconds`."""
    try:
        return nbformat.read(path, as_version=4).metadata.get(name)
    except (OSError, ValueError):  # none yet, or damaged: run it
        return None


def _tidy(notebook: nbformat.NotebookNode, key: str) -> None:
    """Keep the key; drop papermill's records, which hold paths; fold its cell as ours are."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata["mlq_key"] = key
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata.tags.append("hide-input")


def machine_paths(root: Path) -> re.Pattern[str]:
    """Return a pattern of what a page must not show: where this machine keeps things.

    Args:
        root: The repository.
    """
    places = [root.resolve(), Path.home(), Path(sysconfig.get_path("purelib")), *_data_folders()]
    shown = [re.escape(str(place)) for place in places if len(place.parts) > 1]
    return re.compile(rf"(?<![\w.])(?:{'|'.join(shown)})(?!\w)")


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


def stage(root: Path, profile: str, runs: dict[Path, Path]) -> Path:
    """Lay out what Jupyter Book reads: pages, executed notebooks, configuration.

    Args:
        root: The repository.
        profile: Names the tree.
        runs: For each notebook of the repository, its executed copy.

    Returns:
        The tree, made anew.
    """
    source = root / "_build/source" / profile
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(root / "book", source / "book", ignore=shutil.ignore_patterns("*.ipynb", ".*"))
    (source / "book/_static").rename(source / "_static")  # where Jupyter Book looks for it
    for path, executed in runs.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(executed, source / path)
    shutil.copy(root / "_toc.yml", source)
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf8"))
    if config["repository"]["url"]:
        config["html"] |= {f"use_{b}_button": True for b in ("repository", "edit_page", "issues")}
        config["launch_buttons"] = {
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
        }
    (source / "_config.yml").write_text(yaml.safe_dump(config, allow_unicode=True), "utf8")
    return source


def build(source: Path, site: Path) -> Path:
    """Build the site aside and put it in its place when it is whole.

    Args:
        source: A staged tree.
        site: The folder for the site; what it held before stays where the build fails.

    Returns:
        The site's first page.

    Raises:
        BookError: Jupyter Book failed or warned.
    """
    command = [Path(sysconfig.get_path("scripts"), "jupyter-book"), "build", source]
    options = ["--all", "-W", "-n", "--keep-going", "--path-output"]
    site.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=site.parent, prefix="site-") as aside:
        _say("the site: building")
        plain = os.environ | {"NO_COLOR": "1"}
        done = subprocess.run(
            [*command, *options, aside], capture_output=True, text=True, env=plain
        )
        if done.returncode:
            raise BookError(f"the site does not build\n{done.stderr}")  # Sphinx warns there
        if site.exists():
            site.rename(Path(aside, "former"))
        Path(aside, "_build/html").rename(site)
    return site.resolve() / "index.html"


def make(root: Path, profile: str, site: Path | None = None) -> Path:
    """Make the book: check, run, stage, build.

    Args:
        root: The repository.
        profile: A folder of `notebooks/params`.
        site: The folder for the site; `_build/html` where it is None.

    Returns:
        The site's first page.

    Raises:
        BookError: See `chapters`, `run` and `build`.
    """
    listed = chapters(root, profile)
    try:
        check_data()
        inputs = inputs_key(root)
    except (FileNotFoundError, ValueError) as error:
        raise InputError(error) from error
    runs = {
        chapter.path: run(root, profile, chapter, inputs)
        for chapter in _announced(root, profile, listed, inputs)
    }
    return build(stage(root, profile, runs), site or root / "_build/html")


def check_data() -> None:
    """Read all shipped data, so that damage is found before any notebook runs.

    Raises:
        ValueError: A table of the paper contradicts itself where the printed one does not, a
            record was edited, or a file of a local FLORES-200 is damaged or short.
        FileNotFoundError: A local FLORES-200 lacks a file.
    """
    for number in range(1, 17):
        paper.table(number)
    for name in ("fertility", "shortening"):
        tokenization.recorded(name)
    if corpora.find("flores200"):
        corpora.texts("flores200", "devtest")


def _announced(
    root: Path, profile: str, listed: Sequence[Chapter], inputs: str
) -> Iterator[Chapter]:
    """Go through the chapters, saying before each about how long all that is left will take.

    A chapter is expected to take what its last run took, or else what others take on average.
    """
    wanted = [_wanted(root, profile, chapter, inputs) for chapter in listed]
    stale = [_kept(target, "mlq_key") != key for key, target in wanted]
    for number, chapter in enumerate(listed):
        if stale[number]:
            seconds = [_kept(target, "mlq_seconds") for _, target in wanted]
            known = [taken for taken in seconds if taken]
            usual = sum(known) / len(known) if known else FIRST_GUESS
            left = FIRST_GUESS + sum(
                taken or usual
                for taken, due in zip(seconds[number:], stale[number:], strict=True)
                if due
            )
            _say(f"{chapter.path}: running; about {max(1, round(left / 60))} min left in all")
        else:
            _say(f"{chapter.path}: unchanged")
        yield chapter


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def book(profile: str = "mini", site: Path | None = None) -> int:
    """Make the book of the current folder and print the path of its first page.

    Args:
        profile: Folder of `notebooks/params` whose parameters the chapters run with.
        site: Folder for the site. Defaults to `_build/html`.

    Returns:
        The exit status: 0, 1 if the book could not be made, 2 for bad input, 130 after Ctrl-C.
    """
    # Papermill's own look at parameters misses `x: int | None`, and it warns where it should stop.
    logging.getLogger("papermill").setLevel(logging.ERROR)
    os.environ |= QUIET
    if os.environ.get("MLQ_DATA"):  # kernels run in another folder
        os.environ["MLQ_DATA"] = str(Path(os.environ["MLQ_DATA"]).expanduser().resolve())
    os.environ["MLQ_STORE"] = Store(os.environ.get("MLQ_STORE") or "_build/store").url
    checkpoints = Path(os.environ.get("MLQ_CHECKPOINTS") or "_build/checkpoints")
    os.environ["MLQ_CHECKPOINTS"] = str(checkpoints.resolve())
    try:
        print(make(Path.cwd(), profile, site))
    except BookError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("\ninterrupted: what is finished is kept, the next call goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(tyro.cli(book))
