"""Fine-tuning: one loop for the mini world and for LLaMA-7B.

    base = modeling.load("mini")
    result = fine_tune(base, mixture({"ro": 600}), "embed")

It is fast because short examples share a row, so that little is padded, the head is computed only
where a label is, and computation is in bf16 where the processor is fast at it. Batches and all
noise depend on seed and step alone, so a run that was killed ends as if it had not been, but for
the rounding of a GPU (see `fine_tune`).
"""

import dataclasses
import math
import sys
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from accelerate.utils import reduce
from peft import PeftModel
from tqdm import tqdm

from mlq_utils.modeling import checkpoint as checkpoints
from mlq_utils.modeling import distributed
from mlq_utils.modeling.batches import (
    ROW,
    batches,
    collate,
    examples,
    keeps_apart,
    label_loss,
    pack,
)
from mlq_utils.modeling.loading import Model
from mlq_utils.modeling.memory import halving, phase, track_peak_memory
from mlq_utils.modeling.precision import DTYPES, cast, choose_precision, computing_in
from mlq_utils.modeling.strategies import Schedule, prepare, trainable

SAVING = 20
"""Time between checkpoints is at least so many times what the last one took to save."""
SMALLER = "lower micro_batch_tokens or the block, train less (embed, lora), or use more processes"
"""What helps when memory runs out in training."""


@dataclass(frozen=True)
class Result:
    """A tuned model and how it came about.

    Attributes:
        model: The tuned model. LoRA's updates are merged into its weights, and if some weights are
            in bf16, all are.
        losses: For each step, the mean cross-entropy per label token, in nats.
        seconds: Time spent in steps, including those before a resumption. Here and in the peak and
            the estimates, attempts that ran out of memory do not count.
        label_tokens_per_second: Target tokens (EOS included) trained on per second.
        peak_bytes: Peak memory during this call (see `memory.track_peak_memory`).
        estimated_seconds: Estimate of `seconds` from a dry run of the largest batch.
        estimated_peak_bytes: Estimate of `peak_bytes`. It is within 5% for 90 million parameters on
            a CPU, and too low for models smaller than what torch itself keeps (about 500 MB).
        resumed_at: Step at which this call resumed, or 0 for the whole run.
        examples: Number of pairs trained on.
        skipped: Number of pairs left out because they are longer than the block.
        precision: "bf16" (with fp32 masters of what is trained) or "fp32".
        micro_batch_tokens: Largest number of tokens, padding included, that a process computes at
            once. Only a single row may have more.
        trained: The trained parameters by name in fp32, LoRA's before merging.
    """

    model: Model
    losses: list[float] = field(repr=False)
    seconds: float
    label_tokens_per_second: float
    peak_bytes: int | None
    estimated_seconds: float
    estimated_peak_bytes: int | None
    resumed_at: int
    examples: int
    skipped: int
    precision: str
    micro_batch_tokens: int
    trained: dict[str, torch.Tensor] = field(repr=False)


def fine_tune(
    base: Model,
    frame: pd.DataFrame,
    strategy: str = "full",
    schedule: Schedule | None = None,
    *,
    layers: Sequence[int] | None = None,
    precision: Literal["auto", "bf16", "fp32"] = "auto",
    micro_batch_tokens: int | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 120,
    progress: bool | None = None,
) -> Result:
    """Tune a model in place, on the device that it is on.

    In several processes (`accelerate launch`) the model and each batch are sharded over them. Every
    process returns the whole result, which is that of one process but for rounding.

    Args:
        base: The model to tune, freshly loaded.
        frame: Columns `prompt` and `target`, as `mixture` and `english_tasks` return them.
        strategy: A key of `modeling.STRATEGIES`. Defaults to "full".
        schedule: Length and learning rate. Defaults to `Schedule.mini(strategy)`.
        layers: Decoder layers for the strategy "layers", see `modeling.prepare`.
        precision: See `modeling.choose_precision`. Defaults to "auto".
        micro_batch_tokens: Largest number of tokens, padding included, that a process computes at
            once. It does not change the result, since gradients are accumulated. By default it is
            the whole batch, halved while memory runs out; if a single row does not fit, gradient
            checkpointing is used.
        checkpoint: File for the state of the run. If it exists, the run resumes from it. The caller
            deletes it once the results are safe.
        checkpoint_seconds: Least seconds between checkpoints, at least `SAVING` times what the last
            one took; 0 saves each step. The last step is always saved. Defaults to 120.
        progress: Whether to show a progress bar and the expected time and memory. By default they
            are shown outside notebooks, unless the environment variable TQDM_DISABLE is set.

    Returns:
        The tuned model with losses, times and counts. On the same CPU the same arguments give the
        same weights, bit by bit, whether the run was interrupted or not. On a GPU the backward pass
        of attention adds up in any order, unless `torch.use_deterministic_algorithms(True)` was
        called and the environment variable CUBLAS_WORKSPACE_CONFIG is ":4096:8".

    Raises:
        FloatingPointError: The loss or its gradient became NaN or infinite.
        RuntimeError: A trained parameter gets no gradient.
        torch.OutOfMemoryError: The model, the optimizer or a single example does not fit, or one of
            several processes runs out of memory, which cannot try again by itself.
        ValueError: Unknown strategy or precision, unusable data, or another run's checkpoint.
        OSError: The disk has no room for the checkpoint and the next one beside it.
    """
    how = strategy, schedule, layers, precision, micro_batch_tokens
    return _Trainer(base, frame, *how, checkpoint).train(checkpoint_seconds, progress)


class _Trainer:
    """One run of `fine_tune`, whose arguments it takes."""

    @phase("preparing to train", SMALLER)
    def __init__(
        self, base: Model, frame: pd.DataFrame, strategy: str, schedule: Schedule | None,
        layers: Sequence[int] | None, precision: str, limit: int | None, checkpoint: Path | None,
    ) -> None:  # fmt: skip
        if limit is not None and limit < 1:
            raise ValueError(f"micro_batch_tokens must be 1 or more, not {limit}")
        self.base, self.strategy, self.checkpoint = base, strategy, checkpoint
        self.schedule = schedule = schedule or Schedule.mini(strategy)
        self.data = examples(frame, base, schedule.block)
        self.lengths = list(map(len, self.data.ids))
        self.plan = [
            batch
            for epoch in range(schedule.epochs)
            for batch in batches(len(self.lengths), schedule.batch_size, schedule.seed, epoch)
        ]
        self.processes = distributed.state().num_processes
        self.limit, self.recompute = limit or sys.maxsize, False
        self.first = base.extended_from if strategy == "rows" else 0
        if self.first is None or (self.first and self.processes > 1):
            raise ValueError(
                "the strategy rows trains what an extended vocabulary has added, in one process: "
                "extend the model first"
            )
        self.model = prepare(base.model, strategy, layers=layers, seed=schedule.seed)
        device = distributed.state().device if self.processes > 1 else self.model.device
        self.precision = choose_precision(self.model, precision, device)
        if checkpoint:
            run = dataclasses.asdict(schedule), self.precision, self.data.ids, self.data.prompts
            self.identity = checkpoints.identity(self.model, *run)
        self.dtype = DTYPES[self.precision]
        if device.type == "cuda":  # for good, since a GPU has no room for copies
            cast(self.model, self.dtype, frozen=True)
        if self.processes > 1:
            self.shell = distributed.shard(self.model, base.model, self.dtype)
        self.weights = trainable(self.model)
        self.optimizer = torch.optim.AdamW(  # each step sets the learning rate
            self.weights.values(), 0.0, weight_decay=schedule.weight_decay, fused=True
        )
        self.peak, self.began, self.lost = track_peak_memory(self.model.device), None, 0.0
        shortest = min(self.data.ids, key=len)
        with computing_in(base.model, self.dtype):
            apart = keeps_apart(self.model.eval(), shortest[::-1], shortest)
        self.row = ROW if apart else 0

    def train(self, save_every: float, progress: bool | None) -> Result:
        """Take the steps that the checkpoint does not have yet."""
        self.model.train()
        cuda = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(cuda):
            with phase("allocating the optimizer's state", SMALLER):
                allocate(self.weights.values(), self.optimizer)
            state = {"losses": [], "seconds": 0.0}
            if path := self.checkpoint:
                checkpoints.check_disk(path, self.weights, self.optimizer.state)
                found = checkpoints.load(path, self.identity, self.weights, self.optimizer.state)
                state = found or state
            with phase("in the dry run of training", SMALLER):
                expected, expected_peak = self.dry_run()
            losses, before, resumed_at = state["losses"], state["seconds"], len(state["losses"])
            pause, began, saved = save_every, self.clock(), self.clock()
            bar = _bar(range(resumed_at, len(self.plan)), self.strategy, progress)
            shown = not bar.disable  # a bar that has ended is disabled, too
            if shown:
                left = expected * (1 - resumed_at / len(self.plan))
                _print_cost(f"{self.strategy}: expecting", left, expected_peak)
            for step in bar:
                with phase(f"at step {step} of training", SMALLER):
                    losses.append(self.step(step, check=step == resumed_at + 2))
                now = self.clock()
                state["seconds"] = before + now - began
                if path and self.is_due(step, now - saved, pause):
                    # After the last step the optimizer's moments are no longer needed.
                    moments = {} if step + 1 == len(self.plan) else self.optimizer.state
                    checkpoints.save(path, self.identity, state, self.weights, moments)
                    saved = self.clock()
                    pause = save_every and max(save_every, SAVING * (saved - now))
            if shown:
                _print_cost(f"{self.strategy}: took", state["seconds"] - before, self.peak())
        return self.result(
            **state,
            resumed_at=resumed_at,
            estimated_seconds=expected,
            estimated_peak_bytes=expected_peak,
        )

    def clock(self) -> float:
        """Return a time in seconds, which attempts that ran out of memory have not taken."""
        return time.perf_counter() - self.lost

    def dry_run(self) -> tuple[float, int | None]:
        """Compute the largest batch, so that running out of memory shows before the first step.

        Returns:
            The expected time for all steps in seconds, and the expected peak memory in bytes.
        """

        def tokens(batch: list[int]) -> int:
            rows, length = self.rows(batch)
            return math.ceil(len(rows) / self.processes) * length  # padding included

        largest = max(self.plan, key=tokens)
        self.limit = min(self.limit, tokens(largest))  # the number to halve
        if self.model.device.type == "cuda":
            self.gradients(largest[: self.processes])  # loads and chooses kernels
        start = self.clock()
        self.gradients(largest).item()  # waits for the GPU
        seconds = self.clock() - start
        self.optimizer.zero_grad()
        return seconds * sum(map(tokens, self.plan)) / tokens(largest), self.peak()

    def rows(self, batch: list[int]) -> tuple[list[list[int]], int]:
        """Return the rows that a batch is packed into, and the length of the longest."""
        lengths = [self.lengths[i] for i in batch]
        rows = pack(lengths, self.row and max(self.row, *lengths))
        longest = max(sum(lengths[n] for n in row) for row in rows)
        return [[batch[n] for n in row] for row in rows], longest

    def step(self, step: int, check: bool) -> float:
        """Take one step and return its loss; check that all weights have a gradient if asked."""
        # Seeded by the step, so that a resumed run needs no state of the random generator.
        torch.manual_seed(self.schedule.seed * 1_000_003 + step)
        rate = self.schedule.rate(step, len(self.plan))
        self.optimizer.param_groups[0]["lr"] = rate
        loss = self.gradients(self.plan[step])
        for weight in self.weights.values() if self.first else ():
            weight.grad[: self.first] = 0  # AdamW then leaves these rows exactly as they are
        norm = torch.nn.utils.clip_grad_norm_(self.weights.values(), self.schedule.max_grad_norm)
        norm = distributed.whole(norm)
        if not torch.isfinite(loss + norm):  # before the step, so that the weights stay finite
            raise FloatingPointError(
                f"step {step} of {len(self.plan)}, learning rate {rate:.2g}: the loss is "
                f"{loss:.3g}, the norm of its gradient {norm:.3g}"
            )
        if check:  # not at once, since LoRA's second matrix is zero and blocks the first at first
            self.check_gradients()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def gradients(self, batch: list[int]) -> torch.Tensor:
        """Compute the gradients of a batch, and return its loss."""
        device, total = self.model.device, self.data.labels(batch)
        rows, length = self.rows(batch)
        own = rows[distributed.state().process_index :: self.processes]

        @computing_in(self.base.model, self.dtype)
        def accumulate(limit: int) -> torch.Tensor:
            now = time.perf_counter()
            if self.began is not None:  # the last attempt has not ended: it ran out of memory
                self.lost += now - self.began
                self.peak = track_peak_memory(self.model.device)
            self.began = now
            self.optimizer.zero_grad()  # an attempt that ran out of memory has left some
            loss = torch.zeros((), device=device)
            # All processes take the same number of rows, because they must take the same steps.
            size, count = max(1, limit // length), math.ceil(len(rows) / self.processes)
            for start in range(0, count, size):
                part, shape = own[start : start + size], (min(size, count - start), length)
                tensors = collate(self.data, part, self.base.pad, shape)
                if not self.row:
                    tensors = tensors[:2]  # positions are the model's own
                mean = label_loss(self.model, *(tensor.to(device) for tensor in tensors))
                share = mean * (self.data.labels(i for row in part for i in row) / total)
                (share * self.processes).backward()  # FSDP takes the mean over processes
                loss += share.detach()
            self.began = None
            return loss

        if self.processes > 1:  # the others wait for this one's part, so it cannot try again
            return reduce(accumulate(self.limit), "sum")
        try:
            loss, self.limit = halving(accumulate, self.limit, "tokens", least=length)
            return loss
        except torch.OutOfMemoryError:
            if self.recompute or not self.base.model.supports_gradient_checkpointing:
                raise
        self.recompute = True  # and as much at once as before, since little of it is kept
        warnings.warn("out of memory with one row: activations are computed twice", stacklevel=4)
        # Re-entrant checkpointing gives no gradients where the embeddings are frozen.
        enable = getattr(self.base.model, "activation_checkpointing_enable", None)  # its later name
        (enable or self.base.model.gradient_checkpointing_enable)({"use_reentrant": False})
        return self.gradients(batch)

    def check_gradients(self) -> None:
        """Refuse to go on if a weight is not trained, as may happen in an unknown architecture."""
        gradients = {name: weight.grad for name, weight in self.weights.items()}
        none = [n for n, g in gradients.items() if g is None or not distributed.whole(g).any()]
        if none:
            raise RuntimeError(f"{len(none)} trained parameters get no gradient: {none[0]}, …")

    def is_due(self, step: int, since: float, save_every: float) -> bool:
        """Return whether to save a checkpoint, on which all processes have to agree."""
        last = step + 1 == len(self.plan)
        return last or distributed.broadcast_from_main(lambda: since >= save_every)

    def result(self, **found: Any) -> Result:
        """Return the tuned model, unsharded and merged, with what is known of the run."""
        del self.optimizer
        if self.processes > 1:
            self.model = distributed.unshard(self.shell, self.model)
        trained = {name: weight.detach() for name, weight in trainable(self.model).items()}
        model = self.model.eval()
        if isinstance(model, PeftModel):
            model = model.merge_and_unload()
        if len({weight.dtype for weight in model.parameters()}) > 1:
            cast(model, self.dtype)  # mixed types could not be computed with
        return Result(
            model=dataclasses.replace(self.base, model=model),
            label_tokens_per_second=sum(map(self.data.labels, self.plan)) / found["seconds"],
            peak_bytes=self.peak(),
            examples=len(self.data.ids),
            skipped=self.data.skipped,
            precision=self.precision,
            micro_batch_tokens=self.limit,
            trained=trained,
            **found,
        )


def allocate(weights: Iterable[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Allocate what an optimizer needs, by a step at rate 0, which changes nothing.

    If a later step ran out of memory half-way, it would leave some of the weights changed.
    """
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for state in optimizer.state.values():
        for value in state.values():
            value.zero_()  # the number of steps, since the moments are zero
    optimizer.zero_grad()


def _print_cost(what: str, seconds: float, peak_bytes: int | None) -> None:
    memory = "" if peak_bytes is None else f" and {peak_bytes / 2**30:.1f} GiB at the peak"
    tqdm.write(f"{what} {tqdm.format_interval(seconds)}{memory}", file=sys.stderr)


def _bar(steps: range, strategy: str, progress: bool | None) -> tqdm:
    """Return a progress bar. `disable` is not given if TQDM_DISABLE should decide."""
    if not distributed.state().is_main_process:
        progress = False
    elif progress is None and "ipykernel" in sys.modules:
        progress = False  # a notebook would keep what is printed
    options = {} if progress is None else {"disable": not progress}
    return tqdm(steps, desc=strategy, unit="step", **options)  # tqdm.auto would leave widgets
