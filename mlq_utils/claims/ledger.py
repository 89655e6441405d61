"""The paper's claims, and the verdict of each kind of evidence on them.

    table()     # one row per claim and kind of evidence, with the verdict and its numbers

No verdict is typed by hand. For each kind of evidence, `claims.yaml` names a function of `evidence`
that measures, and a rule that draws the verdict from the measured numbers. To add a claim, add an
entry there; `CLAIMS_FILE` explains its fields.
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

from mlq_utils.claims.evidence import MEASUREMENTS
from mlq_utils.data import PACKAGE_DATA, one_of

CLAIMS_FILE = PACKAGE_DATA / "claims" / "claims.yaml"
EVIDENCE = ("published", "tokenizer", "trained")
VERDICTS = ("holds", "holds in part", "does not hold", "not testable here")

_CLAIM_FIELDS = ("key", "section", "claim", "supports", "chapter")
_TEST_FIELDS = ("measure", "words", "holds")
# The fields of a test that its claim may give once for all of its tests.
_SHARED = ("words", "holds", "in_part")


@dataclass(frozen=True, eq=False)
class Test:
    """A test of a claim by one kind of evidence.

    Attributes:
        evidence: The kind of evidence, one of `EVIDENCE`.
        measure: Measures and returns the numbers by name.
        words: A format string that tells the numbers.
        holds: An expression over the numbers that is true if the claim holds.
        in_part: An expression that is true if the claim holds in part. It is asked only if `holds`
            is false. Empty if the claim cannot hold in part.
        where: The claim and the evidence, for error messages.
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

    def told(self) -> str:
        """Return the measured numbers in words."""
        return self.words.format(**self.numbers)

    @cached_property
    def numbers(self) -> Mapping[str, float]:
        """The measured numbers.

        Raises:
            ValueError: A rule or the words use a number that the measurement does not return.
        """
        numbers = self.measure()
        used = [name for rule in (self.holds, self.in_part) if rule for name in _names(rule)]
        used += [name for _, name, _, _ in string.Formatter().parse(self.words) if name]
        for name in used:
            one_of(f"number of {self.where}:", name, numbers)
        return numbers


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        key: A short name, for links.
        section: The section of the paper that makes the claim.
        claim: What the claim says, in our words.
        supports: What counts for the claim, in words.
        chapter: The notebook that looks into the claim.
        tests: The tests of the claim. Empty if it is not testable here.
    """

    key: str
    section: str
    claim: str
    supports: str
    chapter: str
    tests: tuple[Test, ...] = ()


@cache
def read(path: Path = CLAIMS_FILE) -> tuple[Claim, ...]:
    """Return the claims of a file, with their rules.

    Args:
        path: A YAML file. Defaults to the one in the package.

    Raises:
        ValueError: The file is not YAML, a field is missing or unknown, a kind of evidence or a
            measurement is unknown, a rule is no expression, or two claims have the same key. The
            message names the claim and, for an unknown name, the nearest one that exists.
    """
    try:
        entries = yaml.safe_load(path.read_text("utf8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    claims = [_claim(entry) for entry in entries]
    keys = [claim.key for claim in claims]
    if repeated := {key for key in keys if keys.count(key) > 1}:
        raise ValueError(f"{path}: several claims have the key {min(repeated)!r}")
    return tuple(claims)


def _claim(entry: Mapping[str, Any]) -> Claim:
    where = f"the claim {entry.get('key', entry)!r}"
    _check_fields(where, entry, _CLAIM_FIELDS, (*_CLAIM_FIELDS, *_SHARED, "evidence"))
    shared = {name: entry[name] for name in _SHARED if name in entry}
    tests = [_test(where, kind, shared | test) for kind, test in entry.get("evidence", {}).items()]
    return Claim(*(entry[name] for name in _CLAIM_FIELDS), tuple(tests))


def _test(claim: str, kind: str, entry: Mapping[str, Any]) -> Test:
    where = f"{claim} ({one_of(f'evidence of {claim}:', kind, EVIDENCE)})"
    _check_fields(where, entry, _TEST_FIELDS)
    function = MEASUREMENTS[one_of(f"measurement of {where}:", entry["measure"], MEASUREMENTS)]
    parameters = inspect.signature(function).parameters
    needed = [name for name, one in parameters.items() if one.default is one.empty]
    _check_fields(where, entry, needed, (*_TEST_FIELDS, "in_part", *parameters))
    for rule in ("holds", "in_part"):
        try:
            _names(entry.get(rule, "True"))
        except SyntaxError as error:
            raise ValueError(f"{where}: {rule} is no expression: {entry[rule]!r}") from error
    return Test(
        kind,
        partial(function, **{name: entry[name] for name in parameters if name in entry}),
        entry["words"],
        entry["holds"],
        entry.get("in_part", ""),
        where,
    )


def _check_fields(
    where: str, entry: Mapping[str, Any], needed: Iterable[str], known: Iterable[str] = ()
) -> None:
    """Refuse an entry that lacks a needed field or has a field that is not among those known."""
    for name in needed:
        if name not in entry:
            raise ValueError(f"{where} lacks the field {name!r}; it has: {', '.join(entry)}")
    for name in entry if known else ():
        one_of(f"field of {where}:", name, known)


def _names(rule: str) -> list[str]:
    """Return the names that an expression uses."""
    nodes = ast.walk(ast.parse(rule, mode="eval"))
    return [node.id for node in nodes if isinstance(node, ast.Name)]


def _is_true(rule: str, numbers: Mapping[str, float]) -> bool:
    # With empty globals the rule sees the numbers and none of this module's names.
    return bool(pd.eval(rule, engine="python", local_dict=dict(numbers), global_dict={}))


def table(verbose: bool = False) -> pd.DataFrame:
    """Return what the evidence says of every claim.

    Args:
        verbose: Whether to add the columns `key`, `chapter` and `supports`.

    Returns:
        One row per claim and kind of evidence, or a single row for a claim that is not testable
        here: `claim`, `section`, `evidence`, `verdict` (one of `VERDICTS`) and `numbers` (in
        words).
    """
    rows = []
    for claim in read():
        found = [(t.evidence, t.verdict(t.numbers), t.told()) for t in claim.tests]
        for evidence, verdict, numbers in found or [("", VERDICTS[-1], "")]:
            rows.append(
                {
                    "claim": claim.claim,
                    "section": claim.section,
                    "evidence": evidence,
                    "verdict": verdict,
                    "numbers": numbers,
                    "key": claim.key,
                    "chapter": claim.chapter,
                    "supports": claim.supports,
                }
            )
    frame = pd.DataFrame(rows)
    return frame if verbose else frame.loc[:, :"numbers"]


def verdict(key: str, evidence: str) -> str:
    """Return the verdict of one kind of evidence on a claim.

    Raises:
        KeyError: There is no such claim, or no such evidence on it.
    """
    test = _find(key, evidence)
    return test.verdict(test.numbers)


def numbers(key: str, evidence: str) -> Mapping[str, float]:
    """Return the numbers that one kind of evidence gives on a claim, by name.

    Raises:
        KeyError: There is no such claim, or no such evidence on it.
    """
    return _find(key, evidence).numbers


def _find(key: str, evidence: str) -> Test:
    for claim in read():
        for test in claim.tests:
            if (claim.key, test.evidence) == (key, evidence):
                return test
    raise KeyError(f"no {evidence} evidence on a claim {key!r}")


def report() -> str:
    """Return the verdicts as plain text, for a terminal."""
    lines = []
    for key, rows in table(verbose=True).groupby("key", sort=False):
        claim = rows.iloc[0]
        lines += textwrap.wrap(f"{key} ({claim['section']}): {claim['claim']}", 100)
        for row in rows.itertuples():
            told = f"  {row.evidence:<9}  {row.verdict:<13}  "
            wrapped = textwrap.wrap(
                row.numbers or "-", 100, initial_indent=told, subsequent_indent=" " * len(told)
            )
            lines += wrapped
        lines.append("")
    return "\n".join(lines)
