"""The style of all figures, and the figures that several pages draw."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from adjustText import adjust_text
from matplotlib.axes import Axes

from mlq_utils.data import one_of
from mlq_utils.quadrants import QUADRANTS

_COLOURS = sns.color_palette("colorblind")
QUADRANT_PALETTE: Mapping[str, tuple[float, float, float]] = {
    "reciprocal": _COLOURS[0],
    "altruistic": _COLOURS[2],
    "selfish": _COLOURS[1],
    "stagnant": (0.35, 0.35, 0.35),
}
"""Colours that readers with colour blindness can tell apart; figures also label or mark."""
QUADRANT_MARKERS = {"reciprocal": "o", "altruistic": "^", "selfish": "D", "stagnant": "s"}
STRATEGY_PALETTE = {
    "embed": _COLOURS[0],
    "full": _COLOURS[3],
    "lora": _COLOURS[2],
    "full, Embed FT's rate": _COLOURS[1],
    "layer 0": _COLOURS[4],
    "layers 0-14": _COLOURS[4],
    "untuned": _COLOURS[7],
}


def use_style() -> None:
    """Set the book's style: white figures that are 7 inches wide, and tables with two decimals."""
    pd.options.display.precision = 2
    pd.options.display.max_rows = 120
    pd.options.display.max_colwidth = None
    sns.set_theme(
        context="notebook",
        style="ticks",
        palette="colorblind",
        rc={
            "figure.figsize": (7, 4.2),
            "figure.dpi": 150,
            "figure.autolayout": True,
            "figure.facecolor": "white",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "font.size": 10,
            "legend.frameon": False,
            "savefig.facecolor": "white",
        },
    )


def scatter_by_quadrant(
    frame: pd.DataFrame, x: str, y: str, *, ax: Axes | None = None, **options: Any
) -> Axes:
    """Draw points in the colour and marker of their quadrant.

    Args:
        frame: One row per point, with a column `quadrant`.
        x: Name of the column for the horizontal axis.
        y: Name of the column for the vertical axis.
        ax: Axes to draw on. Defaults to the current axes.
        options: Further arguments of `seaborn.scatterplot`.
    """
    return sns.scatterplot(
        frame,
        x=x,
        y=y,
        hue="quadrant",
        style="quadrant",
        hue_order=QUADRANTS,
        style_order=QUADRANTS,
        palette=QUADRANT_PALETTE,
        markers=QUADRANT_MARKERS,
        ax=ax,
        **options,
    )


def size_axis(ax: Axes, sizes: Sequence[int]) -> None:
    """Make the horizontal axis logarithmic, with a tick at each size, such as 400 or 20k."""
    sizes = sorted(set(sizes))
    ax.set_xscale("log")
    ax.set_xticks(sizes, [f"{size // 1000}k" if size % 1000 == 0 else size for size in sizes])
    ax.minorticks_off()
    ax.set_xlabel("training pairs (log scale)")


def quadrant_counts(counts: pd.DataFrame, factor: float, *, ax: Axes | None = None) -> Axes:
    """Draw how many languages are in each quadrant over the significance factor (Figure 5).

    Args:
        counts: Counts for one T, as `quadrants.sensitivity` returns them.
        factor: The factor in use, which a line marks.
        ax: Axes to draw on. Defaults to a new figure.
    """
    ax = ax or plt.subplots(figsize=(7, 3.6))[1]
    sns.lineplot(
        counts,
        x="factor",
        y="languages",
        hue="quadrant",
        style="quadrant",
        hue_order=QUADRANTS,
        style_order=QUADRANTS,
        palette=QUADRANT_PALETTE,
        markers=QUADRANT_MARKERS,
        dashes=False,
        ax=ax,
    )
    ax.axvline(factor, color="0.5", linewidth=0.8, linestyle="--")
    ax.set_xscale("log")
    ticks = [1, 2, 3, 5, 10, 20]
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.set(xlabel="significance factor (log scale)", ylabel="languages")
    return ax


def quadrant_scatter(frame: pd.DataFrame, *, linear: float = 2.0, ax: Axes | None = None) -> Axes:
    """Draw the two changes of Equation 1 against each other and label each language (Figure 1).

    Both axes are linear near 0 and logarithmic further out, since Equation 1's lower branch
    gives values far from 0.

    Args:
        frame: Columns `language`, `bilingual_delta`, `multilingual_delta`, `quadrant`, as
            `quadrants.assign` returns them.
        linear: Distance from 0 up to which the bilingual axis is linear.
        ax: Axes to draw on. Defaults to a new figure.
    """
    ax = ax or plt.subplots(figsize=(7, 6.5))[1]
    ax.set_xscale("symlog", linthresh=linear, linscale=1.2)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.axhline(0, color="0.6", linewidth=0.8)
    ax.axvline(0, color="0.6", linewidth=0.8)
    scatter_by_quadrant(frame, "bilingual_delta", "multilingual_delta", ax=ax, s=28)
    ax.set(
        xlabel="bilingual change, $\\Delta$ of Equation 1 (symmetric log scale)",
        ylabel="multilingual change, $\\Delta$ of Equation 1",
    )
    sns.move_legend(ax, "lower right", title="quadrant")
    labels = [
        ax.text(x, y, name, fontsize=9, color=QUADRANT_PALETTE[kind])
        for name, x, y, kind in frame[
            ["language", "bilingual_delta", "multilingual_delta", "quadrant"]
        ].itertuples(index=False)
    ]
    adjust_text(
        labels,
        x=frame["bilingual_delta"].to_numpy(),
        y=frame["multilingual_delta"].to_numpy(),
        ax=ax,
        arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.5},
        expand=(1.35, 1.45),
        min_arrow_len=4,
        time_lim=5,
    )
    return ax


def bars_and_lines(
    frame: pd.DataFrame, bars: str, lines: Sequence[str], *, ax: Axes | None = None
) -> Axes:
    """Draw one model's scores as bars and others' as lines over the targets (Figure 2).

    Args:
        frame: Columns `model`, `target` and `spbleu`. Targets are drawn in the order of the frame.
        bars: Name of the model that is drawn as bars.
        lines: Names of the models that are drawn as lines.
        ax: Axes to draw on. Defaults to a new figure.

    Raises:
        ValueError: The frame lacks one of the models.
    """
    ax = ax or plt.subplots(figsize=(7, 3.6))[1]
    for name in (bars, *lines):
        one_of("model", name, dict.fromkeys(frame["model"]))
    order = list(dict.fromkeys(frame["target"]))
    wide = frame.pivot(index="target", columns="model", values="spbleu").loc[order]
    ax.bar(range(len(order)), wide[bars], color="0.8", label=bars, width=0.8)
    for n, name in enumerate(lines):
        ax.plot(
            range(len(order)),
            wide[name],
            color=_COLOURS[n % len(_COLOURS)],
            marker="osD^vP*X<>"[n % 10],
            markersize=4 if len(order) < 30 else 2.5,
            linewidth=1.2,
            label=name,
        )
    many = len(order) > 30
    ax.set_xticks(range(len(order)), order, rotation=90 if many else 0, fontsize=5.5 if many else 9)
    ax.set(xlabel="target language", ylabel="spBLEU, FLORES-101 devtest", xlim=(-0.7, len(order)))
    ax.legend()
    return ax


def printed_and_trained(tables: Mapping[str, pd.DataFrame], *, ax: Axes | None = None) -> Axes:
    """Draw trained scores over printed ones, with one mark per cell and one colour per table.

    Args:
        tables: Tables by name, as `comparison.compare` returns them. Cells without a run are left
            out.
        ax: Axes to draw on. Defaults to a new figure.
    """
    ax = ax or plt.subplots(figsize=(7, 4.2))[1]
    rows = [frame.assign(table=name) for name, frame in tables.items() if "kept" not in frame]
    shown = pd.concat(rows).dropna(subset=["printed", "trained"])
    sns.scatterplot(
        shown, x="printed", y="trained", hue="table", style="table", s=25, alpha=0.7, ax=ax
    )
    ax.axline((0, 0), slope=1, color="0.6", linewidth=0.8, linestyle="--", zorder=0)
    ax.set(xlabel="printed, spBLEU", ylabel="trained here, spBLEU")
    return ax
