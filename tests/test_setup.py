"""The two commands, the pins, the licence, and what no file may say."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions

import nbformat
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from packaging.requirements import Requirement


def canonical(name):
    return re.sub("[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def pins(root):
    """The versions in constraints.txt, every line of which is a pin."""
    lines = (root / "constraints.txt").read_text("utf8").splitlines()
    found = [re.fullmatch(r"([a-z0-9-]+)==([0-9][^\s;+]*)", line) for line in lines]
    assert all(found) and lines == sorted(lines)
    return {pin[1]: pin[2] for pin in found}


@pytest.fixture(scope="module")
def declared(root):
    """The packages of the base install and of each extra, with those of the extras it names."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf8"))["project"]
    groups = {"base": project["dependencies"], **project["optional-dependencies"]}
    parsed = {name: [Requirement(line) for line in lines] for name, lines in groups.items()}

    def packages(group):
        for requirement in parsed[group]:
            if requirement.name == project["name"]:
                yield from (name for extra in requirement.extras for name in packages(extra))
            else:
                yield canonical(requirement.name)

    return {group: set(packages(group)) for group in parsed}


@pytest.fixture(scope="module")
def distributions():
    """The distributions that each importable package comes from."""
    return packages_distributions()


@pytest.fixture(scope="module")
def tracked(root):
    """The project's own files, committed or about to be."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=root, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git repository: which files are the project's is not known")
    return [path for name in done.stdout.splitlines() if (path := root / name).is_file()]


def make(root, *arguments):
    # Not as a part of the make that runs the tests.
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(
        ["make", *arguments], cwd=root, env=environment, capture_output=True, text=True
    )


def test_the_readme_shows_two_commands_and_the_makefile_has_them(root):
    section = (root / "README.md").read_text("utf8").split("## Two commands\n")[1].split("\n## ")[0]
    commands = re.findall(r"^    (.+)$", section, re.MULTILINE)
    assert commands == ["make book", "make test"]
    for target in ("book", "test", "env", "bench", "lint", "lock", "clean"):
        assert make(root, "-n", target).returncode == 0


def test_the_readme_maps_the_rooms_that_exist(root):
    section = (root / "README.md").read_text("utf8").split("## Map\n")[1].split("\n## ")[0]
    package = re.split(r"^ {4}(?=\S)", section, flags=re.MULTILINE)[1]
    assert package.startswith("mlq_utils/")
    rooms = {f"{file.parent.name}/" for file in (root / "mlq_utils").glob("*/__init__.py")}
    modules = {file.name for file in (root / "mlq_utils").glob("[!_]*.py")}
    assert set(re.findall(r"^ {6}(\S+)", package, re.MULTILINE)) == rooms | modules
    for name in re.findall(r"^ {4}(\S+)", section, re.MULTILINE):
        assert (root / name).exists()


def test_an_unknown_profile_does_nothing(root):
    done = make(root, "-n", "PROFILE=huge", "book")
    assert done.returncode == 2 and not done.stdout
    assert "unknown PROFILE 'huge'; there are: mini paper smoke" in done.stderr


def test_an_old_python_is_refused(root, tmp_path):
    old = tmp_path / "old"  # takes make's check for one of Python 3.10
    shim = "import sys; sys.version_info = (3, 10); sys.version = '3.10.0 '; exec(sys.argv[1])"
    old.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{shim}" "$2"\n', "utf8")
    old.chmod(0o755)
    for name in ("Makefile", "constraints.txt", "pyproject.toml"):
        (tmp_path / name).write_bytes((root / name).read_bytes())
    (tmp_path / "notebooks/params/mini").mkdir(parents=True)
    done = make(tmp_path, "env", f"PYTHON={old}")
    assert done.returncode == 2
    assert "is Python 3.10.0; 3.11 or later is needed" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_every_declared_package_is_pinned(declared, pins):
    assert (declared["base"] | declared["test"] | declared["lab"]) <= pins.keys()


def test_the_book_is_installed_without_what_only_tests_and_clusters_need(root, declared):
    commands = make(root, "-n", "-B", "book").stdout
    assert re.findall(r"-m pip install (.+)", commands) == ["-c constraints.txt -e '.[book]'"]
    conda = yaml.safe_load((root / "environment.yml").read_text("utf8"))
    assert conda["dependencies"][-1] == {"pip": ["-c constraints.txt", "-e .[book,lab]"]}
    others = {"pytest", "hypothesis", "ruff", "playwright", "moto", "s3fs", "gcsfs", "lm-eval"}
    others |= {"dask-jobqueue", "dask-kubernetes", "datasets"}
    assert not others & (declared["base"] | declared["book"])


def code(path):
    """Return the Python of a module or of a notebook, whose magics are made calls."""
    if path.suffix == ".py":
        return path.read_text("utf8")
    cells = nbformat.read(path, as_version=4).cells
    python = [cell.source for cell in cells if cell.cell_type == "code"]
    return "\n".join(map(TransformerManager().transform_cell, python))


def imports(path):
    """Yield the top-level packages that a file imports, or asks for by name."""
    for node in ast.walk(ast.parse(code(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip":
            yield node.args[0].value.split(".")[0]


@pytest.mark.parametrize(
    ("pattern", "extras"),
    [
        ("mlq_utils/**/*.py", []),
        ("mlq_utils/book/*.py", ["book"]),
        ("mlq_utils/experiments/nlu*.py", ["nlu"]),
        ("mlq_utils/tokenization/tokenizer.py", ["tiktoken"]),
        ("notebooks/*.ipynb", ["book"]),
        ("book/*.ipynb", ["book"]),
        ("benchmarks/*.py", ["book"]),
        ("examples/slurm.py", ["slurm"]),
        ("examples/kubernetes.py", ["kubernetes"]),
        ("tests/**/*.py", ["test"]),
    ],
)
def test_what_is_imported_is_declared(root, declared, distributions, pattern, extras):
    allowed = declared["base"].union(*(declared[extra] for extra in extras))
    files = set(root.glob(pattern))
    if not extras:  # the parts of the package that need an extra have lines of their own
        lines = ("book/*.py", "experiments/nlu*.py", "tokenization/tokenizer.py")
        files -= {path for line in lines for path in root.glob(f"mlq_utils/{line}")}
    assert files
    own = {"mlq_utils", "benchmarks", *(path.stem for path in root.glob("tests/**/*.py"))}
    for path in files:
        for name in set(imports(path)) - set(sys.stdlib_module_names) - own:
            found = {canonical(distribution) for distribution in distributions.get(name, [name])}
            assert found & allowed, f"{path.name} imports {name}, which pyproject.toml lacks"


def test_the_wheel_holds_every_file_of_the_package(root, tracked, tmp_path):
    for path in tracked:
        name = path.relative_to(root)
        if name.parts[0] in ("mlq_utils", "pyproject.toml", "README.md", "LICENSE"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, tmp_path / name)
    build = "from setuptools import build_meta; build_meta.build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("mlq_utils/")}
    names = {path.relative_to(root).as_posix() for path in tracked}
    assert held == {name for name in names if name.startswith("mlq_utils/")}
    assert {"mlq_utils/py.typed", "mlq_utils/data/corpora.yaml"} <= held


def test_licence_and_citation(root):
    licence = (root / "LICENSE").read_text("utf8")
    for part in ("MIT License", "the mlq_utils contributors", "Unicode License V3", "LLaMAX"):
        assert part in licence
    citation = yaml.safe_load((root / "CITATION.cff").read_text("utf8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["authors"] == [{"name": "The mlq_utils contributors"}]
    assert "How Multilingual is Multilingual LLM?" in {r["title"] for r in citation["references"]}


def test_the_workflow_runs_the_two_commands(root):
    jobs = yaml.safe_load((root / ".github/workflows/book.yml").read_text("utf8"))["jobs"]
    assert "make test" in [step.get("run") for step in jobs["test"]["steps"]]
    assert "make book" in [step.get("run") for step in jobs["book"]["steps"]]
    assert jobs["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert (root / ".ci/run").read_text("utf8").rstrip().endswith("exec make test")


def test_the_site_is_published_only_from_main_and_if_pages_are_enabled(root):
    workflow = yaml.safe_load((root / ".github/workflows/book.yml").read_text("utf8"))
    publish = workflow["jobs"]["publish"]
    assert workflow[True]["push"] == {"branches": ["main"]}  # YAML reads the key "on" as true
    condition = "github.event_name == 'push' && github.event.repository.has_pages"
    assert publish["if"] == condition
    assert set(publish["needs"]) == {"test", "book"}
    assert workflow["permissions"] == {"contents": "read"}


def test_no_file_holds_a_secret_a_machine_or_a_registry(tracked):
    never = re.compile(
        r"(?<![\w./~])/(?:home|root|work|Users)/\w"
        r"|-----BEGIN [A-Z ]*PRIVATE KEY|\bhf_[A-Za-z0-9]{30}|\bghp_[A-Za-z0-9]{30}"
        r"|files\.pythonhosted\.|(?:test\.)?pypi\.(?:org|io)\b|download\.pytorch\.|conda\.anaconda\."
    )
    for path in tracked:
        text = path.read_text("utf8", errors="ignore")
        found = never.search(text) if path.name != "test_setup.py" else None
        assert not found, f"{path.name}: {found[0]}"
