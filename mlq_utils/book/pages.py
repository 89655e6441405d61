"""What the notebooks call: parameter checks, glued values, sortable tables and provenance."""

import ast
import base64
import builtins
import contextlib
import html
import inspect
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Optional

import myst_nb
import pandas as pd
from IPython.display import HTML
from pydantic import TypeAdapter, ValidationError

from mlq_utils import __version__, modeling
from mlq_utils.data import one_of

_INJECTED = "# Parameters"  # the first line of the cell that papermill adds
_STAMPED = (
    "babel", "matplotlib", "numpy", "pandas", "sacrebleu", "scipy", "sentencepiece", "tokenizers",
    "torch", "transformers",
)  # fmt: skip


def declarations(source: str) -> dict[str, Any]:
    """Return the types of the parameters that a cell declares as `name: type = value`, by name.

    The source is parsed and not run. `__annotations__` would not do, since Python 3.14 no longer
    keeps it from cell to cell.

    Raises:
        ValueError: An annotation uses other types than built-in ones and `Optional`.
    """
    known = {"__builtins__": vars(builtins), "Optional": Optional}
    declared = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            annotation = ast.unparse(node.annotation)
            try:
                declared[node.target.id] = eval(annotation, known)
            except Exception as error:
                raise ValueError(
                    f"the type of parameter {node.target.id!r} must be made of built-in types and "
                    f"Optional, not {annotation}"
                ) from error
    return declared


def validate(values: Mapping[str, Any], declared: Mapping[str, Any]) -> None:
    """Check parameters against their declared types, without converting any value.

    Raises:
        ValueError: A parameter is not declared. The message gives the nearest names.
        TypeError: A value does not have the declared type.
    """
    for name, value in values.items():
        kind = declared[one_of("parameter", name, declared)]
        try:
            TypeAdapter(kind).validate_python(value, strict=True)
        except ValidationError:
            raise TypeError(
                f"parameter {name!r} must be {inspect.formatannotation(kind)}, "
                f"not {type(value).__name__} ({value!r})"
            ) from None


def check_parameters(namespace: Mapping[str, Any]) -> None:
    """Check a notebook's parameters, in the cell after the one that sets them.

    Papermill only warns about an unknown parameter, so this check stops the notebook. It ignores
    whatever later cells define, so that cells can be run again in any order.

    Args:
        namespace: The notebook's `globals()`.

    Raises:
        ValueError: Papermill was given a parameter that the notebook does not declare.
        TypeError: A value does not have the declared type.
    """
    declared = _declared(namespace)
    injected = [cell for cell in namespace.get("In", []) if cell.startswith(_INJECTED)]
    names = [*declared, *re.findall(r"^(\w+) = ", "".join(injected[-1:]), re.MULTILINE)]
    validate({name: namespace[name] for name in names if name in namespace}, declared)


def _declared(namespace: Mapping[str, Any]) -> dict[str, Any]:
    declared: dict[str, Any] = {}
    for cell in namespace.get("In", []):
        with contextlib.suppress(SyntaxError):  # a cell with magics is not plain Python
            declared |= declarations(cell)
    return declared


def provenance(namespace: Mapping[str, Any], **extra: Any) -> HTML:
    """Return the table that ends a page and says what the page was made with.

    Args:
        namespace: The notebook's `globals()`, from which the parameters are read.
        **extra: More rows, such as checksums of the data. Underscores in names become spaces.
    """
    rows = {
        "mlq_utils": f"{__version__}, commit {_commit()}",
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "python": platform.python_version(),
        "packages": ", ".join(
            f"{name} {version(name)}" for name in _STAMPED if name in sys.modules
        ),
        "device": _device(),
        "parameters": ", ".join(f"{name} = {namespace[name]!r}" for name in _declared(namespace)),
    } | {name.replace("_", " "): value for name, value in extra.items()}
    rows = {name: value for name, value in rows.items() if value}
    with pd.option_context("display.max_colwidth", None):  # the default cuts checksums short
        return HTML(pd.Series(rows).to_frame().to_html(header=False, classes="provenance"))


def glue(**values: Any) -> None:
    """Store values by names that any page can paste with the `glue` role of MyST-NB."""
    for name, value in values.items():
        # MyST-NB formats Python's numbers, but not those of NumPy.
        myst_nb.glue(name, value.item() if hasattr(value, "item") else value, display=False)


def sortable(frame: pd.DataFrame, links: Mapping[str, Sequence[str]] | None = None) -> HTML:
    """Return a table that readers with JavaScript can sort and filter. It shows no index.

    Args:
        frame: The table.
        links: Link targets by column, one for each row.
    """
    shown = frame.astype(object).map(lambda cell: html.escape(str(cell)))
    for column, addresses in (links or {}).items():
        targets = pd.Series(addresses, index=shown.index).map(html.escape)
        shown[column] = '<a href="' + targets + '">' + shown[column] + "</a>"
    with pd.option_context("display.max_colwidth", None):
        table = shown.to_html(index=False, escape=False, classes="sortable")
    return HTML(table.replace("<th>", '<th scope="col">'))


def csv_link(frame: pd.DataFrame, name: str) -> HTML:
    """Return a link that downloads a frame as CSV. The file is in the page, so that it works alone.

    Args:
        frame: The frame. Its index is left out.
        name: Name of the file, without its ending.
    """
    data = base64.b64encode(frame.to_csv(index=False).encode()).decode()
    return HTML(
        f'<p><a download="{name}.csv" href="data:text/csv;charset=utf-8;base64,{data}">'
        f"Download {name}.csv</a></p>"
    )


def _commit() -> str:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # an installed copy may lie in somebody else's repository
        return "unknown"
    git = ["git", "-C", root, "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _device() -> str:
    if "torch" in sys.modules:  # importing it takes seconds, and without it no GPU was used
        return modeling.hardware()
    return f"{os.cpu_count()} {platform.machine()} cores"
