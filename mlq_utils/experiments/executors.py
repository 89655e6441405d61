"""Many runs into one store: in this process, in processes of this machine, or on a Dask cluster.

    records = run_all(specs)                                # here, one after another
    records = run_all(specs, workers=2)                     # two processes, with a GPU each if any
    records = run_all(specs, client=distributed.Client(address))

Any Dask cluster serves, if its workers have this package and see the store; `examples/` has one of
SLURM and one of Kubernetes. A scheduler runs whatever it is sent, so use clusters only on a network
that you trust, or with TLS.

Finished runs are in the store, so a list that was interrupted continues where it was. A run that
fails is recorded as failed with its error, and the others go on; the next call tries it again,
unless its loss was not a number, which would happen again. If a worker is lost, its run is sent to
another one.
"""

import contextlib
import errno
import os
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from mlq_utils.experiments.spec import Spec, default_store
from mlq_utils.experiments.store import Store

if TYPE_CHECKING:
    from distributed import Client, Future, SpecCluster

RETRIES = 3
"""How often a run is sent again after its worker was lost."""
PAUSES = (2, 10)
"""Seconds before each further attempt after an error that may be transient."""
LASTING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT}
LASTING |= {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, None}
"""Errors of files that another attempt would meet again; those without a number are our own."""
CONNECT_SECONDS = 20
"""How long a scheduler may take to answer."""
Outcome = tuple[Spec, str | None]


def run_all(
    specs: Iterable[Spec],
    store: Store | None = None,
    *,
    workers: int | None = 1,
    client: "Client | None" = None,
    progress: bool | None = None,
) -> list[dict[str, Any]]:
    """Return the records of runs, computing those that the store lacks.

    Args:
        specs: What to run: specifications, or worlds. Duplicates are run once.
        store: Where records are kept. Defaults to `experiments.default_store()`.
        workers: 1 runs in this process, with all its threads. A larger number runs in so many
            processes, with one GPU each or, without GPUs, one thread each. None uses the Dask
            scheduler whose address is in MLQ_CLUSTER or, if it is not set, one process per GPU or
            core.
        client: Client of the Dask cluster to run on. Runs take one GPU each if workers declare
            them (`--resources GPU=1`).
        progress: Whether to show a progress bar. Defaults to showing it on a terminal.

    Returns:
        One record per specification, in their order. Records with the `status` "failed" have no
        scores.

    Raises:
        ValueError: `workers` is below 1, or is given together with a client.
        OSError: The store does not take a record.
        ConnectionError: The cluster's scheduler does not answer, or is gone.
        torch.AcceleratorError: The GPU of this process has failed.
    """
    specs, store = list(specs), store or default_store()
    if (workers is not None and workers < 1) or (client and workers != 1):
        raise ValueError(f"workers={workers}: give 1 or more, and no number with a client")
    wanted = {spec.identity(): spec for spec in specs}
    known = store.get_all(wanted)
    again = [key for key, record in known.items() if record and record.get("again")]
    for key in again:
        store.remove(key)
    missing = {key: spec for key, spec in wanted.items() if known[key] is None or key in again}
    if missing:
        with contextlib.ExitStack() as stack:
            if workers != 1:
                client = stack.enter_context(_client(workers, len(missing)))
            here = ((spec, _attempt(spec, store)) for spec in missing.values())
            outcomes = _on_cluster(missing, store, client) if client else here
            hidden = None if progress is None else not progress  # None: hidden if no terminal
            for spec, error in tqdm(outcomes, "runs", len(missing), disable=hidden):
                if error is not None:
                    store.put(spec.identity(), _failed(spec, error))
        known |= store.get_all(missing)
    if gone := [key for key in wanted if known[key] is None]:
        raise OSError(f"{store.url} lacks the record {gone[0]}: do all workers see this store?")
    return [known[spec.identity()] for spec in specs]


def _failed(spec: Spec, error: str) -> dict[str, Any]:
    about = {"spec": asdict(spec), "identity": spec.identity(), "status": "failed"}
    return about | {"error": error, "again": True}


def _on_cluster(missing: dict[str, Spec], store: Store, client: "Client") -> Iterator[Outcome]:
    from distributed import KilledWorker, as_completed

    client.wait_for_workers(1)
    workers = client.scheduler_info()["workers"].values()
    resources = {"GPU": 1} if any("GPU" in worker["resources"] for worker in workers) else {}
    began, keys = time.time(), {}

    def send(key: str) -> "Future":
        future = client.submit(_work, missing[key], store.url, pure=False, resources=resources)
        keys[future] = key
        return future

    # The longest run goes first, so that the others do not end up waiting for it.
    futures = as_completed(map(send, sorted(missing, key=lambda key: -missing[key].cost())))
    for future in futures:
        if future.cancelled():
            raise ConnectionError(
                f"the scheduler at {client.scheduler.address} is gone; what is done is in the store"
            )
        key, error = keys.pop(future), future.exception()
        if isinstance(error, KilledWorker):
            # Dask blames a lost worker on all runs that waited there, so count those that began.
            starts = [at for at, _ in client.get_events(f"mlq-{key}") if at > began]
            if len(starts) <= RETRIES:
                futures.add(send(key))
                continue
            error = RuntimeError(f"its worker was lost {len(starts)} times, each time at this run")
        yield missing[key], error and str(error)


def _work(spec: Spec, store: str) -> None:
    """Make one run in a worker. Its record goes to the store and is not sent back."""
    from distributed import get_client

    get_client().log_event(f"mlq-{spec.identity()}", "begun")
    kept = Store(store)
    try:
        error = _attempt(spec, kept)
    except Exception:  # the GPU's
        traceback.print_exc()
        os._exit(1)  # Dask starts another process
    if error:
        raise RuntimeError(error)


def _attempt(spec: Spec, store: Store) -> str | None:
    """Make one run, again after an error that may be transient, and return the error at the end.

    It is returned as text, because its traceback would keep the model of the run in memory.

    Raises:
        torch.AcceleratorError: The GPU has failed, and so will all that this process asks of it.
    """
    import torch
    from accelerate.utils import release_memory

    from mlq_utils.modeling.memory import is_out_of_memory

    for pause in (*PAUSES, None):
        release_memory()  # what earlier runs have left
        try:
            spec.run(store, progress=False)
            return None
        except Exception as error:
            if isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error):
                raise
            if pause is None or not isinstance(error, OSError) or error.errno in LASTING:
                return f"{type(error).__name__}: {error}"
        time.sleep(pause)


@contextlib.contextmanager
def _client(workers: int | None, most: int) -> Iterator["Client"]:
    """Give a client of MLQ_CLUSTER's scheduler, or of local processes, which Dask restarts."""
    from distributed import Client

    address = os.environ.get("MLQ_CLUSTER") if workers is None else None
    if not address:
        with _processes(workers, most) as cluster, Client(cluster) as client:
            client.wait_for_workers(len(cluster.worker_spec))
            yield client
        return
    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as error:  # TypeError: TLS without certificates
        raise ConnectionError(f"no Dask scheduler answers at {address}: {error}") from error
    with client:
        yield client


@contextlib.contextmanager
def _processes(workers: int | None, most: int) -> Iterator["SpecCluster"]:
    """Start processes of this machine, with one GPU or one thread each."""
    import dask.config
    from dask.system import CPU_COUNT
    from distributed import Nanny, Scheduler, SpecCluster

    gpus = _gpus()
    count = min(workers or len(gpus) or CPU_COUNT, len(gpus) or most, most)
    threads = max(1, CPU_COUNT // count) if gpus else 1
    options: dict[str, Any] = {"nthreads": 1, "host": "127.0.0.1"}
    if gpus:  # models pass through the processor's memory, which Dask would take for a leak
        options |= {"resources": {"GPU": 1}, "memory_limit": 0}
    nannies = {}
    for n in range(count):
        env = {f"{library}_NUM_THREADS": threads for library in ("OMP", "MKL", "OPENBLAS")}
        env |= {"CUDA_VISIBLE_DEVICES": gpus[n]} if gpus else {}
        nannies[n] = {"cls": Nanny, "options": options | {"env": env}}
    quiet = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": ":0"}
    scheduler = {"cls": Scheduler, "options": quiet}
    # Runs may start processes of their own, which daemons may not. By itself Dask would set
    # MALLOC_TRIM_THRESHOLD_, which keeps glibc from adapting: training would take twice as long.
    config = {"distributed.worker.daemon": False, "distributed.nanny.pre-spawn-environ": {}}
    with dask.config.set(config), SpecCluster(nannies, scheduler) as cluster:
        yield cluster


def _gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (named.split(",") if named else list(map(str, range(count))))[:count]
