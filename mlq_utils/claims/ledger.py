"""The paper's claims, and the verdict of each kind of evidence on them.

No verdict is typed by hand: the rules in `claims.yaml` draw it from an effect, its interval and
other numbers. To add a claim, add an entry there. The first lines of the file explain the fields.
"""

import ast
import inspect
import string
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mlq_utils.claims.evidence import measure, select
from mlq_utils.claims.frames import FRAMES
from mlq_utils.data import PACKAGE_DATA, one_of
from mlq_utils.experiments import worlds
from mlq_utils.scoring.intervals import LEVEL, Resampled

CLAIMS_FILE = PACKAGE_DATA / "claims" / "claims.yaml"
STRANDS = {"published": "llama", "tokenizer": "llama", "trained": "toy"}
"""The strand of each kind of evidence: about LLaMA and other real models, or about the toy."""
EVIDENCE = tuple(STRANDS)
UNTESTED = "not testable here"
CONSTRUCTED = "not comparable, by construction"
# The words of each strand for: the claim holds, holds in part, does not hold, is undecided. The toy
# has words of its own, so that none reads as a verdict on LLaMA, and none for "in part".
_WORDS = {
    "llama": ("holds", "holds in part", "does not hold", "undecided"),
    "toy": ("seen in the toy", None, "not seen in the toy", "undecided in the toy"),
}
VERDICTS = (*_WORDS["llama"], UNTESTED, *filter(None, _WORDS["toy"]), CONSTRUCTED)
"""The verdicts on LLaMA, then those on the toy."""

_CLAIM_FIELDS = ("key", "section", "quote", "claim", "supports", "reason", "history", "chapter")
_TEST_FIELDS = ("source", "numbers", "measured", "resample", "words", "holds", "fails")
_OPTIONAL_FIELDS = ("in_part", "why", "constructed", "worlds")


@dataclass(frozen=True, eq=False)
class Test:
    """A test of a claim by one kind of evidence, with the fields that `claims.yaml` explains.

    `where` names the claim and the kind of evidence, for error messages.
    """

    evidence: str
    fields: Mapping[str, Any]
    where: str

    @property
    def rules(self) -> list[str]:
        """The expressions that say that the claim holds, holds in part and does not hold."""
        return [self.fields["holds"], self.fields.get("in_part", "False"), self.fields["fails"]]

    def verdict(self, numbers: Mapping[str, float]) -> str:
        """Return the verdict that the rules draw from these numbers, one of `VERDICTS`."""
        if "constructed" in self.fields:
            return CONSTRUCTED
        *words, undecided = _WORDS[STRANDS[self.evidence]]
        for word, rule in zip(words, self.rules, strict=True):
            if eval(rule, {"__builtins__": {}}, dict(numbers)):
                return word or undecided
        return undecided

    def judge(self, level: float = LEVEL) -> tuple[str, list[str]]:
        """Return the verdict and the languages without any one of which it would be another.

        If there are such languages, it is "undecided". `level` is that of the intervals.
        """
        verdict = self.verdict(self.sample.numbers(level))
        codes = self.sample.languages if verdict != CONSTRUCTED else []
        others = [c for c in codes if self.verdict(self.sample.numbers(level, c)) != verdict]
        return _WORDS[STRANDS[self.evidence]][-1] if others else verdict, others

    @cached_property
    def sample(self) -> Resampled:
        """The measured numbers; all names that the rules and the words use are among them."""
        try:
            sample = measure(*(self.fields[name] for name in ("source", "numbers", "resample")))
            known = sample.numbers()
        except (ValueError, KeyError, pd.errors.UndefinedVariableError) as error:
            raise ValueError(f"{self.where} cannot be measured: {error}") from error
        nodes = (node for rule in self.rules for node in ast.walk(ast.parse(rule)))
        used = [node.id for node in nodes if isinstance(node, ast.Name)]
        used += [name for _, name, _, _ in string.Formatter().parse(self.fields["words"]) if name]
        for name in used:
            one_of(f"number of {self.where}:", name, known)
        return sample

    def row(self, level: float, others: pd.DataFrame) -> dict[str, Any]:
        """Return what `table` says of this test alone, given `worlds.table`."""
        numbers = self.sample.numbers(level)
        verdict, languages = self.judge(level)
        why = self.fields.get("constructed") or self.fields.get("why", "")
        return {
            "strand": STRANDS[self.evidence],
            "evidence": self.evidence,
            "verdict": verdict,
            "measured": self.fields["measured"],
            **{name: numbers[name] for name in ("effect", "low", "high")},
            "numbers": self.fields["words"].format(**numbers),
            "why": why if verdict != _WORDS["toy"][0] else "",
            "decided_by": " ".join(languages),
            "worlds": worlds.seen(rule, others) if (rule := self.fields.get("worlds")) else "",
        }


@dataclass(frozen=True)
class Claim:
    """A claim of the paper: its fields, which `claims.yaml` explains, and its tests."""

    key: str
    fields: Mapping[str, str]
    tests: tuple[Test, ...]


@cache
def read(path: Path = CLAIMS_FILE) -> tuple[Claim, ...]:
    """Return the claims of a YAML file, with their tests.

    A fault in the file is a `ValueError` that names the claim and the nearest name that exists.
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
    kinds = entry.get("evidence", {})
    strands = {STRANDS[one_of(f"evidence of {where}:", kind, EVIDENCE)] for kind in kinds}
    # Without evidence about LLaMA, a claim says what is missing.
    own = _CLAIM_FIELDS if "llama" in strands else (*_CLAIM_FIELDS, "untested")
    _check_fields(where, entry, own, () if kinds else own)
    # What is neither a field of the claim nor its evidence is shared by its tests.
    shared = {name: entry[name] for name in entry if name not in (*own, "evidence")}
    tests = tuple(_test(where, kind, shared | (test or {})) for kind, test in kinds.items())
    fields = {name: entry[name] for name in own} | {"history": " ".join(entry["history"])}
    return Claim(entry["key"], fields, tests)


def _test(claim: str, kind: str, entry: Mapping[str, Any]) -> Test:
    where = f"{claim} ({kind})"
    _check_fields(where, entry, _TEST_FIELDS, (*_TEST_FIELDS, *_OPTIONAL_FIELDS))
    source = entry["source"]
    _check_fields(f"the source of {where}", source, ["frame"], inspect.signature(select).parameters)
    one_of(f"frame of {where}:", source["frame"], FRAMES)
    test = Test(kind, entry, where)
    for rule in test.rules:
        try:
            ast.parse(rule, mode="eval")
        except SyntaxError as error:
            raise ValueError(f"the rule of {where} is no expression: {rule!r}") from error
    return test


def _check_fields(
    where: str, entry: Mapping[str, Any], needed: Iterable[str], known: Iterable[str] = ()
) -> None:
    """Refuse an entry that lacks a needed field, or has one that is not among those known."""
    for name in needed:
        if name not in entry:
            raise ValueError(f"{where} lacks the field {name!r}; it has: {', '.join(entry)}")
    for name in entry if known else ():
        one_of(f"field of {where}:", name, known)


def table(level: float = LEVEL) -> pd.DataFrame:
    """Return what the evidence says of every claim.

    Args:
        level: Level of confidence of the intervals. Defaults to 0.95.

    Returns:
        One row per claim and kind of evidence: the claim's fields, `strand` ("llama" or "toy"),
        `evidence`, `verdict` (one of `VERDICTS`), `effect` with its interval (`low` to `high`) and
        what it is (`measured`), `numbers` (in words), `why` the toy differs, where it does,
        `decided_by`, the languages without any one of which the verdict would be another, and in
        how many `worlds` the toy shows the like. A claim without evidence about LLaMA has a row
        whose `numbers` say what is missing.
    """
    rows, others = [], worlds.table()
    for claim in read():
        found = [test.row(level, others) for test in claim.tests]
        if "untested" in claim.fields:
            missing = {"strand": "llama", "verdict": UNTESTED, "numbers": claim.fields["untested"]}
            found.insert(0, missing)
        rows += [dict(claim.fields) | row for row in found]
    frame = pd.DataFrame(rows).drop(columns="untested", errors="ignore")
    return frame.fillna(dict.fromkeys(frame.columns.drop(["effect", "low", "high"]), ""))


def report() -> str:
    """Return the claims and the verdicts on them as plain text, for a terminal."""
    lines = []
    wrapped = partial(textwrap.wrap, width=100, initial_indent="  ", subsequent_indent="    ")
    for key, rows in table().groupby("key", sort=False):
        first = rows.iloc[0]
        lines += ["", *textwrap.wrap(f"{key} ({first['section']}): {first['claim']}", 100)]
        lines += wrapped(f"“{first['quote']}”")
        for row in rows.itertuples():
            strand = {"llama": "LLaMA", "toy": "The toy"}[row.strand]
            turned = (
                f" Leaving out any one of {row.decided_by} changes it." if row.decided_by else ""
            )
            lines += wrapped(f"{strand}: {row.verdict}; {row.numbers}.{turned} {row.why}".strip())
    return "\n".join(lines[1:])
