"""The paper's claims, and the verdict of each kind of evidence on them.

No verdict is typed by hand. For each kind of evidence, `claims.yaml` says which numbers are
measured, and gives a rule that draws the verdict from them. To add a claim, add an entry there. The
first lines of the file explain the fields.
"""

import ast
import inspect
import string
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mlq_utils.claims.evidence import measure, select
from mlq_utils.claims.frames import FRAMES
from mlq_utils.data import PACKAGE_DATA, one_of

CLAIMS_FILE = PACKAGE_DATA / "claims" / "claims.yaml"
EVIDENCE = ("published", "tokenizer", "trained")
VERDICTS = ("holds", "holds in part", "does not hold", "not testable here")

_CLAIM_FIELDS = ("key", "section", "claim", "supports", "chapter")
_TEST_FIELDS = ("source", "numbers", "words", "holds")


@dataclass(frozen=True, eq=False)
class Test:
    """A test of a claim by one kind of evidence, with the fields that `claims.yaml` explains.

    Attributes:
        measure: The function that measures and returns the numbers by name.
        in_part: Empty if the claim cannot hold in part.
        where: The claim and the kind of evidence, for error messages.
    """

    evidence: str
    measure: Callable[[], Mapping[str, float]]
    words: str
    holds: str
    in_part: str
    where: str

    def verdict(self, numbers: Mapping[str, float]) -> str:
        """Return the verdict that these numbers give, one of `VERDICTS`."""
        if _is_true(self.holds, numbers):
            return "holds"
        if self.in_part and _is_true(self.in_part, numbers):
            return "holds in part"
        return "does not hold"

    @cached_property
    def numbers(self) -> Mapping[str, float]:
        """The measured numbers.

        Raises:
            ValueError: The source, a rule or the words use a name that does not exist.
        """
        try:
            numbers = self.measure()
        except (ValueError, KeyError, pd.errors.UndefinedVariableError) as error:
            raise ValueError(f"{self.where} cannot be measured: {error}") from error
        nodes = (node for rule in (self.holds, self.in_part) for node in ast.walk(ast.parse(rule)))
        used = [node.id for node in nodes if isinstance(node, ast.Name)]
        used += [name for _, name, _, _ in string.Formatter().parse(self.words) if name]
        for name in used:
            one_of(f"number of {self.where}:", name, numbers)
        return numbers


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, with the fields that `claims.yaml` explains.

    There are no tests if the claim is not testable here.
    """

    key: str
    section: str
    claim: str
    supports: str
    chapter: str
    tests: tuple[Test, ...] = ()


@cache
def read(path: Path = CLAIMS_FILE) -> tuple[Claim, ...]:
    """Return the claims of a YAML file, with their tests.

    Raises:
        ValueError: The file is not YAML, a field is missing or unknown, a kind of evidence or a
            frame is unknown, a rule is no expression, or two claims have the same key. The message
            names the claim and the nearest name that exists.
    """
    try:
        entries = yaml.safe_load(path.read_text("utf8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    claims = tuple(_claim(entry) for entry in entries)
    keys = [claim.key for claim in claims]
    if repeated := {key for key in keys if keys.count(key) > 1}:
        raise ValueError(f"{path}: several claims have the key {min(repeated)!r}")
    return claims


def _claim(entry: Mapping[str, Any]) -> Claim:
    where = f"the claim {entry.get('key', entry)!r}"
    _check_fields(where, entry, _CLAIM_FIELDS)
    kinds = entry.get("evidence", {})
    if not kinds:
        _check_fields(where, entry, (), _CLAIM_FIELDS)
    # What is neither a field of the claim nor its evidence is shared by its tests.
    shared = {name: entry[name] for name in entry if name not in (*_CLAIM_FIELDS, "evidence")}
    tests = tuple(_test(where, kind, shared | (test or {})) for kind, test in kinds.items())
    return Claim(*(entry[name] for name in _CLAIM_FIELDS), tests)


def _test(claim: str, kind: str, entry: Mapping[str, Any]) -> Test:
    where = f"{claim} ({one_of(f'evidence of {claim}:', kind, EVIDENCE)})"
    _check_fields(where, entry, _TEST_FIELDS)
    _check_fields(where, entry, (), (*_TEST_FIELDS, "in_part"))
    source = entry["source"]
    _check_fields(f"the source of {where}", source, ["frame"], inspect.signature(select).parameters)
    one_of(f"frame of {where}:", source["frame"], FRAMES)
    rules = [entry["holds"], entry.get("in_part", "")]
    for rule in filter(None, rules):
        try:
            ast.parse(rule, mode="eval")
        except SyntaxError as error:
            raise ValueError(f"the rule of {where} is no expression: {rule!r}") from error
    return Test(kind, partial(measure, source, entry["numbers"]), entry["words"], *rules, where)


def _check_fields(
    where: str, entry: Mapping[str, Any], needed: Iterable[str], known: Iterable[str] = ()
) -> None:
    """Refuse an entry that lacks a needed field, or has one that is not among those known."""
    for name in needed:
        if name not in entry:
            raise ValueError(f"{where} lacks the field {name!r}; it has: {', '.join(entry)}")
    for name in entry if known else ():
        one_of(f"field of {where}:", name, known)


def _is_true(rule: str, numbers: Mapping[str, float]) -> bool:
    # With empty globals a rule sees the numbers, and none of this module's names.
    return bool(pd.eval(rule, engine="python", local_dict=dict(numbers), global_dict={}))


def table() -> pd.DataFrame:
    """Return what the evidence says of every claim.

    Returns:
        One row per claim and kind of evidence, or a single row for a claim that is not testable
        here: `claim`, `section`, `evidence`, `verdict` (one of `VERDICTS`), `numbers` (in words),
        `key`, `chapter` and `supports`.
    """
    columns = ["claim", "section", "evidence", "verdict", "numbers", "key", "chapter", "supports"]
    rows = []
    for claim in read():
        row = dict.fromkeys(columns, "") | vars(claim) | {"verdict": VERDICTS[-1]}
        for test in claim.tests:
            found = {"evidence": test.evidence, "verdict": test.verdict(test.numbers)}
            rows.append(row | found | {"numbers": test.words.format(**test.numbers)})
        rows += [] if claim.tests else [row]
    return pd.DataFrame(rows)[columns]


def report() -> str:
    """Return the claims and the verdicts on them as plain text, for a terminal."""
    lines = []
    for key, rows in table().groupby("key", sort=False):
        section, claim = rows[["section", "claim"]].iloc[0]
        lines += ["", *textwrap.wrap(f"{key} ({section}): {claim}", 100)]
        for row in rows.itertuples():
            start = f"  {row.evidence:<9}  {row.verdict:<13}  "
            lines += textwrap.wrap(start + row.numbers, 100, subsequent_indent=" " * len(start))
    return "\n".join(lines[1:])
