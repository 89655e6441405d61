"""Where lists of runs execute: processes of this machine, a Dask scheduler, SLURM, Kubernetes.

    with open_cluster("local") as client:                  # a process a GPU; without, one a core
        run_all(specs, client=client)
    with open_cluster("tls://host:8786") as client: ...    # a scheduler that is there
    with open_cluster("examples/slurm.yaml") as client: ...
    with open_cluster("examples/kubernetes.yaml") as client: ...

Workers declare the GPU that they have, `{"GPU": 1}`, and `runs.run_all` asks for one a run. Each
needs this package and sees the store: a folder at the same path, or a URL.

A scheduler runs whatever it is sent, as the user who started it, and what is sent is not encrypted
unless TLS is set up: use clusters on a network that you trust, or with TLS (an address `tls://…`
takes the certificates from Dask's configuration, SLURM the option `security: true`).
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.config
import yaml

from mlq_utils.data import one_of

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster
    from distributed import Client

RETRIES = 3
"""How often a run whose worker was lost is sent again."""
CONFIG = {
    "distributed.scheduler.allowed-failures": RETRIES,
    "distributed.worker.daemon": False,  # a run may start processes of its own
    # Runs take minutes or more, which Dask cannot know: it shall ask for a worker a run.
    "distributed.adaptive.target-duration": "100ms",
}
"""What Dask's configuration is while a cluster of ours is open."""
SECONDS = 20
"""How long a scheduler may take to answer."""
KEYS = {
    "slurm": ("kind", "workers", "options"),
    "kubernetes": ("kind", "workers", "options", "pod", "cluster"),
}
"""What a cluster's file says, by its `kind`."""


@contextlib.contextmanager
def open_cluster(where: str | Path | None = None, workers: int | None = None) -> Iterator["Client"]:
    """Open a cluster, or connect to one, and give a client of it; close it at the end.

    Args:
        where: "local"; a scheduler's address, `tcp://host:port` or `tls://host:port`; or a YAML
            file, see `examples/slurm.yaml` and `examples/kubernetes.yaml`. What MLQ_CLUSTER says
            where None, "local" where it says nothing.
        workers: For "local", how many processes at most: all GPUs, or else all cores, where None.
            For a file, how many workers at most, in the place of what it says.

    Raises:
        ValueError: The file has wrong keys or options, SLURM refuses its job, or a number of
            workers is below 1.
        FileNotFoundError: There is no such file, or no SLURM here.
        ConnectionError: The scheduler, or Kubernetes, cannot be reached.
        ImportError: The extra that the kind of cluster needs is not installed.
    """
    import distributed  # noqa: F401  its defaults, before any of them is set

    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers}: give 1 or more")
    where = str(where or os.environ.get("MLQ_CLUSTER") or "local")
    with contextlib.ExitStack() as stack:
        if where == "local":
            client = stack.enter_context(_local(workers))
        elif "://" in where:
            client = stack.enter_context(_connected(where))
        else:
            settings = read(Path(where))
            stack.enter_context(dask.config.set(CONFIG))
            cluster = {"slurm": slurm, "kubernetes": kubernetes}[settings["kind"]](settings)
            stack.enter_context(cluster)
            if settings["kind"] == "slurm":
                _check_job(cluster.job_script())
            # As many as there is work for; those that end before their work are replaced.
            cluster.adapt(minimum=1, maximum=workers or settings["workers"])
            client = stack.enter_context(_connected(cluster))
        yield client


def read(path: Path) -> dict[str, Any]:
    """Return what a cluster's file says.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no YAML, or has a key too many or too few.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no cluster {str(path)!r}: not 'local', no address (tcp://host:port), and no file"
        )
    try:
        settings = yaml.safe_load(path.read_text("utf8"))
        if not isinstance(settings, dict):
            raise ValueError("give a mapping, as in examples/slurm.yaml")
        kind = one_of("kind of cluster", str(settings.get("kind")), KEYS)
        for key in settings:
            one_of(f"key for {kind}", str(key), KEYS[kind])
        workers = settings.get("workers")
        if not isinstance(workers, int) or workers < 1:
            raise ValueError(f"workers is {workers!r}: say how many there may be, 1 or more")
        for key in KEYS[kind][2:]:
            if not isinstance(settings.setdefault(key, {}), dict):
                raise ValueError(f"{key} is no mapping")
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error
    return settings


def slurm(settings: dict[str, Any]) -> "SLURMCluster":
    """Return a cluster whose workers are SLURM jobs; none is submitted yet.

    Args:
        settings: Of `read`; `options` are those of `dask_jobqueue.SLURMCluster`.

    Raises:
        ValueError: An option is unknown or missing.
        FileNotFoundError: SLURM's commands are not here.
        ImportError: dask-jobqueue is not installed.
    """
    with _extra("slurm", "dask-jobqueue"):
        from dask_jobqueue import SLURMCluster
    if shutil.which("sbatch") is None:
        raise FileNotFoundError("no sbatch here: start on a machine that submits SLURM's jobs")
    try:
        return SLURMCluster(**settings["options"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"options for slurm: {error}") from error


def _check_job(script: str) -> None:
    """Let SLURM check a job: what is wrong with it is told here, and later in a log at most."""
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(script)
        file.flush()
        command = ["sbatch", "--test-only", file.name]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"SLURM refuses the job: {done.stderr.strip()}")


def kubernetes(settings: dict[str, Any]) -> Any:
    """Create a cluster of the Dask operator for Kubernetes, and return it.

    Args:
        settings: Of `read`: `options` and `pod` as in `kubernetes_spec`, and `cluster` for
            `dask_kubernetes.operator.KubeCluster`, such as `namespace`.

    Raises:
        ValueError: An option is unknown or missing.
        ConnectionError: There is no Kubernetes, or none with Dask's operator.
        ImportError: dask-kubernetes is not installed.
    """
    spec = kubernetes_spec(settings["options"], settings["pod"])
    from dask_kubernetes.operator import KubeCluster

    try:
        return KubeCluster(custom_cluster_spec=spec, quiet=True, **settings["cluster"])
    except TypeError as error:
        raise ValueError(f"cluster for kubernetes: {error}") from error
    except Exception as error:  # each layer below has errors of its own
        raise ConnectionError(
            f"no cluster of Dask's operator can be made by Kubernetes here: {error}"
        ) from error


def kubernetes_spec(options: dict[str, Any], pod: dict[str, Any]) -> dict[str, Any]:
    """Return the resource of kind DaskCluster that Kubernetes is given.

    Args:
        options: Of `dask_kubernetes.operator.make_cluster_spec`. What they ask for (`resources`)
            the workers get, and the scheduler, which needs no GPU, does not.
        pod: What else the workers' pod says: `nodeSelector`, `tolerations`, `volumes` …

    Raises:
        ValueError: An option is unknown or missing.
        ImportError: dask-kubernetes is not installed.
    """
    with _extra("kubernetes", "dask-kubernetes"):
        from dask_kubernetes.operator import make_cluster_spec
    try:
        spec = make_cluster_spec(**{"n_workers": 1} | options)
    except TypeError as error:
        raise ValueError(f"options for kubernetes: {error}") from error
    spec["spec"]["worker"]["spec"].update(pod)
    (scheduler,) = spec["spec"]["scheduler"]["spec"]["containers"]
    scheduler["resources"] = {}
    # dask-kubernetes says `dask-scheduler`, which Dask no longer installs.
    scheduler["args"] = ["dask", "scheduler", *scheduler["args"][1:]]
    scheduler["env"] = [
        *(scheduler["env"] or []),
        *(
            {"name": f"DASK_{name.upper().replace('.', '__').replace('-', '_')}", "value": str(to)}
            for name, to in CONFIG.items()
        ),
    ]
    return spec


@contextlib.contextmanager
def _connected(where: Any) -> Iterator["Client"]:
    """Give a client of a cluster, or of the scheduler at an address."""
    from distributed import Client

    try:
        client = Client(where, timeout=SECONDS)
    except (OSError, ValueError, TypeError) as error:  # TypeError: TLS without certificates
        raise ConnectionError(f"no Dask scheduler answers at {where}: {error}") from error
    with client:
        yield client


@contextlib.contextmanager
def _local(workers: int | None) -> Iterator["Client"]:
    """Start processes on this machine, which Dask restarts when they die: a GPU each, or a core.

    By itself Dask also sets MALLOC_TRIM_THRESHOLD_, whatever its value a halt to glibc's own
    adaptation: every larger tensor is then mapped and faulted in anew, and training takes twice
    as long.
    """
    from dask.system import CPU_COUNT
    from distributed import LocalCluster

    gpus = _gpus()[:workers]
    count = len(gpus) or workers or CPU_COUNT
    threads = str(max(1, CPU_COUNT // count) if gpus else 1)
    limits = {f"{library}_NUM_THREADS": threads for library in ("OMP", "MKL", "OPENBLAS")}
    options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": None}
    if gpus:  # a model passes through the processor's memory, which Dask would take for a leak
        options |= {"resources": {"GPU": 1}, "memory_limit": 0}

    class Cluster(LocalCluster):
        def new_worker_spec(self) -> dict[Any, Any]:
            ((name, spec),) = super().new_worker_spec().items()
            if gpus:
                own = {"env": {"CUDA_VISIBLE_DEVICES": gpus[name]}}
                spec = spec | {"options": spec["options"] | own}
            return {name: spec}

    with (
        _environment(limits | {"MALLOC_TRIM_THRESHOLD_": None}),
        dask.config.set(CONFIG | {"distributed.nanny.pre-spawn-environ": {}}),
        Cluster(n_workers=0, **options) as cluster,
    ):
        cluster.scale(count)
        with _connected(cluster) as client:
            client.wait_for_workers(count)
            yield client


def _gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (named.split(",") if named else list(map(str, range(count))))[:count]


@contextlib.contextmanager
def _extra(name: str, package: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"a cluster of kind {name} needs {package}: install mlq_utils[{name}] ({error})"
        ) from error


@contextlib.contextmanager
def _environment(changes: dict[str, str | None]) -> Iterator[None]:
    """Set variables of this process, or unset them (None), and put them back as they were.

    What processes started from here inherit. Dask's own setting yields to a variable that is
    there, and leaves in this process what it sets for a worker.
    """
    before = {name: os.environ.get(name) for name in changes}
    _set_variables(changes)
    try:
        yield
    finally:
        _set_variables(before)


def _set_variables(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
