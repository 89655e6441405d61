"""Many runs: in this process, in processes of their own, or on a Dask cluster, into one store.

    records = run_all(specs)                                # here, one after another
    records = run_all(specs, workers=2)                     # two processes of one thread each
    records = run_all(specs, store, client=Client(address)) # whatever cluster Dask is connected to

Every run that is done is in the store, so a list that was interrupted goes on where it was, and two
lists may share runs. A run that fails is recorded as failed, with its error, and the others go on;
the next call tries it again, unless its loss was no number, which would happen again.

A cluster's workers need this package and the store's folder, at the same path; without
MALLOC_TRIM_THRESHOLD_ in their environment, which Dask sets, they train twice as fast. A Dask
scheduler runs whatever it is sent: use one on a network that you trust, or with TLS.
"""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from mlq_utils import experiments
from mlq_utils.experiments import Spec
from mlq_utils.store import Store

if TYPE_CHECKING:
    from distributed import Client

Outcome = tuple[Spec, Exception | None]
BAR = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"


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
        workers: 1 runs them in this process, with all its threads; more, in so many processes of
            one thread each. Runs of the mini world are small, and gain by it.
        client: Runs them on this Dask cluster instead. A worker that is lost costs the run that it
            was at, which is sent to another, three times at most.
        progress: Whether to show a bar with an estimate of the time left, by the runs' `cost`;
            outside notebooks where None.

    Returns:
        A record a specification, in their order. Those with `status` "failed" have no scores.

    Raises:
        ValueError: The number of workers is below 1, or comes with a client.
        OSError: The store cannot be written to.
    """
    specs, store = list(specs), store or experiments.default_store()
    if workers < 1 or (client and workers > 1):
        raise ValueError(f"workers={workers}: give 1 or more, and no number with a client")
    keys = [spec.identity() for spec in specs]
    missing = {}
    for key, spec in zip(keys, specs, strict=True):
        record = store.get(key)
        if record and record.get("again"):
            store.remove(key)
            record = None
        if not record:
            missing[key] = spec
    with contextlib.ExitStack() as stack:
        if missing and workers > 1:
            client = stack.enter_context(_processes(min(workers, len(missing))))
        bar = stack.enter_context(_bar(missing.values(), progress))
        outcomes = _on_cluster(missing, store, client) if client else _here(missing, store)
        for done, (spec, error) in enumerate(outcomes, 1):
            if error is not None:
                store.put(spec.identity(), _failed(spec, error))
            bar.set_description_str(f"{done} of {len(missing)} runs", refresh=False)
            bar.update(spec.cost())
    return [_found(store, key) for key in keys]


def _here(missing: dict[str, Spec], store: Store) -> Iterator[Outcome]:
    for spec in missing.values():
        try:
            experiments.run(spec, store, progress=False)
        except Exception as error:
            yield spec, error
        else:
            yield spec, None


def _on_cluster(missing: dict[str, Spec], store: Store, client: "Client") -> Iterator[Outcome]:
    from distributed import as_completed

    futures = {}
    # The longest first: the last to end should not be the longest.
    for key, spec in sorted(missing.items(), key=lambda item: -item[1].cost()):
        futures[client.submit(_work, spec, store.url, key=f"mlq-{key}")] = spec
    for future in as_completed(futures):
        yield futures[future], future.exception()


def _work(spec: Spec, store: str) -> None:
    """Run one specification in a worker; its record is in the store, and is not sent back."""
    experiments.run(spec, Store(store), progress=False)


@contextlib.contextmanager
def _processes(count: int) -> Iterator["Client"]:
    """Start processes of one thread each on this machine, which Dask restarts when they die.

    By itself Dask also sets MALLOC_TRIM_THRESHOLD_, whatever its value a halt to glibc's own
    adaptation: every larger tensor is then mapped and faulted in anew, and training takes twice
    as long.
    """
    import dask.config
    from distributed import Client, LocalCluster

    limits = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}
    with (
        _environment(limits | {"MALLOC_TRIM_THRESHOLD_": None}),
        dask.config.set({"distributed.nanny.pre-spawn-environ": {}}),
        LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


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


def _failed(spec: Spec, error: Exception) -> dict[str, Any]:
    return {
        "spec": asdict(spec),
        "identity": spec.identity(),
        "status": "failed",
        "error": f"{type(error).__name__}: {error}",
        "again": True,
    }


def _found(store: Store, key: str) -> dict[str, Any]:
    record = store.get(key)
    if record is None:
        raise OSError(f"the record {key} was removed from {store.url} while runs went on")
    return record


def _bar(specs: Sequence[Spec], progress: bool | None) -> tqdm:
    hidden = "ipykernel" in sys.modules or None if progress is None else not progress
    return tqdm(
        total=sum(spec.cost() for spec in specs),
        desc=f"0 of {len(specs)} runs",
        bar_format=BAR,
        smoothing=0,
        disable=hidden or not specs,
    )
