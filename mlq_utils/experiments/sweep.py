"""The runs behind the paper's tables: what they will take, and making them.

Example::

    mlq sweep plan --tables 2 12 --card H200 --price 3
    mlq sweep run --scale mini --workers 2

The store's runs are not made again, so a sweep that was interrupted continues when it is restarted.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd

from mlq_utils import experiments
from mlq_utils.experiments import planning, scales
from mlq_utils.experiments.executors import run_all
from mlq_utils.experiments.spec import SHIPPED, STORE
from mlq_utils.experiments.store import Store

COLUMNS = ["runs", "done", "tuning_hours", "translation_hours", "hours", "money", "memory_gib"]
"""Columns of a plan that are printed behind those of its groups."""


def report(
    command: Literal["plan", "run"],
    /,
    *,
    tables: tuple[str, ...] = (),
    scale: str = "paper",
    base: str | None = None,
    revision: str | None = None,
    store: str = STORE,
    card: str | None = None,
    price: float = 2.5,
    workers: int | None = None,
) -> str:
    """Plan the runs behind the paper's tables, or make those that the store lacks.

    Args:
        command: "plan" returns the plan as text; "run" prints it and makes the runs.
        tables: Numbers of the paper's tables, or names such as "figure 2". Defaults to all.
        scale: "paper", or "mini" for the packaged base.
        base: Another base model: a folder, or a name on the Hub.
        revision: Commit of a base on the Hub.
        store: Folder or URL where records are kept.
        card: Graphics card to plan for, a key of `planning.CARDS`. Defaults to "H100", and to "cpu"
            for the scale "mini".
        price: Price of one hour of the card in US dollars.
        workers: Number of processes. None stands for the Dask cluster whose scheduler's address is
            in MLQ_CLUSTER or, if it is not set, one process per GPU or core.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: An argument is wrong, or all runs would fail
            since the base, the test set or the model of spBLEU is not available (`Scale.check`).
        SystemExit: Runs have failed; the message names them.
    """
    at, records = scales.named(scale, base=base, revision=revision), Store(store, SHIPPED)
    specs = experiments.tables.specs(tables or None, at)
    card = card or ("cpu" if scale == "mini" else "H100")
    frame = planning.plan(specs, records, card=card, price=price)
    if command == "plan":
        return described(frame)
    print(described(frame), flush=True)
    if not frame["done"].all():
        at.check()
    made = run_all(specs, records, workers=workers)
    if failed := failures(made):
        raise SystemExit(failed)
    return f"All {len(made)} runs are done."


def described(frame: pd.DataFrame) -> str:
    """Return a plan, as `planning.plan` returns it, as text."""
    name, price, whole = frame.attrs["card"], frame.attrs["price"], planning.totals(frame)
    table = planning.by_group(frame)[[*planning.GROUP, *COLUMNS]].round(1)
    card = planning.CARDS[name].memory * 1e9 / 2**30
    fits = "" if whole["memory_gib"] <= card else f": MORE than the {card:.0f} GiB of this card"
    memory = f"Memory of a GPU: {whole['memory_gib']:.0f} GiB at the peak of tuning{fits}."
    bases = frame.loc[~frame["done"], ["strategy", "basis"]].drop_duplicates()
    lines = [
        table.to_string(index=False),
        "",
        f"{whole['runs']:.0f} runs, of which {whole['done']:.0f} are done; the others take "
        f"{whole['hours']:,.1f} hours of one {name} "
        f"({whole['hours_low']:,.1f} to {whole['hours_high']:,.1f}): "
        f"{whole['tuning_hours']:,.1f} tuning on {whole['training_tokens']:.3g} tokens, "
        f"{whole['translation_hours']:,.1f} translating {whole['evaluation_tokens']:.3g}, "
        f"{whole['other_hours']:,.1f} loading and scoring.",
        f"Money at {price:g} an hour: {whole['money']:,.0f} "
        f"({whole['hours_low'] * price:,.0f} to {whole['hours_high'] * price:,.0f}).",
        f"Disk: {whole['record_gb']:,.2f} GB of records; checkpoints of at most "
        f"{whole['checkpoint_gb']:,.1f} GB per worker; {whole['saved_gb']:,.1f} GB if every "
        "tuned model is saved.",
        "Memory is planned for GPUs only." if name == "cpu" else memory,
        *(f"{strategy}: {basis}" for strategy, basis in bases.itertuples(index=False)),
    ]
    return "\n".join(lines)


def failures(records: Sequence[dict[str, Any]]) -> str:
    """Return which runs failed, in a few lines, or "" if none did."""
    failed = [record for record in records if record["status"] != "done"]
    if not failed:
        return ""
    lines = [f"{len(failed)} of {len(records)} runs failed:"]
    for error, count in Counter(record["error"] for record in failed).most_common(10):
        first = next(record for record in failed if record["error"] == error)
        what = "+".join(first["spec"]["languages"]) or "untuned"
        lines.append(f"  {count} × {error} (as {what}, {first['spec']['strategy']})")
    return "\n".join(lines)
