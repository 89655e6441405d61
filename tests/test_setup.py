"""The two commands, the pins, the licence, and what no file may say."""

import ast
import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest
import yaml

PIN = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)$")


def pins(lines):
    found = [PIN.match(line.strip()) for line in lines]
    return {re.sub("[-_.]+", "-", m[1]).lower(): m[2] for m in found if m}


@pytest.fixture(scope="module")
def required(root):
    return pins((root / "requirements.txt").read_text("utf8").splitlines())


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
    for name in ("Makefile", "requirements.txt", "constraints.txt", "pyproject.toml"):
        (tmp_path / name).write_bytes((root / name).read_bytes())
    (tmp_path / "notebooks/params/mini").mkdir(parents=True)
    done = make(tmp_path, "env", f"PYTHON={old}")
    assert done.returncode == 2
    assert "is Python 3.10.0; 3.11 or later is needed" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_the_three_lists_of_pins_agree(root, required):
    constraints = pins((root / "constraints.txt").read_text("utf8").splitlines())
    conda = yaml.safe_load((root / "environment.yml").read_text("utf8"))
    (pip,) = [item["pip"] for item in conda["dependencies"] if isinstance(item, dict)]
    assert pins(pip) == required
    assert "-c constraints.txt" in pip
    assert not constraints.keys() & required.keys()


def test_every_package_that_is_imported_is_pinned(root, required):
    distributions = packages_distributions()
    imported = set()
    for path in (root / "mlq_utils").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            imported |= {name.split(".")[0] for name in names}
    imported -= {*sys.stdlib_module_names, "mlq_utils"}
    constraints = pins((root / "constraints.txt").read_text("utf8").splitlines())
    for name in imported:
        found = {re.sub("[-_.]+", "-", d).lower() for d in distributions[name]}
        assert found & (required.keys() | constraints.keys()), f"{name} is not pinned"


def test_licence_and_citation(root):
    licence = (root / "LICENSE").read_text("utf8")
    for part in ("MIT License", "the mlq_utils contributors", "Unicode License V3", "LLaMAX"):
        assert part in licence
    citation = yaml.safe_load((root / "CITATION.cff").read_text("utf8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["authors"] == [{"name": "The mlq_utils contributors"}]
    assert "How Multilingual is Multilingual LLM?" in {r["title"] for r in citation["references"]}


def test_the_workflow_runs_the_two_commands(root):
    workflow = yaml.safe_load((root / ".github/workflows/book.yml").read_text("utf8"))
    run = [step.get("run") for step in workflow["jobs"]["book"]["steps"]]
    assert {"make test", "make book"} <= set(run)
    assert (root / ".ci/run").read_text("utf8").rstrip().endswith("exec make test")


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
