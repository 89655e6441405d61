"""Lists of runs: where they execute, and what is left when something dies."""

import contextlib
import dataclasses
import errno
import gc
import importlib
import itertools
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import dask
import pytest
import torch
from distributed import Client, LocalCluster, WorkerPlugin, get_worker

from mlq_utils import experiments, modeling
from mlq_utils.experiments import executors
from mlq_utils.experiments.executors import run_all
from mlq_utils.experiments.store import Store
from mlq_utils.modeling import training


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
    assert "100%" in shown and "1/1" in shown and "<00:00" in shown
    run_all([small], Store(tmp_path), progress=True)  # nothing to do, nothing to show
    assert capsys.readouterr().err == ""


def test_cost_grows_with_what_is_trained_and_scored(small):
    assert small.cost() == 24 + 2 * 4 * 2
    assert dataclasses.replace(small, languages=()).cost() == 2 * 4 * 2


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


def test_a_failed_run_s_model_is_gone_when_the_next_one_begins(small, tmp_path, monkeypatch):
    """However it failed: its error, which holds the frames of the run, is kept as text alone."""
    failures = {
        0: lambda: ValueError("bad text"),
        1: lambda: FloatingPointError("not a number"),
        2: lambda: torch.AcceleratorError("CUDA error: out of memory"),
        3: lambda: TimeoutError(errno.ETIMEDOUT, "the disk does not answer"),
        4: lambda: RuntimeError("the last one"),
    }
    seeds, models, alive, load = [], [], [], modeling.load

    def loaded(*arguments, **options):
        alive.append([seed for seed, model in zip(seeds, models, strict=False) if model()])
        base = load(*arguments, **options)
        base.model.itself = [base.model]  # a circle, as hooks make
        models.append(weakref.ref(base.model))
        return base

    def label_loss(model, *_, **__):
        raise failures[seeds[-1]]()

    def run(spec, *rest, **options):
        seeds.append(spec.seed)
        return real(spec, *rest, **options)

    real = experiments.run
    monkeypatch.setattr(executors, "PAUSES", (0,))
    monkeypatch.setattr(experiments, "run", run)
    monkeypatch.setattr(modeling, "load", loaded)
    monkeypatch.setattr(training, "label_loss", label_loss)
    gc.disable()
    try:
        with pytest.warns(UserWarning, match="out of memory"):
            records = run_all(varied(small, 5), Store(tmp_path), progress=False)
    finally:
        gc.enable()
    assert seeds == [0, 1, 2, 3, 3, 4] and alive == [[]] * 6
    starts = (
        *("ValueError: bad", "not a number", "OutOfMemoryError: out of memory in the dry run"),
        *("TimeoutError: ", "RuntimeError: the last"),
    )
    for record, start in zip(records, starts, strict=True):
        assert record["status"] == "failed" and record["error"].startswith(start)


def test_a_worker_sends_no_frames(small, tmp_path, monkeypatch):
    """Dask would keep an error with its traceback for as long as the list lasts."""

    def run(spec, *_, **__):
        model = torch.nn.Linear(1, 1)
        models.append(weakref.ref(model))
        raise KeyError(spec.seed)

    models = []
    monkeypatch.setattr(experiments, "run", run)
    monkeypatch.setattr("distributed.get_client", lambda: SimpleNamespace(log_event=print))
    with pytest.raises(RuntimeError) as error:
        executors._work(small, str(tmp_path))
    assert str(error.value) == "KeyError: 0" and error.value.__context__ is None
    assert models[0]() is None


def test_a_kill_at_any_moment_loses_the_run_in_flight_alone(small, tmp_path):
    """The whole process is killed once it has some records; the rest is made afterwards."""
    script = (
        "from mlq_utils.experiments import Spec, Store, run_all\n"
        f"specs = [Spec(**{dataclasses.asdict(small)!r} | {{'seed': n}}) for n in range(200)]\n"
        f"run_all(specs, Store({str(tmp_path)!r}), progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    store = Store(tmp_path)

    def whole():  # others are targets of the run in flight, which took long
        return [key for key in store.keys() if "-" not in key]  # noqa: SIM118

    while len(whole()) < 2 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = list(map(store.get, whole()))
    assert len(found) >= 2 and all(r["status"] == "done" for r in found)
    assert not list(tmp_path.glob(".damaged*"))


def test_a_store_that_refuses_a_write_stops_the_list(small, tmp_path):
    file = tmp_path / "file"
    file.write_text("no folder")
    with pytest.raises(OSError, match="file"):
        run_all([small], Store(file))


@pytest.mark.parametrize(
    "arguments",
    [{"workers": 0}, {"workers": 2, "client": object()}, {"workers": None, "client": object()}],
)
def test_wrong_numbers_of_workers_are_refused(small, tmp_path, arguments):
    with pytest.raises(ValueError, match="workers="):
        run_all([small], Store(tmp_path), **arguments)


class Instead(WorkerPlugin):
    """Puts a function in the place of `experiments.run` in each worker, new ones too."""

    name = "instead"

    def __init__(self, run):
        self.run = run

    def setup(self, worker):
        if self.run:
            experiments.run = self.run
        else:
            vars(experiments).pop("run", None)  # the real one is loaded on first use


@pytest.fixture(scope="module")
def cluster():
    """A client of two processes that say that they have a GPU each; where no GPU is used."""
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(executors, "_gpus", lambda: ["3", "GPU-5c89"])
            two = stack.enter_context(executors._processes(None, 2))
        client = stack.enter_context(Client(two))
        client.wait_for_workers(2)
        yield client


@pytest.fixture
def instead(cluster):
    """Call with what the cluster's workers do instead of a run."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield lambda run: cluster.register_plugin(Instead(run))
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def record(spec, store, **_):
    return store.put(spec.identity(), {"status": "done", "pid": os.getpid()})


def test_each_process_sees_its_own_gpu(cluster):
    """It declares that GPU, takes one run at a time, and keeps the allocator as it is."""
    found = list(cluster.run(eval, "dict(__import__('os').environ)").values())
    assert {environment["CUDA_VISIBLE_DEVICES"] for environment in found} == {"3", "GPU-5c89"}
    assert not any("MALLOC_TRIM_THRESHOLD_" in environment for environment in found)
    workers = cluster.scheduler_info()["workers"].values()
    assert [(w["resources"], w["nthreads"]) for w in workers] == [({"GPU": 1}, 1)] * 2
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
    cluster.run(exec, child)  # a run may start processes


def test_gpus_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert executors._gpus() == ["4", "6"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert executors._gpus() == ["0", "1"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert executors._gpus() == []


def test_two_processes_find_what_one_does(small, here, tmp_path, monkeypatch):
    """On processors each has one thread; a run that fails there is recorded too."""
    monkeypatch.setattr(executors, "_gpus", list)
    bad = dataclasses.replace(small, base=str(tmp_path / "no-such-base"))
    found = run_all([*varied(small, 2), bad], Store(tmp_path), workers=2)
    assert results(found[:2]) == results(here)
    assert found[2]["status"] == "failed" and "no model" in found[2]["error"]


def test_processes_without_gpus_have_one_thread(monkeypatch):
    monkeypatch.setattr(executors, "_gpus", list)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    before = dict(os.environ)
    with executors._processes(1, 9) as one, Client(one) as client:
        client.wait_for_workers(1)
        (found,) = client.run(eval, "dict(__import__('os').environ)").values()
    assert found["OMP_NUM_THREADS"] == found["OPENBLAS_NUM_THREADS"] == "1"
    assert "MALLOC_TRIM_THRESHOLD_" not in found
    assert before == dict(os.environ)


def test_a_scheduler_that_is_there(cluster, instead, small, tmp_path, monkeypatch):
    instead(record)
    monkeypatch.setenv("MLQ_CLUSTER", cluster.scheduler.address)
    (found,) = run_all([small], Store(tmp_path), workers=None)
    assert found["pid"] in cluster.run(os.getpid).values()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "tls://127.0.0.1:9", "ftp://here"])
def test_an_unreachable_scheduler_is_one_error(address, small, tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "CONNECT_SECONDS", 1)
    monkeypatch.setenv("MLQ_CLUSTER", address)
    with pytest.raises(ConnectionError, match=f"no Dask scheduler answers at {address}"):
        run_all([small], Store(tmp_path), workers=None)


def test_a_run_has_a_gpu_to_itself(small, tmp_path, cluster, instead):
    """Where workers declare GPUs a run asks for one: two runs at once, on one each."""

    def run(spec, store, **_):
        begun = time.time()
        time.sleep(0.2)
        gpu = os.environ["CUDA_VISIBLE_DEVICES"]
        store.put(
            spec.identity(), {"status": "done", "gpu": gpu, "begun": begun, "ended": time.time()}
        )

    instead(run)
    cluster.run(importlib.import_module, "accelerate.utils")  # both workers begin at once
    found = run_all(varied(small, 6), Store(tmp_path), client=cluster, progress=False)
    for gpu in ("3", "GPU-5c89"):
        times = sorted((r["begun"], r["ended"]) for r in found if r["gpu"] == gpu)
        assert len(times) >= 2
        assert all(ended <= begun for (_, ended), (begun, _) in itertools.pairwise(times))


def test_a_worker_that_is_killed_costs_its_run_alone(small, tmp_path, cluster, instead):
    """It is killed as soon as it is at work."""
    mark = tmp_path / "pid"

    def run(spec, store, **_):
        with contextlib.suppress(FileExistsError), mark.open("x") as file:
            file.write(str(os.getpid()))
            file.flush()
            time.sleep(600)
        record(spec, store)

    def kill():
        while not mark.exists() or not mark.read_text():
            time.sleep(0.02)
        os.kill(int(mark.read_text()), signal.SIGKILL)

    instead(run)
    specs, store = varied(small, 4), Store(tmp_path / "store")
    (killer := threading.Thread(target=kill)).start()
    records = run_all(specs, store, client=cluster)
    killer.join()
    assert int(mark.read_text()) not in cluster.run(os.getpid).values()  # another took its place
    assert [r["status"] for r in records] == ["done"] * 4
    assert sorted(store.keys()) == sorted(s.identity() for s in specs)


def test_a_run_that_kills_its_worker_fails_alone(small, tmp_path, cluster, instead):
    """It is sent again three times; those that waited on the same worker are not blamed."""
    killer, *others = varied(small, 12)
    killer = dataclasses.replace(killer, size=10_000)  # the longest, hence the first
    log = tmp_path / "starts"

    def run(spec, store, **_):
        if spec.size == 10_000:
            with log.open("a") as file:
                file.write("x")
            # Dask does not replace a process that ends while it is still being started.
            time.sleep(0.5)
            os._exit(1)
        time.sleep(0.2)
        record(spec, store)

    instead(run)
    found = run_all([killer, *others], Store(tmp_path / "s"), client=cluster, progress=False)
    assert [r["status"] for r in found] == ["failed"] + ["done"] * 11
    assert "its worker was lost 4 times" in found[0]["error"] and found[0]["again"]
    assert log.read_text() == "xxxx"


def test_a_gpu_that_failed_takes_its_process_along(small, tmp_path, cluster, instead):
    """CUDA's errors stick to a process: the run is made in another one."""
    marks = tmp_path / "marks"
    marks.mkdir()

    def run(spec, store, **_):
        if not list(marks.iterdir()):
            import torch

            (marks / str(os.getpid())).touch()
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        record(spec, store)

    instead(run)
    found = run_all(varied(small, 1), Store(tmp_path / "s"), client=cluster, progress=False)
    assert [r["status"] for r in found] == ["done"]
    assert {str(r["pid"]) for r in found}.isdisjoint(p.name for p in marks.iterdir())


def test_a_worker_whose_time_is_up_loses_no_run(small, tmp_path, monkeypatch):
    """Workers with a lifetime shorter than the list; others take over."""

    def run(spec, store, **_):
        time.sleep(0.1)
        store.put(spec.identity(), {"status": "done", "worker": get_worker().address})

    monkeypatch.setattr(experiments, "run", run)
    # In this process, which holds much, collecting garbage can take longer than a worker lives.
    monkeypatch.setattr("accelerate.utils.release_memory", lambda: None)
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "200ms"}),
        LocalCluster(
            0, processes=False, threads_per_worker=1, dashboard_address=None,
            lifetime="700ms", lifetime_stagger="200ms",
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        cluster.adapt(minimum=2, maximum=2, interval="100ms")
        found = run_all(varied(small, 20), Store(tmp_path), client=client, progress=False)
    assert [r["status"] for r in found] == ["done"] * 20
    assert len({r["worker"] for r in found}) > 2  # some were made by those that came after


def test_a_scheduler_that_dies_ends_the_list_in_one_error(small, tmp_path, instead):
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
        time.sleep(0.2)
        record(spec, store)

    def kill():
        while not list(store.keys()):
            time.sleep(0.02)
        process.kill()

    store = Store(tmp_path)
    with Client(process.stdout.readline().strip(), timeout=5) as client:
        client.register_plugin(Instead(run))
        (killer := threading.Thread(target=kill)).start()
        with (
            dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
            pytest.raises(ConnectionError, match=r"the scheduler at tcp.* is gone"),
        ):
            run_all(varied(small, 30), store, client=client, progress=False)
        killer.join()
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
    monkeypatch.setattr(executors, "PAUSES", (0, 0))
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
    monkeypatch.setattr(executors, "PAUSES", (0, 0))
    (found,) = run_all([small], Store(tmp_path))
    assert found["status"] == "done"


def test_a_full_disk_ends_the_list(small, tmp_path, monkeypatch):
    """What it has is kept, and the next call makes the rest."""
    put, store = Store.put, Store(tmp_path)

    def refusing(self, key, record, *rest):
        if record["spec"]["seed"] == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return put(self, key, record, *rest)

    def run(spec, store, **_):
        store.put(spec.identity(), {"status": "done", "spec": dataclasses.asdict(spec)})

    monkeypatch.setattr(Store, "put", refusing)
    monkeypatch.setattr(experiments, "run", run)
    with pytest.raises(OSError, match="No space left"):
        run_all(varied(small, 6), store)
    assert len(list(store.keys())) == 2
    monkeypatch.setattr(Store, "put", put)
    assert len(run_all(varied(small, 6), store)) == 6
    assert len(list(store.keys())) == 6


def test_a_failed_gpu_ends_a_list_of_this_process(small, tmp_path, monkeypatch):
    def run(spec, store, **_):
        raise torch.AcceleratorError("CUDA error")

    monkeypatch.setattr(experiments, "run", run)
    with pytest.raises(torch.AcceleratorError):
        run_all([small], Store(tmp_path))
    assert not list(tmp_path.iterdir())


def test_the_jobs_of_the_slurm_example(root, tmp_path, monkeypatch):
    """A job has one GPU and one worker, which says so, and ends before its time does."""
    dask_jobqueue = pytest.importorskip("dask_jobqueue")
    monkeypatch.chdir(tmp_path)
    options = runpy.run_path(str(root / "examples/slurm.py"))["OPTIONS"]
    with dask_jobqueue.SLURMCluster(**options) as cluster:
        script = cluster.job_script()
    for line in ("-p gpu", "-t 08:00:00", "--gpus=1", "--cpus-per-task=8", "-n 1"):
        assert f"#SBATCH {line}\n" in script
    for option in ("--resources GPU=1", "--nthreads 1", "--no-nanny", "--lifetime 450m"):
        assert option in script
    assert "MALLOC_TRIM_THRESHOLD_" not in script


def test_the_pods_of_the_kubernetes_example(root):
    """Workers have a GPU each and say so, the scheduler has none, and their commands exist."""
    pytest.importorskip("dask_kubernetes")
    spec = runpy.run_path(str(root / "examples/kubernetes.py"))["SPEC"]["spec"]
    (worker,) = spec["worker"]["spec"]["containers"]
    (scheduler,) = spec["scheduler"]["spec"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert worker["image"] == scheduler["image"]
    assert "nvidia.com/gpu" not in str(scheduler["resources"])
    assert "--resources GPU=1" in " ".join(worker["args"]) and "--no-nanny" in worker["args"]
    for container in (worker, scheduler):
        program, *arguments = container["args"]
        command = [str(Path(sys.executable).with_name(program)), *arguments, "--version"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0 and "version" in done.stdout, done.stderr
