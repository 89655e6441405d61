"""One style for all figures of the book, and the figures that several pages draw."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from adjustText import adjust_text
from matplotlib.axes import Axes

from mlq_utils.data import one_of
from mlq_utils.quadrants import QUADRANTS, strategies

_COLOURS = sns.color_palette("colorblind")
QUADRANT_PALETTE = dict(
    zip(QUADRANTS, (_COLOURS[0], _COLOURS[2], _COLOURS[1], (0.35, 0.35, 0.35)), strict=True)
)
"""Colours that colour-blind readers can tell apart. Figures use labels or markers as well."""
QUADRANT_MARKERS = dict(zip(QUADRANTS, "o^Ds", strict=True))
_BY_QUADRANT: dict[str, Any] = {
    "hue": "quadrant",
    "style": "quadrant",
    "hue_order": QUADRANTS,
    "style_order": QUADRANTS,
    "palette": QUADRANT_PALETTE,
    "markers": QUADRANT_MARKERS,
}
STRATEGY_PALETTE = {
    "embed": _COLOURS[0],
    "full": _COLOURS[3],
    "lora": _COLOURS[2],
    "full, Embed FT's rate": _COLOURS[1],
    "layer 0": _COLOURS[4],
    "layers 0-14": _COLOURS[4],
    "untuned": _COLOURS[7],
}
STRATEGY_MARKERS = dict(zip(STRATEGY_PALETTE, "osPXDD^", strict=True))


def use_style() -> None:
    """Set the book's style: opaque white figures, 7 inches wide; tables with two decimals."""
    pd.options.display.precision = 2
    pd.options.display.max_rows = 120
    pd.options.display.max_colwidth = None
    settings = {
        "figure.figsize": (7, 4.2),
        "figure.dpi": 150,
        "figure.autolayout": True,
        "savefig.facecolor": "white",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "font.size": 10,
        "legend.frameon": False,
    }
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", rc=settings)


def scatter_by_quadrant(frame: pd.DataFrame, x: str, y: str, **options: Any) -> Axes:
    """Draw points in the colour and marker of their `quadrant`, see `seaborn.scatterplot`."""
    return sns.scatterplot(frame, x=x, y=y, **_BY_QUADRANT, **options)


def strategy_lines(
    frame: pd.DataFrame, x: str, ax: Axes, by: str = "strategy", gap: float = 0.08, **options: Any
) -> None:
    """Draw the mean scores of strategies, each in its colour and marker, with its name at the end.

    Args:
        frame: Scores, with the columns `x`, `by` and `spbleu`.
        x: The column of the horizontal axis.
        ax: The axes to draw on.
        by: The column with the strategies, keys of `STRATEGY_PALETTE`.
        gap: Smallest distance between two names, as a share of the axis.
        **options: Passed on to `seaborn.lineplot`, which draws 95% intervals by default.
    """
    style = {"palette": STRATEGY_PALETTE, "markers": STRATEGY_MARKERS, "dashes": False}
    sns.lineplot(frame, x=x, y="spbleu", hue=by, style=by, legend=False, ax=ax, **style, **options)
    ends = frame.groupby([by, x])["spbleu"].mean().groupby(by).tail(1).droplevel(x)
    gap, height = gap * abs(np.subtract(*ax.get_ylim())), -np.inf
    for name, score in ends.sort_values().items():
        height = max(score, height + gap)
        style = {"color": STRATEGY_PALETTE[name], "transform": ax.get_yaxis_transform()}
        ax.text(1.02, height, strategies.NAMES.get(name, name), va="center", **style)


def size_axis(ax: Axes, sizes: Sequence[int]) -> None:
    """Make the horizontal axis logarithmic, with a tick such as 400 or 20k at each size."""
    sizes = sorted(set(sizes))
    ax.set_xscale("log")
    ax.set_xticks(sizes, [f"{size // 1000}k" if size % 1000 == 0 else size for size in sizes])
    ax.minorticks_off()
    ax.set_xlabel("training pairs (log scale)")


def quadrant_counts(counts: pd.DataFrame, by: str, used: float, ax: Axes) -> None:
    """Draw the number of languages in each quadrant against a constant of Equation 1 (Figure 5).

    Args:
        counts: The result of `quadrants.sensitivity`, of which only this constant varies.
        by: The constant, `factor` or `threshold`.
        used: The value that is used elsewhere, which a vertical line marks.
        ax: The axes to draw on.
    """
    options = _BY_QUADRANT | {"dashes": False, "legend": False}
    sns.lineplot(counts, x=by, y="languages", ax=ax, **options)
    ax.axvline(used, color="0.5", linewidth=0.8, linestyle="--")


def quadrant_scatter(frame: pd.DataFrame, unlabelled: Sequence[str] = ()) -> Axes:
    """Draw the two changes of Equation 1 against each other and label each language (Figure 1).

    The horizontal axis is linear near 0 and logarithmic further out, since the lower branch of
    Equation 1 gives values far from 0. Each corner has the number of its quadrant's languages.

    Args:
        frame: A result of `quadrants.assign`.
        unlabelled: Quadrants whose languages are too many to label. Defaults to none.
    """
    _, ax = plt.subplots(figsize=(7, 6.5))
    ax.set_xscale("symlog", linthresh=2.0, linscale=1.2)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.axhline(0, color="0.6", linewidth=0.8)
    ax.axvline(0, color="0.6", linewidth=0.8)
    ax.margins(y=0.09)  # room for the corners
    scatter_by_quadrant(frame, "bilingual_delta", "multilingual_delta", ax=ax, s=28, legend=False)
    ax.set(
        xlabel="bilingual change, $\\Delta$ of Equation 1 (symmetric log scale)",
        ylabel="multilingual change, $\\Delta$ of Equation 1",
    )
    for name, (right, top) in zip(QUADRANTS, ((1, 1), (0, 1), (1, 0), (0, 0)), strict=True):
        side, end = ("left", "right")[right], ("bottom", "top")[top]
        text = f"{(frame['quadrant'] == name).sum()} {name}"
        style = {"color": QUADRANT_PALETTE[name], "weight": "bold", "transform": ax.transAxes}
        ax.text(0.01 + 0.98 * right, 0.01 + 0.98 * top, text, ha=side, va=end, **style)
    labelled = frame[~frame["quadrant"].isin(unlabelled)]
    x, y = labelled["bilingual_delta"], labelled["multilingual_delta"]
    colours = labelled["quadrant"].map(QUADRANT_PALETTE)
    points = zip(x, y, labelled["language"], colours, strict=True)
    adjust_text(
        [ax.text(*where, name, fontsize=9, color=colour) for *where, name, colour in points],
        x=x.to_numpy(),
        y=y.to_numpy(),
        ax=ax,
        arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.5},
        expand=(1.35, 1.45),
        min_arrow_len=4,
        time_lim=5,
    )
    return ax


def bars_and_lines(
    frame: pd.DataFrame, bars: str, lines: Sequence[str], dots: Sequence[str] = ()
) -> Axes:
    """Draw the scores of one model as bars and of others as lines, by target (Figure 2).

    Args:
        frame: Columns `model`, `target` and `spbleu`. Targets are drawn in their order there.
        bars: The model that is drawn as bars.
        lines: The models that are drawn as lines.
        dots: Models that are drawn as grey dots, labelled "others". Defaults to none.

    Raises:
        ValueError: The frame lacks one of these models.
    """
    for name in (bars, *lines, *dots):
        one_of("model", name, frame["model"].unique())
    wide = frame.pivot(index="target", columns="model", values="spbleu")
    wide = wide.loc[frame["target"].unique()]
    _, ax = plt.subplots(figsize=(7, 3.8))
    sns.barplot(wide[bars], color="0.85", errorbar=None, label=bars, ax=ax)
    if len(dots):
        places = np.repeat(range(len(wide)), len(dots))
        ax.scatter(places, wide[list(dots)], s=9, color="0.5", linewidth=0, label="others")
    style = {"linewidth": 1.2, "markersize": 6, "markeredgewidth": 0}
    sns.lineplot(wide[list(lines)], markers=True, dashes=False, ax=ax, **style)
    ax.tick_params(axis="x", labelsize=9)
    ax.set(xlabel="target language", ylabel="spBLEU, FLORES-101 devtest")
    ax.legend()
    return ax
