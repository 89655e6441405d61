"""A trial: what tuning on a few pairs does to a language and to others, and what to do then."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mlq_utils import languages, quadrants
from mlq_utils.corpora import Pairs
from mlq_utils.data import PACKAGE_DATA
from mlq_utils.experiments import planning, runner
from mlq_utils.experiments.spec import Spec, losses, lost, scores, spec_of
from mlq_utils.experiments.store import Store
from mlq_utils.languages import Language

PANEL = ("af", "ro", "fr", "de", "ru", "hu")
"""Languages that are scored beside the own one if none are named."""
LEAST = 0.1
"""Least T of Equation 1 in spBLEU, which is not defined for a model that scores nothing."""


def trial(
    spec: Spec, store: Store, folder: Path, *, card: str = "cpu", price: float = 2.5
) -> pd.DataFrame:
    """Try Embed FT, and full FT at its own rate and at a tenth of it, and write what to do.

    Args:
        spec: What to tune on and how. Its panel is translated into as well, and defaults to
            `PANEL`. Its targets, strategy and learning rate do not count.
        store: Where records are kept.
        folder: Folder for the page `trial.md` and its figure.
        card: Card that the run at full size is planned for, a key of `planning.CARDS`.
        price: Price of one hour of it, in any currency.

    Returns:
        One row per strategy: `strategy`, `learning_rate`, the changes `own` and `others` in spBLEU
        with their intervals, `english` in bits per character, `quadrant` and its `probability`,
        whether it is on the `frontier`, and whether it is `advised`.

    Raises:
        ValueError: Not one language is tuned on, the panel has no other, or as `run` and `plan`.
    """
    tuned = spec.languages or ((spec.language.code,) if spec.language else ())
    panel = tuple(code for code in spec.panel or PANEL if code not in ("en", *tuned))
    if len(tuned) != 1 or not panel:
        raise ValueError("a trial takes one language to tune on, and a panel with others to score")
    given = {"languages": tuned, "targets": (*tuned, *panel), "panel": ("en", *tuned, *panel)}
    embed, full = (
        replace(spec, **given, strategy=s, learning_rate=None) for s in ("embed", "full")
    )
    slow = replace(full, learning_rate=float(f"{full.steps().learning_rate / 10:.3g}"))
    planning.plan([embed], card=card, price=price)  # refuses what cannot be planned
    records = [runner.run(one, store) for one in (embed, full, slow, embed.untuned())]
    if failed := [record["error"] for record in records if record["status"] != "done"]:
        raise ValueError(f"a run of the trial failed: {failed[0]}")
    *records, before = records
    frame = pd.DataFrame([_changes(before, record, panel) for record in records])
    sides, safe = frame[["own", "others"]].to_numpy(), frame["others_high"] >= 0
    frame["frontier"] = ~(sides[:, None] < sides).all(axis=2).any(axis=1)
    best = frame["own"].where(safe | ~safe.any()).idxmax()
    frame["advised"] = frame.index == best
    folder.mkdir(parents=True, exist_ok=True)
    _figure(frame).savefig(folder / "trial.png", dpi=150)
    (folder / "trial.md").write_text(_page(frame, before, records, card, price), "utf8")
    return frame


def _changes(
    before: dict[str, Any], record: dict[str, Any], panel: tuple[str, ...]
) -> dict[str, Any]:
    """Return what a strategy changes, and the quadrant that follows from it by Equation 1."""
    changes, untuned = losses(before, record).set_index(["measure", "language"]), scores([before])
    points, spec = changes.loc["spbleu"], spec_of(record)
    own, others = points.loc[spec.languages[0]], points.loc[list(panel)]
    mean = others["change"].mean()
    half = np.linalg.norm(others["high"] - others["change"]) / len(others)
    row = quadrants.trained(untuned, scores([record]), panel)
    level = [max(LEAST, untuned["spbleu"].mean())]
    drawn = quadrants.stability(row, level, rounding=0).query("assigned").iloc[0]
    row = {"strategy": spec.strategy, "learning_rate": spec.steps().learning_rate}
    row |= {"own": own["change"], "own_low": own["low"], "own_high": own["high"]}
    row |= {"others": mean, "others_low": mean - half, "others_high": mean + half}
    row["english"] = changes.loc[("bits_per_char", "en"), "change"]
    return row | drawn[["quadrant", "probability"]].to_dict()


def as_text(frame: pd.DataFrame) -> str:
    """Return the table of a trial as text."""
    rates = {"learning_rate": "{:g}".format}
    return frame.to_string(index=False, float_format="{:.2f}".format, formatters=rates)


def _figure(frame: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    ax = figure.subplots()
    for row, marker in zip(frame.itertuples(), "o^s", strict=True):
        across = [[row.own - row.own_low], [row.own_high - row.own]]
        up = row.others_high - row.others
        label = f"{row.strategy}, {row.learning_rate:g}"
        ax.errorbar(row.own, row.others, up, across, fmt=marker, capsize=3, label=label)
    ax.axhline(0, color="0.6", linewidth=0.8)
    ax.axvline(0, color="0.6", linewidth=0.8)
    ax.set(xlabel="own change (spBLEU)", ylabel="mean change of the others (spBLEU)")
    ax.legend(title="strategy, learning rate")
    return figure


def _page(frame: pd.DataFrame, before: dict, records: list[dict], card: str, price: float) -> str:
    """Return the page of a trial in Markdown."""
    best = frame["advised"].idxmax()
    spec, drawn = spec_of(records[best]), records[best]["training"]["drawn"]
    code, whole = spec.languages[0], spec
    if spec.pairs:
        left = drawn["read"][code] - sum(drawn["left_out"][code].values())
        whole = replace(spec, size=left)
    untuned, tuned = (scores([record]).set_index("target") for record in (before, records[0]))
    errors = [(each["spbleu_high"] - each["spbleu_low"]) / (2 * 1.96) for each in (untuned, tuned)]
    level = max(LEAST, untuned["spbleu"].mean())
    tried = quadrants.Trial(
        dict(untuned["spbleu"]), dict(tuned["spbleu"]), level, *map(dict, errors)
    )
    details = losses(before, records[best])
    text = (PACKAGE_DATA / "trial.md").read_text("utf8")
    return text.format(
        spec=spec,
        whole=whole,
        name=languages.get(spec.spoken(code)).name,
        used=sum(drawn["pairs"].values()),
        table=as_text(frame),
        panel=", ".join(spec.targets[1:]),
        threshold=level,
        rate=spec.steps().learning_rate,
        advice=quadrants.recommend(spec.spoken(code), tried, pairs=whole.size),
        command=command(whole),
        plan=planning.totals(planning.plan([whole], card=card, price=price)),
        **{"card": card, "price": price},
        details=details.round(2).to_string(index=False),
        lost=lost(details, spec.languages),
    )


def command(spec: Spec) -> str:
    """Return the command that makes a run, with what differs from the defaults."""
    words = ["mlq", "run"]
    for name, value in vars(spec).items():
        if value != getattr(Spec, name):
            if isinstance(value, Pairs):
                value = (value.file, *(value.columns or (value.second,)))
            elif isinstance(value, Language):
                value = (value.code, value.name, value.script)
            values = value if isinstance(value, tuple) else (value,) * (value is not True)
            words += [f"--{name.replace('_', '-')}", *(str(each) for each in values if each != "")]
    return shlex.join(words)
