"""The paper's tables: what is printed is what is held, and damage is refused."""

import shutil

import pandas as pd
import pytest

from benchmarks import record_published
from mlq_utils import paper, tokenization

ALL = range(1, 17)

# Lines as the paper prints them, typed anew: table, the rows meant, the values in print order.
PRINTED = [
    (1, "tuned_on == 'ns'", [3.3, 7.9, 22.6, 1.4, 15.3]),
    (3, "strategy == 'embed' and n_languages == 8 and target in ['hr', 'nl', 'AVG']",
     [20.3, 24.5, 28.3]),
    (3, "setting == 'bilingual' and size == 80000 and target in ['hr', 'AVG']", [22.4, 29.1]),
    (4, "strategy == 'untuned'", [1.9, 3.6, 2.4, 3.6, 0.26, 3.6, 1.5, 3.6]),
    (4, "strategy == 'full' and size == 20000",
     [18.5, 22.3, 8.3, 9.3, 6.9, 22.9, 11.2, 18.2]),
    (5, "target == 'mr'", [0.3, 5.0, 7.2, 10.7, 13.7, 15.8, 1.8, 1.9, 2.2, 2.0, 1.7]),
    (6, "target == 'km' and source == 'mC4' and method == 'SP'", [6.2, 11.8, 10.3]),
    (6, "target == 'gu' and source == 'mC4' and method == 'BPE'", [0.4, 0.2, 0.3]),
    (7, "setting == 'shorten'", [12.6, 9.2, 11.3, 21.5, 13.7]),
    (7, "setting == 'ratio'", [47.6, 67.0, 66.8, 73.8, 63.8]),
    (12, "tuned_on == 'ur'", [0.6, 0.9, 0.5, 0.3, 0, 1.0, 0, 0.7, 0, 0, 0.6, 0.4, 0]),
    (12, "tuned_on == 'fr'",
     [2.2, 2.9, 2.7, 2.3, 0.4, 2.9, 2.6, 9.5, 18.4, 0.5, 1.6, 1.8, 36.8]),
    (13, "target == 'lo'", [1.8, 1.5, 2.3, 3.7, 7.1, 9.8, 0.4, 0.7, 0.7, 0.6, 0.7]),
    (14, "layer == 17", [19.0, 21.0, 23.1, 23.6, 22.1, 20.2, 11.1, 5.0, 18.1]),
    (15, "strategy == 'layers 0-14' and size == 160000",
     [35.5, 39.3, 27.0, 30.1, 19.7, 25.9, 39.4, 31.3, 39.9, 25.2, 24.6, 30.7]),
    (16, "model == 'LLaMA-7B' and strategy == 'untuned'",
     [53.9, 5.8, 55.5, 53.2, 37.1, 4.4, 35.0]),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the tables that a test may damage."""
    copy = tmp_path / "paper"
    shutil.copytree(paper.FOLDER, copy)
    monkeypatch.setattr(paper, "FOLDER", copy)
    return copy


def edit(folder, n, old, new):
    path = folder / f"table_{n:02d}.csv"
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize("n, rows, values", PRINTED)
def test_holds_the_printed_lines(n, rows, values):
    frame = paper.table(n)
    assert frame.query(rows).iloc[:, -1].tolist() == values


@pytest.mark.parametrize("n", ALL)
def test_every_table_says_what_it_is(n):
    frame = paper.table(n)
    assert set(frame.attrs) == {"title", "unit", "source", "note"}
    assert frame.attrs["title"] and frame.attrs["unit"] and frame.attrs["source"]


def test_a_table_is_a_copy():
    frame = paper.table(9)
    frame.loc[0, "alpaca"] = -1
    assert paper.table(9).alpaca[0] == 40.5


def test_counts():
    assert len(paper.table(9)) == 101
    assert paper.table(12).query("role == 'tuned'").tuned_on.nunique() == 50
    assert len(paper.table(8)) == 102
    sizes = paper.table(2).groupby("dataset").size()
    assert sizes.to_dict() == {"Lego-MT": 94, "New": 55, "Ted": 50, "Summary": 26}


def test_empty_cells():
    extended = paper.table(6)
    assert extended.spbleu.isna().sum() == 6
    assert extended[extended.spbleu.isna()].source.eq("Flores").all()
    assert paper.table(14).layer.dtype == "Int64"
    assert paper.table(4)["size"].isna().sum() == 8


def test_the_26_supported_languages_are_those_printed():
    printed = (
        "pt, fr, sv, ca, da, de, ro, it, cs, es, ru, uk, nl, sl, bs, hr, hu, pl, no, ast, gl, bg, "
        "id, af, sk, ms"
    )
    table_9 = paper.table(9)
    assert table_9[table_9.delta > 5].target.tolist() == printed.split(", ")


def test_the_summary_row_that_the_scan_splits_is_whole():
    summary = paper.table(2).query("dataset == 'Summary' and quadrant == 'reciprocal'").language
    assert summary.tolist()[-3:] == ["ro", "pt", "fr"]
    assert len(summary) == 18


@pytest.mark.parametrize(
    "code, families",
    [
        ("nl", ("Indo-European", "Germanic", "West Germanic")),
        ("da", ("Indo-European", "Germanic", "Northwest Germanic")),
        ("bn", ("Indo-European", "Indo-Aryan", "Eastern")),
        ("ns", ("Niger-Congo", "Atlantic-Congo", "Benue-Congo")),
        ("kam", ("Niger-Congo", "Atlantic-Congo", "Volta-Congo")),
        ("kk", ("Turkic", "Common", "Kipchak")),
        ("ja", ("Japonic", "Japanese", "")),
        ("th", ("Kra–Dai", "Tai", "Southwestern Tai")),
    ],
)
def test_families_of_merged_cells(code, families):
    row = paper.table(8).set_index("code").loc[code]
    assert (row.family_1, row.family_2, row.family_3) == families


def test_constants():
    constants = paper.constants().set_index("name").value
    assert constants["significance_factor"] == 2
    assert constants["beam_size"] == 4
    assert constants["devtest_sentences"] == 1012
    assert constants.isna().sum() == 1  # the paper gives T as a rule


def test_a_check_fails_only_where_a_contradiction_is_listed():
    checks = paper.checks()
    assert (checks.holds == checks.contradiction.eq("")).all()
    listed = set(paper.contradictions().id)
    assert set(checks.contradiction) - {""} <= listed
    assert not checks.duplicated(["check", "where"]).any()


def of_table(n):
    """Return the checks that compare cells of a table."""
    checks = paper.checks()
    return checks[checks.table.str.split(", ").map(lambda tables: str(n) in tables)]


@pytest.mark.parametrize("n", ALL)
def test_every_table_is_checked(n):
    assert len(of_table(n)) > 0


def test_averages_are_known_to_the_printed_digit():
    checks = of_table(14)
    own = checks[checks.table == "14"]
    means = own[own.check.str.startswith("AVG")]
    assert len(means) == 35 and means.holds.all()
    frame = paper.table(14).query("layer == 18")
    recomputed = means.set_index("where").recomputed["layer / 18"]
    assert recomputed == pytest.approx(frame[frame.target != "AVG"].spbleu.mean())


def test_contradictions_carry_what_was_computed():
    listed = paper.contradictions().set_index("id")
    assert len(listed) == listed.index.nunique()
    assert listed[["where", "printed", "conflict", "explanation"]].ne("").all(axis=None)
    assert listed.reading.isin(["plain", "arguable", "outside"]).all()
    assert listed.computed.ne("").eq(listed.cells > 0).all()
    assert "2.5 against 2.6" in listed.computed["shortening-gain"]
    # Table 16: ten rows are divided by five, one by six.
    average = of_table(16).query("check == 'AVG is the mean of the six tasks'")
    assert average.holds.sum() == 1
    # Table 2: 8 of the Summary's 18 reciprocal languages are not reciprocal in all three datasets.
    assert listed.cells["summary-rule"] == 8
    assert "ta" in listed.computed["summary-stagnant"]


@pytest.mark.parametrize("n", [0, 17, -1, "12", None])
def test_unknown_table(n):
    with pytest.raises(ValueError, match="Tables 1 to 16"):
        paper.table(n)


def test_an_edited_average_is_refused(folder):
    edit(folder, 14, "layer,18,AVG,6.8", "layer,18,AVG,7.8")
    with pytest.raises(ValueError) as error:
        paper.table(14)
    for said in ("table_14.csv", "layer / 18", "7.8", "6.85", "restore", "reinstall"):
        assert said in str(error.value)
    assert len(paper.table(15)) == 144  # the others are read as before


def test_a_contradiction_smoothed_over_is_refused(folder):
    edit(folder, 16, "none,LLaMA-7B,untuned,AVG,35.0", "none,LLaMA-7B,untuned,AVG,42.0")
    with pytest.raises(ValueError, match="none / LLaMA-7B / untuned"):
        paper.table(16)


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("target,alpaca,llama,delta", "target,alpaca,llama,difference", "columns"),
        ("pt,40.5,4.7,35.9\n", "", "100 rows, not 101"),
        ("fr,40.0,6.0,34.0", "fr,40.0,6.O,34.0", "line 3, column llama: '6.O' is no number"),
        ("fr,40.0,6.0,34.0", "fr,40.0,,34.0", "line 3, column llama: '' is no number"),
        ("fr,40.0,6.0,34.0", "fr,40.0,inf,34.0", "'inf' is no number"),
        ("fr,40.0,6.0,34.0", "fr,40.0,6.0", "line 3, column delta"),
        ("fr,40.0,6.0,34.0", "fr,40.0,6.0,33.0", "'fr'"),
        ("fr,40.0,6.0,34.0", "fr,40.0,6.0,34.0,1", "reinstall"),
    ],
)
def test_a_damaged_file_is_refused(folder, old, new, said):
    edit(folder, 9, old, new)
    with pytest.raises(ValueError) as error:
        paper.table(9)
    assert said in str(error.value) and "table_09.csv" in str(error.value)


def test_a_size_that_is_no_whole_number_is_refused(folder):
    edit(folder, 10, "Ted,55,", "Ted,55.5,")
    with pytest.raises(ValueError, match=r"'55\.5' is no number"):
        paper.table(10)


def test_a_cell_that_two_tables_share_is_compared(folder):
    edit(folder, 13, "te,19.7,full,80000,17.3", "te,19.7,full,80000,17.9")
    checks = of_table(13)
    broken = checks[checks.holds != checks.contradiction.eq("")]
    assert set(broken.table) == {"5, 13", "6, 13", "7, 13"}
    assert isinstance(broken, pd.DataFrame) and broken["where"].str.startswith("te").all()


def test_scores_that_others_published():
    scores = paper.open_scores(["LLaMA2-7B", "LLaMA2-13B", "LLaMA3-8B"])
    with pytest.raises(ValueError, match=r"unknown model 'LLaMA2-70B'.*LLaMA2-7B"):
        paper.open_scores(["LLaMA2-70B"])
    assert set(paper.open_scores(["LLaMA3-8B"])["label"]) == {"LLaMA3-8B", "LLaMA3-8B + Alpaca"}
    printed = paper.open_scores(["LLaMA-7B"]).set_index(["tuning", "target"])["spbleu"]
    assert printed["Alpaca", "pt"] == 40.5
    assert scores.groupby(["model", "tuning"])["target"].nunique().eq(101).all()
    assert len(scores) == 6 * 101
    llama2 = scores.query("model == 'LLaMA2-7B' and tuning == 'Alpaca'").set_index("target")
    assert llama2.loc["af", "spbleu"] == 19.41 and llama2.loc["zu", "spbleu"] == 0.67
    assert scores["spbleu"].between(0, 100).all()


def test_the_published_scores_of_all_systems():
    scores = paper.published_scores()
    assert scores["system"].nunique() == 16
    assert scores.groupby("system")["language"].nunique().eq(101).all()
    from_chinese, from_japanese = (
        set(paper.published_scores(d)["system"]) for d in ("zh-x", "ja-x")
    )
    assert len({*scores["system"]} | from_chinese | from_japanese) == 18
    assert "Swallow-7B-Instruct-v0.1" in from_japanese - from_chinese
    one = {
        (d, m): paper.published_scores(d, m).set_index(["system", "language"])["score"]
        for d in ("en-x", "x-en")
        for m in ("spBLEU", "comet")
    }
    assert one["en-x", "spBLEU"]["Aya-101", "af"] == 37.24
    assert one["x-en", "spBLEU"]["Aya-101", "zu"] == 35.21
    assert one["en-x", "comet"]["PolyLM", "af"] == 72.04
    assert len(paper.published_scores("ja-x", systems=["LLaMAX2-7B-Alpaca"])) == 101
    assert all(values.between(0, 100).all() for values in one.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("en-y",), "unknown direction 'en-y'. Did you mean"),
        (("en-x", "bleu"), "unknown metric 'bleu'.*There are: spBLEU, comet"),
        (("en-x", "spBLEU", ["NLLB"]), "unknown system of en-x 'NLLB'.*NLLB-200"),
        (("en-x", "spBLEU", ["Swallow-7B-Instruct-v0.1"]), "unknown system of en-x 'Swallow"),
    ],
)
def test_published_scores_that_there_are_not(arguments, message):
    with pytest.raises(ValueError, match=message):
        paper.published_scores(*arguments)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",af,", ",,", "no figures for af; restore the file"),
        ("en-x,31.94,", "en-x,,", "no en-x score of Aya-101 in hy; restore the file"),
    ],
)
def test_a_file_of_scores_that_lacks_a_language(tmp_path, monkeypatch, old, new, message):
    shutil.copytree(paper.PACKAGE_DATA / "published", tmp_path / "published")
    path = tmp_path / "published/llamax.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    monkeypatch.setattr(paper, "PACKAGE_DATA", tmp_path)
    with pytest.raises(ValueError, match=message):
        paper.published_scores()


def test_the_published_token_counts():
    counts = paper.token_counts()
    assert counts["tokenizer"].nunique() == 27 and len(counts) == 27 * 102
    assert counts["unknown"].between(0, 1).all() and counts["tokens"].gt(0).all()
    # They agree with what is measured here: dev and devtest have 2009 sentences.
    measured = tokenization.recorded("fertility").query("tokenizer == 'llama'")
    measured = measured.set_index("language")["tokens_per_sentence"] * 2009
    theirs = counts.query("tokenizer == 'LLAMA'").set_index("language")["tokens"]
    assert (theirs / measured).between(0.9, 1.02).all()


def test_the_published_figures_are_those_of_the_publishers(data):
    if not (data / "llamax/Aya-101").is_dir() or not (data / "fairness").is_dir():
        pytest.skip("no llamax or fairness in the data folder")
    for name, theirs in (
        ("llamax", record_published.scores(data / "llamax")),
        ("fairness", record_published.counts(data / "fairness")),
    ):
        text = theirs.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        assert (paper.PACKAGE_DATA / f"published/{name}.csv").read_text() == text


def test_a_publishers_file_that_lacks_a_language(data, tmp_path):
    if not (data / "llamax/Aya-101").is_dir():
        pytest.skip("no llamax in the data folder")
    shutil.copytree(data / "llamax/Aya-101", tmp_path / "Aya-101", copy_function=shutil.copyfile)
    path = tmp_path / "Aya-101/comet.csv"
    path.write_text(path.read_text().replace(",te,", ",xx,", 1))
    with pytest.raises(ValueError, match=r"comet\.csv has no scores for te"):
        record_published.scores(tmp_path)
