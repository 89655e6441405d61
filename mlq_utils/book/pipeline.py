"""Makes the book: checks the notebooks, executes them, stages their pages and builds the site.

Everything goes into `_build`: executed notebooks into `runs/<profile>`, the sources that Jupyter
Book reads into `source/<profile>`, and the site into `html`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode
from sphinx_external_toc.parsing import parse_toc_yaml

from mlq_utils.book import language_pages, preflight, site_search
from mlq_utils.book.execution import BookError, Chapter, execute, inputs_key, say
from mlq_utils.book.pages import declarations, validate
from mlq_utils.data import one_of
from mlq_utils.experiments.store import Store

_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm.auto asks for widgets
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Environment of the kernels. What they print ends up on a page: no progress bars there."""
_INSTALL = """\
import sys

if "google.colab" in sys.modules:
    %pip install "mlq_utils[book] @ git+{url}"
"""
"""First code cell of a chapter that has a button for Colab, which lacks the package."""


def chapters(root: Path, profile: str) -> list[Chapter]:
    """Return the notebooks in the table of contents, after checking every one of them.

    Raises:
        ValueError: The profile, a page or a parameter does not exist, or a parameter has the wrong
            type.
    """
    one_of("profile", profile, sorted(p.name for p in (root / "notebooks/params").iterdir()))
    found = []
    for page in parse_toc_yaml(root / "_toc.yml"):
        path = Path(f"{page}.ipynb")
        if (root / path).exists():
            executed = root / "_build/runs" / profile / path
            found.append(Chapter(root, path, executed, _parameters(root, path, profile)))
        elif not (root / f"{page}.md").exists():
            raise ValueError(f"_toc.yml lists {page!r}: there is no such page")
    return found


def _parameters(root: Path, path: Path, profile: str) -> dict[str, Any]:
    """Return the parameters that a profile gives to a notebook, after checking them."""
    given = Path("notebooks/params", profile, f"{path.stem}.yaml")
    try:
        cells = nbformat.read(root / path, as_version=4).cells
        declared = [c.source for c in cells if "parameters" in c.metadata.get("tags", [])]
        if not declared:
            return {}
        if not (root / given).exists():
            raise ValueError(f"{given} does not exist")
        parameters = dict(yaml.safe_load((root / given).read_text("utf8")) or {})
        validate(parameters, declarations(declared[0]))
    except (TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}, {given}: {error}") from error
    return parameters


def _stage(
    root: Path, profile: str, listed: Sequence[Chapter], languages: Sequence[str] = ()
) -> Path:
    """Lay out what Jupyter Book reads, which is made anew: pages, notebooks and configuration.

    If `_config.yml` sets the address of the repository, pages get buttons for it, and chapters a
    cell that installs the package on Colab.
    """
    from mlq_utils.book import downloads, interactive  # late, since Vega takes seconds

    source = root / "_build/source" / profile
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(root / "book", source / "book", ignore=shutil.ignore_patterns("*.ipynb", ".*"))
    (source / "book/_static").rename(source / "_static")  # where Jupyter Book looks for it
    (source / "_static/vega.js").write_text(interactive.libraries(), "utf8")
    if any(chapter.path.stem == "downloads" for chapter in listed):
        downloads.write(source / downloads.FOLDER)
    shutil.copy(root / "_toc.yml", source)
    config = yaml.safe_load((root / "_config.yml").read_text("utf8"))
    url = config["repository"]["url"]
    if url:
        config["html"] |= {f"use_{b}_button": True for b in ("repository", "edit_page", "issues")}
        config["launch_buttons"] = {
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
        }
    (source / "_config.yml").write_text(yaml.safe_dump(config, allow_unicode=True), "utf8")
    for chapter in listed:
        notebook = nbformat.read(chapter.executed, as_version=4)
        if url:  # after the first cell, which has the title of the page
            tags = {"tags": ["hide-cell"]}
            cell = nbformat.v4.new_code_cell(_INSTALL.format(url=url), metadata=tags)
            notebook.cells.insert(1, cell)
        notebook.cells = list(_links_below(notebook.cells))
        (source / chapter.path).parent.mkdir(exist_ok=True)
        nbformat.write(notebook, source / chapter.path)
    language_pages.write(source, languages or None)
    return source


def _links_below(cells: Sequence[NotebookNode]) -> Iterator[NotebookNode]:
    """Yield cells, and after each figure one with the links that its cell returns.

    MyST-NB would give them the caption of the figure, too.
    """
    for cell in cells:
        yield cell
        if "figure" in cell.metadata.get("mystnb", {}):
            links = [out for out in cell.outputs if "text/html" in out.get("data", {})]
            cell.outputs = [out for out in cell.outputs if out not in links]
            tags = {"tags": ["remove-input"]}
            yield nbformat.v4.new_code_cell("# links", outputs=links, metadata=tags)


def _build(source: Path, site: Path) -> Path:
    """Build the site aside, move it into place when it is complete, and return its first page."""
    # Not the script jupyter-book, whose interpreter may be another one: Sphinx imports the package.
    main = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", main, "build", source]
    options = ["--all", "-W", "-n", "--keep-going", "--path-output"]
    site.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=site.parent, prefix="site-") as aside:
        say("the site: building")
        env = os.environ | {"NO_COLOR": "1"}
        done = subprocess.run([*command, *options, aside], capture_output=True, text=True, env=env)
        if done.returncode:
            raise BookError(f"the site does not build\n{done.stderr}")  # Sphinx's warnings
        site_search.write(Path(aside, "_build/html"))
        if site.exists():
            site.rename(Path(aside, "former"))
        Path(aside, "_build/html").rename(site)
    return site.resolve() / "index.html"


def make(root: Path, profile: str, site: Path | None = None, languages: Sequence[str] = ()) -> Path:
    """Make the book of a repository, see `book`, and return the path of its first page.

    Two chapters run at a time, unless one makes runs of its own, which take the whole machine.

    Raises:
        BookError: Data is missing or damaged, a cell failed, or the site does not build.
        ValueError: A notebook or its parameters are wrong.
    """
    listed = chapters(root, profile)
    inputs = inputs_key(root)
    due = [chapter for chapter in listed if chapter.is_outdated(inputs)]
    if lacking := preflight.missing([chapter.parameters for chapter in due]):
        lines = "".join(f"\n  * {line}" for line in lacking)
        raise BookError(f"the profile {profile!r} lacks what it needs on this machine:{lines}")
    for chapter in listed:
        if chapter not in due:
            say(f"{chapter.path}: unchanged")
    jobs = 1 if any(preflight.makes_runs(chapter.parameters) for chapter in due) else 2
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    execute(due, inputs, jobs)
    return _build(_stage(root, profile, listed, languages), site or root / "_build/html")


def book(profile: str = "mini", site: Path | None = None, languages: tuple[str, ...] = ()) -> int:
    """Make the book of the current folder and print the path of its first page.

    Args:
        profile: Folder of `notebooks/params` whose parameters the chapters run with.
        site: Folder for the site. Defaults to `_build/html`.
        languages: Codes of the languages that get a page. Defaults to all.

    Returns:
        The exit status, which is 1 if the book could not be made.
    """
    os.environ |= _QUIET
    if os.environ.get("MLQ_DATA"):  # kernels run in another folder, so paths must be absolute
        os.environ["MLQ_DATA"] = str(Path(os.environ["MLQ_DATA"]).expanduser().resolve())
    os.environ["MLQ_STORE"] = Store(os.environ.get("MLQ_STORE") or "_build/store").url
    checkpoints = Path(os.environ.get("MLQ_CHECKPOINTS") or "_build/checkpoints")
    os.environ["MLQ_CHECKPOINTS"] = str(checkpoints.resolve())
    # The pages about speed and about the mini world import `benchmarks`, which is not installed.
    paths = filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")])
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    try:
        print(make(Path.cwd(), profile, site, languages))
    except BookError as error:
        say(f"error: {error}")
        return 1
    return 0
