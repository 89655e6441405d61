"""The text that the mini base model is pretrained on: English-centric documents of CLDR phrases.

What LLaMA's text is to LLaMA, made small. Most documents are English or hold English; 19 other
languages (those of LLaMA's Wikipedia text, the paper's footnote 2) meet English in many phrasings;
tasks in the skeleton of the tuning prompt are in English only; all other languages that CLDR covers
leave traces. No document holds a translation in the skeleton that fine-tuning uses: what the model
learns of translation must be brought out by tuning. No phrase of CLDR's test split is a document or
a task's input.

What each ingredient of `Mix` is for was tried, by `benchmarks.ablations`. Without English tasks the
base translates untuned; where their instructions have no arguments, or all translations the same
phrasing, tuning on one language brings out that language alone.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mlq_utils import languages
from mlq_utils.corpora.cldr import Item, Phrasebook, combinations, phrasebook
from mlq_utils.modeling import prompts

FREQUENT = ("de", "fr", "es", "it", "ru", "pl", "nl", "pt")
"""Twice as likely as the other eleven."""
TRACE_EXPONENT = -0.7
"""The n-th of the trace languages has weight n to this power."""
BARE_TRACE = 0.7
"""Share of traces that are a bare phrase; the others are a gloss with English."""
STREAM = 1_000_003
"""Added to the seed: pretraining's phrases are not those that tuning draws first."""

PHRASINGS = (
    "{english} ({name}: {text})",
    "{text} ({english})",
    "{english}. In {name}: {text}",
    "The {name} for {english} is {text}.",
    "{english}\n{name} translation: {text}",
    "Q: What is {english} in {name}?\nA: {text}",
    "From English into {name}: {english} = {text}",
    "{english}\n{name} version of the text:\n{text}",
    "Write it in {name}. {english} -> {text}",
    "English to {name}\n{english}\n{text}",
    "Into {name}: {english}\n{text}",
    "Say {english} in {name}: {text}",
    "Task: {name}\nText: {english}\nAnswer:\n{text}",
    "[{name}] {english} [/] {text}",
    "Translated into {name}, {english} reads {text}",
    "Put this into {name}.\n{english}\nResult:\n{text}",
    "{english} => {name} => {text}",
    "In: {english}\nLanguage: {name}\nOut:\n{text}",
)
"""How a language meets English, besides `_headed` documents."""
HEADED = 4
"""How many phrasings those documents count for."""


@dataclass(frozen=True)
class Mix:
    """What the text is mixed of.

    Attributes:
        traces: Share of documents that hold a language outside pretraining.
        tasks: Share of the others that are English tasks.
        english: Share that are an English phrase.
        other: Share that are a phrase in one of the 19 languages; what remains are documents in
            which languages meet.
        phrasings: How many phrasings those are in, `HEADED` among them where there are more.
        arguments: Whether instructions of tasks have arguments ("Put Peru first.").
    """

    traces: float = 0.06
    tasks: float = 0.25
    english: float = 0.15
    other: float = 0.075
    phrasings: int = len(PHRASINGS) + HEADED
    arguments: bool = True


@dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
        kind: `task`, `english`, `other`, `meeting` or `trace`.
        languages: The paper's codes of what it holds.
        text: What is read; of a task, the prompt.
        answer: What comes after a last line break and a prompt or heading. It is tokenised by
            itself, as targets are in fine-tuning.
    """

    kind: str
    languages: tuple[str, ...]
    text: str
    answer: str = ""


def pretraining_languages() -> list[str]:
    """Return the 19 languages besides English, in the order of Table 8."""
    return [c for c in languages.codes() if languages.get(c).pretraining and c != "en"]


def trace_languages(seed: int) -> dict[str, float]:
    """Return the languages that leave traces, in an order drawn by `seed`, with their weights."""
    inside = {"en", *pretraining_languages()}
    codes = [c for c in languages.codes("cldr") if c not in inside]
    random.Random(f"traces {seed}").shuffle(codes)
    return {code: rank**TRACE_EXPONENT for rank, code in enumerate(codes, 1)}


def shares(folder: Path) -> pd.DataFrame:
    """Return how much of each language a base has read, from its `pretraining.json`.

    Returns:
        A frame indexed by the paper's code: `group` ("English", "pretraining" for the 19, "trace"),
        `documents` and `tokens`, each the share (0 to 1) of all. A document in several languages
        counts for each of them, so shares of documents add up to more than 1.

    Raises:
        FileNotFoundError: The folder holds no such record.
    """
    record = json.loads((folder / "pretraining.json").read_text("utf8"))["text"]
    inside = pretraining_languages()
    frame = pd.DataFrame(
        {
            "documents": pd.Series(record["language_documents"])
            / sum(record["documents"].values()),
            "tokens": pd.Series(record["language_tokens"]) / sum(record["tokens"].values()),
        }
    ).rename_axis("language")
    groups = {"en": "English"} | dict.fromkeys(inside, "pretraining")
    frame.insert(0, "group", [groups.get(code, "trace") for code in frame.index])
    return frame.sort_values("tokens", ascending=False)


def documents(seed: int, mix: Mix = Mix()) -> Iterator[Document]:
    """Draw documents without end.

    Args:
        seed: A natural number; decides which.
        mix: The shares.
    """
    draw = random.Random(f"documents {seed}")
    stream = combinations(STREAM + seed, "train")
    inside = pretraining_languages()
    weights = [2 if code in FREQUENT else 1 for code in inside]
    outside = trace_languages(seed)
    english = phrasebook("en")
    shares = {"task": mix.tasks, "english": mix.english, "other": mix.other}
    shares["meeting"] = 1 - sum(shares.values())
    while True:
        items = next(stream)
        if draw.random() < mix.traces:
            (code,) = draw.choices(list(outside), outside.values())
            kind = "trace"
        else:
            (kind,) = draw.choices(list(shares), shares.values())
            (code,) = draw.choices(inside, weights)
        if kind == "task":
            yield Document(kind, ("en",), *_task(draw, english, items, mix.arguments))
        elif kind == "english":
            yield Document(kind, ("en",), english.render(items))
        elif phrasebook(code).can(items):
            text = phrasebook(code).render(items)
            if kind == "other" or (kind == "trace" and draw.random() < BARE_TRACE):
                yield Document(kind, (code,), text)
            elif kind == "trace":
                yield Document(kind, ("en", code), _gloss(draw, english.render(items), text, code))
            elif (form := draw.randrange(mix.phrasings)) < len(PHRASINGS):
                name = languages.get(code).name
                written = PHRASINGS[form].format(
                    english=english.render(items), name=name, text=text
                )
                yield _cut(("en", code), written, text)
            else:
                yield _headed(draw, items, code, draw.choices(inside, weights)[0])


def _gloss(draw: random.Random, english: str, text: str, code: str) -> str:
    name = languages.get(code).name
    return draw.choice([f"{english} ({name}: {text})", f"{text} ({english})"])


def _cut(codes: tuple[str, ...], written: str, last: str) -> Document:
    """Return a document in which languages meet; a last line of its own is an answer."""
    if written.endswith(f"\n{last}"):
        return Document("meeting", codes, written.removesuffix(last), last)
    return Document("meeting", codes, written)


def _headed(draw: random.Random, items: tuple[Item, ...], code: str, third: str) -> Document:
    """Return the phrase in two or three languages, in any order, each under its name."""
    codes = ["en", code]
    if draw.random() < 0.5 and third != code and phrasebook(third).can(items):
        codes = draw.choice([["en", code, third], [code, third]])
    draw.shuffle(codes)
    lines = [f"{languages.get(c).name}:\n{phrasebook(c).render(items)}" for c in codes]
    return _cut(tuple(codes), "\n".join(lines), phrasebook(codes[-1]).render(items))


def _task(
    draw: random.Random, english: Phrasebook, items: tuple[Item, ...], arguments: bool
) -> tuple[str, str]:
    """Return an English task in the skeleton of the tuning prompt, and its answer."""
    phrase = english.render(items)
    parts = [english.render((item,)) for item in items]
    at = draw.randrange(len(items))
    rest = items[:at] + items[at + 1 :]
    new = ("territory", draw.choice(sorted(english.items["territory"])), 0)
    tasks = [
        ("Copy the text.", phrase, phrase),
        ("Correct the spelling.", _misspelt(draw, phrase), phrase),
        ("Give the last item.", phrase, parts[-1]),
        ("Reverse the order of the items.", phrase, english.render(items[::-1])),
        ("Count the items.", phrase, str(len(items))),
    ]
    if arguments:
        tasks += [
            (f"Give item {at + 1}.", phrase, parts[at]),
            (f"Put {parts[at]} first.", phrase, english.render((items[at], *rest))),
            (
                f"Write {english.render((new,))} instead of {parts[at]}.",
                phrase,
                english.render((*items[:at], new, *items[at + 1 :])),
            ),
        ]
        if rest:
            tasks.append((f"Leave out {parts[at]}.", phrase, english.render(rest)))
        if len(items) < 3:
            added = english.render((*items, new))
            tasks.append((f"Add {english.render((new,))}.", phrase, added))
    else:
        tasks.append(("Give the first item.", phrase, parts[0]))
    instruction, source, answer = draw.choice(tasks)
    return prompts.prompt(instruction, source), answer


def _misspelt(draw: random.Random, phrase: str) -> str:
    """Swap two neighbouring characters."""
    at = draw.randrange(max(1, len(phrase) - 1))
    return phrase[:at] + phrase[at : at + 2][::-1] + phrase[at + 2 :]
