"""Lists of runs: where they execute, and what is left when something dies."""

import contextlib
import dataclasses
import errno
import itertools
import os
import signal
import subprocess
import sys
import time

import cloudpickle
import dask
import pytest
import torch
from distributed import Client, LocalCluster, WorkerPlugin, get_worker

from mlq_utils import experiments
from mlq_utils.experiments import clusters
from mlq_utils.experiments import executors as runs
from mlq_utils.experiments.executors import run_all
from mlq_utils.experiments.store import Store


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
        assert run_all([bad], store) == [{"ok": 1}]


def test_a_failing_run_on_a_cluster_is_recorded_too(small, tmp_path):
    bad = dataclasses.replace(small, base=str(tmp_path / "no-such-base"))
    failed, done = run_all([bad, small], Store(tmp_path / "store"), workers=2)
    assert failed["status"] == "failed" and "no model" in failed["error"]
    assert done["status"] == "done"


def test_a_kill_at_any_moment_loses_the_run_in_flight_alone(small, tmp_path):
    """The whole process is killed once it has some records; the rest is made afterwards."""
    script = (
        "import sys; from mlq_utils.experiments.executors import run_all; from mlq_utils.experiments.store import Store;"
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


class Instead(WorkerPlugin):
    """Puts a function in the place of `experiments.run` in each worker, new ones too."""

    def __init__(self, run):
        self.run = run

    def setup(self, worker):
        experiments.run = self.run


@pytest.fixture
def gpus(monkeypatch):
    """Two workers that say they have a GPU; call with what they do instead of a run."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(clusters, "_gpus", lambda: ["0", "1"])

    @contextlib.contextmanager
    def opened(run, workers=2):
        with clusters.open_cluster("local", workers) as client:
            client.register_plugin(Instead(run))
            yield client

    yield opened
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def record(spec, store, **_):
    return store.put(spec.identity(), {"status": "done", "pid": os.getpid()})


def test_a_run_has_a_gpu_to_itself(small, tmp_path, gpus):
    """Where workers declare GPUs a run asks for one: two runs at once, on one each."""

    def run(spec, store, **_):
        time.sleep(0.5)
        gpu = os.environ["CUDA_VISIBLE_DEVICES"]
        store.put(spec.identity(), {"status": "done", "gpu": gpu, "at": time.time()})

    with gpus(run) as client:
        found = run_all(varied(small, 6), Store(tmp_path), client=client, progress=False)
    for gpu in "01":
        ends = sorted(r["at"] for r in found if r["gpu"] == gpu)
        assert len(ends) >= 2 and all(b - a > 0.45 for a, b in itertools.pairwise(ends))


def test_a_run_that_kills_its_worker_fails_alone(small, tmp_path, gpus):
    """It is sent again three times; those that waited on the same worker are not blamed."""
    killer, *others = varied(small, 12)
    killer = dataclasses.replace(killer, size=10_000)  # the longest, hence the first
    log = tmp_path / "starts"

    def run(spec, store, **_):
        if spec.size == 10_000:
            with log.open("a") as file:
                file.write("x")
            os._exit(1)
        time.sleep(0.2)
        record(spec, store)

    with gpus(run, 1) as client:
        found = run_all([killer, *others], Store(tmp_path / "s"), client=client, progress=False)
    assert [r["status"] for r in found] == ["failed"] + ["done"] * 11
    assert "its worker was lost 4 times" in found[0]["error"] and found[0]["again"]
    assert log.read_text() == "xxxx"


def test_a_gpu_that_failed_takes_its_process_along(small, tmp_path, gpus):
    """CUDA's errors stick to a process: the run is made in another one."""
    marks = tmp_path / "marks"
    marks.mkdir()

    def run(spec, store, **_):
        if not list(marks.iterdir()):
            (marks / str(os.getpid())).touch()
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        record(spec, store)

    with gpus(run, 1) as client:
        found = run_all(varied(small, 2), Store(tmp_path / "s"), client=client, progress=False)
    assert [r["status"] for r in found] == ["done"] * 2
    assert {str(r["pid"]) for r in found}.isdisjoint(p.name for p in marks.iterdir())


def test_a_worker_whose_time_is_up_loses_no_run(small, tmp_path, monkeypatch):
    """Workers with a lifetime shorter than the list; others take over."""

    def run(spec, store, **_):
        time.sleep(0.5)
        store.put(spec.identity(), {"status": "done", "worker": get_worker().address})

    monkeypatch.setattr(experiments, "run", run)
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "500ms"}),
        LocalCluster(
            0, processes=False, threads_per_worker=1, dashboard_address=None,
            lifetime="2s", lifetime_stagger="1s",
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        cluster.adapt(minimum=2, maximum=2, interval="200ms")
        found = run_all(varied(small, 20), Store(tmp_path), client=client, progress=False)
    assert [r["status"] for r in found] == ["done"] * 20
    assert len({r["worker"] for r in found}) > 2  # some were made by those that came after


def test_a_scheduler_that_dies_ends_the_list_in_one_error(small, tmp_path):
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    serve = (
        "from distributed import LocalCluster; import sys\n"
        "if __name__ == '__main__':\n"
        "    c = LocalCluster(1, processes=False, threads_per_worker=1, dashboard_address=None,"
        " protocol='tcp')\n    print(c.scheduler_address, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", serve], stdin=-1, stdout=-1, stderr=-3, text=True
    )

    def run(spec, store, **_):
        time.sleep(1)
        record(spec, store)

    store = Store(tmp_path)
    with Client(process.stdout.readline().strip(), timeout=5) as client:
        client.register_plugin(Instead(run))
        kill = f"import os, time; time.sleep(3); os.kill({process.pid}, 9)"
        killer = subprocess.Popen([sys.executable, "-c", kill])
        with (
            dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
            pytest.raises(ConnectionError, match=r"the scheduler at tcp.* is gone"),
        ):
            run_all(varied(small, 30), store, client=client, progress=False)
        killer.wait()
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert 0 < len(list(store.keys())) < 30


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (OSError(errno.EIO, "no answer"), 3),
        (ConnectionResetError(errno.ECONNRESET, "reset"), 3),
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (FileNotFoundError("no model"), 1),
        (ConnectionError("the Hub cannot be reached"), 1),
        (ValueError("wrong"), 1),
    ],
)
def test_what_may_pass_is_tried_again(error, attempts, small, tmp_path, monkeypatch):
    made = []

    def run(spec, store, **_):
        made.append(spec)
        raise error

    monkeypatch.setattr(experiments, "run", run)
    monkeypatch.setattr(runs, "PAUSES", (0, 0))
    (found,) = run_all([small], Store(tmp_path))
    assert found["status"] == "failed" and str(error) in found["error"]
    assert len(made) == attempts


def test_what_passed_is_no_failure(small, tmp_path, monkeypatch):
    made = []

    def run(spec, store, **_):
        made.append(spec)
        if len(made) < 3:
            raise TimeoutError(errno.ETIMEDOUT, "the store does not answer")
        return record(spec, store)

    monkeypatch.setattr(experiments, "run", run)
    monkeypatch.setattr(runs, "PAUSES", (0, 0))
    (found,) = run_all([small], Store(tmp_path))
    assert found["status"] == "done"


@pytest.mark.parametrize(("full", "done"), [({1}, 5), ({0, 1, 2, 3, 4, 5}, 0), ({2, 3, 4}, 2)])
def test_a_full_disk_costs_the_runs_that_it_refuses(full, done, small, tmp_path, monkeypatch):
    """Others go on, until it is clear that nothing more is taken; what is lost is told."""
    made, put, store = [], Store.put, Store(tmp_path)

    def refusing(self, key, record, *rest):
        if record["seed"] in full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return put(self, key, record, *rest)

    def run(spec, store, **_):
        made.append(spec.seed)
        store.put(spec.identity(), {"status": "done", "seed": spec.seed})

    failed = runs._failed
    monkeypatch.setattr(runs, "_failed", lambda s, e: failed(s, e) | {"seed": s.seed})
    monkeypatch.setattr(Store, "put", refusing)
    monkeypatch.setattr(experiments, "run", run)
    with pytest.raises(OSError, match=rf"no records of {min(len(full), 3)} of 6 runs.*No space"):
        run_all(varied(small, 6), store)
    assert len(list(store.keys())) == done
    assert len(made) == (6 if len(full) < 3 else max(sorted(full)[:3]) + 1)
    monkeypatch.setattr(Store, "put", put)
    assert len(run_all(varied(small, 6), store)) == 6  # there is room again: the rest is made
    assert len(list(store.keys())) == 6


def test_a_failed_gpu_ends_a_list_of_this_process(small, tmp_path, monkeypatch):
    def run(spec, store, **_):
        raise torch.AcceleratorError("CUDA error")

    monkeypatch.setattr(experiments, "run", run)
    with pytest.raises(torch.AcceleratorError):
        run_all([small], Store(tmp_path))
    assert not list(tmp_path.iterdir())
