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
import math
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

from mlq_utils.modeling import checkpoint as _checkpoint
from mlq_utils.modeling import loading as modeling
from mlq_utils.modeling import parallel as _parallel
from mlq_utils.modeling.batches import IGNORED, Examples, batches, collate, examples
from mlq_utils.modeling.device import Peak
from mlq_utils.modeling.prompts import english_tasks, mixture
from mlq_utils.modeling.settings import Schedule

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
        micro_batch: How many examples a process held at once.
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
    micro_batch: int
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
    micro_batch: int | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 120,
    progress: bool | None = None,
) -> Result:
    """Tune a model, in place, on the device that it is on.

    In several processes (`accelerate launch`) the model and each batch are sharded over them; the
    result is the same but for rounding, and whole in each.

    Args:
        base: The model to tune, freshly loaded: a model tuned before is another model.
        frame: Columns `prompt` and `target`, as `mixture` and `english_tasks` make them.
        strategy: One of `modeling.STRATEGIES`.
        schedule: `Schedule.mini(strategy)` where None.
        layers: For the strategy "layers", see `modeling.prepare`.
        precision: "auto" is bf16 where it is fast or where some weights are in bf16 anyway.
        micro_batch: How many examples a process holds at once, at most. It changes no result, as
            gradients are added up. As many as fit where None: half of them, and again half, where
            memory ends; and where one does not fit, activations are computed twice (gradient
            checkpointing).
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
        RuntimeError: A parameter that should be trained gets no gradient; or memory ends in one of
            several processes.
        torch.OutOfMemoryError: A single example does not fit.
        ValueError: Unknown strategy or precision, unusable data, or another run's checkpoint.
    """
    schedule = schedule or Schedule.mini(strategy)
    if micro_batch is not None and micro_batch < 1:
        raise ValueError(f"micro_batch must be 1 or more, not {micro_batch}")
    data = examples(frame, base, schedule.block)
    model = modeling.prepare(base.model, strategy, layers=layers, seed=schedule.seed)
    device = _parallel.state().device if _parallel.count() > 1 else model.device
    precision = modeling.choose_precision(model, precision, device)
    with _narrow(model, precision):
        plain_head = has_plain_head(base.model)
    run = _run_name(model, schedule, precision, data) if checkpoint else ""
    shell = _parallel.shard(model, base.model, precision) if _parallel.count() > 1 else None
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
    rows = micro_batch or math.ceil(schedule.batch_size / _parallel.count())
    gradients = _Gradients(model, base, data, precision, plain_head, rows)
    peak = Peak(model.device)
    model.train()
    with torch.random.fork_rng(cuda), _fast_attention(base.model, precision):
        expected, expected_peak = _trial(gradients, plan, weights, peak)
    state = {"step": 0, "losses": [], "seconds": 0.0, "labels": 0}
    if checkpoint and _parallel.agreed(checkpoint.exists):
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
            rate = schedule.rate(step, len(plan))
            optimizer.param_groups[0]["lr"] = rate
            loss = gradients(plan[step])
            norm = torch.nn.utils.clip_grad_norm_(weights.values(), schedule.max_grad_norm)
            norm = _parallel.whole(norm)
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
            state["labels"] += data.labels(plan[step])
            now = time.perf_counter()
            state["seconds"] = before + now - began
            if checkpoint and _due(state, len(plan), now - saved, checkpoint_seconds):
                # after the last step nothing needs the moments
                left = () if step + 1 == len(plan) else (optimizer,)
                _checkpoint.save(checkpoint, run, state, weights, *left)
                saved = time.perf_counter()
    if shown:
        spent = state["seconds"] - before
        bar.write(_cost(f"{strategy}: took", spent, peak.read()), file=sys.stderr)
    del optimizer
    if shell is not None:
        model = _parallel.restored(shell, model).to(device)
        weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
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
        micro_batch=gradients.rows,
        trained={name: weight.detach() for name, weight in weights.items()},
    )


@dataclass
class _Gradients:
    """How gradients are computed: `rows` examples at once; activations `twice` if need be."""

    model: torch.nn.Module
    base: modeling.Model
    data: Examples
    precision: str
    plain_head: bool
    rows: int
    twice: bool = False

    def __call__(self, batch: list[int]) -> torch.Tensor:
        """Add a batch's gradients to the model's, and return its loss.

        In several processes each takes its share of the batch, of as many rows in each: what
        computes together has to take as many steps.

        Raises:
            torch.OutOfMemoryError: A single example does not fit.
            RuntimeError: Memory ended in one of several processes.
        """
        share = math.ceil(len(batch) / _parallel.count())
        ids, labels = (
            tensor.to(self.model.device)
            for tensor in collate(self.data, _parallel.mine(batch), self.base.pad, share)
        )
        total = self.data.labels(batch)
        while True:
            try:
                return _parallel.summed(self._parts(ids, labels, total))
            except torch.OutOfMemoryError as error:
                remedy = self._smaller(min(self.rows, len(ids)))
                if not remedy:
                    raise
                if _parallel.count() > 1:  # the others wait for this one's part of their sums
                    raise RuntimeError(
                        f"process {_parallel.rank()} is out of memory with {self.rows} examples "
                        "at once: start again with a smaller micro_batch, or with more processes"
                    ) from error
            self.model.zero_grad()  # what some of the examples have left
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()
            warnings.warn(f"out of memory with {remedy}, which changes no result", stacklevel=3)

    def _parts(self, ids: torch.Tensor, labels: torch.Tensor, total: int) -> torch.Tensor:
        loss = torch.zeros((), device=ids.device)
        for some in zip(ids.split(self.rows), labels.split(self.rows), strict=True):
            with _narrow(self.model, self.precision):
                mean = label_loss(self.model, *some, plain_head=self.plain_head)
            part = mean * ((some[1][:, 1:] != IGNORED).sum() / total)
            (part * _parallel.count()).backward()  # sharded gradients are means over processes
            loss += part.detach()
        return loss

    def _smaller(self, failed: int) -> str:
        """Take less memory from here on, and say how; nothing where there is no way left."""
        if failed > 1:
            self.rows = failed // 2
            return f"{failed} examples at once: gradients are added up over {self.rows} at a time"
        model = self.base.model
        if self.twice or not model.supports_gradient_checkpointing:
            return ""
        self.twice = True
        # Re-entrant checkpointing gives no gradients where the embeddings are frozen.
        enable = getattr(model, "activation_checkpointing_enable", None)  # its later name
        (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
        return "one example: activations are computed twice"


def _trial(
    gradients: _Gradients,
    plan: list[list[int]],
    weights: dict[str, torch.nn.Parameter],
    peak: Peak,
) -> tuple[float, int | None]:
    """Compute the largest batch for nothing: what does not fit shows before the first step.

    Returns:
        How many seconds all steps will take, by their tokens, padding included; and how much memory
        at the peak, None where the system does not tell.
    """
    data, model = gradients.data, gradients.model

    def tokens(batch: list[int]) -> int:
        return len(batch) * max(len(data.ids[i]) for i in batch)

    largest = max(plan, key=tokens)
    # The optimizer's two moments, in fp32, which are there from the first step on.
    moments = 8 * sum(_parallel.local(weight).numel() for weight in weights.values())
    held = None
    if model.device.type == "cuda":
        gradients(largest[: _parallel.count()])  # loads and chooses kernels
        held = torch.empty(moments, dtype=torch.uint8, device=model.device)
    start = time.perf_counter()
    gradients(largest).item()  # waits for the GPU
    seconds = time.perf_counter() - start
    model.zero_grad()
    most = peak.read()
    if most is not None and held is None:
        most += moments
    return seconds * sum(map(tokens, plan)) / tokens(largest), most


def _run_name(model: torch.nn.Module, schedule: Schedule, precision: str, data: Examples) -> str:
    settings = dataclasses.asdict(schedule)
    return _checkpoint.identity(model, settings, precision, data.ids, data.prompts)


def _due(state: dict, steps: int, since: float, seconds: float) -> bool:
    """Return whether a checkpoint is to be written; all processes have to agree."""
    return state["step"] == steps or _parallel.agreed(lambda: since >= seconds)


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
    without = [n for n, p in weights.items() if p.grad is None or not _parallel.whole(p.grad).any()]
    if without:
        raise RuntimeError(f"{len(without)} trained parameters get no gradient: {without[0]}, …")


def _cost(what: str, seconds: float, peak_bytes: int | None) -> str:
    memory = "" if peak_bytes is None else f" and {peak_bytes / 2**30:.1f} GiB at the peak"
    return f"{what} {tqdm.format_interval(seconds)}{memory}"


def _bar(steps: range, strategy: str, progress: bool | None) -> tqdm:
    if not _parallel.only():
        progress = False
    options = {} if progress is None else {"disable": not progress}
    if progress is None and "ipykernel" in sys.modules:
        options["disable"] = True  # a notebook keeps what is printed
    return tqdm(steps, desc=strategy, unit="step", **options)  # plain: auto leaves widgets
