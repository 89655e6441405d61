"""Writes the text of a site's pages into a script, in which the site's own search looks."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import lxml.html

_LEFT_OUT = (
    "//script | //style | //svg | //button | //a[@class='headerlink'] "
    "| //details[contains(@class, 'above-input')]/summary"
)


def write(site: Path) -> None:
    """Write the sections of a site's pages, and empty Sphinx's index.

    The theme loads that index on every page, though nothing looks in it.
    """
    texts = (_page(site, path) for path in sorted(site.rglob("*.html")))
    listed = json.dumps(list(filter(None, texts)), ensure_ascii=False)
    (site / "_static/search_texts.js").write_text(f"const SEARCH_TEXTS = {listed};\n", "utf8")
    (site / "searchindex.js").write_text("// Pages are searched by search.js.\n", "utf8")


def _page(site: Path, path: Path) -> list[Any] | None:
    """Return a page's address, title and sections: the anchor, heading and text of each."""
    tree = lxml.html.parse(path, lxml.html.HTMLParser(encoding="utf8"))
    articles = tree.xpath("//article[contains(@class, 'bd-article')]")
    if not articles or not (titles := articles[0].xpath(".//h1")):
        return None
    for element in articles[0].xpath(_LEFT_OUT):
        element.drop_tree()
    sections = []
    for section in articles[0].xpath(".//section[@id][h1 | h2 | h3 | h4 | h5 | h6]"):
        heading = section.xpath("h1 | h2 | h3 | h4 | h5 | h6")[0]
        rest = (child for child in section if child.tag != "section" and child is not heading)
        words = " ".join(filter(None, map(_text, rest)))
        sections.append([section.get("id"), _text(heading), words])
    return [path.relative_to(site).as_posix(), _text(titles[0]), sections]


def _text(element: Any) -> str:
    words = element.text_content().split() if isinstance(element.tag, str) else ()
    return unicodedata.normalize("NFC", " ".join(words))
