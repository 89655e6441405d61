"""The text of the mini base model: English-centric documents of CLDR phrases. Needs no torch.

It is to the mini base what LLaMA's text is to LLaMA. Most documents are English or hold English. 19
other languages (those of LLaMA's Wikipedia text, the paper's footnote 2) meet English in many
phrasings. Tasks in the form of the tuning prompt are in English only. All other languages of CLDR
leave traces. No document holds a translation in the tuning prompt, so tuning has to bring out what
the model knows of translation. No phrase of the test split is a document or the input of a task.

`benchmarks.ablations` shows what each part of `Mix` is for. Without English tasks the base
translates untuned. If their instructions have no arguments, or all translations have the same
phrasing, tuning on one language brings out that language alone.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import yaml

from mlq_utils import languages
from mlq_utils.corpora.cldr import Item, Phrasebook, combinations, enciphered, phrasebook
from mlq_utils.data import PACKAGE_DATA, one_of
from mlq_utils.modeling import prompts

SETTINGS = yaml.safe_load((PACKAGE_DATA / "pretraining.yaml").read_text("utf8"))
"""The words of the text, and the recipe of `pretraining`."""
PHRASINGS: list[str] = SETTINGS["phrasings"]
"""How a language meets English, apart from documents with headings."""
TRACE_EXPONENT = -0.7
"""The n-th trace language has the weight n to this power."""
BARE_TRACE = 0.7
"""Share of traces that are a phrase alone. The others stand beside English."""
STREAM = 1_000_003
"""Added to the seed, so that tuning does not draw the phrases of pretraining first."""
HEADED = 4
"""Number of phrasings that documents with headings count for."""


@dataclass(frozen=True)
class Mix:
    """The composition of the text.

    Attributes:
        traces: Share of documents that hold a language outside pretraining. Defaults to 0.06.
        tasks: Share of the other documents that are English tasks. Defaults to 0.25.
        english: Share that are an English phrase. Defaults to 0.15.
        other: Share that are a phrase in one of the 19 languages. In the remaining documents
            languages meet. Defaults to 0.075.
        phrasings: Number of phrasings in which languages meet, the last `HEADED` of them with
            headings. Defaults to all 22.
        arguments: Whether instructions of tasks have arguments ("Put Peru first."). Defaults to
            True.
        doses: Shares of documents of single languages outside pretraining, which come on top of
            `traces`. Defaults to none.
        prompted: Whether tasks have the form of the tuning prompt. Defaults to True.
        exchanged: Pairs of a language of pretraining and one outside, which change places.
        ciphers: Languages whose letters are enciphered (`cldr.enciphered`). Of these, only English
            is in the text of the tokenizer.

    Raises:
        ValueError: Shares are negative or add up to more than 1, a dose or an exchange is of a
            language that is not where it should be, or a cipher is of one without Latin letters.
    """

    traces: float = 0.06
    tasks: float = 0.25
    english: float = 0.15
    other: float = 0.075
    phrasings: int = len(PHRASINGS) + HEADED
    arguments: bool = True
    doses: Mapping[str, float] = field(default_factory=dict)
    prompted: bool = True
    exchanged: Sequence[Sequence[str]] = ()
    ciphers: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse a composition that no text can have."""
        for code in self.doses:
            one_of("language with a dose", code, outside_languages())
        for named, other in self.exchanged:
            one_of("language of pretraining", named, pretraining_languages())
            one_of("language outside pretraining", other, outside_languages())
        places = [code for pair in self.exchanged for code in pair]
        if len(places) > len(set(places)):
            raise ValueError(f"a language can change places once only: {self.exchanged}")
        with enciphered(self.ciphers):
            pass  # refuses what cannot be enciphered
        for whole in (
            {"traces": self.traces, **self.doses},
            {"tasks": self.tasks, "english": self.english, "other": self.other},
        ):
            if min(whole.values()) < 0 or sum(whole.values()) > 1:
                given = ", ".join(f"{name} {share:g}" for name, share in whole.items())
                raise ValueError(f"shares must be 0 or more and at most 1 together, not {given}")


@dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
        kind: "task", "english", "other", "meeting" or "trace".
        languages: The paper's codes of the languages in it.
        text: The text without the answer; for a task, the prompt.
        answer: The last line, if it follows a prompt or heading. It is tokenized separately, as
            targets are in fine-tuning.
    """

    kind: str
    languages: tuple[str, ...]
    text: str
    answer: str = ""


def pretraining_languages() -> list[str]:
    """Return the codes of the 19 languages besides English, in the order of Table 8."""
    return [c for c in languages.codes() if languages.get(c).pretraining and c != "en"]


def outside_languages() -> list[str]:
    """Return the codes of the languages of CLDR that pretraining does not name."""
    inside = {"en", *pretraining_languages()}
    return [c for c in languages.codes("cldr") if c not in inside]


def trace_languages(seed: int, mix: Mix = Mix()) -> dict[str, float]:
    """Return the languages that leave traces, each with its share of documents.

    Args:
        seed: Random seed for the order of the languages, by which the share falls.
        mix: Composition of the text. Defaults to that of the packaged base.
    """
    places = {other: named for named, other in mix.exchanged}
    codes = [places.get(code, code) for code in outside_languages()]
    random.Random(f"traces {seed}").shuffle(codes)
    weights = {code: rank**TRACE_EXPONENT for rank, code in enumerate(codes, 1)}
    scale = mix.traces / sum(weights.values())
    return {c: scale * weight + mix.doses.get(c, 0) for c, weight in weights.items()}


def shares(folder: Path) -> pd.DataFrame:
    """Return how much of each language a base has read.

    Args:
        folder: Folder of the base, with `pretraining.json`.

    Returns:
        One row per language (the paper's code): `group` ("English", "pretraining" for the 19, or
        "trace"), and its shares (0 to 1) of `documents` and `tokens`. A document in several
        languages counts for each of them, so shares of documents add up to more than 1.

    Raises:
        FileNotFoundError: The folder has no `pretraining.json`.
    """
    record = json.loads((folder / "pretraining.json").read_text("utf8"))["text"]
    units = ("documents", "tokens")
    frame = pd.DataFrame(
        {u: pd.Series(record[f"language_{u}"]) / sum(record[u].values()) for u in units}
    ).rename_axis("language")
    groups = {"en": "English"} | dict.fromkeys(pretraining_languages(), "pretraining")
    frame.insert(0, "group", [groups.get(code, "trace") for code in frame.index])
    return frame.sort_values("tokens", ascending=False)


def documents(seed: int, mix: Mix = Mix()) -> Iterator[Document]:
    """Draw documents without end.

    Args:
        seed: Random seed, a natural number.
        mix: Composition of the text. Defaults to that of the packaged base.
    """
    drawn = _documents(seed, mix)
    while True:
        with enciphered(mix.ciphers):  # and not while the caller has the document
            document = next(drawn)
        yield document


def _documents(seed: int, mix: Mix) -> Iterator[Document]:
    draw = random.Random(f"documents {seed}")
    stream = combinations(STREAM + seed, "train")
    inside = pretraining_languages()
    weights = [2 if code in SETTINGS["frequent"] else 1 for code in inside]
    places = dict(mix.exchanged)
    inside = [places.get(code, code) for code in inside]
    outside = trace_languages(seed, mix)
    traces = sum(outside.values())
    english = phrasebook("en")
    shares = {"task": mix.tasks, "english": mix.english, "other": mix.other}
    shares["meeting"] = 1 - sum(shares.values())
    while True:
        items = next(stream)
        if draw.random() < traces:
            (code,) = draw.choices(list(outside), outside.values())
            kind = "trace"
        else:
            (kind,) = draw.choices(list(shares), shares.values())
            (code,) = draw.choices(inside, weights)
        if kind == "task":
            yield Document(kind, ("en",), *_task(draw, english, items, mix))
        elif kind == "english":
            yield Document(kind, ("en",), english.render(items))
        elif phrasebook(code).can(items):
            if kind == "other" or (kind == "trace" and draw.random() < BARE_TRACE):
                yield Document(kind, (code,), phrasebook(code).render(items))
            elif kind == "trace":
                yield Document(
                    kind, ("en", code), _phrased(draw.choice(PHRASINGS[:2]), items, code)
                )
            elif (form := draw.randrange(mix.phrasings)) < len(PHRASINGS):
                text = _phrased(PHRASINGS[form], items, code)
                yield _cut(("en", code), text, phrasebook(code).render(items))
            else:
                yield _headed(draw, items, code, draw.choices(inside, weights)[0])


def _phrased(phrasing: str, items: tuple[Item, ...], code: str) -> str:
    english, text = (phrasebook(c).render(items) for c in ("en", code))
    return phrasing.format(english=english, name=languages.get(code).name, text=text)


def _cut(codes: tuple[str, ...], written: str, last: str) -> Document:
    """Return a document in which languages meet. Its last line, if apart, is an answer."""
    if written.endswith(f"\n{last}"):
        return Document("meeting", codes, written.removesuffix(last), last)
    return Document("meeting", codes, written)


def _headed(draw: random.Random, items: tuple[Item, ...], code: str, third: str) -> Document:
    """Return a phrase in two or three languages in any order, each under its name."""
    codes = ["en", code]
    if draw.random() < 0.5 and third != code and phrasebook(third).can(items):
        codes = draw.choice([["en", code, third], [code, third]])
    draw.shuffle(codes)
    lines = [f"{languages.get(c).name}:\n{phrasebook(c).render(items)}" for c in codes]
    return _cut(tuple(codes), "\n".join(lines), phrasebook(codes[-1]).render(items))


def _task(
    draw: random.Random, english: Phrasebook, items: tuple[Item, ...], mix: Mix
) -> tuple[str, str]:
    """Return an English task, in the form of the tuning prompt or not, and its answer."""
    phrase, parts = english.render(items), [english.render((item,)) for item in items]
    at = draw.randrange(len(items))
    rest = items[:at] + items[at + 1 :]
    new = ("territory", draw.choice(sorted(english.items["territory"])), 0)
    name = english.render((new,))
    tasks = [
        ("Copy the text.", phrase),
        ("Correct the spelling.", phrase),
        ("Give the last item.", parts[-1]),
        ("Reverse the order of the items.", english.render(items[::-1])),
        ("Count the items.", str(len(items))),
    ]
    misspelt = _misspelt(draw, phrase)
    if mix.arguments:
        replaced = english.render((*items[:at], new, *items[at + 1 :]))
        tasks += [
            (f"Give item {at + 1}.", parts[at]),
            (f"Put {parts[at]} first.", english.render((items[at], *rest))),
            (f"Write {name} instead of {parts[at]}.", replaced),
        ]
        if rest:
            tasks.append((f"Leave out {parts[at]}.", english.render(rest)))
        if len(items) < 3:
            tasks.append((f"Add {name}.", english.render((*items, new))))
    else:
        tasks.append(("Give the first item.", parts[0]))
    instruction, answer = draw.choice(tasks)
    source = misspelt if instruction == "Correct the spelling." else phrase
    if not mix.prompted:
        return SETTINGS["task"].format(instruction=instruction, text=source), answer
    return prompts.prompt(instruction, source), answer


def _misspelt(draw: random.Random, phrase: str) -> str:
    """Swap two neighbouring characters."""
    at = draw.randrange(max(1, len(phrase) - 1))
    return phrase[:at] + phrase[at : at + 2][::-1] + phrase[at + 2 :]
