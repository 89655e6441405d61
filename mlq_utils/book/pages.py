"""What the notebooks call: parameter checks, glued values, tables for readers and provenance."""

import ast
import base64
import builtins
import contextlib
import functools
import html
import inspect
import math
import numbers
import os
import platform
import re
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Optional

import myst_nb
import numpy as np
import pandas as pd
import yaml
from IPython.display import HTML
from pydantic import TypeAdapter, ValidationError

from mlq_utils import __version__, languages, modeling
from mlq_utils.data import PACKAGE_DATA, one_of
from mlq_utils.quadrants import strategies

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
        "package": f"mlq_utils {__version__}, commit {_commit()}",
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "python": platform.python_version(),
        "packages": ", ".join(
            f"{name} {version(name)}" for name in _STAMPED if name in sys.modules
        ),
        "device": _device(),
        "parameters": ", ".join(f"{name} = {namespace[name]!r}" for name in _declared(namespace)),
    } | {name.replace("_", " "): value for name, value in extra.items()}
    rows = {name: value for name, value in rows.items() if value}
    cells = "".join(
        f'<tr><th scope="row">{name}</th><td>{html.escape(str(value))}</td></tr>'
        for name, value in rows.items()
    )
    caption = "<caption>What this page was made with</caption>"
    return HTML(f'<table class="facts provenance">{caption}{cells}</table>')


def glue(**values: Any) -> None:
    """Store values by names that any page can paste with the `glue` role of MyST-NB."""
    for name, value in values.items():
        # MyST-NB formats Python's numbers, but not those of NumPy.
        myst_nb.glue(name, value.item() if hasattr(value, "item") else value, display=False)


def table(
    frame: pd.DataFrame, caption: str, links: Mapping[str, Sequence[str]] | None = None
) -> HTML:
    """Return a frame as a table for readers, who can sort and filter it if it is long.

    Headings with units come from `columns.yaml` of the package data, and other names lose their
    underscores. Languages are shown by name, numbers with about three digits, shares in percent if
    the heading ends with "(%)", and what is missing as a dash. An index is shown if it has a name
    or is not of integers.

    Args:
        frame: The frame. A cell may hold a list.
        caption: What the table shows, in plain text.
        links: Link targets by column of the frame, one for each row.
    """
    index = frame.index
    unnamed = index.nlevels == 1 and index.name is None
    drop = unnamed and pd.api.types.is_integer_dtype(index.dtype)
    names = [name or "" for name in index.names]
    shown = frame.reset_index(drop=drop, names=names, allow_duplicates=True)
    heads, columns = "", []
    for place, name in enumerate(shown.columns):
        label = ", ".join(filter(None, map(str, name if isinstance(name, tuple) else [name])))
        heading = _heading(label, shown.columns.name)
        values = shown.iloc[:, place]
        number = pd.api.types.is_numeric_dtype(values.dtype) and values.dtype != bool
        kind = ' class="number"' if number else ""
        heads += f'<th scope="col"{kind}>{html.escape(heading)}</th>' if heading else "<td></td>"
        scale = 100 if heading.endswith("(%)") else 1
        digits = _digits(values.dropna() * scale) if number else None
        texts = [html.escape(_text(value, label, scale, digits)) for value in values]
        texts = [text.replace("/", "/<wbr>") if "://" in text else text for text in texts]
        if label in (links or {}):
            targets = map(html.escape, links[label])
            texts = map('<a href="{}">{}</a>'.format, targets, texts)
        tag = "td" if place else "th"
        begin = f"<{tag}{kind}>" if place else f'<th scope="row"{kind}>'
        columns.append([f"{begin}{text}</{tag}>" for text in texts])
    rows = "\n".join(f"<tr>{' '.join(cells)}</tr>" for cells in zip(*columns, strict=True))
    kinds = "facts" + " sortable" * (len(shown) > 12) + " cards" * (len(columns) > 3)
    kinds += " wide" * (len(columns) > 6)
    return HTML(
        f'<div class="pst-scrollable-table-container"><table class="{kinds}">'
        f"<caption>{html.escape(caption)}</caption>\n<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>{rows}</tbody></table></div>"
    )


@functools.cache
def column_words() -> dict[str, Any]:
    """Return `columns.yaml` of the package data, which says what columns are called and hold."""
    return yaml.safe_load((PACKAGE_DATA / "columns.yaml").read_text("utf8"))


def _heading(label: str, axis: str | None) -> str:
    if axis in column_words()["languages"]:
        label = _named(label)
    label = column_words()["headings"].get(label, label.replace("_", " "))
    return label[:1].upper() + label[1:] if label.split(" ")[0].islower() else label


def _digits(values: Collection[float]) -> int:
    """Return how many decimals numbers deserve that stand together."""
    largest = max(map(abs, values), default=0)
    if largest >= 1000 or all(round(value, 9) % 1 == 0 for value in values):
        return 0
    return 1 if largest >= 10 else max(2, 1 - math.floor(math.log10(largest)))


def _text(value: Any, label: str, scale: float = 1, digits: int | None = None) -> str:
    if pd.api.types.is_list_like(value):
        return ", ".join(_text(each, label, scale) for each in value) or "–"
    if pd.isna(value) or value == "":
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, numbers.Real):
        value *= scale
        return f"{value:z,.{_digits([value]) if digits is None else digits}f}".replace("-", "−")
    if not label:  # of an index without a name, such as that of a transposed frame
        return _heading(str(value), None)
    if label == "strategy":
        return strategies.NAMES.get(value, str(value))
    return _named(str(value)) if label in column_words()["languages"] else str(value)


def _named(code: str) -> str:
    """Return the name of a language with its code, or of several that plus signs join."""
    with contextlib.suppress(ValueError):
        return " + ".join(f"{languages.get(one).name} ({one})" for one in code.split("+"))
    return code


def csv_link(frame: pd.DataFrame, name: str) -> HTML:
    """Return a link that downloads a frame as CSV. The file is in the page, so that it works alone.

    That of a figure's data is the last line of the figure's cell, and appears below its caption.

    Args:
        frame: The frame. Its index is included if it has a name, and numbers have six digits.
        name: Name of the file, without its ending.
    """
    text = frame.to_csv(index=frame.index.names != [None], float_format="%.6g")
    data = base64.b64encode(text.encode()).decode()
    return HTML(
        f'<p class="csv"><a download="{name}.csv" href="data:text/csv;charset=utf-8;base64,{data}">'
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
