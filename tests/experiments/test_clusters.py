"""Clusters: processes of this machine, a scheduler that is there, SLURM, Kubernetes."""

import os
import shlex
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from mlq_utils.experiments import clusters
from mlq_utils.experiments.clusters import open_cluster
from mlq_utils.experiments.executors import run_all
from mlq_utils.experiments.store import Store

EXAMPLES = Path(__file__).parents[2] / "examples"


def environments(client):
    """The variables of each worker."""
    return list(client.run(eval, "dict(__import__('os').environ)").values())


def written(folder, name, settings):
    path = folder / name
    path.write_text(yaml.safe_dump(settings))
    return path


def test_processes_keep_the_allocator_as_it_is(monkeypatch):
    """With the threshold that Dask sets, and leaves behind, training takes twice as long."""
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    names = ("MALLOC_TRIM_THRESHOLD_", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = [os.environ.get(name) for name in names]
    with open_cluster("local", 1) as client:
        (found,) = environments(client)
    assert "MALLOC_TRIM_THRESHOLD_" not in found
    assert found["OMP_NUM_THREADS"] == found["OPENBLAS_NUM_THREADS"] == "1"
    assert [os.environ.get(name) for name in names] == before


def test_a_process_a_gpu(monkeypatch):
    """Each sees its own GPU alone, declares it, and takes one run at a time."""
    monkeypatch.setattr(clusters, "_gpus", lambda: ["3", "GPU-5c89"])
    with open_cluster("local") as client:
        client.wait_for_workers(2)
        seen = {found["CUDA_VISIBLE_DEVICES"] for found in environments(client)}
        workers = client.scheduler_info()["workers"].values()
        assert seen == {"3", "GPU-5c89"}
        assert [(w["resources"], w["nthreads"]) for w in workers] == [({"GPU": 1}, 1)] * 2
        child = "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
        client.run(exec, child)  # a run may start processes
    with open_cluster("local", 1) as client:
        (found,) = environments(client)
        assert found["CUDA_VISIBLE_DEVICES"] == "3"


def test_gpus_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert clusters._gpus() == ["4", "6"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert clusters._gpus() == ["0", "1"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert clusters._gpus() == []


def test_a_scheduler_that_is_there():
    with (
        open_cluster("local", 1) as first,
        open_cluster(first.scheduler.address) as client,
    ):
        assert client.submit(sum, [1, 2]).result() == 3
        assert client.scheduler.address == first.scheduler.address


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "tls://127.0.0.1:9", "ftp://here"])
def test_an_unreachable_scheduler_is_one_error(address, monkeypatch):
    monkeypatch.setattr(clusters, "SECONDS", 1)
    with (
        pytest.raises(ConnectionError, match=f"no Dask scheduler answers at {address}"),
        open_cluster(address),
    ):
        pass


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("[1]", "give a mapping"),
        ("kind: [", "while parsing"),
        ({"kind": "slrum", "workers": 1}, "Did you mean slurm"),
        ({"kind": "slurm", "worker": 1}, "unknown key for slurm 'worker'. Did you mean workers"),
        ({"kind": "slurm", "workers": 1, "pod": {}}, "unknown key for slurm 'pod'"),
        ({"kind": "slurm"}, "workers is None"),
        ({"kind": "slurm", "workers": 0}, "workers is 0"),
        ({"kind": "slurm", "workers": 1, "options": [1]}, "options is no mapping"),
    ],
)
def test_a_wrong_file_is_told(settings, message, tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings))
    with pytest.raises(ValueError, match=rf"cluster\.yaml: (.|\n)*{message}"), open_cluster(path):
        pass


def test_what_is_no_cluster_is_told():
    with pytest.raises(FileNotFoundError, match="no cluster 'nowhere'"), open_cluster("nowhere"):
        pass
    with pytest.raises(ValueError, match="workers=0"), open_cluster("local", 0):
        pass


@pytest.mark.parametrize(("kind", "package"), [("slurm", "jobqueue"), ("kubernetes", "kubernetes")])
def test_a_missing_extra_is_told(kind, package, monkeypatch):
    monkeypatch.setitem(sys.modules, f"dask_{package}", None)
    monkeypatch.setitem(sys.modules, f"dask_{package}.operator", None)
    with (
        pytest.raises(ImportError, match=rf"needs dask-{package}: install mlq_utils\[{kind}\]"),
        open_cluster(EXAMPLES / f"{kind}.yaml"),
    ):
        pass


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """A SLURM that starts each job at once, here; `jobs` has their scripts."""
    commands, jobs = tmp_path / "bin", tmp_path / "jobs"
    commands.mkdir()
    jobs.mkdir()
    body = {
        "sbatch": f"""
[ "$1" = --test-only ] && exit 0
n=$(ls {jobs} | wc -l); cp "$1" {jobs}/$n.sh
setsid bash {jobs}/$n.sh > {tmp_path}/$n.log 2>&1 < /dev/null & echo $! > {tmp_path}/$n.pid
echo Submitted batch job $(cat {tmp_path}/$n.pid)
""",
        "scancel": 'kill -9 -- -"$1"',
    }
    for name, lines in body.items():
        path = commands / name
        path.write_text(f"#!/bin/bash\n{lines}\n")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    yield jobs
    for pid in tmp_path.glob("*.pid"):
        subprocess.run(["kill", "-9", "--", f"-{pid.read_text().strip()}"], stderr=-3)


def slurm_here(folder, **changes):
    """The example, with what only the real thing has left out."""
    settings = clusters.read(EXAMPLES / "slurm.yaml")
    options = settings["options"] | {"log_directory": str(folder / "logs"), "memory": "2GB"}
    root = shlex.quote(str(EXAMPLES.parent))
    options["job_script_prologue"] = [f"export PYTHONPATH={root} OMP_NUM_THREADS=1"]
    options["scheduler_options"] = {"host": "127.0.0.1", "dashboard": False}
    return written(folder, "slurm.yaml", settings | {"options": options | changes, "workers": 2})


def test_the_jobs_of_the_slurm_example(sbatch, tmp_path, monkeypatch):
    """A job has one GPU and one worker, which says so, and ends before its time does."""
    monkeypatch.chdir(tmp_path)
    cluster = clusters.slurm(clusters.read(EXAMPLES / "slurm.yaml"))
    with cluster:
        script = cluster.job_script()
    for line in ("-p gpu", "-t 08:00:00", "--gpus=1", "--cpus-per-task=8", "-n 1"):
        assert f"#SBATCH {line}\n" in script
    worker = shlex.split(script.strip().splitlines()[-1])
    arguments = " ".join(worker)
    for option in ("--resources GPU=1", "--nthreads 1", "--no-nanny", "--lifetime 450m"):
        assert option in arguments
    assert "MALLOC_TRIM_THRESHOLD_" not in script and not list(sbatch.iterdir())


def test_a_list_of_runs_by_slurm(small, sbatch, tmp_path):
    """Submitted, run, recorded, and the job is gone at the end."""
    store = Store(tmp_path / "store")
    with open_cluster(slurm_here(tmp_path)) as client:
        (record,) = run_all([small], store, client=client)
        (worker,) = client.scheduler_info()["workers"].values()
        (found,) = environments(client)
    assert record["status"] == "done" and store.get(small.identity()) == record
    assert worker["resources"] == {"GPU": 1}
    assert "MALLOC_TRIM_THRESHOLD_" not in found
    pid = int((tmp_path / "0.pid").read_text())
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}/cmdline").exists() and time.monotonic() < deadline:
        if not Path(f"/proc/{pid}/cmdline").read_bytes():  # a zombie
            break
        time.sleep(0.2)
    assert not Path(f"/proc/{pid}").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()


def test_slurm_that_is_not_there_or_refuses_is_told(sbatch, tmp_path, monkeypatch):
    wrong = slurm_here(tmp_path, partition="gpu")
    with pytest.raises(ValueError, match=r"options for slurm: .*partition"), open_cluster(wrong):
        pass
    refusal = "#!/bin/bash\necho 'sbatch: error: invalid partition specified: gpu' >&2; exit 1\n"
    (sbatch.parent / "bin/sbatch").write_text(refusal)
    with (
        pytest.raises(ValueError, match=r"SLURM refuses the job: .*invalid partition specified"),
        open_cluster(slurm_here(tmp_path)),
    ):
        pass
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no sbatch"), open_cluster(slurm_here(tmp_path)):
        pass


def test_the_pods_of_the_kubernetes_example():
    """Workers have a GPU each and say so; the scheduler has none, and Dask's settings."""
    settings = clusters.read(EXAMPLES / "kubernetes.yaml")
    spec = clusters.kubernetes_spec(settings["options"], settings["pod"])
    assert (spec["kind"], spec["metadata"]["name"]) == ("DaskCluster", "mlq")
    worker, scheduler = spec["spec"]["worker"]["spec"], spec["spec"]["scheduler"]["spec"]
    (container,) = worker["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"] == scheduler["containers"][0]["image"] == settings["options"]["image"]
    command = " ".join(container["args"])
    assert command.startswith("dask worker ") and "--resources GPU=1" in command
    assert "--no-nanny" in command and "--nthreads 1" in command
    assert worker["tolerations"][0]["key"] == "nvidia.com/gpu"
    (container,) = scheduler["containers"]
    assert "nvidia.com/gpu" not in str(container["resources"])
    assert container["args"][:2] == ["dask", "scheduler"]
    env = {item["name"]: item["value"] for item in container["env"]}
    assert env["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] == "3"
    assert all(isinstance(value, str) for value in env.values())


def test_the_commands_of_the_kubernetes_example_start():
    """Dask takes the arguments that the pods are given."""
    settings = clusters.read(EXAMPLES / "kubernetes.yaml")
    spec = clusters.kubernetes_spec(settings["options"], settings["pod"])["spec"]
    for part in ("worker", "scheduler"):
        (container,) = spec[part]["spec"]["containers"]
        program, *arguments = container["args"]
        command = [str(Path(sys.executable).with_name(program)), *arguments, "--version"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0 and "version" in done.stdout, done.stderr


def test_wrong_options_for_kubernetes_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"options for kubernetes: .*imgae"):
        clusters.kubernetes_spec({"name": "mlq", "imgae": "x"}, {})


def test_no_kubernetes_is_one_error(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith("KUBERNETES_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with (
        pytest.raises(ConnectionError, match="no cluster of Dask's operator"),
        open_cluster(EXAMPLES / "kubernetes.yaml"),
    ):
        pass
