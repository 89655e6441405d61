"""What runs will take before any of them is made: GPU-hours, money, memory, disk.

Example::

    frame = plan(specs, store, Assumptions(card="H200", price=3.0))
    by_group(frame)
    totals(frame)

Time is work divided by speed. The work is counted: the operations of training and of beam search,
and what beam search reads from memory (`sizes`). The speed is a share of the rates in the card's
data sheet. It is measured if the store has records of the same base, strategy and card, and assumed
otherwise; the column `basis` says which. Runs that the store has cost nothing.

Sentences are as long as `lengths` says. A plan is an upper bound in two respects: a corpus may have
fewer pairs than a run asks for, and shortened or extended text takes fewer tokens.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mlq_utils.data import one_of
from mlq_utils.experiments.lengths import lengths
from mlq_utils.experiments.sizes import Size, memory, size
from mlq_utils.experiments.spec import Spec, spec_of
from mlq_utils.experiments.store import Store

__all__ = [
    "CARDS", "GROUP", "Assumptions", "Card", "Size", "by_group", "memory", "plan", "size", "totals",
]  # fmt: skip

GROUP = ("base", "strategy", "corpus", "size", "test")
PARTS = ("tuning", "translation", "other")
_Speeds = dict[tuple, list[tuple[float, float]]]


@dataclass(frozen=True)
class Card:
    """What computes.

    Attributes:
        tflops: 10¹² dense bf16 operations per second, half of what data sheets give with sparsity.
        bandwidth: 10¹² bytes per second from its memory.
        memory: Size of the memory in 10⁹ bytes.
    """

    tflops: float
    bandwidth: float
    memory: float


CARDS = {
    "H100": Card(989.4, 3.35, 80),  # NVIDIA H100 Tensor Core GPU datasheet, SXM
    "H200": Card(989.4, 4.8, 141),  # NVIDIA H200 Tensor Core GPU datasheet, SXM
    "A100": Card(312, 2.039, 80),  # NVIDIA A100 Tensor Core GPU datasheet, 80GB SXM
    "cpu": Card(0.1, 0.02, 8),  # one core: a rough figure, which records replace
}
"""Cards by a name that `modeling.hardware` contains, or "cpu" if it names no GPU."""


@dataclass(frozen=True)
class Assumptions:
    """What a plan assumes where nothing was measured.

    Attributes:
        card: Graphics card, a key of `CARDS`. Defaults to "H100".
        price: Price of one hour of the card, in any currency. Defaults to 2.5.
        tuning: Share of the card's operations that training reaches, by strategy. The defaults are
            what this project aims at and not what it has measured.
        decoding: Share of the card's rates that beam search reaches. Defaults to 0.25, at which
            scoring LLaMA-7B on twelve languages takes four times as long as tuning on 10,000 pairs.
        margin: Factors of the planned time at best and at worst. Measured speeds replace them by
            their tenth and ninetieth percentile. Defaults to 0.7 and 2.
        tokens_at_once: Tokens in a micro-batch, for the peak of memory. Defaults to 4096.
        sentences_at_once: Sentences in a batch of `translation.translate`. Defaults to 128.
        longest: Length of a batch's longest translation, in mean lengths. Defaults to 1.5.
        run_seconds: Seconds per run for loading the base. Defaults to 60.
        target_seconds: Seconds per target for scoring. Defaults to 4.
    """

    card: str = "H100"
    price: float = 2.5
    tuning: Mapping[str, float] = field(
        default_factory=lambda: {"embed": 0.55, "lora": 0.55, "layers": 0.55, "full": 0.5}
    )
    decoding: float = 0.25
    margin: tuple[float, float] = (0.7, 2.0)
    tokens_at_once: int = 4096
    sentences_at_once: int = 128
    longest: float = 1.5
    run_seconds: float = 60
    target_seconds: float = 4

    def __post_init__(self) -> None:
        """Refuse an unknown card, and numbers that give no time.

        Raises:
            ValueError: The card is unknown, or a number is out of range.
        """
        one_of("card", self.card, CARDS)
        for name, share in {**self.tuning, "decoding": self.decoding}.items():
            if not 0 < share <= 1:
                raise ValueError(f"{name} must be a share above 0, at most 1, not {share}")
        if self.price < 0:
            raise ValueError(f"price must be 0 or more, not {self.price}")


def plan(
    specs: Iterable[Spec], store: Store | None = None, assumptions: Assumptions | None = None
) -> pd.DataFrame:
    """Return what each run will take.

    Args:
        specs: What to run. Duplicates are run once.
        store: Where records are kept. Without it, no run is done and no speed is measured.
        assumptions: What is assumed where nothing was measured.

    Returns:
        One row per run: `base`, `strategy`, `corpus`, `size`, `test`, `tuned_on`; `done` (whether
        the store has it); `training_tokens` of all epochs and `evaluation_tokens` of one beam;
        `tuning_hours`, `translation_hours`, `other_hours` (loading and scoring), `hours`,
        `hours_low` and `hours_high` of one GPU; `money`; in 10⁹ bytes `record_gb`, `checkpoint_gb`
        (while it runs: the trained parameters with two moments, in fp32) and `saved_gb` (if the
        tuned model is kept); `memory_gib` (the peak of `memory`); and `basis`. What a run costs is
        0 if it is done. `attrs` has the assumptions.

    Raises:
        ValueError: The list is empty.
        FileNotFoundError, ConnectionError: As `size`.
    """
    given = assumptions or Assumptions()
    keys = {spec: spec.identity() for spec in specs}
    if not keys:
        raise ValueError("the list of runs is empty")
    known = store.get_all({*keys.values(), *store.keys()}) if store else {}
    speeds = _speeds(known.values(), given)
    rows = []
    for spec, key in keys.items():
        record = known.get(key)
        rows.append(_row(spec, record is not None and not record.get("again"), speeds, given))
    frame = pd.DataFrame(rows)
    frame.attrs["assumptions"] = given
    return frame


def by_group(frame: pd.DataFrame, by: Sequence[str] = GROUP) -> pd.DataFrame:
    """Return a plan by groups of runs.

    Args:
        frame: A plan.
        by: Columns to group by.

    Returns:
        One row per group: the number of `runs`, the sums of what adds up, the largest
        `checkpoint_gb` and `memory_gib`, and the different `basis`.
    """
    peaks = ["checkpoint_gb", "memory_gib"]
    sums = [c for c in frame.select_dtypes(["number", "bool"]) if c not in [*peaks, "size"]]
    groups = frame.groupby(list(by), sort=False)
    basis = groups["basis"].agg(lambda column: "; ".join(filter(None, dict.fromkeys(column))))
    parts = [groups.size().rename("runs"), groups[sums].sum(), groups[peaks].max(), basis]
    return pd.concat(parts, axis=1).reset_index()


def totals(frame: pd.DataFrame) -> pd.Series:
    """Return the numbers of a whole plan, as `by_group` returns them for a group."""
    whole = by_group(frame.assign(all=""), ["all"])
    return whole.drop(columns=["all", "basis"]).iloc[0]


def _work(spec: Spec, model: Size, given: Assumptions) -> dict[str, float]:
    """Return the tokens, bytes and work of a run.

    The work is seconds at the card's full rates, and for "other" the number of targets.
    """
    found, card = lengths(spec), CARDS[given.card]
    share = spec.size / len(spec.languages) if spec.languages else 0
    tokens = spec.epochs * sum(share * found.pair(code) for code in spec.languages)
    new = {code: found.tokens[code] + 1 for code in spec.targets}
    sizes = [found.bytes["en"] + 2 * found.bytes[code] for code in spec.targets]
    searches = [_search(spec, model, found.prompt(code), new[code], given) for code in new]
    return {
        "training_tokens": tokens,
        "evaluation_tokens": spec.test_size * sum(new.values()),
        "record_gb": (3000 + sum(spec.test_size * size + 1000 for size in sizes)) / 1e9,
        "tuning": tokens * model.step_flops / (card.tflops * 1e12),
        "translation": sum(searches),
        "other": len(spec.targets),
    }


def _search(spec: Spec, model: Size, prompt: float, tokens: float, given: Assumptions) -> float:
    """Return how long beam search takes on one target at the full rates of the card."""
    card, beams, sentences = CARDS[given.card], spec.beam_size, spec.test_size
    flops = model.forward_flops * sentences * (prompt + beams * tokens)
    # Each step reads all matrices, the keys and values of the prompt, which beams share, and those
    # of what the beams have written so far.
    steps = given.longest * tokens * np.ceil(sentences / given.sentences_at_once)
    held = 2 * model.cache * (prompt + beams * tokens / 2)
    read = steps * 2 * model.matrices + sentences * tokens * held
    return flops / (card.tflops * 1e12) + read / (card.bandwidth * 1e12)


def _row(spec: Spec, done: bool, speeds: _Speeds, given: Assumptions) -> dict[str, Any]:
    model = size(spec.base, spec.strategy, spec.layers, spec.revision)
    work, card, tuned = _work(spec, model, given), CARDS[given.card], bool(spec.languages)
    targets = len(spec.targets)
    assumed = {
        "tuning": (given.tuning[spec.strategy], given.margin),
        "translation": (given.decoding, given.margin),
        "other": (targets / (given.run_seconds + given.target_seconds * targets), (1, 1)),
    }
    rates = f"{card.tflops:g} TFLOP/s"
    units = {"tuning": rates, "translation": f"{rates} and {card.bandwidth:g} TB/s"}
    row = {
        "base": spec.base,
        "strategy": spec.strategy if tuned else "untuned",
        "corpus": "+".join(spec.corpus) if tuned else "",
        "size": spec.size if tuned else 0,
        "test": " ".join(spec.test),
        "tuned_on": "+".join(spec.languages),
        "done": done,
    }
    costs = ("training_tokens", "evaluation_tokens", "record_gb")
    row |= {name: 0.0 if done else work[name] for name in costs}
    hours, basis = np.zeros(3), []
    for part in PARTS:
        measured = speeds[_kind(spec, part)]
        share, (low, high) = _share(measured) if measured else assumed[part]
        took = 0.0 if done else work[part] / share / 3600
        row[f"{part}_hours"] = took
        hours += took * (np.array([1, low, high]) if part in units else 1)
        if took and part in units:
            how = f"measured on {len(measured)} records" if measured else "assumed"
            basis.append(f"{part} at {share:.2g} of {units[part]}, {how}")
    trained = model.trained if tuned else 0
    return row | {
        **dict(zip(("hours", "hours_low", "hours_high"), hours, strict=True)),
        "money": hours[0] * given.price,
        "checkpoint_gb": 12 * trained / 1e9,
        "saved_gb": 4 * trained / 1e9,
        "memory_gib": memory(model, given.tokens_at_once) / 2**30 if tuned else 0.0,
        "basis": "; ".join(basis),
    }


def _kind(spec: Spec, part: str) -> tuple:
    """Return what runs of the same speed have in common."""
    return spec.base, spec.revision, spec.strategy if part == "tuning" else part


def _share(measured: Sequence[tuple[float, float]]) -> tuple[float, tuple[float, float]]:
    """Return the speed that records show, and the margin of time around it."""
    work, seconds = np.transpose(measured)
    share = float(work.sum() / seconds.sum())
    slow, fast = np.quantile(work / seconds, [0.1, 0.9])
    return share, (min(1.0, share / fast), max(1.0, share / slow))


def _speeds(records: Iterable[dict[str, Any] | None], given: Assumptions) -> _Speeds:
    """Return work and the seconds that it took on this card, by what `_kind` returns."""
    speeds: _Speeds = defaultdict(list)
    for record in records:
        if not record or record.get("status") != "done" or "training" not in record:
            continue  # missing or failed, or an evaluation of another kind
        gpu = record["hardware"].partition(" threads")[2]
        if given.card not in gpu if given.card != "cpu" else gpu:
            continue
        spec, training = spec_of(record), record["training"] or {"seconds": 0}
        model = size(spec.base, spec.strategy, spec.layers, spec.revision)
        spent = {
            "tuning": training["seconds"] * training.get("processes", 1),
            "translation": sum(score["seconds"] for score in record["scores"]),
        }
        spent["other"] = max(1e-3, record["seconds"] - sum(spent.values()))
        work = _work(spec, model, given)
        for part in PARTS:
            if spent[part]:
                speeds[_kind(spec, part)].append((work[part], spent[part]))
    return speeds
