"""The text that the mini base model is pretrained on: English-centric documents of CLDR phrases.

What LLaMA's text is to LLaMA, made small. Most documents are English or hold English; 19 other
languages (those of LLaMA's Wikipedia text, the paper's footnote 2) meet English in many phrasings;
tasks in the skeleton of the tuning prompt are in English only; all other languages that CLDR covers
leave traces. No document holds a translation in the skeleton that fine-tuning uses: what the model
learns of translation must be brought out by tuning. Only combinations of CLDR's train split occur.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from mlq_utils import languages, prompts
from mlq_utils.cldr import Item, Phrasebook, combinations, phrasebook

TRACES = 0.06
"""Share of documents that hold a language outside pretraining."""
KINDS = {"task": 0.25, "english": 0.15, "other": 0.075, "meeting": 0.525}
"""Shares of the other documents: English tasks, an English phrase, a phrase in one of the 19
languages, and a phrase in English and one or two of the 19."""
FREQUENT = ("de", "fr", "es", "it", "ru", "pl", "nl", "pt")
"""Twice as likely as the other eleven."""
TRACE_EXPONENT = -0.7
"""The n-th of the trace languages has weight n to this power."""
BARE_TRACE = 0.7
"""Share of traces that are a bare phrase; the others are a gloss with English."""


@dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
        kind: `task`, `english`, `other`, `meeting` or `trace`.
        languages: The paper's codes of what it holds.
        text: What is read; of a task, the prompt.
        answer: Of a task, what comes after the prompt. It is tokenised by itself, as targets are
            in fine-tuning.
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


def documents(seed: int, *, traces: bool = True) -> Iterator[Document]:
    """Draw documents without end.

    Args:
        seed: A natural number; decides which.
        traces: Whether languages outside pretraining occur. Without them the tokenizer learns
            nothing of those languages, as LLaMA's learnt next to nothing.
    """
    draw = random.Random(f"documents {seed}")
    stream = combinations(seed, "train")
    inside = pretraining_languages()
    weights = [2 if code in FREQUENT else 1 for code in inside]
    outside = trace_languages(seed)
    english = phrasebook("en")
    while True:
        items = next(stream)
        if traces and draw.random() < TRACES:
            (code,) = draw.choices(list(outside), outside.values())
            kind = "trace"
        else:
            (kind,) = draw.choices(list(KINDS), KINDS.values())
            (code,) = draw.choices(inside, weights)
        if kind == "task":
            yield Document(kind, ("en",), *_task(draw, english, items))
        elif kind == "english":
            yield Document(kind, ("en",), english.render(items))
        elif phrasebook(code).can(items):
            text = phrasebook(code).render(items)
            if kind == "other" or (kind == "trace" and draw.random() < BARE_TRACE):
                yield Document(kind, (code,), text)
            elif kind == "trace":
                yield Document(kind, ("en", code), _gloss(draw, english.render(items), text, code))
            else:
                third = draw.choices(inside, weights)[0]
                yield _meeting(draw, english.render(items), text, code, third, items)


def _gloss(draw: random.Random, english: str, text: str, code: str) -> str:
    name = languages.get(code).name
    return draw.choice([f"{english} ({name}: {text})", f"{text} ({english})"])


def _meeting(
    draw: random.Random, english: str, text: str, code: str, third: str, items: tuple[Item, ...]
) -> Document:
    """Return a document in which a language meets English, in one of twelve phrasings."""
    name = languages.get(code).name
    form = draw.randrange(12)
    if form >= 10 and (third == code or not phrasebook(third).can(items)):
        form = draw.randrange(10)  # there is no third language to meet
    lines = [f"English:\n{english}", f"{name}:\n{text}"]
    if form == 0:
        draw.shuffle(lines)
        return Document("meeting", ("en", code), "\n".join(lines))
    if form >= 10:
        other = f"{languages.get(third).name}:\n{phrasebook(third).render(items)}"
        if form == 10:
            lines.append(other)
            draw.shuffle(lines)
            return Document("meeting", ("en", code, third), "\n".join(lines))
        return Document("meeting", (code, third), f"{lines[1]}\n{other}".replace(":\n", ": "))
    written = {
        1: f"{english} ({name}: {text})",
        2: f"{text} ({english})",
        3: f"{english}. In {name}: {text}",
        4: f"The {name} for {english} is {text}.",
        5: f"{english}\n{name} translation: {text}",
        6: f"Q: What is {english} in {name}?\nA: {text}",
        7: f"From English into {name}: {english} = {text}",
        8: f"{english}\n{name} version of the text:\n{text}",
        9: f"Write it in {name}. {english} -> {text}",
    }
    return Document("meeting", ("en", code), written[form])


def _task(draw: random.Random, english: Phrasebook, items: tuple[Item, ...]) -> tuple[str, str]:
    """Return an English task in the skeleton of the tuning prompt, and its answer."""
    phrase = english.render(items)
    parts = [english.render((item,)) for item in items]
    tasks = {
        "Copy the text.": (phrase, phrase),
        "Correct the spelling.": (_misspelt(draw, phrase), phrase),
        "Give the first item.": (phrase, parts[0]),
        "Give the last item.": (phrase, parts[-1]),
        "Reverse the order of the items.": (phrase, english.render(items[::-1])),
        "Count the items.": (phrase, str(len(items))),
    }
    instruction = draw.choice(list(tasks))
    source, answer = tasks[instruction]
    return prompts.prompt(instruction, source), answer


def _misspelt(draw: random.Random, phrase: str) -> str:
    """Swap two neighbouring characters."""
    at = draw.randrange(max(1, len(phrase) - 1))
    return phrase[:at] + phrase[at : at + 2][::-1] + phrase[at + 2 :]
