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
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig
from transformers.pytorch_utils import Conv1D

from mlq_utils import corpora, experiments, measurements, modeling, prompts
from mlq_utils import tokenizer as tokenizers
from mlq_utils._common import one_of
from mlq_utils.experiments import Spec
from mlq_utils.store import Store

KNOWN = {
    "huggyllama/llama-7b": LlamaConfig(
        vocab_size=32_000,
        hidden_size=4096,
        intermediate_size=11_008,
        num_hidden_layers=32,
        num_attention_heads=32,
        max_position_embeddings=2048,
    )
}
"""Configurations that need no network: the paper's base (Touvron et al. 2023, Table 2)."""
GROUP = ("base", "strategy", "corpus", "size", "test")
PHRASES = 40
"""Phrases of a language that are measured, of cldr."""
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


@dataclass(frozen=True)
class Size:
    """What a model is in numbers, and what a strategy trains of it.

    Attributes:
        parameters: All.
        matmul: Those that a token is multiplied by, the head's included.
        trained: Those that the strategy trains, LoRA's own included.
        trained_matmul: Those of them that a token is multiplied by.
        flops_per_token: Of a step of tuning: 2 a parameter forward, 2 for the gradient of what goes
            into a matrix where anything below it is trained, 2 for that of the matrix where it is
            trained. In all 6 `matmul` for full FT, 4 for Embed FT. Attention's own products are
            left out: for LLaMA-7B, 2% with 500 tokens.
        cache: Numbers kept of a token for those that follow it, keys and values.
        layers: Decoder layers.
        width: Of the hidden state.
    """

    parameters: int
    matmul: int
    trained: int
    trained_matmul: int
    flops_per_token: int
    cache: int
    layers: int
    width: int


@cache
def size(
    base: str, strategy: str, layers: tuple[int, ...] | None = None, revision: str | None = None
) -> Size:
    """Return the size of a base model, by its configuration alone.

    Args:
        base: What `modeling.load` takes, and keys of `KNOWN`.
        strategy: What `modeling.prepare` takes.
        layers: For the strategy "layers".
        revision: Of a base on the Hub.

    Raises:
        FileNotFoundError: There is no such model.
        ConnectionError: The Hub cannot be reached.
        ValueError: Unknown strategy, layers that the model has not, or a model whose matrices are
            not all layers of their own, as in a mixture of experts.
    """
    config = _config(base, revision)
    config.tie_word_embeddings = False
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        parameters = sum(p.numel() for p in model.parameters())
        model = modeling.prepare(model, strategy, layers=layers)
        try:
            products = _products(model)
        except RuntimeError as error:
            raise ValueError(f"{base}: its operations cannot be counted: {error}") from error
    rest = parameters - model.get_input_embeddings().weight.numel()
    if (found := sum(n for n, _, _ in products)) < rest / 2:
        raise ValueError(
            f"{base}: its operations cannot be counted: of {rest:,} parameters beside embeddings "
            f"only {found:,} are in linear layers"
        )
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Size(
        parameters=parameters,
        matmul=found,
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        trained_matmul=sum(n for n, weight, _ in products if weight),
        flops_per_token=sum(2 * n * (1 + weight + below) for n, weight, below in products),
        cache=2 * heads * head * text.num_hidden_layers,
        layers=text.num_hidden_layers,
        width=text.hidden_size,
    )


def _products(model: torch.nn.Module) -> list[tuple[int, bool, bool]]:
    """Return of each matrix its size, and whether it and what goes into it have a gradient."""
    found = []

    def note(module: torch.nn.Module, given: tuple[torch.Tensor, ...], _: Any) -> None:
        weight = module.weight
        found.append((weight.numel(), weight.requires_grad, given[0].requires_grad))

    hooks = [
        module.register_forward_hook(note)
        for module in model.modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
    ]
    model(input_ids=torch.zeros(1, 2, dtype=torch.long))
    for hook in hooks:
        hook.remove()
    return found


def _config(base: str, revision: str | None) -> PreTrainedConfig:
    if about := modeling.saved_as(Path(base).expanduser()):
        return _config(about["base"], about["revision"])
    if base in KNOWN and not Path(base).expanduser().is_dir():
        return KNOWN[base].__class__.from_dict(KNOWN[base].to_dict())
    return modeling.configuration(base, revision)


def memory(model: Size, tokens_at_once: int) -> float:
    """Return the peak in tuning on a GPU, in bytes.

    What is trained: 4 bytes a parameter in fp32, as many for its gradient, 8 for AdamW's moments,
    and for a matrix 2 for the copy that is computed with; what is not: 2. And activations, without
    gradient checkpointing: 34 bytes a token, layer and unit of width (Korthikanti et al. 2022,
    equation 2, but for attention's scores, which fused attention does not keep).
    """
    states = 2 * (model.parameters - model.trained) + 16 * model.trained + 2 * model.trained_matmul
    return states + 34 * model.layers * model.width * tokens_at_once


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
    lengths = _lengths(spec)
    share = spec.size / len(spec.languages) if spec.languages else 0
    tokens = spec.epochs * sum(share * lengths.pair(code) for code in spec.languages)
    generated = [spec.test_size * (lengths.tokens[code] + 1) for code in spec.targets]
    sizes = [lengths.bytes["en"] + 2 * lengths.bytes[code] for code in spec.targets]
    return _Work(
        training_tokens=tokens,
        evaluation_tokens=sum(generated),
        flops=tokens * model.flops_per_token,
        search_seconds=sum(
            _search(spec, model, lengths.prompt(code), lengths.tokens[code] + 1, assumptions)
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


@dataclass(frozen=True)
class _Lengths:
    """Means of sentences by language, in tokens and in bytes, and of an English character."""

    tokens: Mapping[str, float]
    bytes: Mapping[str, float]
    per_char: float

    def prompt(self, code: str) -> float:
        """Return the tokens of the prompt to translate into a language, with BOS."""
        text = prompts.translation(code if code != "en" else "ro", "")
        return 1 + len(text) * self.per_char + self.tokens["en"]

    def pair(self, code: str) -> float:
        """Return the tokens of an example, with BOS and EOS."""
        return self.prompt(code) + self.tokens[code] + 1


def _lengths(spec: Spec) -> _Lengths:
    local = spec.base == "mini" or Path(spec.base).is_dir()
    if not local or spec.test[0] != "cldr" or spec.corpus != ("cldr",):
        return _recorded_lengths()
    words = _words(spec.base)
    rows = {code: _phrases(spec.base, code) for code in {"en", *spec.languages, *spec.targets}}
    template = prompts.translation("ro", "")
    return _Lengths(
        {code: tokens for code, (tokens, _) in rows.items()},
        {code: size for code, (_, size) in rows.items()},
        len(words.encode([template])[0]) / len(template),
    )


@cache
def _recorded_lengths() -> _Lengths:
    frame = measurements.recorded("fertility").query("tokenizer == 'llama'").set_index("language")
    tokens = frame["tokens_per_sentence"]
    sizes = tokens / frame["tokens_per_byte"]
    return _Lengths(dict(tokens), dict(sizes), frame.loc["en", "tokens_per_char"])


@cache
def _words(base: str) -> tokenizers.Tokenizer:
    folder = modeling.MINI if base == "mini" else Path(base)
    if about := modeling.saved_as(folder):
        return _words(about["base"])
    return tokenizers.load(folder)


@cache
def _phrases(base: str, code: str) -> tuple[float, float]:
    """Return the mean tokens and bytes of a language's phrases."""
    text = corpora.load("cldr", code, "test", size=PHRASES)["target"].tolist()
    ids = _words(base).encode(text)
    return float(np.mean([len(row) for row in ids])), float(
        np.mean([len(line.encode()) for line in text])
    )
