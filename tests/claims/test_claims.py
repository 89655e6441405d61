"""The ledger: verdicts follow from numbers, numbers from the data, and every claim can fail."""

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


# For each claim, numbers with which it must hold and with which it must not.
EXTREMES = {
    "more-languages": ({"unnamed": 5}, {"unnamed": 0}),
    "afrikaans": ({"ro": 9, "ms": 9, "no": 9}, {"ro": 0, "ms": 0, "no": 0}),
    "others-rise": ({"risen": 9, "of": 11}, {"risen": 0, "of": 11, "named": 0, "of_named": 18}),
    "consistency": (
        {"rho": 0.9, "all": 0.9, "named": 0.9},
        {"rho": 0.1, "all": 0.1, "named": 0.1},
    ),
    "not-instruction": ({"luo": 0, "ro": 9}, {"luo": 9, "ro": 9}),
    "selfless": ({"selfless": 9, "models": 10}, {"selfless": 0, "models": 10}),
    "quadrants": (
        {"agree": 50, "languages": 50, "populated": 4},
        {"agree": 10, "languages": 50, "populated": 1},
    ),
    "factor": ({"stagnant": 50, "languages": 50}, {"stagnant": 49, "languages": 50}),
    "mirror": ({"rho": 0.9, "same": 50, "models": 50}, {"rho": 0.1, "same": 5, "models": 50}),
    "stable": ({"same": 50, "languages": 50}, {"same": 5, "languages": 50}),
    "relatives": ({"inside": 0.9, "outside": 0.3}, {"inside": 0.4, "outside": 0.3}),
    "exposed": ({"inside": 0.9, "outside": 0.3}, {"inside": 0.3, "outside": 0.4}),
    "embed-bilingual": ({"least": -1, "worst_after": 0}, {"least": -1, "worst_after": -9}),
    "embed-multilingual": (
        {"gap": 30, "full": 5, "full_least": 20},
        {"gap": 0, "full": 5, "full_least": 20},
    ),
    "number-of-languages": (
        {"rise": 9, "pairs_times": 1, "embed_range": 1},
        {"rise": 0, "pairs_times": 1, "embed_range": 1},
    ),
    "bilingual-better": ({"difference": -2}, {"difference": 2}),
    "lower-layers": ({"low": 0, "high": -9}, {"low": -9, "high": 0}),
    "lower-together": ({"least": 0, "most": 0}, {"least": 9, "most": 9}),
    "understanding": ({"worst": 0, "best": 1}, {"worst": -9, "best": -5}),
    "error-types": (
        {
            "source_copy_before": 0.9,
            "source_copy_after": 0.1,
            "oscillation_after": 0.8,
            "off_target_after": 0,
        },
        {
            "source_copy_before": 0.9,
            "source_copy_after": 0.9,
            "oscillation_after": 0.1,
            "off_target_after": 0,
        },
    ),
    "overlap": ({"low": 0.1}, {"low": -0.1}),
    "little-data": (
        {"own": 9, "own_embed": 2, "others": 19, "others_best": 20},
        {"own": 1, "own_embed": 2, "others": 19, "others_best": 20},
    ),
    "over-tokenised": (
        {"over": 9, "stagnant": 10, "altruistic": 0.1},
        {"over": 1, "stagnant": 10, "altruistic": 0.1},
    ),
    "more-data": (
        {"least": 1, "rest_least": 20, "full": 1, "rest": 5},
        {"least": 30, "rest_least": 20, "full": 9, "rest": 5},
    ),
    "lora-stagnant": ({"lora": 1}, {"lora": 30}),
    "vocabulary": ({"better": 1, "settings": 66}, {"better": 60, "settings": 66}),
    "vocabulary-sp": ({"sp_best": 20, "groups": 24}, {"sp_best": 2, "groups": 24}),
    "one-prefix": (
        {"bytes": 1, "e0": 15, "languages": 15},
        {"bytes": 4, "e0": 2, "languages": 15},
    ),
    "lossless": ({"restored": 1}, {"restored": 0.99}),
    "shortening": (
        {"gain": 3, "predicted": 1, "low": 1},
        {"gain": -1, "predicted": 3, "low": -2},
    ),
}


@pytest.mark.parametrize(("claim", "test"), TESTS, ids=IDS)
def test_every_claim_can_hold_and_can_fail(claim, test):
    supporting, opposing = EXTREMES[claim.key]
    assert test.verdict(supporting) == "holds"
    assert test.verdict(opposing) == "does not hold"


@pytest.mark.parametrize(("claim", "test"), TESTS, ids=IDS)
def test_numbers_are_measured_told_and_judged(claim, test):
    """The verdict in the table is the one that the rule gives for numbers measured afresh."""
    numbers = test.measure()
    told = [name for _, name, _, _ in string.Formatter().parse(test.words) if name]
    assert told and set(told) <= set(numbers)
    row = claims.table().query("key == @claim.key and evidence == @test.evidence")
    assert row["verdict"].item() == test.verdict(numbers)
    assert row["numbers"].item() == test.words.format(**numbers)


def test_the_table():
    frame = claims.table()
    shown = ["claim", "section", "evidence", "verdict", "numbers", "key", "chapter", "supports"]
    assert list(frame) == shown
    assert frame["verdict"].isin(claims.VERDICTS).all()
    assert set(frame["evidence"]) <= {*claims.EVIDENCE, ""}
    untested = frame["verdict"] == "not testable here"
    assert ((frame["numbers"] == "") == untested).all()
    keys = [claim.key for claim in CLAIMS]
    assert len(set(keys)) == len(keys) and len(keys) >= 30
    assert {kind for c in CLAIMS for kind in [t.evidence for t in c.tests]} == set(claims.EVIDENCE)


def test_claims_point_to_chapters(root):
    for claim in CLAIMS:
        assert (root / f"notebooks/{claim.chapter}.ipynb").is_file()


def test_the_report_tells_every_verdict():
    report = claims.report()
    for claim in CLAIMS:
        assert f"{claim.key} ({claim.section}): " in report
    for test in (test for _, test in TESTS):
        assert f"  {test.evidence:<9}  {test.verdict(test.numbers):<13}  " in report
    assert "not testable here" in report


def test_verdicts_are_read_without_torch():
    script = (
        "import sys; from mlq_utils import claims;"
        "assert claims.read()[1].tests[0].numbers;"
        "heavy = {'torch', 'transformers', 'peft', 'accelerate'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# A file of claims that has one fault.

TESTED = {
    "source": {"frame": "shortening of LLaMA's tokens", "rows": "kind == 'one token'"},
    "numbers": {"bytes": {"distinct": "prefix_bytes"}, "languages": {"count": "language"}},
}
ENTRY = {
    "key": "one-prefix",
    "section": "4.3",
    "claim": "All characters begin with the same token.",
    "supports": "One first byte for all languages.",
    "chapter": "stagnant",
    "words": "{bytes} first bytes of {languages} languages",
    "holds": "bytes == 1",
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
    assert test.verdict(test.numbers) == "does not hold"


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
        ({"supports": None}, "the claim 'one-prefix' lacks the field 'supports'"),
        ({"holds": None}, f"{NAMED} lacks the field 'holds'"),
        ({"inpart": "e0 > 1"}, rf"unknown field of {NAMED}: 'inpart'\. Did you mean in_part\?"),
        (with_test(hold="bytes"), rf"unknown field of {NAMED}: 'hold'\. Did you mean holds"),
        ({"holds": "bytes = 1"}, f"the rule of {NAMED} is no expression: 'bytes = 1'"),
        (
            {"evidence": None, "words": None, "holds": None, "support": "One."},
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
        ({"holds": "byte == 1"}, rf"unknown number of {NAMED}: 'byte'\. Did you mean bytes\?"),
        ({"in_part": "byte > 1"}, rf"unknown number of {NAMED}: 'byte'\. Did you mean bytes\?"),
        ({"words": "{byte}"}, rf"unknown number of {NAMED}: 'byte'\. Did you mean bytes\?"),
        (
            with_test(numbers={"bytes": {"means": "kind"}}),
            rf"{NAMED} cannot be measured: unknown reduction 'means'\. Did you mean mean",
        ),
        (
            with_test(numbers={"bytes": {"distinct": "prefix_byte"}}),
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
        _ = claim.tests[0].numbers


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
    found = find("more-languages", "published").numbers
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
    risen = {t for t, v in sums.items() if sum(v) / 3 - before[t] > 5 and t != "ro"}
    found = find("others-rise", "trained").numbers
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
    found = find("quadrants", "trained").numbers
    assert all(found[name] == counts.get(name, 0) for name in quadrants.QUADRANTS)
