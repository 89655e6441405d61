"""A page for each language of the paper, the index of them, and the names that the finder knows.

They are made when the book is built, from `language.md.jinja` of the book's templates, and become
sections of the page `INDEX`. What is known of LLaMA and what the toy did stand apart on each page.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml
from babel import Locale

from mlq_utils import languages, paper, quadrants, tokenization
from mlq_utils.experiments import studies, tables
from mlq_utils.quadrants import strategies

INDEX = "book/languages"
"""The page that lists the languages. A book whose table of contents lacks it has no such pages."""
TOY_STUDIES = ("by_language", "altruistic_sizes", "reciprocal_sizes", "stagnant_sizes")
REFERENCE = list(quadrants.REFERENCE_TARGETS)
Rows = list[dict[str, Any]]


def write(source: Path, codes: Collection[str] | None = None) -> None:
    """Write the pages into the folder that Jupyter Book reads, with their index and entries.

    `codes` are the languages that get a page. They default to all but English.
    """
    toc = yaml.safe_load((source / "_toc.yml").read_text("utf8"))
    parts = [toc, *toc.get("parts", [])]
    entries = [entry for part in parts for entry in part.get("chapters", [])]
    index = [entry for entry in entries if entry.get("file") == INDEX]
    if not index:
        return
    ordered = languages.table().query("code != 'en'").sort_values("name")["code"]
    listed = [code for code in ordered if codes is None or code in codes]
    index[0]["sections"] = [{"file": f"languages/{code}"} for code in listed]
    (source / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), "utf8")
    (source / "languages").mkdir()
    loader, strict = jinja2.FileSystemLoader(source / "book/_templates"), jinja2.StrictUndefined
    environment = jinja2.Environment(
        loader=loader, undefined=strict, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["name_of"] = lambda code: languages.get(code).name
    page, known = environment.get_template("language.md.jinja"), _known()
    facts = [_facts(code, known) for code in listed]
    for each in facts:
        text = page.render(each, linked=listed)
        (source / f"languages/{each['language'].code}.md").write_text(text, "utf8")
    table = environment.get_template("languages.html.jinja").render(languages=facts)
    (source / "languages/index.html").write_text(table, "utf8")
    names = json.dumps(list(map(_names, facts)), ensure_ascii=False)
    (source / "_static/languages.js").write_text(f"const LANGUAGES = {names};\n", "utf8")


def _names(facts: Mapping[str, Any]) -> list[Any]:
    """Return what the finder shows of a language, and the other names and codes it is found by."""
    language, own = facts["language"], facts["own"]
    english = Locale("en").languages.get(language.cldr.split("_")[0], "")
    used = {getattr(language, column) for column in languages.COVERAGE.values()}
    other = {english, *used, *(name.split("_")[0] for name in used)}
    shown = [language.name, own, language.code]
    return [*shown, sorted(other - {"", *shown})]


def _known() -> dict[str, dict[str, Rows]]:
    """Return what there is of all languages, as rows by kind and language."""
    into, out_of = paper.published_scores(), paper.published_scores("x-en")
    runs = quadrants.runs().reset_index().replace({"strategy": strategies.NAMES})
    return {
        "english_tasks": _by("target", paper.table(9)),
        "quadrants": _by("language", paper.table(2).query("dataset != 'Summary'")),
        "printed": _by("language", _scores().explode("language")),
        "best": _by("language", runs.dropna(subset="own").sort_values("own", ascending=False)),
        "systems": _by("language", into.merge(out_of, on=["system", "language"])),
        "tokens": _premiums(tokenization.recorded("fertility"), "tokens_per_sentence"),
        "counts": _premiums(paper.token_counts(), "tokens"),
        "toy": _by("tuned_on", _toy()),
        "toy_quadrant": _by("language", studies.assigned()),
    }


def _premiums(measured: pd.DataFrame, tokens: str) -> dict[str, Rows]:
    """Return rows by language with the premium: how many times the tokens of English it takes."""
    english = measured[measured["language"] == "en"].set_index("tokenizer")[tokens]
    premium = measured[tokens] / measured["tokenizer"].map(english)
    return _by("language", measured.assign(premium=premium).sort_values("premium"))


def _by(column: str, frame: pd.DataFrame) -> dict[str, Rows]:
    return {key: rows.to_dict("records") for key, rows in frame.groupby(column, sort=False)}


def _facts(code: str, known: Mapping[str, Mapping[str, Rows]]) -> dict[str, Any]:
    """Return what the template is given about a language, beside `known` of it."""
    language = languages.get(code)
    others = [languages.get(other) for other in languages.codes() if other not in ("en", code)]
    near = strategies.nearest(code, (other.code for other in others))
    relatives = [{kind: rows.get(other, []) for kind, rows in known.items()} for other in near]
    corpora = [name for name in ("ted", "wikimatrix", "lego_mt") if code in languages.codes(name)]
    own = Locale.parse(language.cldr).get_display_name() if language.cldr else ""
    return {kind: rows.get(code, []) for kind, rows in known.items()} | {
        "language": language,
        "own": own or "",  # Babel lacks a few
        "script": Locale("en").scripts[language.script],
        "advice": quadrants.recommend(code),
        "strategies": strategies.NAMES,
        "corpus": corpora[0],
        "near": list(zip(map(languages.get, near), relatives, strict=True)),
        "others": [other for other in others if other.code not in near],
    }


def _scores() -> pd.DataFrame:
    """Return the printed scores of LLaMA-7B.

    A score has the `Spec` of the run that stands for it as its `model`. `into` are the targets, of
    which it is the mean, and `language` lists the languages whose pages have it.
    """
    rows: Rows = []
    for table in filter(lambda table: isinstance(table, int), tables.TABLES):
        title = paper.table(table).attrs["title"]
        for printed, cell in tables.cells(table)[["printed", "cell"]].itertuples(index=False):
            found = list(tables.scores(cell))
            single = isinstance(cell, tables.Score)
            if not single and (not found or cell.how != "mean" or len(found) != len(REFERENCE)):
                continue  # no run stands for it, or it is an average, a difference or a quadrant
            model, into = found[0].model, [score.target for score in found]
            concerned = {*(into if single else ()), *model.languages[: len(model.languages) == 1]}
            row = {"table": table, "title": title, "model": model, "into": into, "spbleu": printed}
            rows.append(row | {"language": sorted(concerned)})
    return pd.DataFrame(rows)


def _toy() -> pd.DataFrame:
    """Return the toy's scores before and after it was tuned on each language: means over seeds.

    `own` is the score of that language. `af` and `ro` are missing if they were not scored.
    """
    untuned = studies.scores("untuned").set_index("target")["spbleu"]
    before = untuned.rename("own").rename_axis("tuned_on").reset_index()
    before = before.assign(how="untuned", size=0, **untuned[REFERENCE])
    found = pd.concat(map(studies.scores, TOY_STUDIES), ignore_index=True)
    rate = found["learning_rate"].map(lambda rate: "" if pd.isna(rate) else f", rate {rate:g}")
    found["how"] = found["strategy"].map(strategies.NAMES) + rate
    own = found[found["target"] == found["tuned_on"]].assign(target="own")
    found = pd.concat([own, found[found["target"].isin(REFERENCE)]])
    after = found.pivot_table("spbleu", ["tuned_on", "how", "size"], "target", sort=False)
    return pd.concat([before, after.reset_index()], ignore_index=True)
