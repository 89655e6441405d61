"""The paper's runs, or some of them: what they will take, and making them.

    python -m mlq_utils.experiments.sweep plan --tables 2 12 --card H200 --price 3
    python -m mlq_utils.experiments.sweep run --tables 12 --cluster examples/slurm.yaml --store /shared/store
    python -m mlq_utils.experiments.sweep run --scale mini --workers 2

What is in the store is not made again, so a sweep that ends early goes on when it is started anew.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from mlq_utils import experiments
from mlq_utils.experiments import clusters, planning, scales, tables
from mlq_utils.experiments import executors as runs
from mlq_utils.experiments.scales import PAPER, Scale
from mlq_utils.experiments.spec import Spec
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
"""What is printed of a plan, and how."""


def listed(names: Sequence[str] = (), scale: Scale = PAPER) -> list[Spec]:
    """Return the runs of tables of the paper.

    Args:
        names: Their numbers, or names such as "figure 2"; all where empty.
        scale: Where they are made.

    Raises:
        ValueError: There is no such table.
    """
    return tables.specs([int(t) if t.isdigit() else t for t in names] or None, scale)


def described(frame: pd.DataFrame) -> str:
    """Return a plan as text: a line a group, the sums, and what they rest on.

    Args:
        frame: As `planning.plan` returns it.
    """
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
    return "\n".join(
        [
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
            f"{whole['checkpoint_gb']:,.1f} GB a worker; {whole['saved_gb']:,.1f} GB if every "
            "tuned model is saved.",
            _memory(whole["memory_gib"], given),
            *(f"{letter}: {basis}" for basis, letter in letters.items() if basis),
        ]
    )


def _memory(peak: float, given: planning.Assumptions) -> str:
    if given.card == "cpu":
        return "Memory is planned for GPUs only."
    card = planning.CARDS[given.card].memory * 1e9 / 2**30
    fits = "" if peak <= card else f": MORE than the {card:.0f} GiB of this card"
    return f"Memory of a GPU: {peak:.0f} GiB at the peak of tuning{fits}."


def failures(records: Sequence[dict[str, Any]]) -> str:
    """Return which runs failed, in a few lines; nothing where none did."""
    failed = [record for record in records if record["status"] != "done"]
    if not failed:
        return ""
    lines = [f"{len(failed)} of {len(records)} runs failed:"]
    for error, count in Counter(record["error"] for record in failed).most_common(10):
        first = next(record for record in failed if record["error"] == error)
        what = "+".join(first["spec"]["languages"]) or "untuned"
        lines.append(f"  {count} × {error} (as {what}, {first['spec']['strategy']})")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan or make the runs that reproduce the paper; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mlq_utils.experiments.sweep", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("command", choices=("plan", "run"), help="run shows the plan first")
    parser.add_argument(
        "--tables", nargs="*", default=[], help="of the paper; all where none given"
    )
    parser.add_argument("--scale", default="paper", help="paper, or mini for the packaged base")
    parser.add_argument("--base", help="another base model: a folder or a name of the Hub")
    parser.add_argument("--revision", help="its commit, on the Hub")
    parser.add_argument("--store", help="where records are kept: a folder or a URL")
    parser.add_argument(
        "--cluster", help="local, a scheduler's address, or a YAML file; MLQ_CLUSTER's if not given"
    )
    parser.add_argument("--workers", type=int, help="at most; all GPUs, or cores, where not given")
    parser.add_argument("--card", help=f"{', '.join(planning.CARDS)}; H100, cpu for mini")
    parser.add_argument("--price", type=float, default=2.5, help="of an hour of the card")
    given = parser.parse_args(arguments)
    try:
        return _sweep(given)
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print(
            "\nStopped: what is done is in the store, and the next start goes on.", file=sys.stderr
        )
        return 130


def _sweep(given: argparse.Namespace) -> int:
    card = given.card or ("cpu" if given.scale == "mini" else "H100")
    assumptions = planning.Assumptions(card=card, price=given.price)
    store = Store(given.store, experiments.SHIPPED) if given.store else experiments.default_store()
    scale = scales.named(given.scale, base=given.base, revision=given.revision)
    specs = listed(given.tables, scale)
    frame = planning.plan(specs, store, assumptions)
    print(described(frame), flush=True)
    if given.command == "plan":
        return 0
    if frame["done"].all():
        records = runs.run_all(specs, store)
    else:
        scale.check()
        with clusters.open_cluster(given.cluster, given.workers) as client:
            records = runs.run_all(specs, store, client=client)
    print(failures(records) or f"All {len(records)} runs are done.")
    return 1 if failures(records) else 0


if __name__ == "__main__":
    sys.exit(main())
