"""The smoke book: its sources, its executed notebooks, its pages, and its pages in a browser."""

import ast
import base64
import io
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlparse

import nbformat
import pandas as pd
import papermill
import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from sphinx_external_toc.parsing import parse_toc_yaml

from mlq_utils import claims, languages, quadrants, tokenization
from mlq_utils.book import pages
from mlq_utils.book import pipeline as book

ROOT = Path(__file__).parents[2]
TOC = list(parse_toc_yaml(ROOT / "_toc.yml"))
NOTEBOOKS = [page for page in TOC if (ROOT / f"{page}.ipynb").exists()]
PROFILES = ["smoke", "mini", "paper"]


def source(page):
    return nbformat.read(ROOT / f"{page}.ipynb", as_version=4)


def tagged(notebook, tag):
    return [c for c in notebook.cells if tag in c.metadata.get("tags", [])]


@cache
def soup(site, page):
    return BeautifulSoup((site / f"{page}.html").read_text("utf8"), "html.parser")


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_sources_carry_no_outputs(page):
    for cell in source(page).cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.parametrize("page", [page for page in NOTEBOOKS if page.startswith("notebooks/")])
def test_parameters_are_declared_checked_and_read(page):
    notebook = source(page)
    (cell,) = tagged(notebook, "parameters")
    following = notebook.cells[notebook.cells.index(cell) + 1 :]
    code = [ast.parse(c.source) for c in following if c.cell_type == "code"]
    assert "check_parameters(globals())" in ast.unparse(code[0])
    read = {node.id for tree in code for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert pages.declarations(cell.source).keys() - read == set()


@pytest.mark.parametrize("page", [page for page in NOTEBOOKS if page.startswith("notebooks/")])
def test_papermill_lists_every_parameter_with_type_default_and_help(page):
    (cell,) = tagged(source(page), "parameters")
    listed = papermill.inspect_notebook(ROOT / f"{page}.ipynb")
    assert listed.keys() == pages.declarations(cell.source).keys()
    for parameter in listed.values():
        assert parameter["inferred_type_name"] != "None" and parameter["default"]
        assert parameter["help"][0].isupper() and parameter["help"].endswith(".")


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_fits_the_notebooks(profile):
    listed = book.chapters(ROOT, profile)
    assert [chapter.path.with_suffix("").as_posix() for chapter in listed] == NOTEBOOKS
    files = {p.stem for p in (ROOT / "notebooks/params" / profile).iterdir()}
    assert files <= {chapter.path.stem for chapter in listed}


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_no_cell_failed_or_was_left_out(site, page):
    executed = nbformat.read(ROOT / f"_build/runs/smoke/{page}.ipynb", as_version=4)
    for cell in executed.cells:
        if cell.cell_type == "code" and cell.source:
            assert cell.execution_count
            assert not [o for o in cell.outputs if o.output_type == "error"]


@pytest.mark.parametrize("page", TOC)
def test_every_entry_is_a_page(site, page):
    html = soup(site, page)
    assert html.html["lang"] == "en"
    assert html.h1.text.strip()
    for image in html.article.find_all("img"):
        alternative = image.get("alt", "").strip()
        assert len(alternative) > 10, image
        assert not re.search(r"\.(png|svg|jpe?g)$|^<", alternative), alternative


@pytest.mark.parametrize("page", TOC)
def test_tables_have_captions_and_words_for_headings(site, page):
    for table in soup(site, page).select(".cell_output table, table.facts"):
        headings = table.find_all("th")
        assert table.caption.text.strip() and all(cell.get("scope") for cell in headings)
        assert not [c.text for c in headings if c["scope"] == "col" and "_" in c.text]
        assert not re.search(r"\b(nan|NaN|NaT)\b|<NA>", table.text), table.caption.text


@pytest.mark.parametrize("page", TOC)
def test_the_data_of_each_figure_is_one_click_away(site, page):
    for figure in soup(site, page).select(".cell_output figure"):
        below = figure.find_parent(class_="cell").find_next_sibling()
        link = below.select_one(".cell_output p.csv a[download$='.csv']")
        assert link, figure.figcaption.text
        text = base64.b64decode(link["href"].partition("base64,")[2]).decode()
        frame = pd.read_csv(io.StringIO(text))
        assert len(frame) > 1 and frame.notna().any(axis=None), link["download"]


def test_pages_show_no_machine_and_no_noise(site, machine_paths):
    never = re.compile(machine_paths.pattern + r"|it/s\]|s/it\]|\d%\|| ?█")
    for path in site.rglob("*"):
        if path.suffix in {".html", ".ipynb", ".md", ".txt"} and "mathjax" not in path.parts:
            found = never.search(path.read_text("utf8"))
            assert not found, f"{path.relative_to(site)}: {found[0]}"


SIZES = {
    "wide": ({"width": 1280, "height": 900}, ("dark", "light")),
    "phone": ({"width": 390, "height": 844}, ("light", "dark")),
}
"""The sizes of screens and the colour schemes there."""
JUDGED = {"book/intro", "book/downloads", "book/cite", "book/references", "notebooks/tables"}
"""Pages that are judged for accessibility: one of each kind, since a long one takes half a minute.
The languages' pages have a test of their own."""


@pytest.mark.parametrize("page", TOC)
def test_a_page_reads_well_from_the_disk(site, browser, page):
    requests, errors = [], []
    tab = browser.new_page()
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    tab.goto((site / f"{page}.html").as_uri(), wait_until="load")
    if tab.locator(".math.notranslate").count():
        tab.wait_for_selector("mjx-container")
        assert not tab.locator("mjx-merror").count()
    for size, (viewport, schemes) in SIZES.items():
        tab.set_viewport_size(viewport)
        for scheme in schemes:
            tab.emulate_media(color_scheme=scheme)
            tab.wait_for_selector(f"html[data-theme={scheme}]")
            if size == "wide" and page in JUDGED:
                tab.wait_for_timeout(400)  # the theme looks a little later which boxes scroll
                found = Axe().run(tab, options={"preload": False}).response["violations"]
                grave = [v for v in found if v["impact"] in ("serious", "critical")]
                assert [(v["id"], v["nodes"][0]["html"][:200]) for v in grave] == []
        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert tab.evaluate(overflow) <= 0, f"wider than a screen of {viewport['width']} px"
    tab.close()
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert errors == []


def test_the_ledger_sorts_and_filters_offline(site, browser):
    tab = browser.new_page()
    tab.goto((site / "book/claims.html").as_uri(), wait_until="load")
    table = tab.locator("table.sortable").first
    shown = "rows => rows.filter(r => !r.hidden).map(r => r.cells[{}].textContent.trim())"
    rows = table.locator("tbody tr")
    everything = rows.evaluate_all(shown.format(2))
    tab.get_by_role("searchbox", name="filter").first.fill("published undecided")
    left = rows.evaluate_all(shown.format(3))
    assert 0 < len(left) < len(everything) and set(left) == {"undecided"}
    assert set(rows.evaluate_all(shown.format(2))) == {"published"}
    tab.get_by_role("searchbox", name="filter").first.fill("")
    heading = table.get_by_role("button", name="evidence")
    heading.click()
    assert rows.evaluate_all(shown.format(2)) == sorted(everything)
    heading.click()
    assert rows.evaluate_all(shown.format(2)) == sorted(everything, reverse=True)
    assert table.locator("th[aria-sort=descending]").count() == 1
    with tab.expect_download() as saved:
        table.locator("a.csv").click()
    read = pd.read_csv(saved.value.path())
    assert read["Evidence"].isna().any() and len(read) == len(everything)
    links = table.locator("tbody a").evaluate_all("links => links.map(a => a.href)")
    assert links and all(Path(unquote(urlparse(link).path)).is_file() for link in set(links))
    tab.close()


@pytest.mark.parametrize("page", ["book/intro", "notebooks/altruistic"])
def test_every_verdict_in_the_text_is_a_chip(site, browser, page):
    tab = browser.new_page()
    tab.goto((site / f"{page}.html").as_uri(), wait_until="load")
    pasted = tab.locator(".pasted-text").evaluate_all(
        "spans => spans.map(s => [s.textContent.trim(), s.className])"
    )
    chips = {text: name.split()[-1] for text, name in pasted if text in claims.VERDICTS}
    assert len(chips) >= 3 and all(name.startswith("verdict-") for name in chips.values())
    assert chips["undecided"] == "verdict-open"
    assert not [text for text, name in pasted if "verdict" in name and text not in chips]
    tab.close()


def test_the_chips_know_every_verdict():
    script = (ROOT / "book/_static/tables.js").read_text("utf8")
    known = re.findall(r'^  "?([^":]+)"?: "\w+",$', script, re.MULTILINE)
    assert set(known) == set(claims.VERDICTS)


@pytest.fixture
def explorer(site, browser):
    requests = []
    tab = browser.new_page()
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto((site / "notebooks/quadrants.html").as_uri(), wait_until="load")
    tab.wait_for_selector("#explorer svg")
    yield tab.locator("#explorer")
    tab.close()
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


def counts(explorer):
    """Return what the corners of the explorer say, waiting until it is drawn."""
    explorer.evaluate("async place => { await place.view.runAsync(); }")
    texts = explorer.locator("svg text").all_text_contents()
    found = [re.fullmatch(rf"(\d+) ({'|'.join(quadrants.QUADRANTS)})", text) for text in texts]
    return {match[2]: int(match[1]) for match in found if match}


def set_slider(explorer, name, value):
    explorer.locator(f"input[name={name}]").evaluate(
        "(slider, v) => { slider.value = v; slider.dispatchEvent(new Event('input')); }", str(value)
    )


def test_sliders_assign_quadrants_as_the_package_does(explorer):
    scores, rows = quadrants.published(), []
    for threshold in (0.5, 1.0, 1.85, 2.5, 6.0):
        for factor in (1.0, 1.5, 2.0, 3.0, 5.0):
            set_slider(explorer, "T", threshold)
            set_slider(explorer, "factor", factor)
            expected = quadrants.assign(scores, threshold, factor)["quadrant"].value_counts()
            assert counts(explorer) == expected.to_dict(), (threshold, factor)
            rows.append(tuple(expected.reindex(quadrants.QUADRANTS, fill_value=0)))
    assert len(set(rows)) > 10  # so the sliders did something


def test_the_explorer_begins_as_the_chapter_and_filters(explorer):
    scores = quadrants.published()
    assigned = quadrants.assign(scores, quadrants.threshold())
    assert counts(explorer) == assigned["quadrant"].value_counts().to_dict()
    table = languages.table().set_index("code")
    explorer.locator("select[name=script]").select_option("Cyrillic")
    cyrillic = assigned[assigned["language"].map(table["script"]) == "Cyrl"]
    assert counts(explorer) == cyrillic["quadrant"].value_counts().to_dict()
    explorer.locator("select[name=marked]").select_option("Bulgarian")
    counts(explorer)
    assert "Bulgarian" in explorer.locator("svg text").all_text_contents()


def test_the_explorer_works_by_keyboard_and_follows_the_theme(explorer):
    slider = explorer.locator("input[name=factor]")
    before = counts(explorer)
    slider.focus()
    for _ in range(12):
        slider.press("ArrowRight")
    value = float(slider.input_value())
    assert value == pytest.approx(2.6)
    after = quadrants.assign(quadrants.published(), quadrants.threshold(), value)["quadrant"]
    assert counts(explorer) == after.value_counts().to_dict() != before
    explorer.page.emulate_media(color_scheme="dark")
    explorer.page.wait_for_selector("html[data-theme=dark]")
    explorer.page.wait_for_function(
        "document.querySelector('#explorer svg text')"
        " && getComputedStyle(document.querySelector('#explorer svg text')).fill !== 'rgb(0, 0, 0)'"
    )
    picture = explorer.page.locator(".bd-article .cell_output img").first
    assert "invert" in picture.evaluate("image => getComputedStyle(image).filter")
    assert float(explorer.locator("input[name=factor]").input_value()) == pytest.approx(2.6)
    assert counts(explorer) == after.value_counts().to_dict()


@pytest.fixture(scope="module")
def guidance(site, browser):
    """The page of guidance with its interactive figures, for all tests that use them."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.goto((site / "book/guidance.html").as_uri(), wait_until="load")
    for figure in ("fertility", "calculator-map", "frontier-llama", "frontier-toy"):
        tab.wait_for_selector(f"#{figure} svg")
    yield tab
    tab.close()


@pytest.mark.parametrize(
    ("rows", "threshold", "factor"),
    [
        ([("cy", 2.5, 9.0), ("af", 3.5, 12.0), ("ro", 3.6, 15.1)], 1.85, 2),  # above T, both
        ([("km", 0.3, 0.9), ("af", 0.5, 6.0)], 1.85, 2),  # below T, both
        ([("km", 0.5, 6.0), ("af", 3.5, 4.0), ("ro", 3.6, 5.0)], 1.85, 2),
        ([("ur", 1.0, 1.5), ("af", 3.5, 2.0)], 1.85, 2),
        ([("cy", 2.5, 9.0), ("af", 3.5, 12.0)], 6.0, 1.5),  # a change of exactly 0
        ([("mine", 12.0, 25.5), ("fr", 30.0, 29.0), ("de", 0.0, 60.0)], 14.0, 1.8),
    ],
)
def test_the_calculator_agrees_with_the_package(guidance, rows, threshold, factor):
    chart, form = guidance.locator("#calculator-map"), guidance.locator("form.calculator")
    set_slider(chart, "T", threshold)
    set_slider(chart, "factor", factor)
    form.locator("textarea").fill("\n".join(f"{code} {pre} {post}" for code, pre, post in rows))
    chart.evaluate("async place => { await place.view.runAsync(); }")
    scores = pd.DataFrame(rows, columns=["language", "pre", "post"])
    own, others = scores.iloc[0], scores.iloc[1:].mean(numeric_only=True)
    sides = {"bilingual": own, "multilingual": others}
    row = {
        f"{side}_{when}": cells[when] for side, cells in sides.items() for when in ("pre", "post")
    }
    (expected,) = quadrants.assign(pd.DataFrame([row]), threshold, factor).itertuples()
    told = form.locator("output").inner_text().replace("−", "-")
    numbers = re.search(r"own change (\S+), others’ change (\S+)\. \w+ is (\w+)", told)
    assert float(numbers[1]) == pytest.approx(expected.bilingual_delta, abs=6e-4)
    assert float(numbers[2]) == pytest.approx(expected.multilingual_delta, abs=6e-4)
    assert numbers[3] == expected.quadrant
    assert quadrants.strategies.GUIDANCE[expected.quadrant] in told
    link = form.locator("output a").get_attribute("href")
    assert link == (
        "#how-sure" if own["language"] == "mine" else f"../languages/{own['language']}.html"
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [("cy 2.5 4.0\naf x 3", "“af x 3”"), ("cy 2.5 101\naf 1 3", "“cy 2.5 101”"),
     ("cy 2.5 4.0", "at least one other"), ("", "“” is not"), ("cy 1 2 3\naf 1 2", "“cy 1 2 3”")],
)  # fmt: skip
def test_the_calculator_says_what_is_wrong_and_goes_on_by_keyboard(guidance, text, error):
    form = guidance.locator("form.calculator")
    form.locator("textarea").fill(text)
    output = form.locator("output.wrong")
    assert error in output.inner_text()
    form.locator("textarea").focus()
    guidance.keyboard.press("Control+a")
    guidance.keyboard.insert_text("lang,before,after\ncy,2.5,4\naf\t3.5\t12")
    guidance.wait_for_function("!document.querySelector('form.calculator output.wrong')")
    assert "Welsh is" in form.locator("output").inner_text()


def test_the_calculator_breaks_no_rule_of_accessibility(guidance):
    found = Axe().run(guidance, "form.calculator", {"preload": False}).response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []


def test_fertility_filters_and_names_languages(guidance):
    place = guidance.locator("#fertility")

    def points():
        place.evaluate("async place => { await place.view.runAsync(); }")
        return place.locator(".mark-symbol path[aria-roledescription=point]")

    everything = points().count()
    assert everything == len(tokenization.recorded("fertility"))
    place.locator("select[name=tokenizer]").select_option("llama")
    assert points().count() == everything // 6
    place.locator("select[name=script]").select_option("Khmr")
    place.locator("select[name=mark]").select_option("Welsh")
    points().first.hover()
    tip = guidance.locator("#vg-tooltip-element")
    tip.filter(has_text="Khmer").wait_for()
    place.locator("select[name=script]").select_option("all")
    points()
    assert any(text.startswith("Welsh ") for text in place.locator("svg text").all_text_contents())


@pytest.mark.parametrize("page", ["book/guidance", "notebooks/tables"])
def test_a_printed_page_is_whole(site, browser, page):
    tab = browser.new_page(viewport={"width": 690, "height": 1000})  # A4 less its margins
    tab.goto((site / f"{page}.html").as_uri(), wait_until="load")
    for place in tab.locator(".interactive").all():
        place.locator("svg").first.wait_for()
    tab.emulate_media(media="print")
    article = tab.locator(".bd-article")
    right = article.evaluate("box => box.getBoundingClientRect().right")
    cut = "(tables, right) => tables.filter(t => t.getBoundingClientRect().right > right + 1)"
    wide = article.locator("table, img").evaluate_all(f"{cut}.map(t => t.textContent)", right)
    assert wide == []
    folded = article.locator("details.hide:not([open])").all()
    live = article.locator(".interactive, form.calculator").all()
    assert not [part for part in (*folded, *live) if part.is_visible()]
    assert all(picture.is_visible() for picture in article.locator("img.static").all())
    assert (article.locator("img.static").count() == 3) == (page == "book/guidance")
    tab.close()


def test_the_chapters_notebooks_lie_in_the_site(site):
    links = {link["href"] for link in soup(site, "book/downloads").article.find_all("a", href=True)}
    notebooks = {site / "book" / link for link in links if link.endswith(".ipynb")}
    chapters = {Path(page).stem for page in NOTEBOOKS if page.startswith("notebooks/")}
    assert {path.stem for path in notebooks} == chapters
    assert all(nbformat.read(path, as_version=4).cells for path in notebooks)
