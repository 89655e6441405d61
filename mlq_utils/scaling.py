"""What the store and the scheduler cost a run, and at how many workers they become the limit.

    python -m mlq_utils.scaling            # measured here, into _build/scaling.json: five minutes
    python -m mlq_utils.scaling --record   # and into the package, for the book

Measured on one machine: a store in a local folder and one in a fake object store, by processes that
write at once and by the number of records already there; Dask, with tasks shaped like ours and up
to eight worker processes; and whole lists of runs that sleep instead of computing, which `simulate`
must foretell. Beyond that number of workers it is `simulate` alone that speaks.

What is slow to import, torch above all, is imported where it is used: each process that measures
imports this module first.
"""

import argparse
import datetime
import heapq
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mlq_utils._common import PACKAGE_DATA, written_whole
from mlq_utils._loads import (
    AT_ONCE,
    RECORDS,
    asleep,
    fake_object_store,
    payload,
    scheduler_costs,
    seeded,
    shipped,
    store_by_records,
    store_by_writers,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OUTPUT = Path("_build/scaling.json")
RECORD = PACKAGE_DATA / "scaling.json"
ABOUT = (
    "Medians of one run on one machine. The object store is moto's server, a fake of S3 in a "
    "Python process of this machine: it shows that the store works on one and what requests a "
    "record takes, and says nothing of the speed of a real one."
)
ROUNDS = 8  # runs a worker in lists that are really made
WORKERS = (1, 4, 16, 64, 250, 1000, 4000)
PAPER_SECONDS = (600.0, 14_400.0)
"""What a run takes at the paper's scale, assumed: between 10 minutes and 4 hours, log-uniform."""


@dataclass(frozen=True)
class Costs:
    """What one run takes besides computing, in seconds.

    Attributes:
        scheduler: For which the scheduler, of which there is one, is taken.
        store: For which the store is taken: what it does in a second, inverted.
        waits: For which the run's worker waits for its own answers even where nobody else asks.
    """

    scheduler: float
    store: float
    waits: float


S3_DOCUMENTED = Costs(scheduler=0.0, store=2 / 3500 + 1 / 5500, waits=3 * 0.15)
"""Of S3 as its user guide has it ("Optimizing Amazon S3 performance"): at least 3,500 writes and
5,500 reads a second and prefix, each within 100 to 200 ms. A run reads once and writes twice."""


def simulate(
    workers: Sequence[int],
    durations: Mapping[str, Sequence[float]],
    costs: Mapping[str, Costs],
    rounds: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """Simulate lists of runs: a queue before the scheduler, one before the store.

    Args:
        workers: Numbers of workers, each of which does one run at a time.
        durations: Seconds of computing, by kind of run; runs are drawn from them.
        costs: By the place of the store.
        rounds: Runs a worker, on average.
        seed: Of the draws.

    Returns:
        A row a place, kind and number: `place`, `kind`, `run_seconds` (mean), `workers`,
        `efficiency` (the share of the workers' time in which they compute, until the last run of
        the list is given out), `scheduler_busy` and `store_busy` (shares of time), `limit` (which
        of the two is busy all the time; "" where neither is).
    """
    rows = []
    for place, cost in costs.items():
        for kind, known in durations.items():
            for number in workers:
                drawn = np.random.default_rng(seed).choice(known, number * rounds)
                row = {"place": place, "kind": kind, "run_seconds": fmean(known)}
                rows.append(row | {"workers": number} | _events(number, drawn.tolist(), cost))
    return pd.DataFrame(rows)


def _events(workers: int, durations: list[float], cost: Costs) -> dict[str, Any]:
    """Play one list through, event by event, to the moment when nothing is left to give out."""
    ask, write = 0, 1
    events = [(0.0, ask, worker) for worker in range(workers)]
    waiting = iter(durations)
    free = [0.0, 0.0]  # from when on the scheduler and the store are
    began: list[tuple[float, float]] = []
    while True:
        now, what, worker = heapq.heappop(events)
        taken = (cost.scheduler, cost.store)[what]
        free[what] = done = max(now, free[what]) + taken
        if what == write:
            heapq.heappush(events, (done + cost.waits, ask, worker))
            continue
        seconds = next(waiting, None)
        if seconds is None:
            break
        began.append((done, seconds))
        heapq.heappush(events, (done + seconds, write, worker))
    end = began[-1][0] or 1.0
    computed = sum(min(start + seconds, end) - start for start, seconds in began)
    busy = [min(1.0, len(began) * taken / end) for taken in (cost.scheduler, cost.store)]
    limit = max(zip(busy, ("scheduler", "store"), strict=True))
    return {
        "efficiency": computed / (workers * end),
        "scheduler_busy": busy[0],
        "store_busy": busy[1],
        "limit": limit[1] if limit[0] > 0.95 else "",
    }


def limits(run_seconds: float, cost: Costs) -> dict[str, float]:
    """Return at how many workers the scheduler and the store are busy all the time.

    That is the time from a run's begin to the next one's, over the time for which each is taken.
    """
    cycle = run_seconds + cost.scheduler + cost.store + cost.waits
    taken = {"scheduler": cost.scheduler, "store": cost.store}
    return {part: cycle / seconds if seconds else float("inf") for part, seconds in taken.items()}


def durations() -> dict[str, list[float]]:
    """Return the kinds of runs that are simulated, each as seconds to draw from."""
    low, high = np.log(PAPER_SECONDS)
    return {
        "of 1 second": [1.0],
        "of the mini world": [record["seconds"] for record in shipped()],
        "of 10 minutes to 4 hours": np.exp(np.linspace(low, high, 200)).tolist(),
    }


def _dask(folder: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    from mlq_utils import runs

    scheduler, lists = [], []
    with runs._processes(max(AT_ONCE)) as client:
        client.run(payload)
        scheduler_costs(client, 100)
        for number in sorted(AT_ONCE, reverse=True):
            client.cluster.scale(number)
            while len(client.scheduler_info(n_workers=-1)["workers"]) != number:
                time.sleep(0.1)
            tasks = 10_000 if number == max(AT_ONCE) else 500
            scheduler.append({"workers": number} | scheduler_costs(client, tasks))
            for seconds in (0.2, 1.0):
                efficiency = asleep(client, folder, seconds, ROUNDS * number)
                lists.append({"workers": number, "seconds": seconds, "efficiency": efficiency})
    return scheduler, lists


def costs(found: Mapping[str, Any]) -> dict[str, Costs]:
    """Return what a run costs by the place of its store, from what was measured.

    The fake object store is left out: its speed is moto's.

    Args:
        found: As `measure` returns it.
    """
    scheduler = max(found["scheduler"], key=lambda row: row["tasks"])["scheduler"]
    rows = [row for row in found["by_writers"] if row["place"] == "local folder"]
    store = 1 / max(row["runs_per_second"] for row in rows)
    waits = max(0.0, rows[0]["missing"] + rows[0]["put"] - store)
    s3 = asdict(S3_DOCUMENTED) | {"scheduler": scheduler}
    return {"local folder": Costs(scheduler, store, waits), "S3 as documented": Costs(**s3)}


def measure() -> dict[str, Any]:
    """Measure all and simulate what it comes to.

    Returns:
        Lists of rows: `by_writers` and `by_records` (with `place`), `scheduler` (with `workers`),
        `lists` (runs that slept: `workers`, `seconds`, `efficiency`, and `simulated`, which
        should be that), `costs`, `simulated`.
    """
    found: dict[str, Any] = {"by_writers": [], "by_records": []}
    with tempfile.TemporaryDirectory(dir=".") as name, fake_object_store() as bucket:
        folder = Path(name).absolute()
        places = {
            "local folder": (str(folder / "written"), seeded(folder / "seeded")),
            "fake object store": (f"{bucket}/written", {n: f"{bucket}/{n}" for n in RECORDS}),
        }
        for place, (url, filled) in places.items():
            found["by_writers"] += [{"place": place} | row for row in store_by_writers(url)]
            found["by_records"] += [{"place": place} | row for row in store_by_records(filled)]
        found["scheduler"], found["lists"] = _dask(str(folder / "asleep"))
    known = costs(found)
    for row in found["lists"]:
        here = {"local folder": known["local folder"]}
        foretold = simulate([row["workers"]], {"": [row["seconds"]]}, here, ROUNDS)
        row["simulated"] = foretold["efficiency"].item()
    found["costs"] = [{"place": place} | asdict(cost) for place, cost in known.items()]
    found["simulated"] = simulate(WORKERS, durations(), known).to_dict("records")
    return found


def load() -> dict[str, pd.DataFrame]:
    """Return the recorded measurements, a frame each, as `measure` names them.

    Each has in `attrs` what holds for all: `about`, `hardware`, `versions`, `date`, and `load`
    (the machine's load average when it began).
    """
    record = json.loads(RECORD.read_text("utf8"))
    frames = {name: pd.DataFrame(rows) for name, rows in record.items() if isinstance(rows, list)}
    for frame in frames.values():
        frame.attrs = {name: text for name, text in record.items() if name not in frames}
    return frames


def efficiency_lines(simulated: pd.DataFrame, *, ax: "Axes | None" = None) -> "Axes":
    """Draw the share of time in which workers compute over their number.

    Args:
        simulated: As `simulate` returns it.
        ax: Where to draw; a new figure where None.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns

    ax = ax or plt.subplots(figsize=(7, 3.8))[1]
    options = {"x": "workers", "y": "efficiency", "hue": "kind", "style": "place"}
    sns.lineplot(simulated, markers=True, ax=ax, **options)
    ax.set_xscale("log")
    ticks = sorted(set(simulated["workers"]))
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.minorticks_off()
    ax.set(xlabel="workers (log scale)", ylabel="share of time spent computing", ylim=(0, 1.03))
    return ax


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    from mlq_utils._device import hardware

    parser = argparse.ArgumentParser(prog="python -m mlq_utils.scaling", description=main.__doc__)
    parser.add_argument("--record", action="store_true", help="also write the book's copy")
    given = parser.parse_args(arguments)
    packages = ("dask", "distributed", "fsspec", "s3fs", "moto", "pandas")
    record = {
        "about": ABOUT,
        "hardware": hardware(),
        "versions": {name: version(name) for name in packages},
        "date": str(datetime.date.today()),
        "load": round(os.getloadavg()[0], 1),
    } | measure()
    for name, rows in record.items():
        if isinstance(rows, list):
            print(f"{name}\n{pd.DataFrame(rows).to_string(index=False)}\n")
    with written_whole(OUTPUT) as path:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf8")
    if given.record:
        shutil.copyfile(OUTPUT, RECORD)


if __name__ == "__main__":
    main()
