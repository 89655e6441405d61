"""The runs behind the paper's tables: what they will take, and making them.

Example::

    mlq sweep plan --tables 2 12 --card H200 --price 3
    mlq sweep run --scale mini --workers 2

The store's runs are not made again, so a sweep that was interrupted continues when it is restarted.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from mlq_utils.experiments import planning, scales, tables
from mlq_utils.experiments.executors import run_all
from mlq_utils.experiments.spec import SHIPPED, Spec, default_store
from mlq_utils.experiments.store import Store

COLUMNS = {
    "runs": "{:.0f}",
    "done": "{:.0f}",
    "tuning_hours": "{:.1f}",
    "translation_hours": "{:.1f}",
    "hours": "{:.1f}",
    "money": "{:,.0f}",
    "record_gb": "{:.2f}",
    "memory_gib": "{:.0f}",
}
"""Columns of a plan that are printed, and their formats."""


@dataclass(frozen=True)
class Sweep:
    """Which of the paper's runs to plan or make, and on what.

    Attributes:
        tables: Numbers of the paper's tables, or names such as "figure 2". Defaults to all.
        scale: "paper", or "mini" for the packaged base. Defaults to "paper".
        base: Another base model: a folder, or a name on the Hub.
        revision: Commit of a base on the Hub.
        store: Where records are kept: a folder or a URL. Defaults to `experiments.STORE`.
        card: Graphics card to plan for, a key of `planning.CARDS`. Defaults to "H100", and to "cpu"
            for the scale "mini".
        price: Price of one hour of the card in US dollars. Defaults to 2.5.
    """

    tables: tuple[str, ...] = ()
    scale: str = "paper"
    base: str | None = None
    revision: str | None = None
    store: str | None = None
    card: str | None = None
    price: float = 2.5

    def specs(self) -> list[Spec]:
        """Return the runs.

        Raises:
            ValueError: There is no such table or scale.
        """
        names = [int(name) if name.isdigit() else name for name in self.tables]
        return tables.specs(names or None, self.at())

    def plan(self) -> pd.DataFrame:
        """Return the plan of the runs, as `planning.plan` does."""
        card = self.card or ("cpu" if self.scale == "mini" else "H100")
        assumptions = planning.Assumptions(card=card, price=self.price)
        return planning.plan(self.specs(), self.records(), assumptions)

    def at(self) -> scales.Scale:
        """Return the scale, with the base if one is given."""
        return scales.named(self.scale, base=self.base, revision=self.revision)

    def records(self) -> Store:
        """Return the store of the records."""
        return Store(self.store, SHIPPED) if self.store else default_store()


def report(command: Literal["plan", "run"], /, sweep: Sweep, *, workers: int | None = None) -> str:
    """Plan the runs behind the paper's tables, or make those that the store lacks.

    Args:
        command: "plan" returns the plan as text; "run" prints it and makes the runs.
        sweep: Which runs, and on what.
        workers: Number of processes. None stands for the Dask cluster whose scheduler's address is
            in MLQ_CLUSTER or, if it is not set, one process per GPU or core.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: An argument is wrong, or all runs would fail
            since the base, the test set or the model of spBLEU is not available (`Scale.check`).
        SystemExit: Runs have failed; the message names them.
    """
    frame = sweep.plan()
    if command == "plan":
        return described(frame)
    print(described(frame), flush=True)
    if not frame["done"].all():
        sweep.at().check()
    records = run_all(sweep.specs(), sweep.records(), workers=workers)
    if failed := failures(records):
        raise SystemExit(failed)
    return f"All {len(records)} runs are done."


def described(frame: pd.DataFrame) -> str:
    """Return a plan, as `planning.plan` returns it, as text."""
    given: planning.Assumptions = frame.attrs["assumptions"]
    groups = planning.by_group(frame)
    bases = groups["basis"].unique().tolist()
    letters = {basis: chr(ord("a") + n) for n, basis in enumerate(filter(None, bases))} | {"": ""}
    table = groups.loc[:, list(planning.GROUP)]
    for name, form in COLUMNS.items():
        table[name] = groups[name].map(form.format)
    table["basis"] = groups["basis"].map(letters)
    whole = planning.totals(frame)
    per = whole["money"] / whole["hours"] if whole["hours"] else given.price
    card = planning.CARDS[given.card].memory * 1e9 / 2**30
    fits = "" if whole["memory_gib"] <= card else f": MORE than the {card:.0f} GiB of this card"
    memory = f"Memory of a GPU: {whole['memory_gib']:.0f} GiB at the peak of tuning{fits}."
    lines = [
        table.to_string(index=False),
        "",
        f"{whole['runs']:.0f} runs, of which {whole['done']:.0f} are done; the others take "
        f"{whole['hours']:,.1f} hours of one {given.card} "
        f"({whole['hours_low']:,.1f} to {whole['hours_high']:,.1f}): "
        f"{whole['tuning_hours']:,.1f} tuning on {whole['training_tokens']:.3g} tokens, "
        f"{whole['translation_hours']:,.1f} translating {whole['evaluation_tokens']:.3g}, "
        f"{whole['other_hours']:,.1f} loading and scoring.",
        f"Money at {given.price:g} an hour: {whole['money']:,.0f} "
        f"({whole['hours_low'] * per:,.0f} to {whole['hours_high'] * per:,.0f}).",
        f"Disk: {whole['record_gb']:,.2f} GB of records; checkpoints of at most "
        f"{whole['checkpoint_gb']:,.1f} GB per worker; {whole['saved_gb']:,.1f} GB if every "
        "tuned model is saved.",
        "Memory is planned for GPUs only." if given.card == "cpu" else memory,
        *(f"{letter}: {basis}" for basis, letter in letters.items() if basis),
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
