"""The prompt that models are tuned and tested with, and tuning data in it. Needs no torch."""

import random
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from mlq_utils import corpora, languages
from mlq_utils.corpora import cldr
from mlq_utils.languages import Language

SKELETON = "### Instruction:\n{instruction}\n### Input:\n{source}\n### Response:\n"
"""The same in training and testing. The released templates differ in newlines between the two, and
a model notices that."""

Items = tuple[cldr.Item, ...]
Render = Callable[[Items], str]


def prompt(instruction: str, source: str) -> str:
    """Return a prompt for an instruction and its input."""
    return SKELETON.format(instruction=instruction, source=source)


def translation(language: str | Language, source: str, into_english: bool = False) -> str:
    """Return the prompt for translating English into a language, or the language into English."""
    names = ["English", languages.get(language).name]
    return prompt("Translate {} to {}.".format(*names[:: -1 if into_english else 1]), source)


def tuning(
    pairs: pd.DataFrame, language: str | Language, into_english: bool = False
) -> pd.DataFrame:
    """Return the columns `prompt`, `target` and `language` of pairs in one language."""
    source, target = ("target", "source") if into_english else ("source", "target")
    prompts = [translation(language, text, into_english) for text in pairs[source]]
    code = languages.get(language).code
    return pd.DataFrame({"prompt": prompts, "target": list(pairs[target]), "language": code})


def mixture(
    pairs: Mapping[str | Language, int],
    *,
    corpus: str | Sequence[str] = "cldr",
    split: str = "train",
    seed: int = 0,
    into_english: bool = False,
) -> pd.DataFrame:
    """Return tuning data from English into one language or several (Table 3).

    Example::

        mixture({"ro": 600})                        # bilingual
        mixture({"ro": 300, "fr": 300})             # multilingual

    Args:
        pairs: Number of pairs for each language, as `languages.get` takes it. If a corpus has
            fewer, all of them are used, as in the paper.
        corpus: One of `corpora.NAMES`, or several together. Defaults to "cldr".
        split: Split of the corpus. Defaults to "train".
        seed: Random seed for the choice of pairs. Defaults to 0.
        into_english: Whether to translate into English instead. Defaults to False.

    Returns:
        One row per pair, with columns `prompt`, `target` and `language`. Languages follow each
        other, since training shuffles. `attrs["pairs"]` holds the number of pairs that each
        language really has; and `attrs["left_out"]`, for corpora other than "cldr", the number
        that were repeated or in an evaluation set (see `corpora.training_pairs`).

    Raises:
        ValueError: No language, an unknown one, a number below 1, or an error of `corpora.load`.
    """
    if not pairs:
        raise ValueError("no language to tune on: give at least one, with its number of pairs")
    frames, left_out = [], {}
    for code, (language, size) in zip(languages.check(pairs), pairs.items(), strict=True):
        if size < 1:
            raise ValueError(f"{code}: the number of pairs must be 1 or more, not {size}")
        if corpus == "cldr":  # its splits are disjoint
            found = corpora.load(corpus, language, split, size=size, seed=seed)
        else:
            found = corpora.training_pairs(corpus, language, size, seed, split=split)
            left_out[code] = {name: found.attrs[name] for name in ("repeated", "in_evaluation")}
        frames.append(tuning(found, language, into_english))
    mixed = pd.concat(frames, ignore_index=True)
    mixed.attrs = {"pairs": mixed["language"].value_counts(sort=False).to_dict()}
    if left_out:
        mixed.attrs["left_out"] = left_out
    return mixed


def english_tasks(size: int, seed: int = 0) -> pd.DataFrame:
    """Return instruction data in English only: the mini world's Alpaca-En (Appendix C).

    These are the tasks of `TASKS` on CLDR phrases of the train split. None of them is in the
    pretraining of the mini base.

    Args:
        size: Number of tasks.
        seed: Random seed for the choice of tasks. Defaults to 0.

    Returns:
        A frame like that of `mixture`, with different prompts.

    Raises:
        ValueError: The size is below 1.
    """
    if size < 1:
        raise ValueError(f"the number of tasks must be 1 or more, not {size}")
    draw = random.Random(f"english tasks {seed}").random
    book = cldr.phrasebook("en")
    rows: dict[str, str] = {}
    for items in cldr.combinations(seed, "train"):
        instruction = list(TASKS)[int(draw() * len(TASKS))]
        if answer := TASKS[instruction](book.render, items):
            rows[prompt(instruction, book.render(items))] = answer
        if len(rows) == size:
            break
    frame = pd.DataFrame(list(rows.items()), columns=["prompt", "target"]).assign(language="en")
    frame.attrs = {"pairs": {"en": size}}
    return frame


def alpaca(size: int, seed: int = 0, *, language: str = "en") -> pd.DataFrame:
    """Return instructions of Alpaca (Appendix C), in English or translated.

    Args:
        size: Largest number of instructions.
        seed: Random seed for their choice. A smaller size gives the first ones of a larger size.
        language: The paper's code. Defaults to "en".

    Returns:
        A frame like that of `mixture`, with different prompts that all have an answer.

    Raises:
        ValueError: The size is below 1, or an error of `corpora.alpaca`.
        FileNotFoundError, ConnectionError: As `corpora.alpaca`.
    """
    if size < 1:
        raise ValueError(f"the number of instructions must be 1 or more, not {size}")
    code = languages.get(language).code
    rows = corpora.alpaca(code)
    prompts = [prompt(*row) for row in zip(rows["instruction"], rows["input"], strict=True)]
    frame = pd.DataFrame({"prompt": prompts, "target": rows["output"], "language": code})
    frame = frame[frame["target"].str.strip() != ""].drop_duplicates("prompt")
    if frame.empty:
        raise ValueError(f"Alpaca in {language!r} has no answered instruction")
    drawn = corpora.draw(frame, size, seed)
    drawn.attrs = {"pairs": {code: len(drawn)}}
    return drawn


def _parts(render: Render, items: Items) -> list[str]:
    return [render((item,)) for item in items]


TASKS: dict[str, Callable[[Render, Items], str | None]] = {
    "Write the text in capital letters.": lambda render, items: render(items).upper(),
    "Write the text in small letters.": lambda render, items: render(items).lower(),
    "Sort the items alphabetically.": lambda render, items: render(
        tuple(sorted(items, key=lambda item: render((item,))))
    ),
    "Give the longest item.": lambda render, items: max(_parts(render, items), key=len),
    "Give the shortest item.": lambda render, items: min(_parts(render, items), key=len),
    "Remove the second item.": lambda render, items: (
        render(items[:1] + items[2:]) if len(items) > 1 else None
    ),
    "Repeat the first item twice.": lambda render, items: render(items[:1] * 2),
    "Does the text hold a number? Answer yes or no.": lambda render, items: (
        "yes" if any(map(str.isdigit, render(items))) else "no"
    ),
}
"""English tasks other than those of pretraining. Each function takes the function that renders
items, and the items of a phrase. It returns the answer, or None if there are too few items."""
