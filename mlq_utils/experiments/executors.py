"""Many runs: in this process, in processes of their own, or on a Dask cluster, into one store.

    records = run_all(specs)                                # here, one after another
    records = run_all(specs, workers=2)                     # two processes, each with a GPU if any
    records = run_all(specs, store, client=client)          # a cluster, see `clusters`

Every run that is done is in the store, so a list that was interrupted goes on where it was, and two
lists may share runs. A run that fails is recorded as failed, with its error, and the others go on;
the next call tries it again, unless its loss was no number, which would happen again.

A worker that is lost costs the run that it was at, which is sent to another. What may pass, such as
a store that does not answer for a while, is tried again at once; a full disk is not.
"""

import contextlib
import errno
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from mlq_utils import experiments
from mlq_utils.experiments import clusters
from mlq_utils.experiments.clusters import RETRIES
from mlq_utils.experiments.spec import Spec
from mlq_utils.experiments.store import Store

if TYPE_CHECKING:
    from distributed import Client

Outcome = tuple[Spec, Exception | None]
BAR = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
PAUSES = (2, 10)
"""Seconds before each further attempt at what may pass."""
LASTING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT}
LASTING |= {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}
"""Errors of files that another attempt would meet again."""
REFUSALS = 3
"""How many failures in a row that the store refuses to record end a list."""


def run_all(
    specs: Iterable[Spec],
    store: Store | None = None,
    *,
    workers: int = 1,
    client: "Client | None" = None,
    progress: bool | None = None,
) -> list[dict[str, Any]]:
    """Return the records of runs, computing those that the store lacks.

    Args:
        specs: What to run; one that comes twice is run once.
        store: Where records are kept; `experiments.default_store()` where None.
        workers: 1 runs them in this process, with all its threads; more, in so many processes:
            of one thread each, by which runs of the mini world gain, or of one GPU each.
        client: Runs them on this Dask cluster instead, one GPU a run where workers declare them
            (`clusters.open_cluster`). A run whose worker is lost is sent again, `RETRIES` times.
        progress: Whether to show a bar with an estimate of the time left, by the runs' `cost`;
            outside notebooks where None.

    Returns:
        A record a specification, in their order. Those with `status` "failed" have no scores.

    Raises:
        ValueError: The number of workers is below 1, or comes with a client.
        OSError: The store cannot be written to. What it takes is computed first, unless it refuses
            `REFUSALS` in a row.
        ConnectionError: The cluster's scheduler is gone.
        torch.AcceleratorError: The GPU of this process has failed.
    """
    specs, store = list(specs), store or experiments.default_store()
    if workers < 1 or (client and workers > 1):
        raise ValueError(f"workers={workers}: give 1 or more, and no number with a client")
    keys = [spec.identity() for spec in specs]
    known, missing = store.get_all(keys), {}
    for key, spec in zip(keys, specs, strict=True):
        record = known[key]
        if record and record.get("again"):
            store.remove(key)
            record = None
        if not record:
            missing[key] = spec
    refused: list[OSError] = []
    with contextlib.ExitStack() as stack:
        if missing and workers > 1:
            count = min(workers, len(missing))
            client = stack.enter_context(clusters.open_cluster("local", count))
        bar = stack.enter_context(_bar(missing.values(), progress))
        outcomes = _on_cluster(missing, store, client) if client else _here(missing, store)
        in_a_row = 0
        for done, (spec, error) in enumerate(outcomes, 1):
            try:
                if error is not None:
                    store.put(spec.identity(), _failed(spec, error))
                in_a_row = 0
            except OSError as refusal:
                refused.append(refusal)
                in_a_row += 1
            bar.set_description_str(f"{done} of {len(missing)} runs", refresh=False)
            bar.update(spec.cost())
            if in_a_row == REFUSALS:
                break
    if refused:
        raise OSError(
            f"the store takes no records of {len(refused)} of {len(missing)} runs: {refused[-1]}. "
            "What it has is kept; the next call makes the rest"
        ) from refused[-1]
    known |= store.get_all(missing)
    if gone := [key for key in keys if known[key] is None]:
        raise OSError(f"the record {gone[0]} was removed from {store.url} while runs went on")
    return [known[key] for key in keys]


def _here(missing: dict[str, Spec], store: Store) -> Iterator[Outcome]:
    if not missing:  # reading records needs no torch
        return
    import torch

    for spec in missing.values():
        try:
            _attempt(spec, store)
        except torch.AcceleratorError:  # nothing more can be computed in this process
            raise
        except Exception as error:
            yield spec, error
        else:
            yield spec, None


def _on_cluster(missing: dict[str, Spec], store: Store, client: "Client") -> Iterator[Outcome]:
    from distributed import KilledWorker, as_completed

    resources = _resources(client)
    began, keys = time.time(), {}

    def send(key: str, again: str = "") -> Any:
        name = f"mlq-{key}{again}"
        future = client.submit(_work, missing[key], store.url, key=name, resources=resources)
        keys[future] = key
        return future

    # The longest first: the last to end should not be the longest.
    order = sorted(missing, key=lambda key: -missing[key].cost())
    futures = as_completed([send(key) for key in order])
    for future in futures:
        if future.cancelled():
            raise ConnectionError(
                f"the scheduler at {client.scheduler.address} is gone; what is done is in the store"
            )
        key = keys.pop(future)
        error = future.exception()
        if isinstance(error, KilledWorker):
            # Dask blames a lost worker on all that waited there; what counts is what had begun.
            starts = [at for at, _ in client.get_events(f"mlq-{key}") if at > began]
            if len(starts) <= RETRIES:
                futures.add(send(key, f"-{time.time_ns()}"))
                continue
            error = RuntimeError(f"its worker was lost {len(starts)} times, each time at this run")
        yield missing[key], error


def _resources(client: "Client") -> dict[str, int]:
    """Return what a run takes of a worker: a GPU, where workers declare them."""
    client.wait_for_workers(1)
    workers = client.scheduler_info()["workers"].values()
    return {"GPU": 1} if any("GPU" in worker["resources"] for worker in workers) else {}


def _work(spec: Spec, store: str) -> None:
    """Run one specification in a worker; its record is in the store, and is not sent back."""
    import torch
    from distributed import get_client

    get_client().log_event(f"mlq-{spec.identity()}", "begun")  # which waits for the answer
    try:
        _attempt(spec, Store(store))
    except torch.AcceleratorError:
        # Whatever this process asks of the GPU from here on fails: better another process.
        traceback.print_exc()
        os._exit(1)


def _attempt(spec: Spec, store: Store) -> None:
    """Run one specification; what may pass is waited for."""
    for pause in (*PAUSES, None):
        try:
            experiments.run(spec, store, progress=False)
            return
        except OSError as error:
            if pause is None or error.errno is None or error.errno in LASTING:
                raise
            time.sleep(pause)


def _failed(spec: Spec, error: Exception) -> dict[str, Any]:
    return {
        "spec": asdict(spec),
        "identity": spec.identity(),
        "status": "failed",
        "error": f"{type(error).__name__}: {error}",
        "again": True,
    }


def _bar(specs: Sequence[Spec], progress: bool | None) -> tqdm:
    hidden = "ipykernel" in sys.modules or None if progress is None else not progress
    return tqdm(
        total=sum(spec.cost() for spec in specs),
        desc=f"0 of {len(specs)} runs",
        bar_format=BAR,
        smoothing=0,
        disable=hidden or not specs,
    )
