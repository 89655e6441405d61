"""What runs will take before any of them is made: GPU-hours, money, memory, disk.

Example::

    frame = plan(specs, store, card="H200", price=3.0)
    by_group(frame)
    totals(frame)

Time is work divided by speed. The work is counted: the operations of training and of beam search,
and what beam search reads from memory (`sizes`). The speed is an assumed share of the rates in the
card's data sheet, which the column `basis` names. Runs that the store has cost nothing. A plan is
an upper bound in two respects: a corpus may have fewer pairs than a run asks for, and shortened or
extended text takes fewer tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlq_utils import corpora, languages, tokenization
from mlq_utils.data import one_of
from mlq_utils.experiments.sizes import Size, size
from mlq_utils.experiments.spec import Spec
from mlq_utils.experiments.store import Store
from mlq_utils.modeling import bases, prompts

GROUP = ("base", "strategy", "corpus", "size", "test")
TUNING = {"embed": 0.55, "lora": 0.55, "layers": 0.55, "full": 0.5, "rows": 0.55}
"""Share of the card's operations that training is assumed to reach. It is what this project aims at
and not what it has measured."""
DECODING = 0.25
"""Share of the card's rates that beam search is assumed to reach. At 0.25, scoring LLaMA-7B on
twelve languages takes four times as long as tuning on 10,000 pairs."""
LOW, HIGH = 0.7, 2.0
"""Factors of the time of tuning and translation at best and at worst."""
SENTENCES_AT_ONCE = 128
"""Sentences in a batch of `translation.translate`."""
LONGEST = 1.5
"""Length of a batch's longest translation, in mean lengths."""
PHRASES = 40
"""Number of CLDR phrases of a language that are measured."""


@dataclass(frozen=True)
class Card:
    """What computes.

    Attributes:
        tflops: 10¹² dense bf16 operations per second, half of what data sheets give with sparsity.
        bandwidth: 10¹² bytes per second from its memory.
        memory: Size of the memory in 10⁹ bytes.
        run_seconds: Seconds that a run takes for loading its base.
        target_seconds: Seconds that it takes for scoring a target.
    """

    tflops: float
    bandwidth: float
    memory: float
    run_seconds: float = 60
    target_seconds: float = 4


CARDS = {
    "H100": Card(989.4, 3.35, 80),  # NVIDIA H100 Tensor Core GPU datasheet, SXM
    "H200": Card(989.4, 4.8, 141),  # NVIDIA H200 Tensor Core GPU datasheet, SXM
    "A100": Card(312, 2.039, 80),  # NVIDIA A100 Tensor Core GPU datasheet, 80GB SXM
    "cpu": Card(0.14, 0.025, 8, 0.3, 0.1),  # one core with the mini base: rough figures
}


def plan(
    specs: Iterable[Spec], store: Store | None = None, *, card: str = "H100", price: float = 2.5
) -> pd.DataFrame:
    """Return what each run will take.

    Args:
        specs: What to run. Duplicates are run once.
        store: Where records are kept. Without it, no run is done.
        card: Graphics card, a key of `CARDS`. Defaults to "H100".
        price: Price of one hour of the card, in any currency. Defaults to 2.5.

    Returns:
        One row per run: `base`, `strategy`, `corpus`, `size`, `test`; `done` (whether the store has
        it); `training_tokens` of all epochs and `evaluation_tokens` of one beam; `tuning_hours`,
        `translation_hours`, `other_hours` (loading and scoring), `hours`, `hours_low` and
        `hours_high` of one GPU; `money`; in 10⁹ bytes `record_gb`, `checkpoint_gb` (while it runs:
        the trained parameters with two moments, in fp32) and `saved_gb` (if the tuned model is
        kept); `memory_gib` (the peak of tuning); and `basis`. What a run costs is 0 if it is done.
        `attrs` has the card and the price.

    Raises:
        ValueError: The list is empty, the card is unknown, or the price is negative.
        FileNotFoundError, ConnectionError: As `size`.
    """
    keys = {spec: spec.identity() for spec in specs}
    if not keys:
        raise ValueError("the list of runs is empty")
    if price < 0:
        raise ValueError(f"price must be 0 or more, not {price}")
    frame = pd.DataFrame([_row(spec, CARDS[one_of("card", card, CARDS)]) for spec in keys])
    known = store.get_all(keys.values()) if store else {}
    records = [known.get(key) or {"again": True} for key in keys.values()]
    frame.insert(5, "done", [not record.get("again") for record in records])
    costs = ["training_tokens", "evaluation_tokens", "record_gb", *frame.filter(like="hours")]
    frame.loc[frame["done"], costs] = 0.0
    frame["money"] = frame["hours"] * price
    frame.attrs = {"card": card, "price": price}
    return frame


def by_group(frame: pd.DataFrame, by: Sequence[str] = GROUP) -> pd.DataFrame:
    """Return a plan by groups of runs.

    Args:
        frame: A plan.
        by: Columns to group by.

    Returns:
        One row per group: the number of `runs`, the sums of what adds up, and the largest
        `checkpoint_gb` and `memory_gib`.
    """
    frame = frame.assign(runs=1)
    numbers = frame.select_dtypes(["number", "bool"]).columns.drop("size")
    how = {name: "max" if name in ("checkpoint_gb", "memory_gib") else "sum" for name in numbers}
    return frame.groupby(list(by), sort=False).agg(how).reset_index()


def totals(frame: pd.DataFrame) -> pd.Series:
    """Return the numbers of a whole plan, as `by_group` returns them for a group."""
    return by_group(frame.assign(all=""), ["all"]).drop(columns="all").iloc[0]


def _row(spec: Spec, card: Card) -> dict[str, Any]:
    model, tuned = size(spec.base, spec.strategy, spec.layers, spec.revision), bool(spec.languages)
    lengths = _lengths_of(spec)
    scored, sentences = lengths.loc[list(spec.targets)], spec.test_size
    share = spec.size / len(spec.languages) if tuned else 0
    tokens = spec.epochs * share * lengths.loc[list(spec.languages), ["prompt", "new"]].sum().sum()
    texts = lengths.loc["en", "bytes"] + 2 * scored["bytes"]
    tuning = tokens * model.step_flops / (TUNING[spec.strategy] * card.tflops * 1e12)
    translation = _search(spec, model, card, scored["prompt"], scored["new"]).sum() / DECODING
    other = card.run_seconds + card.target_seconds * len(scored)
    rate = f"{card.tflops:g} TFLOP/s"
    basis = f"translation at {DECODING:g} of {rate} and {card.bandwidth:g} TB/s, assumed"
    if tuned:
        basis = f"tuning at {TUNING[spec.strategy]:g} of {rate}, assumed; {basis}"
    return {
        "base": spec.base,
        "strategy": spec.strategy if tuned else "untuned",
        "corpus": "+".join(spec.corpus) if tuned else "",
        "size": spec.size if tuned else 0,
        "test": " ".join(spec.test),
        "training_tokens": tokens,
        "evaluation_tokens": sentences * scored["new"].sum(),
        "tuning_hours": tuning / 3600,
        "translation_hours": translation / 3600,
        "other_hours": other / 3600,
        "hours": (tuning + translation + other) / 3600,
        "hours_low": (LOW * (tuning + translation) + other) / 3600,
        "hours_high": (HIGH * (tuning + translation) + other) / 3600,
        "record_gb": (3000 + (1000 + sentences * texts).sum()) / 1e9,
        "checkpoint_gb": tuned * 12 * model.trained / 1e9,
        "saved_gb": tuned * 4 * model.trained / 1e9,
        "memory_gib": tuned * model.memory / 2**30,
        "basis": basis,
    }


def _search(spec: Spec, model: Size, card: Card, prompt: pd.Series, new: pd.Series) -> pd.Series:
    """Return the seconds of beam search on each target at the full rates of the card."""
    beams, sentences = spec.beam_size, spec.test_size
    operations = model.forward_flops * sentences * (prompt + beams * new)
    # Each step reads all matrices, the keys and values of the prompt, which beams share, and those
    # of what the beams have written so far.
    steps = LONGEST * new * np.ceil(sentences / SENTENCES_AT_ONCE)
    held = 2 * model.cache * (prompt + beams * new / 2)
    read = steps * 2 * model.matrices + sentences * new * held
    return operations / (card.tflops * 1e12) + read / (card.bandwidth * 1e12)


def _lengths_of(spec: Spec) -> pd.DataFrame:
    """Return `_lengths`, with those of own pairs and of other languages of CLDR."""
    local = spec.base == "mini" or Path(spec.base).is_dir()
    lengths = _lengths(spec.base if local and {spec.test[0], *spec.corpus} == {"cldr"} else None)
    for code in {*spec.languages, *spec.targets} - set(lengths.index):
        spoken, own = spec.spoken(code), spec.pairs and code == spec.own
        if not (own or languages.covers("cldr", spoken)):
            one_of("language whose lengths are known", code, lengths.index)
        texts = spec.pairs.read() if own else corpora.load("cldr", spoken, "test", size=PHRASES)
        encode = tokenization.load(bases.find(spec.base, spec.revision)).encode
        asked = [prompts.translation(spoken, source) for source in texts["source"]]
        sides = (list(map(len, encode(side))) for side in (asked, texts["target"].tolist()))
        row = [1 + np.mean(side) for side in sides]
        row.append(texts["target"].map(str.encode).map(len).mean())
        lengths = pd.concat([lengths, pd.DataFrame([row], [code], lengths.columns)])
    return lengths


@cache
def _lengths(base: str | None) -> pd.DataFrame:
    """Return mean lengths by language: tokens of a `prompt` and of what is `new`, and `bytes`.

    CLDR phrases are measured with the tokenizer of a base on this machine. Without one, the lengths
    are those of FLORES-200 in the tokens of LLaMA's tokenizer, as recorded.
    """
    if base is None:
        frame = tokenization.recorded("fertility").query("tokenizer == 'llama'")
        (per_char,) = frame.query("language == 'en'")["tokens_per_char"]
    else:
        tokenizer, template = tokenization.load(bases.find(base)), prompts.translation("ro", "")
        frame = tokenization.analyse(tokenizer, corpora.texts("cldr", "test", PHRASES))
        per_char = tokenization.fertility(tokenizer, [template])["tokens_per_char"]
    frame = frame.set_index("language")
    tokens = frame["tokens_per_sentence"]
    templates = [prompts.translation(code if code != "en" else "ro", "") for code in frame.index]
    return pd.DataFrame(
        {
            "prompt": 1 + np.array(list(map(len, templates))) * per_char + tokens["en"],  # with BOS
            "new": tokens + 1,  # with EOS
            "bytes": tokens / frame["tokens_per_byte"],
        }
    )
