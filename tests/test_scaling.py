"""The simulation against closed forms and against real lists; the measurements' own arithmetic."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlq_utils import _loads, plotting, scaling
from mlq_utils.scaling import Costs, limits, simulate
from mlq_utils.store import Store

FREE = Costs(0.0, 0.0, 0.0)


def one(workers, seconds, cost, **options):
    frame = simulate([workers], {"": [seconds]}, {"": cost}, **options)
    return frame.iloc[0]


def test_workers_that_wait_for_nothing_compute_all_the_time():
    found = one(1000, 20.0, FREE)
    assert found["efficiency"] == pytest.approx(1) and found["limit"] == ""


seconds = st.floats(0.0005, 0.5)


@given(
    workers=st.integers(1, 300), run=st.floats(0.5, 50), scheduler=seconds, store=seconds,
    waits=st.floats(0, 1),
)  # fmt: skip
def test_the_simulation_agrees_with_the_closed_form(workers, run, scheduler, store, waits):
    """Runs of one length: the slower of a run's cycle and the part that all must pass."""
    cost = Costs(scheduler, store, waits)
    found = one(workers, run, cost, rounds=30)
    cycle = run + scheduler + store + waits
    per_second = min(workers / cycle, 1 / scheduler, 1 / store)
    assert found["efficiency"] == pytest.approx(per_second * run / workers, rel=0.08)
    assert 0 < found["scheduler_busy"] <= 1 and 0 < found["store_busy"] <= 1


@pytest.mark.parametrize("part", ["scheduler", "store"])
def test_beyond_its_limit_a_part_is_busy_and_named(part):
    cost = Costs(**{"scheduler": 0.001, "store": 0.001, "waits": 0.05} | {part: 0.02})
    at = limits(20.0, cost)[part]
    assert at == pytest.approx(20.0 / 0.02, rel=0.01)
    below, beyond = (one(round(at * share), 20.0, cost, rounds=40) for share in (0.7, 2))
    assert below["limit"] == "" and below["efficiency"] > 0.97
    assert beyond["limit"] == part and beyond["efficiency"] == pytest.approx(0.5, abs=0.03)


def test_what_costs_nothing_is_never_the_limit():
    assert limits(1.0, Costs(0.0, 0.1, 0.0)) == {"scheduler": float("inf"), "store": 11.0}


def test_the_same_seed_draws_the_same_list():
    kinds = {"mixed": [1.0, 5.0, 60.0]}
    frames = [simulate([8, 64], kinds, {"": Costs(0.01, 0.01, 0.1)}, seed=s) for s in (1, 1, 2)]
    assert frames[0].equals(frames[1]) and not frames[0].equals(frames[2])


def test_the_record_holds_what_the_book_says_of_it():
    found = scaling.load()
    assert "moto" in found["scheduler"].attrs["about"]
    assert {*found["by_writers"]["writers"]} == {*found["scheduler"]["workers"]} == {1, 2, 4, 8}
    assert {*found["by_records"]["records"]} == {100, 1000, 10_000}
    assert found["scheduler"]["tasks"].max() == 10_000
    again = simulate([1000], scaling.durations(), scaling.costs(json.loads(_text())))
    kept = found["simulated"].query("workers == 1000").reset_index(drop=True)
    assert again["efficiency"].tolist() == pytest.approx(kept["efficiency"].tolist())


def test_the_simulation_foretells_the_lists_that_were_made():
    lists = scaling.load()["lists"].query("seconds == 1 and workers <= 4")
    assert len(lists) == 3
    assert (lists["efficiency"] - lists["simulated"]).abs().max() < 0.1


def _text():
    return scaling.RECORD.read_text("utf8")


def test_a_store_is_measured_by_writers_and_by_records(tmp_path):
    rows = _loads.store_by_writers(str(tmp_path / "a"), at_once=(1, 2), count=3)
    assert [row["writers"] for row in rows] == [1, 2]
    assert all(0 < row["missing"] < row["put"] and row["runs_per_second"] > 0 for row in rows)
    assert len(list(Store(tmp_path / "a").keys())) == 2 + 3 * 3
    (tmp_path / "b/x").mkdir(parents=True)
    (tmp_path / "b/x/record.json").write_bytes(b"{}")
    (row,) = _loads.store_by_records({1: str(tmp_path / "b")}, count=2)
    assert row["records"] == 1 and min(row.values()) > 0


def test_tasks_are_sent_and_collected(tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.Client(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
    ) as client:
        row = _loads.scheduler_costs(client, 20)
        assert row["tasks"] == 20 and 0 < row["submit"] < row["seconds"]
        assert row["per_second"] == pytest.approx(20 / row["seconds"])
        efficiency = _loads.asleep(client, str(tmp_path), 0.2, 6)
    assert 0 < efficiency <= 1
    assert len(list(Store(tmp_path).keys())) == 6


def test_the_figure_shows_every_kind():
    plotting.use_style()
    ax = scaling.efficiency_lines(scaling.load()["simulated"])
    assert {*scaling.load()["simulated"]["place"]} == {"local folder", "S3 as documented"}
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert {*scaling.durations()} < {*labels}
    assert ax.get_xscale() == "log" and ax.get_ylim()[0] == 0


def test_a_fake_that_does_not_start_says_what_to_install(monkeypatch):
    monkeypatch.setattr(_loads, "SERVER", "raise SystemExit(1)")
    with pytest.raises(RuntimeError, match=r"pip install"), _loads.fake_object_store():
        pass
