"""What a notebook says of itself: that its parameters are sound, and what made its page."""

import ast
import builtins
import contextlib
import html
import inspect
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import GenericAlias, MappingProxyType, NoneType, UnionType
from typing import Any, get_args, get_origin

import myst_nb
import pandas as pd
from IPython.display import HTML

from mlq_utils import __version__
from mlq_utils.data import one_of

INJECTED = "# Parameters"  # the comment that papermill puts on top of the cell that it adds
STAMPED = (
    "babel",
    "matplotlib",
    "numpy",
    "pandas",
    "sacrebleu",
    "scipy",
    "sentencepiece",
    "tokenizers",
    "torch",
    "transformers",
)


def declarations(source: str) -> dict[str, Any]:
    """Return the parameters that a cell declares: its annotated assignments, `name: type = value`.

    The source is parsed, not run, and not asked of `__annotations__`, which Python 3.14 no longer
    keeps from cell to cell. Annotations may use built-in types only.

    Args:
        source: The text of a cell.

    Returns:
        Each name with its type.

    Raises:
        ValueError: An annotation is no built-in type.
    """
    declared = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            try:
                declared[node.target.id] = eval(
                    ast.unparse(node.annotation), {"__builtins__": vars(builtins)}
                )
            except Exception as error:
                raise ValueError(
                    f"the type of parameter {node.target.id!r} must be made of built-in types, "
                    f"not {ast.unparse(node.annotation)}"
                ) from error
    return declared


def validate(values: Mapping[str, Any], declared: Mapping[str, Any]) -> None:
    """Check parameters against their declarations.

    Args:
        values: Each parameter's value.
        declared: Each parameter's type, as `declarations` returns it.

    Raises:
        ValueError: A parameter is not declared; the message gives the nearest names.
        TypeError: A value does not fit its type.
    """
    for name, value in values.items():
        kind = declared[one_of("parameter", name, declared)]
        if not _fits(value, kind):
            raise TypeError(
                f"parameter {name!r} must be {inspect.formatannotation(kind)}, "
                f"not {type(value).__name__} ({value!r})"
            )


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, UnionType):
        return any(_fits(value, option) for option in get_args(kind))
    if isinstance(kind, GenericAlias):
        if not isinstance(value, get_origin(kind)):
            return False
        if isinstance(value, Mapping):
            key, item = get_args(kind)
            return all(_fits(k, key) and _fits(v, item) for k, v in value.items())
        return all(_fits(item, get_args(kind)[0]) for item in value)
    if kind is None:
        return isinstance(value, NoneType)
    if isinstance(value, bool):  # Python takes a bool for an int; a reader who writes one does not
        return kind in (bool, object)
    return isinstance(value, (int, float) if kind is float else kind)


def check_parameters(namespace: Mapping[str, Any]) -> None:
    """Check a notebook's parameters, in the cell after those that set them.

    Names are checked where papermill added them (it goes on where one is unknown), types for all
    that are declared. What the notebook itself defines later is not looked at, so that cells can be
    run again in any order.

    Args:
        namespace: The notebook's `globals()`.

    Raises:
        ValueError: Papermill was given a parameter that the notebook does not declare.
        TypeError: A value does not fit its declared type.
    """
    injected = [cell for cell in namespace.get("In", []) if cell.startswith(INJECTED)]
    declared = _declared(namespace)
    names = [*declared, *(_assigned(injected[-1]) if injected else [])]
    validate({name: namespace[name] for name in names if name in namespace}, declared)


def _declared(namespace: Mapping[str, Any]) -> dict[str, Any]:
    declared: dict[str, Any] = {}
    for cell in namespace.get("In", []):  # all that has run, the present cell included
        with contextlib.suppress(SyntaxError):
            declared |= declarations(cell)
    return declared


def _assigned(cell: str) -> list[str]:
    targets = [target for node in ast.parse(cell).body for target in getattr(node, "targets", [])]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def provenance(namespace: Mapping[str, Any], **extra: Any) -> HTML:
    """Return the stamp that ends a page: what it was made with.

    Args:
        namespace: The notebook's `globals()`, for its parameters.
        extra: Further lines, such as checksums of the data used; `_` in a name is shown as a space.

    Returns:
        A table of two columns.
    """
    packages = [f"{name} {version(name)}" for name in STAMPED if name in sys.modules]
    lines = {
        "mlq_utils": f"{__version__}, commit {_commit()}",
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "python": platform.python_version(),
        "packages": ", ".join(packages),
        "device": _device(),
        "parameters": ", ".join(f"{name} = {namespace[name]!r}" for name in _declared(namespace)),
    } | {name.replace("_", " "): value for name, value in extra.items()}
    lines = {name: value for name, value in lines.items() if value}
    with pd.option_context("display.max_colwidth", None):  # a checksum is longer than the default
        return HTML(pd.Series(lines).to_frame().to_html(header=False, classes="provenance"))


def glue(**values: Any) -> None:
    """Keep values under names that other pages paste: `{glue:text}`page.ipynb::name:d``.

    Args:
        values: Numbers or strings by name; NumPy's numbers become Python's, as pasting needs.
    """
    for name, value in values.items():
        myst_nb.glue(name, value.item() if hasattr(value, "item") else value, display=False)


def sortable(
    frame: pd.DataFrame, links: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> HTML:
    """Return a table that a reader can sort and filter; whole, though, without scripts.

    Args:
        frame: The table; its index is not shown.
        links: Addresses by column, one a row, that the column's cells link to.
    """
    shown = frame.astype(object).map(lambda cell: html.escape(str(cell)))
    for column, addresses in links.items():
        cells = zip(shown[column], addresses, strict=True)
        shown[column] = [f'<a href="{html.escape(to)}">{cell}</a>' for cell, to in cells]
    with pd.option_context("display.max_colwidth", None):
        return HTML(shown.to_html(index=False, escape=False, classes="sortable"))


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent)]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        # An installed copy may lie inside somebody else's repository: is this file in it?
        subprocess.run(
            [*git, "ls-files", "--error-unmatch", Path(__file__).name],
            check=True,
            capture_output=True,
        )
        described = subprocess.run(
            [*git, "describe", "--always", "--dirty", "--exclude=*"],
            check=True,
            capture_output=True,
            text=True,
        )
        return described.stdout.strip()
    return "unknown"


def _device() -> str:
    # Importing torch takes seconds: a notebook that has not done so has used no accelerator.
    torch = sys.modules.get("torch")
    processor = f"{os.cpu_count()} {platform.machine()} cores"
    gpu = torch is not None and torch.cuda.is_available()
    return f"{processor}, {torch.cuda.get_device_name()}" if gpu else processor
