"""What is measured of the store and of Dask, for `scaling`.

Its functions run in processes that are many, so that it imports nothing that is slow to import:
torch least of all.
"""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

import pandas as pd

from mlq_utils._common import PACKAGE_DATA
from mlq_utils.store import Store, read_lines

if TYPE_CHECKING:
    from distributed import Client

AT_ONCE = (1, 2, 4, 8)
RECORDS = (100, 1000, 10_000)

SERVER = """
import sys
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from moto.server import main
port, *numbers = sys.argv[1:]
bucket = get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]
bucket.create_bucket("mlq", "us-east-1")
for number in numbers:
    for n in range(int(number)):
        bucket.put_object("mlq", f"{number}/{n}/record.json", b"{}")
main(["-p", port])
"""


def shipped() -> list[dict[str, Any]]:
    """Return the shipped records of runs that ended well."""
    files = sorted((PACKAGE_DATA / "runs").glob("*.jsonl"))
    return [r for file in files for r in read_lines(file).values() if r["status"] == "done"]


@cache
def payload() -> tuple[dict[str, Any], pd.DataFrame]:
    """Return what a run of the mini world stores: a shipped record, as many texts as it had."""
    record = shipped()[0]
    row = {
        "target_language": "ro",
        "source": "Thursday, January 9, 2003, 7 years ago, and Romania",
        "hypothesis": "joi, 9 ianuarie 2003, acum 7 ani și România",
        "target": "joi, 9 ianuarie 2003, acum 7 ani și România",
    }
    return record, pd.DataFrame([row] * len(record["scores"]) * record["spec"]["test_size"])


def _seconds(call: Callable[[], Any]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def _as_a_run_does(url: str, name: str, count: int, start: float) -> dict[str, Any]:
    """Ask for runs that are not there and store them, in a process of its own, from `start` on."""
    store, (record, hypotheses) = Store(url), payload()
    store.get(name)
    time.sleep(max(0.0, start - time.time()))
    times: dict[str, Any] = {"missing": [], "put": []}
    for n in range(count):
        times["missing"].append(_seconds(lambda n=n: store.get(f"{name}-{n}")))
        times["put"].append(_seconds(lambda n=n: store.put(f"{name}-{n}", record, hypotheses)))
    return times | {"end": time.time()}


def store_by_writers(
    url: str, at_once: Sequence[int] = AT_ONCE, count: int = 25
) -> list[dict[str, Any]]:
    """Measure a store that so many processes write to at once.

    Returns:
        A row a number: `writers`, `missing` and `put` (median seconds of looking for a record that
        is not there, and of writing one), `runs_per_second` (both, of all writers together).
    """
    rows = []
    with ProcessPoolExecutor(max(at_once), get_context("spawn")) as pool:
        names = [f"warm-{n}" for n in range(max(at_once))]
        list(
            pool.map(_as_a_run_does, [url] * len(names), names, [1] * len(names), [0] * len(names))
        )
        for writers in at_once:
            start = time.time() + 1
            jobs = [
                pool.submit(_as_a_run_does, url, f"{writers}-{n}", count, start)
                for n in range(writers)
            ]
            found = [job.result() for job in jobs]
            row = {n: median(t for one in found for t in one[n]) for n in ("missing", "put")}
            elapsed = max(one["end"] for one in found) - start
            rows.append({"writers": writers} | row | {"runs_per_second": writers * count / elapsed})
    return rows


def store_by_records(urls: Mapping[int, str], count: int = 20) -> list[dict[str, Any]]:
    """Measure stores that hold so many records already.

    Args:
        urls: Where each lies, by the number of its records.
        count: Operations measured.

    Returns:
        A row a number: `records`, and median seconds of `missing`, `put`, `get` (of one that is
        there), `keys` (all of them, once), `get_all` (of `count` at once, a record).
    """
    record, hypotheses = payload()
    rows = []
    for number, url in urls.items():
        store, names = Store(url), [f"new-{n}" for n in range(count)]
        calls = {
            "missing": store.get,
            "put": lambda name, store=store: store.put(name, record, hypotheses),
            "get": store.get,
        }
        row = {
            what: median(_seconds(lambda name=name, call=call: call(name)) for name in names)
            for what, call in calls.items()
        }
        row["keys"] = _seconds(lambda store=store: list(store.keys()))
        row["get_all"] = _seconds(lambda store=store, names=names: store.get_all(names)) / count
        rows.append({"records": number} | row)
    return rows


def seeded(folder: Path) -> dict[int, str]:
    """Make a local store a number of records, each of which has a record and no hypotheses."""
    for number in RECORDS:
        for n in range(number):
            place = folder / f"{number}/{n}"
            place.mkdir(parents=True)
            (place / "record.json").write_bytes(b"{}")
    return {number: str(folder / str(number)) for number in RECORDS}


@contextlib.contextmanager
def fake_object_store() -> Iterator[str]:
    """Start moto's server in a process of its own and give a bucket's URL.

    The bucket holds the stores that `seeded` makes in a folder.

    Raises:
        RuntimeError: It does not start: moto[s3,server] and s3fs must be installed.
    """
    from mlq_utils.clusters import _environment

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    command = [sys.executable, "-c", SERVER, str(port), *map(str, RECORDS)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        with _environment(found):
            _wait_for(server, port)
            yield "s3://mlq"
    finally:
        server.kill()
        server.wait()


def _wait_for(server: subprocess.Popen, port: int) -> None:
    for _ in range(600):
        if server.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError("moto's server does not start: pip install 's3fs' 'moto[s3,server]'")


def _nothing(spec: dict[str, Any], store: str) -> None:
    """Stand for `runs._work`, which is sent with the same arguments and sends nothing back."""


def _sleep(seconds: float, url: str, key: str) -> None:
    store, (record, hypotheses) = Store(url), payload()
    store.get(key)
    time.sleep(seconds)
    store.put(key, record, hypotheses)


def scheduler_costs(client: "Client", tasks: int) -> dict[str, Any]:
    """Measure Dask with tasks like ours that do nothing, sent and collected as `run_all` does.

    Returns:
        `tasks`, `submit` (seconds until all were sent), `seconds` (until all were collected),
        `per_second`, `scheduler` (seconds a task of the process that is both scheduler and client).
    """
    from distributed import as_completed

    spec = payload()[0]["spec"]
    name = f"{time.time():.0f}-{tasks}"
    start, cpu = perf_counter(), process_time()
    futures = [
        client.submit(_nothing, spec, "s3://bucket/prefix", key=f"mlq-{name}-{n}")
        for n in range(tasks)
    ]
    submit = perf_counter() - start
    for future in as_completed(futures):
        future.exception()
    seconds = perf_counter() - start
    row = {"tasks": tasks, "submit": submit, "seconds": seconds, "per_second": tasks / seconds}
    return row | {"scheduler": (process_time() - cpu) / tasks}


def asleep(client: "Client", url: str, seconds: float, count: int) -> float:
    """Return the efficiency of a list of runs that sleep, and are looked for and stored as ours."""
    from distributed import as_completed

    number = len(client.scheduler_info(n_workers=-1)["workers"])
    name = f"asleep-{number}-{seconds}"
    start = perf_counter()
    futures = [
        client.submit(_sleep, seconds, url, f"{name}-{n}", key=f"mlq-{name}-{n}")
        for n in range(count)
    ]
    for future in as_completed(futures):
        future.result()
    return count * seconds / (number * (perf_counter() - start))
