"""Lists of runs: where they execute, and what is left when something dies."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest
from distributed import Client, LocalCluster

from mlq_utils import experiments
from mlq_utils.runs import run_all
from mlq_utils.store import Store


def varied(spec, count):
    return [dataclasses.replace(spec, seed=seed) for seed in range(count)]


def results(records):
    """What must not depend on where a run was made."""
    return [(r["status"], r["identity"], [s["chrf"] for s in r["scores"]]) for r in records]


@pytest.fixture(scope="module")
def here(small, tmp_path_factory):
    """Two runs made in this process."""
    return run_all(varied(small, 2), Store(tmp_path_factory.mktemp("here")))


def test_each_run_is_made_once_and_returned_in_order(small, tmp_path, monkeypatch):
    made = []
    run = experiments.run
    monkeypatch.setattr(experiments, "run", lambda s, *a, **k: made.append(s) or run(s, *a, **k))
    one, two = varied(small, 2)
    store = Store(tmp_path)
    records = run_all([two, one, two], store, progress=False)
    assert made == [two, one]
    assert [r["spec"]["seed"] for r in records] == [1, 0, 1]
    assert run_all([one, two], store) == [records[1], records[0]] and len(made) == 2


def test_progress_tells_runs_and_time_left(small, tmp_path, capsys):
    run_all([small], Store(tmp_path), progress=True)
    shown = capsys.readouterr().err
    assert "100%" in shown and "1 of 1 runs" in shown and "<00:00]" in shown
    run_all([small], Store(tmp_path), progress=True)  # nothing to do, nothing to show
    assert capsys.readouterr().err == ""


def test_cost_grows_with_what_is_trained_and_scored(small):
    assert small.cost() == 24 + 2 * 4 * 2
    assert dataclasses.replace(small, languages=()).cost() == 2 * 4 * 2


def test_two_processes_find_what_one_does(small, here, tmp_path):
    assert results(run_all(varied(small, 2), Store(tmp_path), workers=2)) == results(here)


def test_a_worker_that_is_killed_costs_its_run_alone(small, here, tmp_path):
    """Two Dask workers; one is killed as soon as it is at work."""
    specs, store = varied(small, 4), Store(tmp_path)
    specs = [dataclasses.replace(s, test_size=40) for s in specs]
    with (
        LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        victim = client.submit(os.getpid, workers=[cluster.workers[0].worker_address]).result()
        kill = f"import os, time; time.sleep(6); os.kill({victim}, 9)"
        killer = subprocess.Popen([sys.executable, "-c", kill])
        records = run_all(specs, store, client=client)
        killer.wait()
        pids = client.run(os.getpid).values()
        assert victim not in pids  # it died, and another took its place
    assert [r["status"] for r in records] == ["done"] * 4
    assert sorted(store.keys()) == sorted(s.identity() for s in specs)


def test_a_run_that_fails_is_recorded_and_the_others_go_on(small, tmp_path):
    store = Store(tmp_path / "store")
    bad = dataclasses.replace(small, base=str(tmp_path / "no-such-base"))
    failed, done = run_all([bad, small], store)
    assert failed["status"] == "failed" and "no model" in failed["error"]
    assert "FileNotFoundError" in store.get(bad.identity())["error"]
    assert done["status"] == "done"
    # Nothing of the run itself is wrong: it is tried again.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "run", lambda s, *_, **__: store.put(s.identity(), {"ok": 1}))
        assert run_all([bad], store) == [{"ok": 1, "files": {}}]


def test_a_failing_run_on_a_cluster_is_recorded_too(small, tmp_path):
    bad = dataclasses.replace(small, base=str(tmp_path / "no-such-base"))
    failed, done = run_all([bad, small], Store(tmp_path / "store"), workers=2)
    assert failed["status"] == "failed" and "no model" in failed["error"]
    assert done["status"] == "done"


def test_a_kill_at_any_moment_loses_the_run_in_flight_alone(small, tmp_path):
    """The whole process is killed once it has some records; the rest is made afterwards."""
    script = (
        "import sys; from mlq_utils.runs import run_all; from mlq_utils.store import Store;"
        "from mlq_utils.experiments import Spec;"
        f"specs = [Spec(**{dataclasses.asdict(small)!r} | {{'seed': n}}) for n in range(200)];"
        f"run_all(specs, Store({str(tmp_path)!r}), progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    store = Store(tmp_path)
    deadline = time.monotonic() + 120
    while len(list(store.keys())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = [store.get(key) for key in store.keys()]  # noqa: SIM118
    assert len(found) >= 2 and all(r["status"] == "done" for r in found)
    assert not list(tmp_path.glob(".damaged*"))


def test_a_store_that_refuses_a_write_stops_the_list(small, tmp_path):
    file = tmp_path / "file"
    file.write_text("no folder")
    with pytest.raises(OSError, match="file"):
        run_all([small], Store(file))


@pytest.mark.parametrize("arguments", [{"workers": 0}, {"workers": 2, "client": object()}])
def test_wrong_numbers_of_workers_are_refused(small, tmp_path, arguments):
    with pytest.raises(ValueError, match="workers="):
        run_all([small], Store(tmp_path), **arguments)
