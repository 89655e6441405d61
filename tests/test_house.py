"""The layout of the package: which room imports which, what is light, how long things are."""

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mlq_utils"
FLOORS = (
    {"data", "languages", "paper"},
    {"tokenization"},
    {"corpora", "quadrants"},
    {"modeling", "scoring"},
    {"experiments"},
    {"claims", "book"},
    {"cli"},
    {"__main__"},  # the same command, by another name
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
LIGHT = ("paper", "tokenization", "corpora", "quadrants", "scoring", "experiments", "claims")
LINES = 13_738
"""Lines of the package. It is to come down to 8,500, so lower this number when it shrinks."""
HEAVY = {"torch", "transformers", "peft", "accelerate"}


def parsed():
    for path in sorted(PACKAGE.rglob("*.py*")):
        if path.suffix in (".py", ".pyi"):
            yield path, ast.parse(path.read_text("utf8"))


def room_of(path):
    """The room that a file of the package lies in; None for the package's own `__init__`."""
    name = path.relative_to(PACKAGE).with_suffix("").parts[0]
    return None if name == "__init__" else name


def imported(tree):
    """Each name that is imported from the package: the parts of the module, and the name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mlq_utils":
            for alias in node.names:
                yield node.module.split(".")[1:], alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "mlq_utils":
                    yield alias.name.split(".")[1:], ""


def arrows():
    """Which rooms each room imports."""
    found = defaultdict(set)
    for path, tree in parsed():
        room = room_of(path)
        for module, name in imported(tree):
            target = module[0] if module else name
            if room and target in FLOOR and target != room:
                found[room].add(target)
    return found


def test_the_package_has_these_rooms_and_no_others():
    names = {path.name for path in PACKAGE.iterdir()} - {"__pycache__", "__init__.py", "py.typed"}
    assert {name.removesuffix(".py") for name in names} == set(FLOOR)


def test_imports_go_down():
    for room, targets in arrows().items():
        for target in targets:
            if FLOORS[FLOOR[room]] == FLOORS[0]:  # data, languages and paper stand on each other
                assert FLOOR[target] == 0, f"{room} imports {target}"
            else:
                assert FLOOR[target] < FLOOR[room], f"{room} imports {target}"


def test_rooms_stand_on_at_most_seven_levels():
    graph = arrows()

    def level(room, above=()):
        assert room not in above, f"{' imports '.join((*above, room))}: a circle"
        return 1 + max((level(target, (*above, room)) for target in graph[room]), default=0)

    assert max(level(room) for room in FLOOR if room != "__main__") <= 7


def test_nothing_private_crosses_a_border():
    for path, tree in parsed():
        for module, name in imported(tree):
            if module and module[0] != room_of(path):
                private = [part for part in (*module, name) if part.startswith("_")]
                assert not private, f"{path.relative_to(PACKAGE)} imports {private}"


def test_each_room_says_what_it_is_for_and_names_what_it_offers():
    for path in sorted(PACKAGE.glob("*/__init__.py")):
        tree = ast.parse(path.read_text("utf8"))
        assert len((ast.get_docstring(tree) or "").split()) >= 15, path
        assert "__all__" in path.read_text("utf8"), path


def test_no_function_is_longer_than_sixty_lines():
    for path, tree in parsed():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                assert lines <= 60, f"{path.relative_to(PACKAGE)}: {node.name} has {lines} lines"


def test_the_package_does_not_grow():
    lines = sum(len(path.read_text("utf8").splitlines()) for path, _ in parsed())
    assert lines <= LINES


@pytest.fixture(scope="module")
def light():
    """What an interpreter has loaded after importing what needs no model, and how long it took."""
    program = (
        "import sys, time; start = time.perf_counter()\n"
        + "".join(f"import mlq_utils.{room}\n" for room in LIGHT)
        + "print(time.perf_counter() - start, *sorted({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seconds, *modules = done.stdout.split()
    return float(seconds), set(modules)


def test_reading_needs_no_torch(light):
    assert not light[1] & HEAVY
