"""What lists of runs will take, before any of them is made: GPU-hours, money, memory, disk.

    frame = plan(specs, store, Assumptions(card="H200", price=3.0))
    by_group(frame)
    totals(frame)

Time is work by speed. The work is counted: products of matrices in tuning, those and what is read
from memory in beam search, of a model that is built from its configuration without any weights. The
speed is a share of what the card's data sheet says: measured, where the store has records of runs
of the same base in the same way on such a card, assumed elsewhere; `basis` says which. Runs that
the store has cost nothing.

How long sentences are is the recorded fertility of LLaMA's tokenizer on FLORES-200, for every
corpus but cldr, whose phrases are measured with the base's own. The rest is an upper bound: of a
corpus that has fewer pairs all are tuned on, and shortened or extended text takes fewer tokens.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mlq_utils import experiments
from mlq_utils.data import one_of
from mlq_utils.experiments.lengths import lengths
from mlq_utils.experiments.sizes import Size, memory, size
from mlq_utils.experiments.spec import Spec
from mlq_utils.experiments.store import Store

__all__ = [
    "CARDS",
    "GROUP",
    "Assumptions",
    "Card",
    "Size",
    "by_group",
    "memory",
    "plan",
    "size",
    "totals",
]

GROUP = ("base", "strategy", "corpus", "size", "test")
_Speeds = dict[tuple, list[tuple[float, float]]]


@dataclass(frozen=True)
class Card:
    """What computes.

    Attributes:
        tflops: 10¹² operations a second in bf16, dense (half of what "with sparsity" says).
        bandwidth: 10¹² bytes a second from its memory.
        memory: 10⁹ bytes.
    """

    tflops: float
    bandwidth: float
    memory: float


CARDS = {
    "H100": Card(989.4, 3.35, 80),  # NVIDIA H100 Tensor Core GPU datasheet, SXM
    "H200": Card(989.4, 4.8, 141),  # NVIDIA H200 Tensor Core GPU datasheet, SXM
    "A100": Card(312, 2.039, 80),  # NVIDIA A100 Tensor Core GPU datasheet, 80GB SXM
    "cpu": Card(0.1, 0.02, 8),  # a core: no data sheet, a rough figure for records to correct
}
"""By a name that `_device.hardware` has in it; "cpu" where it names no GPU."""


@dataclass(frozen=True)
class Assumptions:
    """What is taken for granted where nothing was measured.

    Attributes:
        card: A key of `CARDS`.
        price: Of an hour of it, in whatever money.
        tuning: By strategy, the share of `Card.tflops` that tuning reaches. The defaults are what
            this project aims at, not what it has measured.
        decoding: The share of the card's rates that beam search reaches. At the default, scoring
            twelve languages takes LLaMA-7B about four times as long as tuning on 10,000 pairs.
        margin: Time may be so many times what is planned, at best and at worst. Where records were
            measured, the fastest and the slowest tenth of them tell instead.
        tokens_at_once: Tokens that go forward and back at once, for the peak of memory.
        sentences_at_once: As in `translation.translate`.
        longest: Steps that a batch takes, by the mean of its sentences' tokens.
        run_seconds: Loading the base, each run.
        target_seconds: Scoring, each target.
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
        """Refuse a card that is not known, and numbers that give no time.

        Raises:
            ValueError: As said.
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
        specs: What to run; one that comes twice is run once.
        store: Where records are kept; without, nothing is done and nothing measured.
        assumptions: What is taken for granted.

    Returns:
        A row a run: `base`, `strategy`, `corpus`, `size`, `test`, `tuned_on`; `done` (whether the
        store has it); `training_tokens` (all epochs) and `evaluation_tokens` (generated, of one
        beam); `tuning_hours`, `translation_hours`, `other_hours` (loading and scoring), `hours` and
        `hours_low`, `hours_high`, of one GPU; `money`; `record_gb`; `checkpoint_gb` (while it runs:
        what is trained and two moments, in fp32) and `saved_gb` (if the tuned model is kept), 10⁹
        bytes; `memory_gib` (the peak in tuning, `memory`); `basis`. Those of runs that are done
        are 0, but for what does not depend on it. `attrs` has the assumptions.

    Raises:
        ValueError: The list is empty.
        FileNotFoundError, ConnectionError: As `size`.
    """
    assumptions = assumptions or Assumptions()
    keys = {spec: spec.identity() for spec in specs}
    if not keys:
        raise ValueError("the list of runs is empty")
    known = {} if store is None else {key: store.get(key) for key in keys.values()}
    others = [] if store is None else [store.get(key) for key in store.keys() if key not in known]  # noqa: SIM118
    speeds = _speeds([*known.values(), *others], assumptions)
    rows = []
    for spec, key in keys.items():
        record = known.get(key)
        done = record is not None and not record.get("again")
        rows.append(_row(spec, done, speeds, assumptions))
    frame = pd.DataFrame(rows)
    frame.attrs["assumptions"] = assumptions
    return frame


def by_group(frame: pd.DataFrame, by: Sequence[str] = GROUP) -> pd.DataFrame:
    """Return a plan by groups of runs.

    Args:
        frame: As `plan` returns it.
        by: Columns to group by.

    Returns:
        A row a group: `runs`, `done`, the sums of what adds up, and the largest `checkpoint_gb` and
        `memory_gib`; `basis`, or what they are.
    """
    sums = [
        "done", "training_tokens", "evaluation_tokens", "tuning_hours", "translation_hours",
        "other_hours", "hours", "hours_low", "hours_high", "money", "record_gb", "saved_gb",
    ]  # fmt: skip
    groups = frame.groupby(list(by), sort=False)
    found = pd.concat(
        [
            groups.size().rename("runs"),
            groups[sums].sum(),
            groups[["checkpoint_gb", "memory_gib"]].max(),
            groups["basis"].agg(lambda column: "; ".join(filter(None, dict.fromkeys(column)))),
        ],
        axis=1,
    )
    return found.reset_index()


def totals(frame: pd.DataFrame) -> pd.Series:
    """Return a whole plan in numbers, as `by_group` a group; `basis` apart."""
    whole = by_group(frame.assign(all=""), ["all"])
    return whole.drop(columns=["all", "basis"]).iloc[0]


@dataclass(frozen=True)
class _Work:
    """What a run has to do: tokens, operations, and seconds of beam search at the card's rates."""

    training_tokens: float
    evaluation_tokens: float
    flops: float
    search_seconds: float
    record_bytes: float


def _work(spec: Spec, model: Size, assumptions: Assumptions) -> _Work:
    found = lengths(spec)
    share = spec.size / len(spec.languages) if spec.languages else 0
    tokens = spec.epochs * sum(share * found.pair(code) for code in spec.languages)
    generated = [spec.test_size * (found.tokens[code] + 1) for code in spec.targets]
    sizes = [found.bytes["en"] + 2 * found.bytes[code] for code in spec.targets]
    return _Work(
        training_tokens=tokens,
        evaluation_tokens=sum(generated),
        flops=tokens * model.flops_per_token,
        search_seconds=sum(
            _search(spec, model, found.prompt(code), found.tokens[code] + 1, assumptions)
            for code in spec.targets
        ),
        record_bytes=3000 + sum(spec.test_size * size + 1000 for size in sizes),
    )


def _search(
    spec: Spec, model: Size, prompt: float, tokens: float, assumptions: Assumptions
) -> float:
    """Return how long beam search takes on one target, at the full rates of the card.

    Each token of each beam goes through all matrices. Each step reads them all, and the keys and
    values of the prompt, which beams share, and of what its beams have written so far.
    """
    card, beams, sentences = CARDS[assumptions.card], spec.beam_size, spec.test_size
    steps = assumptions.longest * tokens * np.ceil(sentences / assumptions.sentences_at_once)
    flops = 2 * model.matmul * sentences * (prompt + beams * tokens)
    held = 2 * model.cache * (prompt + beams * tokens / 2)
    read = steps * 2 * model.matmul + sentences * tokens * held
    return flops / (card.tflops * 1e12) + read / (card.bandwidth * 1e12)


def _row(spec: Spec, done: bool, speeds: _Speeds, assumptions: Assumptions) -> dict[str, Any]:
    model = size(spec.base, spec.strategy, spec.layers, spec.revision)
    work = _work(spec, model, assumptions)
    card, tuned = CARDS[assumptions.card], bool(spec.languages)
    parts = {
        "tuning": (
            speeds[spec.base, spec.revision, spec.strategy],
            assumptions.tuning[spec.strategy],
            work.flops / (card.tflops * 1e12),
            f"of {card.tflops:g} TFLOP/s",
        ),
        "translation": (
            speeds[spec.base, spec.revision, "translation"],
            assumptions.decoding,
            work.search_seconds,
            f"of {card.tflops:g} TFLOP/s and {card.bandwidth:g} TB/s",
        ),
    }
    hours, basis = np.zeros(3), []
    row: dict[str, Any] = {}
    for name, (measured, assumed, ideal, unit) in parts.items():
        if not ideal or done:
            row[f"{name}_hours"] = 0.0
            continue
        how = f"measured on {len(measured)} records" if measured else "assumed"
        share, margin = _share(measured) if measured else (assumed, assumptions.margin)
        took = ideal / share / 3600
        row[f"{name}_hours"] = took
        hours += took * np.array([1, *margin])
        basis.append(f"{name} at {share:.2g} {unit}, {how}")
    others = speeds[spec.base, spec.revision, "other"]
    waiting = assumptions.run_seconds + assumptions.target_seconds * len(spec.targets)
    if others:
        waiting = len(spec.targets) / _share(others)[0]
    row["other_hours"] = 0.0 if done else waiting / 3600
    hours += row["other_hours"]
    return (
        {
            "base": spec.base,
            "strategy": spec.strategy if tuned else "untuned",
            "corpus": "+".join(spec.corpus) if tuned else "",
            "size": spec.size if tuned else 0,
            "test": " ".join(spec.test),
            "tuned_on": "+".join(spec.languages),
            "done": done,
            "training_tokens": 0.0 if done else work.training_tokens,
            "evaluation_tokens": 0.0 if done else work.evaluation_tokens,
        }
        | row
        | dict(zip(("hours", "hours_low", "hours_high"), hours, strict=True))
        | {
            "money": hours[0] * assumptions.price,
            "record_gb": 0.0 if done else work.record_bytes / 1e9,
            "checkpoint_gb": 12 * model.trained / 1e9 if tuned else 0.0,
            "saved_gb": 4 * model.trained / 1e9 if tuned else 0.0,
            "memory_gib": memory(model, assumptions.tokens_at_once) / 2**30 if tuned else 0.0,
            "basis": "; ".join(basis),
        }
    )


def _share(measured: Sequence[tuple[float, float]]) -> tuple[float, tuple[float, float]]:
    """Return the speed that records show, and the margin of time about it."""
    work, seconds = np.transpose(measured)
    share = float(work.sum() / seconds.sum())
    slow, fast = np.quantile(work / seconds, [0.1, 0.9])
    return share, (min(1.0, share / fast), max(1.0, share / slow))


def _speeds(records: Iterable[dict[str, Any] | None], assumptions: Assumptions) -> _Speeds:
    """Return what records show of this card, by base, revision and kind of work.

    For tuning (by strategy) and "translation" the seconds at the card's full rates and those that
    were spent; for "other" the targets and the seconds that were spent on neither.
    """
    found: _Speeds = defaultdict(list)
    card = CARDS[assumptions.card]
    for record in records:
        if not record or record.get("status") != "done" or "training" not in record:
            continue  # missing, failed, or a part or an evaluation of another kind
        gpu = record["hardware"].partition(" threads")[2]
        if assumptions.card not in gpu if assumptions.card != "cpu" else gpu:
            continue
        spec = experiments.spec_of(record)
        of = spec.base, spec.revision
        work = _work(spec, size(spec.base, spec.strategy, spec.layers, spec.revision), assumptions)
        searching = sum(score["seconds"] for score in record["scores"])
        spent = record["training"] or {"seconds": 0}
        tuning = spent["seconds"] * spent.get("processes", 1)
        if tuning:
            found[*of, spec.strategy].append((work.flops / (card.tflops * 1e12), tuning))
        if searching:
            found[*of, "translation"].append((work.search_seconds, searching))
        other = max(1e-3, record["seconds"] - searching - tuning)
        found[*of, "other"].append((len(spec.targets), other))
    return found
