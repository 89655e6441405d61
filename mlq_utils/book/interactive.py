"""Figures that answer: Vega-Lite charts whose sliders and menus work from the disk.

A page holds a chart as JSON. `book/_static/figures.js` draws it in the colours of the theme, with
the libraries that `libraries` returns, which the book has once in its static files. Without a
script a page shows what the chart's author put beside it.
"""

import base64
import html
import json

import altair as alt
import pandas as pd
import vl_convert
from babel import Locale
from IPython.display import HTML
from matplotlib.colors import to_hex

from mlq_utils import languages
from mlq_utils.book.plotting import QUADRANT_PALETTE
from mlq_utils.quadrants import QUADRANTS

SHAPES = dict(zip(QUADRANTS, ("circle", "triangle-up", "diamond", "square"), strict=True))
"""Vega's names of the markers that the other figures have."""
FILTERS = ("script", "family")
"""What the menus of the explorer choose languages by."""
ALL = "all"
SHOWN = {
    "name": "language", "quadrant": "quadrant", "bilingual_pre": "own, before",
    "bilingual_post": "own, after", "multilingual_pre": "others, before",
    "multilingual_post": "others, after", "script": "script", "family": "family",
}  # fmt: skip
"""What the explorer says of the language under the pointer, with its words."""


def libraries() -> str:
    """Return the scripts of Vega, Vega-Lite and Vega-Embed as one file, for use without a network.

    They define nothing but `vegaEmbed`, `vega` and `vegaLite`.
    """
    return f"(() => {{{vl_convert.javascript_bundle()}}})();\n"


def figure(chart: alt.TopLevelMixin, name: str, description: str, static: bool = False) -> HTML:
    """Return a chart for a page of the book.

    Args:
        chart: The chart.
        name: Its name on the page, an HTML id.
        description: What it shows, for readers who do not see it.
        static: Whether to add the description as a caption, and a picture for print and for
            browsers without scripts.
    """
    spec = chart.properties(description=description).to_dict()
    # "</script>" in a string would end the element.
    text = json.dumps(spec, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    picture = caption = ""
    if static:
        svg = base64.b64encode(vl_convert.vegalite_to_svg(spec | {"width": 560}).encode()).decode()
        source = f"data:image/svg+xml;base64,{svg}"
        picture = f'<img class="static" alt="{html.escape(description)}" src="{source}">'
        caption = f'<p class="caption">{html.escape(description)}</p>'
    return HTML(
        f'{picture}<div class="interactive" id="{name}"></div>{caption}'
        f'<script type="application/json" data-figure="{name}">{text}</script>'
        '<script src="../_static/vega.js"></script><script src="../_static/figures.js"></script>'
    )


def quadrant_explorer(
    scores: pd.DataFrame, threshold: float, factor: float = 2.0, largest: float = 6.0
) -> alt.LayerChart:
    """Return a scatter of languages with sliders for T and the significance factor.

    The axes are how many times a language's own score and the others' mean become what they were,
    or what T is if they were less. By Equation 1 a change is significant if this is more than the
    factor, so that the quadrants are divided by two lines at the factor.

    Args:
        scores: Scores with the columns of `quadrants.published`.
        threshold: T of Equation 1, where its slider begins.
        factor: Significance factor, where its slider begins. Defaults to 2.
        largest: Right end of both sliders. Defaults to 6.
    """
    known = languages.table().set_index("code").rename(columns={"family_1": "family"})
    about = known.loc[scores["language"], ["name", *FILTERS]].reset_index(drop=True)
    about["script"] = about["script"].map(Locale("en").scripts)
    data = scores.reset_index(drop=True).join(about)
    parameters = [
        alt.param("T", value=round(threshold, 4), bind=slider("T", largest)),
        alt.param("factor", value=factor, bind=slider("factor", largest)),
        *(alt.param(name, value=ALL, bind=_menu(name, data[name])) for name in FILTERS),
        alt.param("marked", value="none", bind=_menu("mark", data["name"], "none")),
        alt.param("labels", value=False, bind=alt.binding_checkbox(name="label all ")),
    ]
    base = _with_quadrants(alt.Chart(data))
    scale = alt.Scale(type="log", domain=[0.05, 20], nice=False)
    x = alt.X("own:Q", scale=scale, title="own score after tuning, in times of before (or T)")
    y = alt.Y("others:Q", scale=scale, title="others' mean score, in times of before (or T)")
    shapes = {"domain": list(QUADRANTS), "range": list(SHAPES.values())}
    points = base.mark_point(filled=True, size=70, opacity=0.9).encode(
        x,
        y,
        colour(),
        alt.Shape("quadrant:N", scale=alt.Scale(**shapes), legend=None),
        tooltip=[alt.Tooltip(f"{column}:N", title=title) for column, title in SHOWN.items()],
    )
    named = base.transform_filter("labels || datum.name == marked").mark_text(dy=-11, fontSize=10)
    line = alt.Chart(pd.DataFrame({"at": [0]})).transform_calculate(at="factor")
    rules = [line.mark_rule(strokeDash=[4, 4]).encode(**{axis: "at:Q"}) for axis in ("x", "y")]
    corners = [_corner(base, name) for name in QUADRANTS]
    layers = [*rules, points, named.encode(x, y, text="label:N"), *corners]
    return alt.layer(*layers).add_params(*parameters).properties(width="container", height=420)


def change(before: str, after: str, threshold: str = "T", factor: str = "factor") -> str:
    """Return Equation 1 of Vega expressions as such an expression, see `quadrants.delta`."""
    numerator = f"({after} - {factor} * max({before}, {threshold}))"
    return f"({numerator} == 0 ? 0 : {numerator} / {before})"


def quadrant(own: str, others: str) -> str:
    """Return the quadrant of two changes as an expression of Vega, see `quadrants.quadrant`."""
    without = f"{others} > 0 ? 'altruistic' : 'stagnant'"
    return f"({own} > 0 ? ({others} > 0 ? 'reciprocal' : 'selfish') : ({without}))"


def _with_quadrants(chart: alt.Chart) -> alt.Chart:
    """Filter the languages, and compute what the axes show and Equation 1's quadrant."""
    deltas = []
    for side, axis in {"bilingual": "own", "multilingual": "others"}.items():
        before, after = f"datum.{side}_pre", f"datum.{side}_post"
        chart = chart.transform_calculate(**{axis: f"max({after} / max({before}, T), 0.05)"})
        deltas.append(change(before, after))
    inside = " && ".join(f"({name} == '{ALL}' || datum.{name} == {name})" for name in FILTERS)
    return chart.transform_filter(inside).transform_calculate(
        label="labels ? datum.language : datum.name", quadrant=quadrant(*deltas)
    )


def colour(legend: alt.Legend | None = None) -> alt.Color:
    """Return the encoding of `quadrant` by colour."""
    colours = QUADRANT_PALETTE | {"stagnant": (0.45, 0.45, 0.45)}  # seen on black, too
    palette = {"domain": list(QUADRANTS), "range": list(map(to_hex, colours.values()))}
    return alt.Color("quadrant:N", scale=alt.Scale(**palette), legend=legend)


def slider(name: str, largest: float) -> alt.BindRange:
    """Return a slider for T or the significance factor."""
    return alt.binding_range(name=f"{name} ", min=0.05, max=largest, step=0.05)


def _corner(base: alt.Chart, quadrant: str) -> alt.Chart:
    """Write the number of a quadrant's languages into its corner."""
    right, low = quadrant in ("reciprocal", "selfish"), quadrant in ("selfish", "stagnant")
    text = {
        "align": "right" if right else "left",
        "baseline": "bottom" if low else "top",
        "dx": -6 if right else 6,
        "dy": -6 if low else 6,
    }
    left, top = alt.value("width" if right else 0), alt.value("height" if low else 0)
    return (
        base.transform_filter(f"datum.quadrant == '{quadrant}'")
        .transform_aggregate(number="count()")
        .transform_calculate(text=f"datum.number + ' {quadrant}'")
        .mark_text(fontWeight="bold", **text)
        .encode(text="text:N", x=left, y=top)
    )


def _menu(name: str, values: pd.Series, first: str = ALL) -> alt.BindRadioSelect:
    return alt.binding_select(options=[first, *sorted(values.unique())], name=f"{name} ")
