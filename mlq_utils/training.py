"""Fine-tuning: one loop for the mini world and for LLaMA-7B.

    base = modeling.load("mini")
    result = fine_tune(base, mixture({"ro": 600}), "embed")

What makes it fast: batches of like length; no attention mask, which right padding does not need;
the head computed where a label is, and nowhere else; bf16 where the processor has it. What makes it
exact: prompts are masked by position and never by token, so EOS is always trained; the order of
batches and any noise depend on seed and step alone, so a run that was killed goes on as if it had
not been.
"""

import contextlib
import dataclasses
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from peft import PeftModel
from tqdm import tqdm
from transformers import PreTrainedModel

from mlq_utils import _checkpoint, modeling
from mlq_utils._batches import IGNORED, Examples, batches, collate, examples
from mlq_utils._device import Peak
from mlq_utils._schedule import Schedule
from mlq_utils.prompts import english_tasks, mixture

__all__ = [
    "Examples",
    "Result",
    "Schedule",
    "batches",
    "collate",
    "english_tasks",
    "examples",
    "fine_tune",
    "has_plain_head",
    "label_loss",
    "mixture",
]


@dataclass(frozen=True)
class Result:
    """A tuned model and how it came about.

    Attributes:
        model: The tuned model; LoRA's updates are merged into its weights.
        losses: Mean cross-entropy in nats a label token, of each step.
        seconds: Time spent in steps, those before a resumption included.
        label_tokens_per_second: Tokens of targets (EOS included) trained on, a second.
        peak_bytes: The most memory that the process (on a GPU: torch) held at once while this
            call trained; None where the system does not tell.
        estimated_seconds, estimated_peak_bytes: What was expected of both before the first step,
            from the largest batch, computed once for nothing. With 90 million parameters on a
            processor the peak was met within 5%; of a model that is much smaller than what torch
            keeps for itself (about 500 MB) it is missed.
        steps: Steps made.
        resumed_at: The step at which this call took the run up; 0 for the whole run.
        examples: Pairs trained on.
        skipped: Pairs left out because they are longer than the block.
        precision: "bf16" (autocast over fp32 weights) or "fp32".
        trained: What was trained, by name, for `modeling.save`; for LoRA before it was merged.
    """

    model: modeling.Model
    losses: list[float] = field(repr=False)
    seconds: float
    label_tokens_per_second: float
    peak_bytes: int | None
    estimated_seconds: float
    estimated_peak_bytes: int | None
    steps: int
    resumed_at: int
    examples: int
    skipped: int
    precision: str
    trained: dict[str, torch.Tensor] = field(repr=False)


def label_loss(
    model: PreTrainedModel | PeftModel,
    ids: torch.Tensor,
    labels: torch.Tensor,
    *,
    plain_head: bool = True,
) -> torch.Tensor:
    """Return the loss that `model(ids, labels=labels)` has, computing the head at labels only.

    The head is 30 to 50% of a model of 3 million parameters, and at 7 billion it is memory. There
    is no attention mask: what pads stands right of every label, where causal attention looks not.

    Args:
        model: A causal language model, wrapped by peft or not.
        ids: Token ids of shape (examples, tokens), padded on the right.
        labels: The same shape; `IGNORED` where nothing is trained.
        plain_head: Whether the head is a matrix and no more (`has_plain_head`); otherwise the
            model's own logits are taken, at every position.

    Returns:
        Mean cross-entropy in nats a label, a scalar; 0 where there is no label at all.
    """
    model = model.get_base_model() if isinstance(model, PeftModel) else model
    targets = labels[:, 1:]
    trained = targets != IGNORED
    if plain_head:
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        logits = model.get_output_embeddings()(hidden[:, :-1][trained])
    else:
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1][trained]
    loss = torch.nn.functional.cross_entropy(logits.float(), targets[trained], reduction="sum")
    return loss / trained.sum().clamp(min=1)


def has_plain_head(model: PreTrainedModel) -> bool:
    """Return whether a model's logits are its hidden states times the head's matrix.

    Gemma 2 caps them, Granite and Cohere scale them; which others do is found out by trying.
    """
    ids = torch.arange(4, device=model.device)[None]
    with torch.inference_mode():
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        plain = model.get_output_embeddings()(hidden)
        # Equal to the bit: a cap on logits changes small ones little.
        return torch.equal(model(input_ids=ids, use_cache=False).logits, plain)


def fine_tune(
    base: modeling.Model,
    frame: pd.DataFrame,
    strategy: str = "full",
    schedule: Schedule | None = None,
    *,
    layers: Sequence[int] | None = None,
    precision: Literal["auto", "bf16", "fp32"] = "auto",
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 120,
    progress: bool | None = None,
) -> Result:
    """Tune a model, in place, on the device that it is on.

    Args:
        base: The model to tune, freshly loaded: a model tuned before is another model.
        frame: Columns `prompt` and `target`, as `mixture` and `english_tasks` make them.
        strategy: One of `modeling.STRATEGIES`.
        schedule: `Schedule.mini(strategy)` where None.
        layers: For the strategy "layers", see `modeling.prepare`.
        precision: "auto" is bf16 where it is fast or where some weights are in bf16 anyway.
        checkpoint: A file, written aside and renamed, that holds the run's state. Where it exists
            the run goes on from it. It stays, for the caller to delete once results are safe.
        checkpoint_seconds: How often it is written; also at the end.
        progress: Whether to show a bar, and before it what memory and time are expected; where
            None, outside notebooks, and as TQDM_DISABLE says.

    Returns:
        The tuned model with losses, times and counts. The same arguments on the same machine give
        the same weights, bit for bit in fp32, interrupted or not.

    Raises:
        FloatingPointError: The loss or its gradient became NaN or infinite.
        RuntimeError: A parameter that should be trained gets no gradient.
        ValueError: Unknown strategy or precision, unusable data, or another run's checkpoint.
    """
    schedule = schedule or Schedule.mini(strategy)
    data = examples(frame, base, schedule.block)
    model = modeling.prepare(base.model, strategy, layers=layers, seed=schedule.seed)
    precision = modeling.choose_precision(model, precision)
    with _narrow(model, precision):
        plain_head = has_plain_head(base.model)
    weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        weights.values(), schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True
    )
    lengths = [len(ids) for ids in data.ids]
    plan = [
        batch
        for epoch in range(schedule.epochs)
        for batch in batches(lengths, schedule.batch_size, schedule.seed, epoch)
    ]
    cuda = [model.device] if model.device.type == "cuda" else []
    peak = Peak(model.device)
    model.train()
    with torch.random.fork_rng(cuda), _fast_attention(base.model, precision):
        expected, rows = _trial(model, data, plan, base.pad, precision, plain_head)
    expected_peak = peak.read()
    if expected_peak is not None:  # and the optimizer's two moments, in fp32, from the first step
        expected_peak += 8 * sum(weight.numel() for weight in weights.values())
    state = {"step": 0, "losses": [], "seconds": 0.0, "labels": 0}
    run = (
        _checkpoint.identity(model, dataclasses.asdict(schedule), precision, data.ids, data.prompts)
        if checkpoint
        else ""
    )
    if checkpoint and checkpoint.exists():
        state = _checkpoint.load(checkpoint, run, weights, optimizer) or state
    resumed_at = state["step"]
    began = saved = time.perf_counter()
    before = state["seconds"]
    bar = _bar(range(resumed_at, len(plan)), strategy, progress)
    shown = not bar.disable  # which a bar that has ended says of itself
    if shown:
        left = expected * (1 - resumed_at / len(plan))
        bar.write(_cost(f"{strategy}: expecting", left, expected_peak), file=sys.stderr)
    with torch.random.fork_rng(cuda), _fast_attention(base.model, precision):
        for step in bar:
            torch.manual_seed(schedule.seed * 1_000_003 + step)  # so no generator need be saved
            ids, labels = (t.to(model.device) for t in collate(data, plan[step], base.pad))
            rate = schedule.rate(step, len(plan))
            optimizer.param_groups[0]["lr"] = rate
            loss, rows = _backward(model, ids, labels, rows, precision, plain_head)
            norm = torch.nn.utils.clip_grad_norm_(weights.values(), schedule.max_grad_norm)
            if not torch.isfinite(loss + norm):  # before the step: the weights stay finite
                raise FloatingPointError(
                    f"step {step} of {len(plan)}, learning rate {rate:.2g}: the loss is "
                    f"{loss:.3g}, the norm of its gradient {norm:.3g}"
                )
            if step == resumed_at + 2:  # LoRA's first steps leave one of its matrices without
                _check_gradients(weights)
            optimizer.step()
            optimizer.zero_grad()
            state["step"] = step + 1
            state["losses"].append(loss.item())
            state["labels"] += int((labels[:, 1:] != IGNORED).sum())
            now = time.perf_counter()
            state["seconds"] = before + now - began
            if checkpoint and (now - saved >= checkpoint_seconds or step + 1 == len(plan)):
                _checkpoint.save(checkpoint, run, state, weights, optimizer)
                saved = time.perf_counter()
    if shown:
        spent = state["seconds"] - before
        bar.write(_cost(f"{strategy}: took", spent, peak.read()), file=sys.stderr)
    model.eval()
    if isinstance(model, PeftModel):
        model = model.merge_and_unload()
    return Result(
        model=dataclasses.replace(base, model=model),
        losses=state["losses"],
        seconds=state["seconds"],
        label_tokens_per_second=state["labels"] / state["seconds"],
        peak_bytes=peak.read(),
        estimated_seconds=expected,
        estimated_peak_bytes=expected_peak,
        steps=len(plan),
        resumed_at=resumed_at,
        examples=len(data.ids),
        skipped=data.skipped,
        precision=precision,
        trained={name: weight.detach() for name, weight in weights.items()},
    )


def _trial(
    model: torch.nn.Module,
    data: Examples,
    plan: list[list[int]],
    pad: int,
    precision: str,
    plain_head: bool,
) -> tuple[float, int]:
    """Compute the largest batch for nothing: what does not fit shows before the first step.

    Returns:
        How many seconds all steps will take, by their tokens, padding included; and how many
        examples fit at once.
    """

    def tokens(batch: list[int]) -> int:
        return len(batch) * max(len(data.ids[i]) for i in batch)

    largest = max(plan, key=tokens)
    ids, labels = (t.to(model.device) for t in collate(data, largest, pad))
    start = time.perf_counter()
    loss, rows = _backward(model, ids, labels, len(largest), precision, plain_head)
    loss.item()  # waits for the GPU
    seconds = time.perf_counter() - start
    model.zero_grad()
    return seconds * sum(map(tokens, plan)) / tokens(largest), rows


def _backward(
    model: torch.nn.Module,
    ids: torch.Tensor,
    labels: torch.Tensor,
    rows: int,
    precision: str,
    plain_head: bool,
) -> tuple[torch.Tensor, int]:
    """Add a batch's gradients, `rows` examples at once; fewer, from here on, where memory ends.

    Returns:
        The loss of the whole batch, and how many examples at once it took.

    Raises:
        torch.OutOfMemoryError: A single example does not fit.
    """
    total = (labels[:, 1:] != IGNORED).sum().clamp(min=1)
    while True:
        loss = torch.zeros((), device=ids.device)
        try:
            for some in zip(ids.split(rows), labels.split(rows), strict=True):
                with _narrow(model, precision):
                    mean = label_loss(model, *some, plain_head=plain_head)
                part = mean * ((some[1][:, 1:] != IGNORED).sum() / total)
                part.backward()
                loss += part.detach()
            return loss, rows
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
            failed = min(rows, len(ids))
            rows = failed // 2 or 1
        model.zero_grad()  # what some of the examples have left
        if model.device.type == "cuda":
            torch.cuda.empty_cache()
        warnings.warn(
            f"out of memory with {failed} examples at once: gradients are added up over "
            f"{rows} at a time, which changes no result",
            stacklevel=3,
        )


def _narrow(model: torch.nn.Module, precision: str) -> torch.autocast:
    """Return autocast to the precision."""
    return torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16")


@contextlib.contextmanager
def _fast_attention(model: PreTrainedModel, precision: str) -> Iterator[None]:
    """Attend by plain matrix products where that is faster.

    On processors the fused attention of torch 2.13 goes backward in bf16 at a fifth of its speed in
    fp32: with it half of a step's time, without it a tenth.
    """
    usual = model.config._attn_implementation
    try:
        if precision == "bf16" and model.device.type == "cpu":
            model.set_attn_implementation("eager")
        yield
    finally:
        model.set_attn_implementation(usual)


def _check_gradients(weights: dict[str, torch.nn.Parameter]) -> None:
    without = [n for n, p in weights.items() if p.grad is None or not p.grad.any()]
    if without:
        raise RuntimeError(f"{len(without)} trained parameters get no gradient: {without[0]}, …")


def _cost(what: str, seconds: float, peak_bytes: int | None) -> str:
    memory = "" if peak_bytes is None else f" and {peak_bytes / 2**30:.1f} GiB at the peak"
    return f"{what} {tqdm.format_interval(seconds)}{memory}"


def _bar(steps: range, strategy: str, progress: bool | None) -> tqdm:
    options = {} if progress is None else {"disable": not progress}
    if progress is None and "ipykernel" in sys.modules:
        options["disable"] = True  # a notebook keeps what is printed
    return tqdm(steps, desc=strategy, unit="step", **options)  # plain: auto leaves widgets
