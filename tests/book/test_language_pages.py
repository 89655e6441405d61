"""The pages of the languages, the finder that leads to them, and the search, in a small book."""

import re
import shlex
from pathlib import Path
from urllib.parse import unquote, urlparse

import nbformat
import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from nbformat.v4 import new_markdown_cell, new_notebook
from test_cli import blocks, parse_mlq

from mlq_utils import languages, paper, quadrants, tokenization
from mlq_utils.book import execution, language_pages, pipeline, site_search

CODES = [code for code in languages.codes() if code != "en"]
SHELF = ("cy", "ga", "km", "ro", "ar", "zh", "umb")
STUBS = ("guidance", "differences", "mini_world")
"""Pages that the languages' pages and their index refer to."""


@pytest.fixture(scope="module")
def sources(root, tmp_path_factory):
    """The page of each language before Sphinx reads it, by its code."""
    source = tmp_path_factory.mktemp("source")
    (source / "book").symlink_to(root / "book")
    (source / "_static").mkdir()
    toc = {"root": "book/intro", "chapters": [{"file": language_pages.INDEX}]}
    (source / "_toc.yml").write_text(yaml.safe_dump(toc), "utf8")
    language_pages.write(source)
    (entry,) = yaml.safe_load((source / "_toc.yml").read_text("utf8"))["chapters"]
    written = {path.stem: path.read_text("utf8") for path in source.glob("languages/*.md")}
    assert {f"languages/{code}" for code in written} == {s["file"] for s in entry["sections"]}
    return written


@pytest.fixture(scope="module")
def shelf(root, tmp_path_factory):
    """A site of a few languages' pages, made as the book is made."""
    folder = tmp_path_factory.mktemp("shelf")
    (folder / "book").mkdir()
    for name in ("_static", "_templates", "languages.md", "references.bib"):
        (folder / "book" / name).symlink_to(root / "book" / name)
    (folder / "_config.yml").symlink_to(root / "_config.yml")
    (folder / "book/intro.md").write_text("# Intro\n\nThe first page.\n", "utf8")
    listed = [language_pages.INDEX, *(f"book/{name}" for name in STUBS)]
    toc = {"format": "jb-book", "root": "book/intro"}
    toc["chapters"] = [{"file": page} for page in listed]
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc), "utf8")
    chapters = []
    for name in STUBS:
        executed = folder / f"{name}.ipynb"
        nbformat.write(new_notebook(cells=[new_markdown_cell(f"# About {name}")]), executed)
        chapters.append(execution.Chapter(folder, Path(f"book/{name}.ipynb"), executed, {}))
    source = pipeline._stage(folder, "smoke", chapters, SHELF)
    return pipeline._build(source, folder / "html").parent


def tables(text):
    """Return the tables of a page by caption: one list of cells per row."""
    found = BeautifulSoup(text, "html.parser").find_all("table", class_="facts")
    return {
        table.caption.text: [
            [cell.get_text() for cell in row.find_all(["th", "td"])] for row in table.tbody("tr")
        ]
        for table in found
    }


# The pages


def test_every_language_has_a_page_of_plain_words(sources):
    assert sources.keys() == set(CODES)
    for code, text in sources.items():
        assert text.startswith(f"# {languages.get(code).name}\n")
        numbers = re.sub(r"rate [\d.]+", "", text)
        assert not re.search(r"\bnan\b|NaN|None|\binf\b|\$|Undefined|\d\.\d{3,}", numbers), code
        headings = re.findall(r"^#+ (.*)|<th[^>]*>(.*?)</th>|<caption>(.*?)<", text, re.M)
        assert not [h for h in headings if "_" in "".join(h)]
        assert not re.search(r"\n\n</|<table(?:(?!</table>)(?:.|\n))*\n\n", text)  # a cut table
        # What is known of LLaMA comes first, and each strand has one section with its banner.
        assert re.findall(r"^## (.*)|^:class: (.*)", text, re.M) == [
            ("LLaMA and other real models", ""), ("", "strand-llama"),
            ("In the toy", ""), ("", "strand-toy"),
        ]  # fmt: skip


def test_a_page_has_the_advice_of_the_package(sources):
    for code in ("cy", "umb", "sk"):
        advice, name = quadrants.recommend(code), languages.get(code).name
        text = " ".join(sources[code].split())
        assert advice.strategy in text and advice.expect in text and advice.evidence in text
        sure = f"{name} is probably {advice.quadrant}" in text
        assert sure == (advice.quadrant != "undecided")
        shown = {row[0]: row[2] for row in tables(text)["How probable each quadrant is"]}
        assert shown == {kind: f"{share:.0%}" for kind, share in advice.probability.items()}
    assert "undecided" in sources["umb"]
    expected = re.search(r"What to expect.*", sources["cy"])[0]
    assert not re.findall(r"\b(?:cy|tr|vi|mr|af|ro)\b", expected)  # languages go by name


def test_every_command_of_a_page_is_understood(sources):
    flags = set()
    for code, text in sources.items():
        commands = [command for block in blocks(text) for command in block.splitlines()]
        assert len(commands) == 2
        recommend, run = (parse_mlq(shlex.split(command)[1:]) for command in commands)
        assert recommend["language"] == code
        spec = run["spec"]
        assert spec.languages == (code,) and spec.targets[0] == code
        flags |= {(spec.strategy, spec.layers is None, spec.shorten)}
    assert {("embed", True, None), ("full", True, None), ("full", True, "one token")} < flags
    assert ("layers", False, None) in flags


def test_every_printed_score_of_a_language_is_on_its_page(sources):
    def scores(code, number):
        summary = f"<summary>Table {number}: "
        text = sources[code].partition(summary)[2].partition("</details>")[0]
        return tables(text).get("Scores in spBLEU", [])

    twelve = paper.table(12)
    into = twelve.query("target == 'ro' or tuned_on == 'ro'")["spbleu"]
    assert [float(row[-1]) for row in scores("ro", 12)] == into.tolist()
    five = paper.table(5).query("target == 'km'")
    shown = [row[1:] for row in scores("km", 5)]
    assert shown[0] == ["untuned", "", "Khmer", f"{five['spbleu'].iloc[0]}"]
    assert ["full FT", "160,000", "Khmer", "13.4"] in shown and len(shown) == len(five)
    four = paper.table(4).query("tuned_on == 'vi'")
    assert len(scores("vi", 4)) == len(four) - 1  # untuned, others than Vietnamese
    assert {row[3] for row in scores("vi", 4)} == {"Vietnamese", "Afrikaans and Romanian (mean)"}
    six = paper.table(6).query("target == 'te'").dropna(subset="spbleu")
    assert len(scores("te", 6)) == len(six) and "BPE tokens of" in scores("te", 6)[0][1]
    layers = [row[1] for row in scores("ro", 14)]
    assert layers[:3] == ["full FT", "LoRA", "Embed FT"] and "FT of layer 31" in layers
    assert len(scores("hr", 3)) == len(paper.table(3).query("target == 'hr'"))
    assert all(len(scores(code, 9)) == 2 for code in CODES)


def test_a_page_has_what_was_measured_and_published(sources):
    fertility = tokenization.recorded("fertility").set_index(["tokenizer", "language"])
    length = fertility["tokens_per_sentence"]
    premium = length["llama", "km"] / length["llama", "en"]
    assert f"LLaMA's tokenizer makes {premium:.1f} times as many tokens" in sources["km"]
    rows = tables(sources["km"])["By tokenizer, on the same text: the FLORES-200 devtest"]
    (llama,) = [row for row in rows if row[0] == "LLaMA"]
    assert len(rows) == len(length.index.unique("tokenizer"))
    characters = fertility["tokens_per_char"]["llama", "km"]
    sentences = 2048 / length["llama", "km"]
    assert llama[1:] == [f"{characters:.2f}", f"{sentences:.0f}", f"{premium:.2f}"]
    assert [float(row[-1]) for row in rows] == sorted(float(row[-1]) for row in rows)
    published = paper.published_scores().query("language == 'km'").set_index("system")["score"]
    rows = tables(sources["km"])[
        "From English and into English, on FLORES-101, as published by LLaMAX (spBLEU)"
    ]
    assert {row[0]: row[1] for row in rows} == published.map("{:.1f}".format).to_dict()
    assert f"{paper.token_counts()['tokenizer'].nunique()} more tokenizers" in sources["km"]


def test_relatives_and_the_toy(sources):
    rows = tables(sources["cy"])["How they fared in LLaMA-7B: spBLEU of the relative itself"]
    assert rows[0][0] == "Irish" and '<a href="ga.html">Irish</a>' in sources["cy"]
    toy = "The toy's spBLEU on phrases of the CLDR, means over tuning seeds"
    assert [row[0] for row in tables(sources["cy"])[toy]][:2] == ["untuned", "Embed FT"]
    assert len(tables(sources["tr"])[toy]) > 5
    lacking = {code for code, text in sources.items() if "says nothing about it" in text}
    assert lacking == set(CODES) - set(languages.codes("cldr"))
    assert re.search(r"mini world\]\(\S+\), Khmer is \w+\.", sources["km"])


# The site


def test_the_site_is_small_and_says_no_nan(shelf):
    for path in shelf.rglob("*.html"):
        text = path.read_text("utf8")
        assert len(text.encode()) < 1_500_000 and "NaN" not in text
    made = sum((shelf / "_static" / f).stat().st_size for f in ("finder.js", "search.js"))
    assert made < 20_000
    welsh = BeautifulSoup((shelf / "languages/cy.html").read_text("utf8"), "html.parser")
    assert [h.text.rstrip("#") for h in welsh.article.find_all("h2")] == [
        "LLaMA and other real models", "In the toy",
    ]  # fmt: skip
    assert len(welsh.article.find_all("pre")) == 2


def test_every_link_leads_to_a_page(shelf):
    seen = set()
    for path in shelf.rglob("*.html"):
        soup = BeautifulSoup(path.read_text("utf8"), "html.parser")
        for link in soup.find_all("a", href=True):
            address = urlparse(link["href"])
            if not address.scheme and address.path:
                target = (path.parent / unquote(address.path)).resolve()
                assert target.is_file(), f"{path.name} links to {address.path}"
                seen.add(target.relative_to(shelf.resolve()).as_posix())
    assert {f"languages/{code}.html" for code in SHELF} <= seen


@pytest.fixture
def tab(browser):
    """A page that must ask no other host and show no error."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    opened, requests, errors = context.new_page(), [], []
    opened.on("request", lambda request: requests.append(request.url))
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    yield opened
    context.close()
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert errors == []


def go(tab, path, query=""):
    tab.goto(path.as_uri() + query, wait_until="load")


@pytest.mark.parametrize(
    ("typed", "code"),
    [("Welsh", "cy"), ("cy", "cy"), ("Cymraeg", "cy"), ("ខ្មែរ", "km"), ("romana", "ro"),
     ("العربية", "ar"), ("中文", "zh"), ("khm_Khmr", "km")],
)  # fmt: skip
def test_the_finder_leads_to_a_language_in_two_actions(shelf, tab, typed, code):
    go(tab, shelf / "index.html")
    tab.wait_for_url("**/book/intro.html")
    tab.keyboard.press("Alt+l")
    tab.keyboard.insert_text(typed)
    tab.keyboard.press("Enter")
    tab.wait_for_url(f"**/languages/{code}.html")
    advice = tab.get_by_role("heading", name="Advice")
    assert advice.bounding_box()["y"] < 800 - 100  # seen without scrolling


def test_the_finder_is_a_combobox(shelf, tab):
    go(tab, shelf / "languages/cy.html")
    field = tab.get_by_role("combobox", name="Find a language")
    assert field.get_attribute("aria-expanded") == "false"
    field.press_sequentially("r")
    listed = tab.get_by_role("listbox", name="Languages").get_by_role("option")
    names = listed.all_inner_texts()
    assert len(names) > 1 and "Romanian" in names[0]
    assert field.get_attribute("aria-expanded") == "true"

    def active():
        (selected,) = [o for o in listed.all() if o.get_attribute("aria-selected") == "true"]
        assert selected.get_attribute("id") == field.get_attribute("aria-activedescendant")
        return selected.inner_text()

    assert active() == names[0]
    field.press("ArrowDown")
    assert active() == names[1]
    field.press("ArrowUp")
    field.press("ArrowUp")
    assert active() == names[-1]
    field.press("Escape")
    assert listed.count() == 0 and field.input_value() == "r"
    field.press("ArrowDown")
    assert listed.count() == len(names)
    field.press("Escape")
    field.press("Escape")
    assert field.input_value() == ""
    field.press_sequentially("Klingon")
    assert listed.count() == 0
    assert tab.locator(".finder [role=status]").inner_text() == "No such language"
    tab.keyboard.press("Control+k")  # the theme's search is still there
    assert tab.locator("#pst-search-dialog").is_visible()


def test_the_finder_by_thumb(shelf, browser):
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    phone = context.new_page()
    go(phone, shelf / "book/guidance.html")
    field = phone.get_by_role("combobox", name="Find a language")
    field.tap()
    field.press_sequentially("welsh")
    option = phone.get_by_role("option", name="Welsh")
    assert option.bounding_box()["height"] >= 40
    assert option.bounding_box()["x"] + option.bounding_box()["width"] <= 390
    option.tap()
    phone.wait_for_url("**/languages/cy.html")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


@pytest.mark.parametrize(
    ("query", "page"),
    [("ខ្មែរ", "languages/km"), ("中文", "languages/zh"), ("العربية", "languages/ar"),
     ("CYMRAEG", "languages/cy"), ("romana latino", "languages/ro"), ("celtic", "languages/cy"),
     ("quadrant", "book/languages")],
)  # fmt: skip
def test_the_search_reads_full_texts_in_any_script_from_the_disk(shelf, tab, query, page):
    go(tab, shelf / "book/intro.html")
    tab.keyboard.press("Control+k")
    tab.keyboard.insert_text(query)
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/search.html*")
    results = tab.locator("#search-results li")
    results.first.wait_for()
    addresses = results.locator("a").evaluate_all("links => links.map(link => link.href)")
    assert any(f"/{page}.html" in address for address in addresses)
    marks = results.locator("mark").all_inner_texts()
    assert marks
    result = results.filter(has=tab.locator(f"a[href*='{page}.html']")).first
    result.locator("a").click()
    tab.wait_for_url(f"**/{page}.html*")


def test_a_search_without_result_says_so(shelf, tab):
    go(tab, shelf / "search.html", "?q=zyzzyva")
    assert "No page has “zyzzyva”" in tab.locator("#search-results").inner_text()
    go(tab, shelf / "search.html", "?q=" + "%3Cimg+src%3Dx+onerror%3Dalert(1)%3E")
    assert tab.locator("#search-results img").count() == 0


def test_texts_of_a_page_are_those_that_a_reader_sees(tmp_path):
    (tmp_path / "_static").mkdir()
    (tmp_path / "page.html").write_text(
        "<article class='bd-article'><section id='a'><h1>A<a class='headerlink'>#</a></h1>"
        "<p>e\u0301 one <b>two</b></p><script>no</script>"
        "<section id='b'><h2>B</h2><p>three</p></section></section></article>",
        "utf8",
    )
    (tmp_path / "other.html").write_text("<p>no article</p>", "utf8")
    site_search.write(tmp_path)
    (line,) = (tmp_path / "_static/search_texts.js").read_text("utf8").splitlines()
    texts = yaml.safe_load(line.removeprefix("const SEARCH_TEXTS = ").removesuffix(";"))
    assert texts == [["page.html", "A", [["a", "A", "é one two"], ["b", "B", "three"]]]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", ["languages/km", "book/languages", "search"])
def test_no_rule_of_accessibility_is_broken(shelf, tab, page, scheme):
    tab.emulate_media(color_scheme=scheme)
    go(tab, shelf / f"{page}.html", "?q=welsh" if page == "search" else "")
    tab.wait_for_selector(f"html[data-theme={scheme}]")
    for size in ({"width": 1280, "height": 800}, {"width": 390, "height": 844}):
        tab.set_viewport_size(size)
        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert tab.evaluate(overflow) <= 0
    tab.wait_for_timeout(400)  # the theme looks a little later which boxes scroll
    tab.get_by_role("combobox").fill("w")  # the list is judged, too
    for summary in tab.locator("article details summary").all():
        summary.click()
    tab.get_by_role("combobox").focus()
    found = Axe().run(tab, options={"preload": False}).response["violations"]
    grave = [
        (each["id"], node["html"][:200], node["any"][0]["message"] if node["any"] else "")
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]
    assert grave == []
