"""Figures: what they must show can be asked of the axes."""

import matplotlib
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd

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


def test_corners_count_the_languages_and_a_quadrant_can_go_without_labels():
    frame = quadrants.assign(quadrants.published(), quadrants.threshold())
    ax = plotting.quadrant_scatter(frame, unlabelled=("stagnant", "altruistic"))
    texts = [t.get_text() for t in ax.texts]
    counts = frame["quadrant"].value_counts()
    corners = {t.get_text(): t.get_position() for t in ax.texts[: len(quadrants.QUADRANTS)]}
    assert list(corners) == [f"{counts[name]} {name}" for name in quadrants.QUADRANTS]
    for name, where in zip(quadrants.QUADRANTS, corners.values(), strict=True):
        x, y = ax.transData.inverted().transform(ax.transAxes.transform(where))
        assert (x > 0, y > 0) == (
            name in ("reciprocal", "selfish"),
            name in ("reciprocal", "altruistic"),
        )
    labelled = frame["language"][frame["quadrant"].isin(["reciprocal", "selfish"])]
    assert sorted(set(texts) - set(corners)) == sorted(labelled)


def test_quadrant_counts_draws_every_quadrant_over_either_constant():
    scores, (_, axes) = quadrants.published(), plt.subplots(1, 2)
    grids = {"factor": ([1.84], [1, 2, 20]), "threshold": ([1, 2, 4], [2.0])}
    for ax, (by, grid) in zip(axes, grids.items(), strict=True):
        counts = quadrants.sensitivity(scores, *grid)
        plotting.quadrant_counts(counts, by, 2.0, ax)
        *drawn, used = ax.lines
        expected = counts.pivot(index=by, columns="quadrant", values="languages")
        shown = {n: list(x.get_ydata()) for n, x in zip(quadrants.QUADRANTS, drawn, strict=True)}
        assert shown == expected.to_dict("list")
        assert list(used.get_xdata()) == [2.0, 2.0]


def test_bars_and_lines_keep_the_frame_s_order_and_values():
    scores = paper.table(12).query("role == 'representative'").rename(columns={"tuned_on": "model"})
    ax = plotting.bars_and_lines(scores, "LLaMA", ["ro", "vi"], dots=["bg", "ms"])
    targets = list(dict.fromkeys(scores["target"]))
    assert [t.get_text() for t in ax.get_xticklabels()] == targets
    wide = scores.pivot(index="target", columns="model", values="spbleu").loc[targets]
    assert [p.get_height() for p in ax.patches] == wide["LLaMA"].tolist()
    drawn = [list(line.get_ydata()) for line in ax.lines]  # those of the legend have no points
    assert [values for values in drawn if values] == [wide["ro"].tolist(), wide["vi"].tolist()]
    (dots,) = (d for d in ax.collections if d.get_label() == "others")
    assert dots.get_offsets()[:, 1].tolist() == wide[["bg", "ms"]].to_numpy().ravel().tolist()
    with pytest.raises(ValueError, match="unknown model 'xx'"):
        plotting.bars_and_lines(scores, "LLaMA", ["ro"], dots=["xx"])


def test_figures_are_opaque_white():
    assert plt.rcParams["figure.facecolor"] == plt.rcParams["savefig.facecolor"] == "white"


def test_quadrants_differ_in_colour_and_marker():
    assert set(plotting.QUADRANT_PALETTE) == set(plotting.QUADRANT_MARKERS)
    assert set(plotting.QUADRANT_PALETTE) == set(quadrants.QUADRANTS)
    assert len(set(plotting.QUADRANT_MARKERS.values())) == len(quadrants.QUADRANTS)


def test_strategies_are_named_at_the_end_of_their_lines_without_overlap():
    rows = [
        (name, size, score)
        for name, ends in {"full": (5, 9), "embed": (1, 9.1), "lora": (2, 3)}.items()
        for size, score in zip((100, 200), ends, strict=True)
    ]
    _, ax = plt.subplots()
    plotting.strategy_lines(pd.DataFrame(rows, columns=["strategy", "size", "spbleu"]), "size", ax)
    heights = {text.get_text(): text.get_position()[1] for text in ax.texts}
    assert list(heights) == ["LoRA", "full FT", "Embed FT"]
    assert heights["LoRA"] == 3 and heights["full FT"] == 9
    assert heights["Embed FT"] - 9 == pytest.approx(0.08 * (ax.get_ylim()[1] - ax.get_ylim()[0]))
    assert len({line.get_marker() for line in ax.lines}) >= 3
