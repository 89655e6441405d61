"""The paper's claims, and the verdict of each kind of evidence on them.

No verdict is typed by hand. For each kind of evidence, `claims.yaml` says which numbers are
measured, which of them is the effect that the claim is about, and gives rules that draw the verdict
from the effect, its interval and the other numbers. To add a claim, add an entry there. The first
lines of the file explain the fields.
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
from mlq_utils.claims.resampling import LEVEL, Measured
from mlq_utils.data import PACKAGE_DATA, one_of

CLAIMS_FILE = PACKAGE_DATA / "claims" / "claims.yaml"
STRANDS = {"published": "llama", "tokenizer": "llama", "trained": "toy"}
"""The strand of each kind of evidence: about LLaMA and other real models, or about the toy."""
EVIDENCE = tuple(STRANDS)
UNTESTED = "not testable here"
CONSTRUCTED = "not comparable, by construction"
# The toy's verdicts have words of their own, so that none reads as one on LLaMA. It has none for
# "in part": what holds of it in part is left undecided.
_WORDS = {
    "llama": {rule: rule for rule in ("holds", "holds in part", "does not hold", "undecided")},
    "toy": {
        "holds": "seen in the toy",
        "does not hold": "not seen in the toy",
        "undecided": "undecided in the toy",
    },
}
VERDICTS = (*_WORDS["llama"], UNTESTED, *_WORDS["toy"].values(), CONSTRUCTED)
"""The verdicts: those on LLaMA, then those on the toy."""
COLUMNS = (
    "key", "claim", "quote", "section", "strand", "evidence", "verdict", "measured", "effect",
    "low", "high", "numbers", "why", "decided_by", "chapter", "supports", "reason", "history",
)  # fmt: skip
"""The columns of `table`."""

_CLAIM_FIELDS = (
    "key", "section", "quote", "claim", "supports", "reason", "history", "chapter",
)  # fmt: skip
_TEST_FIELDS = ("source", "numbers", "measured", "resample", "words", "holds", "fails")
_OPTIONAL_FIELDS = ("in_part", "why", "constructed")


@dataclass(frozen=True, eq=False)
class Test:
    """A test of a claim by one kind of evidence, with the fields that `claims.yaml` explains.

    Attributes:
        measure: The function that measures the numbers, with their bootstrap samples.
        rules: The expressions of the verdicts, in the order in which they are tried.
        why: Why the toy differs from the paper, if it does.
        constructed: Why the toy's text alone decides, so that it cannot be compared, if it does.
        where: The claim and the kind of evidence, for error messages.
    """

    evidence: str
    measure: Callable[[], Measured]
    measured: str
    words: str
    rules: Mapping[str, str]
    why: str
    constructed: str
    where: str

    def verdict(self, numbers: Mapping[str, float]) -> str:
        """Return the verdict that these numbers give, one of `VERDICTS`."""
        words = _WORDS[STRANDS[self.evidence]]
        if self.constructed:
            return CONSTRUCTED
        # Without builtins a rule sees the numbers alone.
        found = [word for word, rule in self.rules.items() if eval(rule, {}, dict(numbers))]
        return words.get(found[0], words["undecided"]) if found else words["undecided"]

    def judge(self, level: float = LEVEL) -> tuple[str, list[str]]:
        """Return the verdict, and the languages without any one of which it would be another.

        If there are such languages, the verdict is "undecided".

        Args:
            level: Level of confidence of the intervals. Defaults to 0.95.
        """
        verdict = self.verdict(self.sample.numbers(level))
        others = [
            name
            for name in self.sample.absent
            if self.verdict(self.sample.numbers(level, without=name)) != verdict
        ]
        return _WORDS[STRANDS[self.evidence]]["undecided"] if others else verdict, others

    @cached_property
    def sample(self) -> Measured:
        """The measured numbers with their bootstrap samples.

        Raises:
            ValueError: The source, a rule or the words use a name that does not exist.
        """
        try:
            sample = self.measure()
        except (ValueError, KeyError, pd.errors.UndefinedVariableError) as error:
            raise ValueError(f"{self.where} cannot be measured: {error}") from error
        nodes = (node for rule in self.rules.values() for node in ast.walk(ast.parse(rule)))
        used = [node.id for node in nodes if isinstance(node, ast.Name)]
        used += [name for _, name, _, _ in string.Formatter().parse(self.words) if name]
        known = sample.numbers()
        for name in used:
            one_of(f"number of {self.where}:", name, known)
        return sample


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, with the fields that `claims.yaml` explains."""

    key: str
    section: str
    quote: str
    claim: str
    supports: str
    reason: str
    history: str
    chapter: str
    untested: str = ""
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
    kinds = entry.get("evidence", {})
    about_llama = [kind for kind in kinds if STRANDS.get(kind) == "llama"]
    own = (*_CLAIM_FIELDS, *(() if about_llama else ("untested",)))
    _check_fields(where, entry, own)
    if not kinds:
        _check_fields(where, entry, (), own)
    # What is neither a field of the claim nor its evidence is shared by its tests.
    shared = {name: entry[name] for name in entry if name not in (*own, "evidence")}
    tests = tuple(_test(where, kind, shared | (test or {})) for kind, test in kinds.items())
    fields = {name: entry[name] for name in own}
    return Claim(**fields | {"history": " ".join(entry["history"]), "tests": tests})


def _test(claim: str, kind: str, entry: Mapping[str, Any]) -> Test:
    where = f"{claim} ({one_of(f'evidence of {claim}:', kind, EVIDENCE)})"
    _check_fields(where, entry, _TEST_FIELDS)
    _check_fields(where, entry, (), (*_TEST_FIELDS, *_OPTIONAL_FIELDS))
    source = entry["source"]
    _check_fields(f"the source of {where}", source, ["frame"], inspect.signature(select).parameters)
    one_of(f"frame of {where}:", source["frame"], FRAMES)
    rules = {
        "holds": entry["holds"],
        "holds in part": entry.get("in_part", "False"),
        "does not hold": entry["fails"],
    }
    for rule in rules.values():
        try:
            ast.parse(rule, mode="eval")
        except SyntaxError as error:
            raise ValueError(f"the rule of {where} is no expression: {rule!r}") from error
    how = [source, entry["numbers"], entry["resample"]]
    texts = [entry.get(name, "") for name in ("why", "constructed")]
    return Test(
        kind, partial(measure, *how), entry["measured"], entry["words"], rules, *texts, where
    )


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
        level: Level of confidence of the intervals. Defaults to 0.95. With a higher one, such as
            Bonferroni's for many tests, more verdicts are "undecided".

    Returns:
        One row per claim and kind of evidence, with the columns `COLUMNS`. `strand` is "llama" or
        "toy". `effect` is what `measured` says in words, with its interval from `low` to `high`.
        `why` says why the toy differs, where it does. `decided_by` has the codes of the languages
        without any one of which the verdict would be another. A claim of which no evidence about
        LLaMA is at hand has a row for that, whose `numbers` say what is missing.
    """
    rows = []
    for claim in read():
        start = dict.fromkeys(COLUMNS, "") | dict.fromkeys(("effect", "low", "high"))
        start |= {name: value for name, value in vars(claim).items() if name in COLUMNS}
        if claim.untested:
            missing = {"strand": "llama", "verdict": UNTESTED, "numbers": claim.untested}
            rows.append(start | missing)
        rows += [start | _row(test, level) for test in claim.tests]
    return pd.DataFrame(rows)[list(COLUMNS)]


def _row(test: Test, level: float) -> dict[str, Any]:
    numbers = test.sample.numbers(level)
    verdict, others = test.judge(level)
    seen = verdict == _WORDS["toy"]["holds"]
    return {
        "strand": STRANDS[test.evidence],
        "evidence": test.evidence,
        "verdict": verdict,
        "measured": test.measured,
        **{name: numbers[name] for name in ("effect", "low", "high")},
        "numbers": test.words.format(**numbers),
        "why": "" if seen else test.constructed or test.why,
        "decided_by": " ".join(others),
    }


def report() -> str:
    """Return the claims and the verdicts on them as plain text, for a terminal."""
    lines = []
    names = {"llama": "LLaMA", "toy": "the toy"}
    for key, rows in table().groupby("key", sort=False):
        section, claim, quote = rows[["section", "claim", "quote"]].iloc[0]
        lines += ["", *textwrap.wrap(f"{key} ({section}): {claim}", 100)]
        lines += textwrap.wrap(f'"{quote}"', 100, initial_indent="  ", subsequent_indent="  ")
        for row in rows.itertuples():
            told = row.numbers[:1].upper() + row.numbers[1:]
            if row.decided_by:
                told += f". Without {row.decided_by} it would be decided otherwise"
            start = f"  {names[row.strand]}: {row.verdict}. "
            text = f"{start}{told}. {row.why}".strip()
            lines += textwrap.wrap(text, 100, subsequent_indent="    ")
    return "\n".join(lines[1:])
