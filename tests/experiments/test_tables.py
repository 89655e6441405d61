"""Every printed score has its run, or the reason why it has none; no model is made twice."""

import dataclasses
from collections import Counter, defaultdict

import pandas as pd
import pytest

from mlq_utils import paper
from mlq_utils.data import PACKAGE_DATA
from mlq_utils.experiments import tables
from mlq_utils.experiments.scales import DATASETS, MINI, PAPER, UNSCORED
from mlq_utils.experiments.tables import TABLES, Combined, Score, cells, representatives, specs

SCALES = [PAPER, MINI]


def model(spec):
    return dataclasses.replace(spec, targets=UNSCORED)


scales = pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.name)


@scales
@pytest.mark.parametrize("table", TABLES)
def test_every_cell_has_a_run_or_a_reason(table, scale):
    frame = cells(table, scale)
    assert (frame["cell"].isna() == frame["reason"].ne("")).all() and len(frame)
    assert frame["cell"].isna().eq(frame["specs"].str.len() == 0).all()
    for row in frame.dropna(subset="cell").itertuples():
        runs = {model(spec): spec for spec in row.specs}
        assert {score.model for score in tables.scores(row.cell)} == set(runs)
        for score in tables.scores(row.cell):
            assert score.target in runs[score.model].targets


def test_what_the_paper_leaves_open_is_said():
    settings = pd.read_csv(PACKAGE_DATA / "open_settings.csv", dtype=str)
    said = settings.groupby("table")["setting"].first()
    assert {str(table) for table in TABLES} - set(said.index) == {"12"}
    assert "drops one token, 227" in said["7"]


@pytest.mark.parametrize("table", [table for table in TABLES if isinstance(table, int)])
def test_no_printed_cell_is_lost(table):
    frame, printed = cells(table), paper.table(table)
    if table == 9:
        assert len(frame) == 3 * len(printed)
        both = frame.pivot(index="target", columns="model", values="printed").loc[printed["target"]]
        assert (both[["alpaca", "llama"]].to_numpy() == printed[["alpaca", "llama"]]).all(axis=None)
        return
    if table == 2:
        frame = frame.dropna(subset="printed")
        assert frame["printed"].tolist() == printed["quadrant"].tolist()
    value = {"spbleu", "value", "score"} & set(printed)
    printed = printed.dropna(subset=list(value))  # what is printed as a dash
    assert len(frame) == len(printed)
    for name in set(printed) & set(frame):
        assert (frame[name].to_numpy() == printed[name].to_numpy())[printed[name].notna()].all()


def test_at_the_papers_scale_only_what_is_known_has_no_run():
    lacking = {table: cells(table).query("cell.isna()")["reason"] for table in TABLES}
    assert {table for table, reasons in lacking.items() if len(reasons)} <= {2, 6, 7, 16}
    assert set(lacking[2]) == set(cells(2).query("dataset == 'Summary'")["reason"])
    assert len(lacking[2]) == len(paper.table(2).query("dataset == 'Summary'"))
    assert all("learned from" in reason for reason in lacking[6])
    assert sorted(set(cells(7).loc[lacking[7].index, "setting"])) in (
        ["extend", "ratio"],
        ["ratio"],
    )
    assert len(cells(16).dropna(subset="cell")) == 7  # of Flores-101, without Parrot and Alpaca-X


@scales
def test_no_model_is_made_twice(scale):
    """What is tuned alike is one run, whatever it is scored on and whichever table asks."""
    every = specs(scale=scale)
    models = Counter(map(model, every))
    assert set(models.values()) == {1}
    assert len({spec.identity() for spec in every}) == len(every)
    for table in TABLES:
        assert set(specs([table], scale)) <= set(every)
    parted = {spec for table in TABLES for spec in specs([table], scale)}
    assert parted == set(every)


@scales
def test_every_seed_and_no_other(scale):
    seeds = defaultdict(set)
    for spec in specs(scale=scale):
        seeds[dataclasses.replace(spec, seed=0)].add(spec.seed)
    for spec, found in seeds.items():
        assert found == (set(scale.seeds) if spec.languages else {0})


@scales
def test_runs_are_scored_on_what_is_asked_and_no_more(scale):
    asked, runs = defaultdict(set), set()
    for table in TABLES:
        frame = cells(table, scale)
        runs |= {spec for row in frame["specs"] for spec in row}
        for cell in frame["cell"].dropna():
            for score in tables.scores(cell):
                asked[score.model].add(score.target)
    assert {model(spec): set(spec.targets) for spec in runs} == asked


def test_the_number_of_models_of_each_table():
    count = {table: len(specs([table])) for table in TABLES}
    ted = paper.table(2).query("dataset == 'Ted'")["language"]
    assert count[12] == len(ted) + 1 == 51  # and the base
    assert count[2] == 101 + 56 + 52 + 1
    assert count[1] == 14 + 1 and count[9] == 2 and count["figure 2"] == 4
    assert count[3] == 13 * 4 + 2 * 4
    assert count[4] == 27 + 1 and count[5] == 16 * 10 + 1 and count[13] == 21 * 10 + 1
    assert count[14] == 3 + 32 and count[15] == 3 * 4 * 11
    assert count[16] == 1 + 3 + 3 * 8


def test_models_that_tables_share():
    def models(table):
        return {spec for spec in specs([table]) if spec.languages}

    ted = models(12)
    assert ted < models(2) and all(spec.corpus == ("ted",) for spec in ted)
    for spec in ted:
        assert set(spec.targets) == {*representatives(), *spec.languages, "af", "ro"}
    assert models(1) < models(2) and models("figure 2") < models(2)
    assert all(set(spec.targets) == set(PAPER.scorable()) for spec in models("figure 2"))
    (alpaca,) = models(9)
    assert alpaca in models(14) and set(alpaca.targets) == set(PAPER.scorable())
    whole = cells(7).query("setting == 'full' and target != 'AVG'").set_index("target")["specs"]
    same = cells(5).query("strategy == 'full' and size == 80000").set_index("target")["specs"]
    assert whole.equals(same[whole.index])


def test_cells_of_one_run_print_one_score():
    """Corpora that the paper does not state are inferred: the same model prints the same score.

    But for the untuned model, Alpaca's, and two cells, as `paper.contradictions` lists.
    """
    printed = defaultdict(set)
    for table in TABLES:
        if table == 2 or isinstance(table, str):
            continue
        for row in cells(table).dropna(subset="cell").itertuples():
            if isinstance(row.cell, Score):
                printed[row.cell].add((table, round(row.printed, 2)))
    shared = {
        cell: {value for _, value in rows}
        for cell, rows in printed.items()
        if len({table for table, _ in rows}) > 1
    }
    differing = [cell for cell, values in shared.items() if len(values) > 1]
    assert len(shared) > 150
    tuned = [cell for cell in differing if cell.model.languages not in ((), ("en",))]
    assert {(cell.model.languages[0], cell.model.size) for cell in tuned} == {
        ("ro", 20_000), ("ca", 20_000)
    }  # fmt: skip


def test_averages_are_of_the_printed_columns():
    (average,) = cells(15).query("strategy == 'full' and size == 10000 and target == 'AVG'")["cell"]
    own = cells(15).query("strategy == 'full' and size == 10000 and target != 'AVG'")["cell"]
    assert average == Combined("mean", tuple(own))
    frame = cells(4)
    assert frame.loc[frame["derived"], "tuned_on"].eq("AVG").all() and frame["derived"].sum() == 20
    best = cells(7, MINI).query("setting == 'extend' and target == 'km'")["cell"].item()
    table_6 = cells(6, MINI).query("target == 'km'")["cell"].dropna()
    assert best == Combined("max", tuple(table_6)) and len(table_6) == 9


def test_shortened_and_extended_models_differ_from_the_plain_one_in_that_alone():
    plain = MINI.tuned(["km"], "full", 80_000)
    frame = cells(7, MINI).query("target == 'km'").set_index("setting")["specs"]
    (short,), whole = frame["shorten"], frame["full"]
    assert dataclasses.replace(short, shorten=None) == whole[0]
    for spec in frame["extend"]:
        bare = dataclasses.replace(spec, extension=None, targets=plain.targets)
        assert bare == plain and not spec.extension.ranked
    assert {spec.extension.pieces for spec in frame["extend"]} == {50, 100, 200}


def test_mixtures_share_their_pairs():
    frame = cells(3).query("setting == 'multilingual' and target == 'AVG'")
    for row in frame.itertuples():
        (spec,) = row.specs
        assert len(spec.languages) == row.n_languages and spec.size == row.size
        assert len(spec.targets) == 13


def test_languages_of_the_corpora_beside_table_2():
    printed = paper.table(2).groupby("dataset")["language"].agg(set)
    trained = {name: PAPER.trainable(name) for name in DATASETS}
    assert [len(codes) for codes in trained.values()] == [101, 56, 52]
    assert paper.table(10)["n_languages"].tolist() == [100, 50, 55]
    assert [len(printed[name]) for name in DATASETS] == [94, 55, 50]
    assert all(printed[name] <= set(codes) for name, codes in trained.items())
    assert set(trained["Ted"]) - printed["Ted"] == {"no", "zhtrad"}
    mini = MINI.trainable("Lego-MT")
    assert printed["Lego-MT"] - set(mini) == {"ny", "ns", "umb"}
    run = cells(2, MINI).dropna(subset="cell").query("dataset == 'Lego-MT'")
    assert len(run) == len(mini)


def test_a_table_without_scores_is_refused():
    with pytest.raises(ValueError, match="unknown table of trained scores '8'"):
        cells(8)
    with pytest.raises(ValueError, match="unknown table of trained scores '17'"):
        specs([12, 17])


def test_a_frame_may_be_changed():
    frame = cells(12)
    frame["printed"] = 0
    assert cells(12)["printed"].max() > 30
