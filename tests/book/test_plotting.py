"""Figures: what they must show can be asked of the axes."""

import matplotlib
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from mlq_utils import paper, quadrants
from mlq_utils.book import plotting


@pytest.fixture(autouse=True)
def style():
    plotting.use_style()
    yield
    plt.close("all")


def test_every_language_is_labelled_apart_from_the_others():
    frame = quadrants.assign(quadrants.published(), quadrants.threshold())
    ax = plotting.quadrant_scatter(frame)
    ax.figure.canvas.draw()
    labels = [t for t in ax.texts if t.get_text() in set(frame["language"])]
    assert sorted(t.get_text() for t in labels) == sorted(frame["language"])
    boxes = [t.get_window_extent() for t in labels]
    overlapping = sum(
        a.overlaps(b) and a.width * a.height > 0
        for n, a in enumerate(boxes)
        for b in boxes[n + 1 :]
    )
    assert overlapping <= 3  # of 1,225 pairs


def test_bars_and_lines_keep_the_frame_s_order_and_values():
    scores = paper.table(12).query("role == 'representative'").rename(columns={"tuned_on": "model"})
    ax = plotting.bars_and_lines(scores, "LLaMA", ["ro", "vi"])
    targets = list(dict.fromkeys(scores["target"]))
    assert [t.get_text() for t in ax.get_xticklabels()] == targets
    wide = scores.pivot(index="target", columns="model", values="spbleu").loc[targets]
    assert [p.get_height() for p in ax.patches] == wide["LLaMA"].tolist()
    drawn = [list(line.get_ydata()) for line in ax.lines]  # those of the legend have no points
    assert [values for values in drawn if values] == [wide["ro"].tolist(), wide["vi"].tolist()]


def test_figures_are_opaque_white():
    assert plt.rcParams["figure.facecolor"] == plt.rcParams["savefig.facecolor"] == "white"


def test_quadrants_differ_in_colour_and_marker():
    assert set(plotting.QUADRANT_PALETTE) == set(plotting.QUADRANT_MARKERS)
    assert set(plotting.QUADRANT_PALETTE) == set(quadrants.QUADRANTS)
    assert len(set(plotting.QUADRANT_MARKERS.values())) == len(quadrants.QUADRANTS)
