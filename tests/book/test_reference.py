"""The reference pages, which Sphinx makes from the docstrings of the rooms."""

import inspect
from importlib import import_module
from pathlib import Path

import pytest
from sphinx.util.inventory import InventoryFile
from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).parents[2]
ROOMS = sorted(path.parent.name for path in (ROOT / "mlq_utils").glob("*/__init__.py"))
ROOMS.remove("data")


def test_each_room_has_a_page():
    pages = {page.removeprefix("book/api/") for page in parse_toc_yaml(ROOT / "_toc.yml")}
    assert set(ROOMS) <= pages
    assert {path.stem for path in (ROOT / "book/api").iterdir()} == set(ROOMS)


def offered(module):
    """The functions and classes that a room or a module of it offers."""
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if name[0] != "_" and getattr(value, "__module__", None) == module.__name__
    ]
    for name in names:
        value = getattr(module, name)
        if inspect.ismodule(value):
            yield from offered(value)
        elif callable(value):
            yield f"{module.__name__}.{name}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_page_holds_each_function_and_class_that_its_room_offers(site, room):
    with open(site / "objects.inv", "rb") as file:
        inventory = InventoryFile.load(file, "", lambda _, path: path)
    kinds = ("py:class", "py:exception", "py:function")
    shown = {name for kind in kinds for name in inventory.get(kind, {})}
    wanted = set(offered(import_module(f"mlq_utils.{room}")))
    assert wanted and wanted <= shown
