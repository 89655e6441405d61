"""The ledger: verdicts follow from numbers, numbers from the data, and every claim can fail."""

import os
import pathlib
import re
import string
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from mlq_utils import claims, paper, quadrants
from mlq_utils.experiments import studies
from mlq_utils.languages import table as all_languages

CLAIMS = claims.read()
TESTS = [(claim, test) for claim in CLAIMS for test in claim.tests]
IDS = [f"{claim.key}-{test.evidence}" for claim, test in TESTS]


def find(key, evidence):
    """Return the test of a claim by one kind of evidence."""
    (test,) = [t for claim, t in TESTS if (claim.key, t.evidence) == (key, evidence)]
    return test


def interval(effect, low, high, **others):
    """Return numbers as a test measures them; those not given do not matter to the rule."""
    return {"effect": effect, "low": low, "high": high} | others


# For each claim, numbers with which it must hold and with which it must not. Most rules
# read the interval alone.
ABOVE = (interval(0.9, 0.8, 0.95), interval(-0.9, -0.95, -0.8))
BELOW = (interval(-0.9, -0.95, -0.8), interval(0.9, 0.8, 0.95))
NONE_LEFT = (interval(1, 1, 1), interval(0.5, 0.3, 0.7))
EXTREMES = {
    "more-languages": ABOVE,
    "afrikaans": ABOVE,
    "others-rise": ABOVE,
    "consistency": (interval(0.9, 0.8, 0.95, beyond_low=0.1), interval(0.1, 0, 0.3, beyond_low=0)),
    "not-instruction": (interval(0.1, 0, 0.2), interval(0.9, 0.8, 1)),
    "selfless": (interval(0.9, 0.8, 1), interval(0.1, 0, 0.2)),
    "quadrants": (interval(1, 1, 1), interval(0.5, 0.4, 0.6)),
    "factor": NONE_LEFT,
    "mirror": (
        interval(0.9, 0.8, 0.95, same_low=0.95, same_high=1),
        interval(0.1, 0, 0.3, same_low=0.2, same_high=0.4),
    ),
    "stable": (interval(0.9, 0.8, 1), interval(0.1, 0, 0.2)),
    "relatives": (
        interval(0.5, 0.4, 0.6, inside_low=0.8, inside_high=0.9),
        interval(0.1, 0, 0.2, inside_low=0.2, inside_high=0.3),
    ),
    "exposed": ABOVE,
    "embed-bilingual": (interval(0, -0.02, 0.02), interval(-0.2, -0.3, -0.1)),
    "embed-little": (interval(-0.06, -0.1, -0.02), interval(-0.3, -0.4, -0.2)),
    "embed-multilingual": (
        interval(0.5, 0.4, 0.6, loss_low=-9, loss_high=-5),
        interval(0, -0.1, 0.1, loss_low=-9, loss_high=-5),
    ),
    "number-of-languages": (
        interval(0.3, 0.2, 0.4, budgets=1)
        | {f"step_{n}_{side}": 0.1 for n in (4, 8, 16) for side in ("low", "high")},
        interval(0, 0, 0.01, budgets=1)
        | {f"step_{n}_{side}": 0.0 for n in (4, 8, 16) for side in ("low", "high")},
    ),
    "embed-number": (interval(0, -0.01, 0.01), interval(0.3, 0.2, 0.4)),
    "bilingual-better": (interval(-0.06, -0.1, -0.02), interval(0.1, 0.05, 0.2)),
    "lower-layers": (
        interval(0, -0.02, 0.02, higher_low=-0.7, higher_high=-0.5),
        interval(-0.3, -0.4, -0.2, higher_low=0, higher_high=0),
    ),
    "lower-together": BELOW,
    "understanding": (interval(0, -1, 1, bare_high=-5), interval(-5, -6, -4, bare_high=-5)),
    "flores": (interval(0, -0.01, 0.01), interval(-0.2, -0.3, -0.1)),
    "more-effective": (interval(0.2, 0.1, 0.3), interval(0, -0.01, 0.01)),
    "error-types": (
        interval(0.1, 0, 0.2, more_low=0.5, more_high=0.8),
        interval(0.9, 0.8, 1, more_low=-0.8, more_high=-0.5),
    ),
    "overlap": (interval(0.6, 0.4, 0.8), interval(0, -0.2, 0.2)),
    "english-majority": (interval(0.8, 0.7, 0.9), interval(0.1, 0, 0.2)),
    "little-data": (
        interval(0, -0.1, 0.1, own_low=0.1, own_high=0.3, rates=2),
        interval(0, -0.1, 0.1, own_low=-0.3, own_high=-0.1, rates=2),
    ),
    "altruistic-strategies": (interval(0.8, 0.7, 0.9), interval(0.1, 0, 0.2)),
    "embed-grows": (
        interval(0.5, 0.4, 0.6, own_low=-0.01, own_high=0.01),
        interval(0, -0.1, 0.1, own_low=-0.01, own_high=0.01),
    ),
    "full-overfits": BELOW,
    "over-tokenised": (
        interval(0.8, 0.7, 0.9, beyond_low=0.3),
        interval(0.2, 0.1, 0.3, beyond_low=0.1),
    ),
    "over-tokenised-models": (interval(1, 0.95, 1), interval(0.2, 0.1, 0.3)),
    "more-data": BELOW,
    "modest-gain": BELOW,
    "lora-stagnant": BELOW,
    "stagnant-inert": (interval(0, -0.1, 0.1), interval(-0.8, -0.9, -0.7)),
    "selfish-default": (interval(0.8, 0.7, 0.9), interval(0.1, 0, 0.2)),
    "vocabulary": BELOW,
    "vocabulary-sp": (interval(0.8, 0.7, 0.9), interval(0.1, 0, 0.2)),
    "data-quality": (interval(0.01, 0, 0.02), interval(0.2, 0.1, 0.3)),
    "one-prefix": (interval(1, 1, 1, bytes=1), interval(0.1, 0, 0.2, bytes=4)),
    "lossless": NONE_LEFT,
    "shortening": (interval(0.2, 0.1, 0.3, gain_low=1), interval(-0.2, -0.3, -0.1, gain_low=-2)),
    "overtokenised-share": (
        interval(0, -0.02, 0.02),
        interval(-0.4, -0.5, -0.3, share_low=0.2, share_high=0.3),
    ),
}
EXTREMES["mirror-known"] = EXTREMES["mirror"]
EXTREMES["overlap-english"] = EXTREMES["overlap"]
EXTREMES["shortening"][1]["gain_high"] = -1
HOLDS = {"holds", "seen in the toy"}
FAILS = {"does not hold", "not seen in the toy"}
WORDS = {
    "llama": {"holds", "holds in part", "does not hold", "undecided", "not testable here"},
    "toy": {
        "seen in the toy",
        "not seen in the toy",
        "undecided in the toy",
        "not comparable, by construction",
    },
}


@pytest.mark.parametrize(("claim", "test"), TESTS, ids=IDS)
def test_every_claim_can_hold_and_can_fail(claim, test):
    judged = [test.verdict(numbers) for numbers in EXTREMES[claim.key]]
    if "constructed" in test.fields:
        assert test.evidence == "trained"
        assert set(judged) == {"not comparable, by construction"}
    else:
        assert judged[0] in HOLDS and judged[1] in FAILS


@pytest.mark.parametrize(("claim", "test"), TESTS, ids=IDS)
def test_an_interval_that_tells_nothing_is_undecided(claim, test):
    wide = dict.fromkeys([*test.sample.numbers()], 0.0)
    wide |= {
        name: -9.0 if name.endswith("low") else 9.0 for name in wide if re.search("low|high", name)
    }
    wide |= {"effect": 0.29}
    unsampled = ("quadrants", "factor", "lossless", "one-prefix")  # all rows are known
    if claim.key not in unsampled and "constructed" not in test.fields:
        assert test.verdict(wide).startswith("undecided")


def test_a_verdict_that_hangs_on_one_language_is_undecided(tmp_path):
    effect = {"mean": "(language == 'km') * 100 - 1"}
    numbers = {
        "bytes": {"nunique": "language"},
        "languages": {"count": "language"},
        "effect": effect,
    }
    rules = {"holds": "effect > 0", "fails": "effect <= 0"}
    (claim,) = faulty(tmp_path, **rules, **with_test(numbers=numbers))
    (test,) = claim.tests
    assert test.verdict(test.sample.numbers()) == "holds"
    verdict, others = test.judge()
    assert verdict == "undecided" and others == ["km"]


@pytest.fixture(scope="module")
def ledger():
    return claims.table()


@pytest.mark.parametrize(("claim", "test"), TESTS, ids=IDS)
def test_numbers_are_measured_told_and_judged(claim, test, ledger):
    """The row in the table is what the rules say of the numbers."""
    numbers = test.sample.numbers()
    assert not [name for name in test.fields["numbers"] if name.endswith(("_low", "_high"))]
    told = [name for _, name, _, _ in string.Formatter().parse(test.fields["words"]) if name]
    assert told and set(told) <= set(numbers)
    row = ledger.query("key == @claim.key and evidence == @test.evidence").iloc[0]
    verdict, others = test.judge()
    assert row["verdict"] == verdict and row["decided_by"] == " ".join(others)
    assert row["numbers"] == test.fields["words"].format(**numbers)
    assert row["low"] <= row["effect"] <= row["high"] or len(test.sample.languages) < 4
    if row["strand"] == "toy":
        assert bool(row["why"]) == (verdict != "seen in the toy")


def test_the_table(ledger):
    needed = (
        "key claim quote section strand evidence verdict measured effect low high numbers why "
        "decided_by worlds chapter supports reason history"
    )
    assert set(needed.split()) == set(ledger)
    for strand, rows in ledger.groupby("strand"):
        assert set(rows["verdict"]) <= WORDS[strand]
        assert set(rows["evidence"]) - {""} <= {k for k, v in claims.STRANDS.items() if v == strand}
    assert {*WORDS["llama"], *WORDS["toy"]} == set(claims.VERDICTS)
    untested = ledger["verdict"] == "not testable here"
    assert ((ledger["evidence"] == "") == untested).all() and ledger["numbers"].all()
    # Each claim has a verdict on LLaMA, or says why not.
    assert set(ledger.query("strand == 'llama'")["key"]) == set(ledger["key"])
    keys = [claim.key for claim in CLAIMS]
    assert len(set(keys)) == len(keys) and len(keys) >= 38
    assert {kind for c in CLAIMS for kind in [t.evidence for t in c.tests]} == set(claims.EVIDENCE)


def test_a_higher_level_of_confidence_decides_less(ledger):
    strict = claims.table(level=0.999)
    changed = strict["verdict"] != ledger["verdict"]
    assert strict["high"].ge(ledger["high"] - 1e-9)[ledger["high"].notna()].all()
    assert changed.sum() < len(ledger) / 4


def test_quotes_are_the_papers_words():
    path = pathlib.Path(os.environ.get("MLQ_DATA", ".")).parent / "paper.txt"
    if not path.is_file():
        pytest.skip("the text of the paper, paper.txt, is not beside the folder MLQ_DATA")

    def words(text):
        """Drop footnotes, line numbers, hyphens and white space, which the scan has anywhere."""
        text = re.sub(r"<sup>.*?</sup>|\b\d{3,4}\b|\$", "", text).replace(r"\rightarrow", "→")
        return re.sub(r"[\s*-]+", "", text).replace("’", "'")

    printed = words(path.read_text("utf8"))
    assert not [c.key for c in CLAIMS if words(c.fields["quote"]) not in printed]


def test_claims_point_to_chapters(root):
    for claim in CLAIMS:
        assert (root / f"notebooks/{claim.fields['chapter']}.ipynb").is_file()


def test_the_report_tells_every_verdict(ledger):
    report = claims.report()
    for row in ledger.itertuples():
        strand = {"llama": "LLaMA", "toy": "The toy"}[row.strand]
        assert f"{row.key} ({row.section}): " in report
        assert f"\n  {strand}: {row.verdict}; " in report
    assert max(map(len, report.splitlines())) <= 100


def test_verdicts_are_read_without_torch():
    script = (
        "import sys; from mlq_utils import claims;"
        "assert claims.read()[1].tests[0].sample.numbers();"
        "heavy = {'torch', 'transformers', 'peft', 'accelerate'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# A file of claims with one entry.

TESTED = {
    "source": {"frame": "shortening of LLaMA's tokens", "rows": "kind == 'one token'"},
    "numbers": {
        "bytes": {"nunique": "prefix_bytes"},
        "languages": {"count": "language"},
        "effect": {"mean": "prefix_bytes == 'e0'"},
    },
}
ENTRY = {
    "key": "one-prefix",
    "section": "4.3",
    "quote": "begin with the same token",
    "claim": "All characters begin with the same token.",
    "supports": "One first byte for all languages.",
    "reason": "The claim is about all.",
    "history": ["Written for this test."],
    "chapter": "stagnant",
    "measured": "share of languages",
    "resample": ["language"],
    "words": "{bytes} first bytes of {languages} languages",
    "holds": "bytes == 1",
    "fails": "bytes > 1",
    "evidence": {"tokenizer": TESTED},
}


def faulty(tmp_path, **changes):
    """Read a file with the one claim `ENTRY`; a field that is None in `changes` is left out."""
    entry = {name: value for name, value in (ENTRY | changes).items() if value is not None}
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump([entry]), "utf8")
    return claims.read(path)


def test_a_file_without_a_fault(tmp_path):
    (claim,) = faulty(tmp_path)
    (test,) = claim.tests
    assert test.judge() == ("does not hold", [])


def with_test(**changes):
    """Return changes to `ENTRY` that change its one test."""
    test = {name: value for name, value in (TESTED | changes).items() if value is not None}
    return {"evidence": {"tokenizer": test}}


NAMED = r"the claim 'one-prefix' \(tokenizer\)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            with_test(source={"frame": "mixture"}),
            rf"unknown frame of {NAMED}: 'mixture'\. Did you mean mixtures",
        ),
        (
            with_test(source=TESTED["source"] | {"row": "language == 'km'"}),
            rf"unknown field of the source of {NAMED}: 'row'\. Did you mean rows\?",
        ),
        (with_test(source={"rows": "size > 1"}), f"the source of {NAMED} lacks the field 'frame'"),
        (
            {"evidence": {"tokeniser": TESTED}},
            "unknown evidence of the claim 'one-prefix': 'tokeniser'. Did you mean tokenizer?",
        ),
        (with_test(source=None), f"{NAMED} lacks the field 'source'"),
        (with_test(numbers=None), f"{NAMED} lacks the field 'numbers'"),
        ({"evidence": {"trained": TESTED}}, "the claim 'one-prefix' lacks the field 'untested'"),
        ({"supports": None}, "the claim 'one-prefix' lacks the field 'supports'"),
        ({"holds": None}, f"{NAMED} lacks the field 'holds'"),
        ({"inpart": "e0 > 1"}, rf"unknown field of {NAMED}: 'inpart'\. Did you mean in_part\?"),
        (with_test(hold="bytes"), rf"unknown field of {NAMED}: 'hold'\. Did you mean holds"),
        ({"holds": "bytes = 1"}, f"the rule of {NAMED} is no expression: 'bytes = 1'"),
        (
            {name: None for name in ("evidence", "words", "holds", "fails", "measured", "resample")}
            | {"untested": "The text is missing", "support": "One."},
            r"unknown field of the claim 'one-prefix': 'support'\. Did you mean supports\?",
        ),
    ],
)
def test_a_faulty_file_is_refused_before_anything_is_measured(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        faulty(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"holds": "byte == 1"}, rf"unknown number of {NAMED}: 'byte'\. Did you mean bytes"),
        ({"in_part": "byte > 1"}, rf"unknown number of {NAMED}: 'byte'\. Did you mean bytes"),
        ({"words": "{byte}"}, rf"unknown number of {NAMED}: 'byte'\. Did you mean bytes"),
        (
            with_test(numbers={"effect": {"means": "kind"}}),
            rf"{NAMED} cannot be measured: unknown reduction 'means'\. Did you mean mean",
        ),
        (
            with_test(numbers={"effect": {"nunique": "prefix_byte"}}),
            f"{NAMED} cannot be measured: name 'prefix_byte' is not defined",
        ),
        (
            with_test(source=TESTED["source"] | {"by": "languages"}),
            f"{NAMED} cannot be measured: 'languages'",
        ),
    ],
)
def test_a_name_that_is_not_in_the_data(tmp_path, changes, message):
    (claim,) = faulty(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        _ = claim.tests[0].sample


def test_two_claims_with_one_key(tmp_path):
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump([ENTRY, ENTRY]), "utf8")
    with pytest.raises(ValueError, match="several claims have the key 'one-prefix'"):
        claims.read(path)


def test_a_file_that_is_no_yaml(tmp_path):
    path = tmp_path / "claims.yaml"
    path.write_text("- key: [", "utf8")
    with pytest.raises(ValueError, match=r"claims\.yaml is not valid YAML"):
        claims.read(path)


# Some of the numbers by another way.


def test_supported_languages_by_hand():
    rows = paper.table(9)
    named = set(all_languages().query("pretraining")["code"])
    risen = [r.target for r in rows.itertuples() if r.alpaca - r.llama > 4.95]
    found = find("more-languages", "published").sample.numbers()
    assert found["unnamed"] == len(set(risen) - named) and found["risen"] == 26


def test_trained_numbers_by_hand():
    """A brute-force count over the shipped records."""
    import json

    from mlq_utils import experiments

    def records(name):
        lines = (experiments.SHIPPED / f"{name}.jsonl").read_text("utf8").splitlines()
        return [json.loads(line) for line in lines]

    (untuned,) = records("untuned")
    before = {s["target"]: s["spbleu"] for s in untuned["scores"]}
    sums = {}
    for record in records("every_target"):
        if record["spec"]["languages"] == ["ro"]:
            for score in record["scores"]:
                sums.setdefault(score["target"], []).append(score["spbleu"])
    eighth = max(s["spbleu"] for r in records("every_target") for s in r["scores"]) / 8
    risen = {t for t, v in sums.items() if sum(v) / 3 - before[t] > eighth and t != "ro"}
    found = find("others-rise", "trained").sample.numbers()
    assert found["risen"] == len(risen) and found["of"] == len(sums) - 1 == 97


def test_the_mini_quadrants_are_those_of_the_means():
    untuned = studies.scores("untuned")
    scores = quadrants.trained(untuned, studies.scores("by_language"))
    by_hand = {}
    level = untuned["spbleu"].mean()
    for code, rows in scores.groupby("language"):
        own = rows["bilingual_post"].mean() > 2 * max(level, rows["bilingual_pre"].iloc[0])
        help_ = rows["multilingual_post"].mean() > 2 * max(level, rows["multilingual_pre"].iloc[0])
        by_hand[code] = {(1, 1): "reciprocal", (0, 1): "altruistic", (1, 0): "selfish"}.get(
            (int(own), int(help_)), "stagnant"
        )
    counts = pd.Series(by_hand).value_counts()
    found = find("quadrants", "trained").sample.numbers()
    assert all(found[name] == counts.get(name, 0) for name in quadrants.QUADRANTS)
