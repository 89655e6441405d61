"""The paper's strategies: what each trains in a model, for how long and at what rate.

Torch and peft are imported on first use, since specifications of runs need schedules without them.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlq_utils.data import one_of

if TYPE_CHECKING:
    import peft
    import torch
    from transformers import PreTrainedModel

STRATEGIES = {
    "embed": "input embeddings only (the paper's Embed FT)",
    "full": "all parameters",
    "lora": "low-rank updates of the query and value projections; of all three where one matrix "
    "holds them",
    "layers": "the decoder layers given, norms included (Tables 14 and 15)",
    "rows": "the rows that an extended vocabulary adds to the input embeddings and the head",
}
"""What each strategy trains."""

PAPER_CAP = 256
"""Largest number of new tokens in the paper's released code, for every language."""

MINI_RATES = {"embed": 3e-3, "full": 3e-3, "lora": 1e-2, "layers": 3e-3, "rows": 3e-3}
"""Learning rates of the mini world. Of two to four rates each, these score best on held-out
languages (Welsh; for full FT also Hindi) and spare the pretraining languages in Embed FT. That of
"rows" is Embed FT's, and has not been tried against others."""


@dataclass(frozen=True)
class Schedule:
    """How long and at what rate a model is tuned, with AdamW and a cosine schedule to zero.

    Attributes:
        learning_rate: Peak learning rate.
        epochs: Number of passes over the data. Defaults to 3.
        batch_size: Number of examples per step. Defaults to 32.
        warmup_steps: Number of steps of linear warm-up, or below 1 their share. Defaults to 10.
        weight_decay: Weight decay of AdamW. Defaults to 0.
        max_grad_norm: Norm to which larger gradients are scaled down. Defaults to 1.
        block: Longest example in tokens. Longer ones are skipped and counted. Defaults to 1024.
        seed: Random seed for the order of examples and the start of LoRA. Defaults to 0.
    """

    learning_rate: float
    epochs: int = 3
    batch_size: int = 32
    warmup_steps: float = 10
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    block: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a schedule that trains nothing."""
        for name in ("learning_rate", "epochs", "batch_size", "max_grad_norm", "block"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")

    @classmethod
    def mini(cls, strategy: str, **changes: float) -> "Schedule":
        """Return the mini world's schedule for a strategy, with some fields changed."""
        one_of("strategy", strategy, STRATEGIES)
        return cls(**{"learning_rate": MINI_RATES[strategy]} | changes)

    @classmethod
    def paper(cls, strategy: str, **changes: float) -> "Schedule":
        """Return the paper's schedule for a strategy (section 3 and its released scripts)."""
        rate = 1e-4 if one_of("strategy", strategy, STRATEGIES) == "lora" else 2e-5
        own = {"learning_rate": rate, "batch_size": 128, "warmup_steps": 0.03, "seed": 42}
        return cls(**own | changes)

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, counted from 0, as transformers computes it."""
        warmup = self.warmup_steps
        warmup = math.ceil(warmup * steps) if warmup < 1 else warmup
        if step < warmup:
            return self.learning_rate * step / warmup
        done = (step - warmup) / max(1, steps - warmup)
        return self.learning_rate * max(0.0, 0.5 * (1 + math.cos(math.pi * done)))


def prepare(
    model: "PreTrainedModel", strategy: str, *, layers: Sequence[int] | None = None, seed: int = 0
) -> "PreTrainedModel | peft.PeftModel":
    """Set `requires_grad` for the parameters that a strategy trains, and for no others.

    Args:
        model: A model with an untied head, as `load` returns it. It is changed in place.
        strategy: A key of `STRATEGIES`. "lora" has rank 8 and scale 16 without dropout, as in the
            paper.
        layers: Indices of decoder layers from 0, for the strategy "layers" only.
        seed: Random seed for the first matrix of "lora"; the second is zero. Defaults to 0.

    Returns:
        The model, for "lora" wrapped by peft. Trained parameters are fp32, whatever the others are.

    Raises:
        ValueError: Unknown strategy, tied head, or layers missing, out of range or not asked for.
        TypeError: The model is wrapped by peft already, or an index is not an integer.
    """
    import peft
    import torch

    one_of("strategy", strategy, STRATEGIES)
    if isinstance(model, peft.PeftModel):
        raise TypeError("the model is wrapped by peft already: prepare the one inside it")
    if (layers is None) == (strategy == "layers"):
        raise ValueError(f"strategy {strategy!r} with layers={layers}: give layers for 'layers'")
    if model.get_output_embeddings().weight is model.get_input_embeddings().weight:
        raise ValueError("the head is tied to the input embeddings; load() unties it")
    chosen = _layers(model, layers) if layers is not None else []
    model.requires_grad_(strategy == "full")
    if strategy in ("embed", "rows"):
        model.get_input_embeddings().requires_grad_(True)
    if strategy == "rows":  # of which training leaves the others as they are
        model.get_output_embeddings().requires_grad_(True)
    for layer in chosen:
        layer.requires_grad_(True)
    if strategy == "lora":
        targets = _projections(model)
        config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=targets, task_type="CAUSAL_LM")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = peft.get_peft_model(model, config)
    for parameter in trainable(model).values():
        # bf16 would lose updates smaller than about a thousandth of a weight.
        parameter.data = parameter.data.float()
    return model


def trainable(model: "torch.nn.Module") -> "dict[str, torch.nn.Parameter]":
    """Return the parameters that training changes, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def decoder_layers(model: "PreTrainedModel") -> "torch.nn.ModuleList":
    """Return a model's decoder layers, the lowest first."""
    import torch

    # They are called `layers`, `blocks` or `h`, but are the decoder's only module list everywhere.
    return next(
        child for child in model.get_decoder().children() if isinstance(child, torch.nn.ModuleList)
    )


def _projections(model: "PreTrainedModel") -> list[str]:
    """Return the names of the matrices that LoRA updates, the paper's if there are such."""
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    for known in (["q_proj", "v_proj"], ["qkv_proj"], ["query_key_value"], ["Wqkv"], ["c_attn"]):
        if names.issuperset(known):
            return known
    raise ValueError(f"lora: {model.config.model_type} has no query and value projections known")


def _layers(model: "PreTrainedModel", layers: Sequence[int]) -> "list[torch.nn.Module]":
    every = decoder_layers(model)
    wanted = sorted({operator.index(i) for i in layers})
    if not wanted or not 0 <= wanted[0] <= wanted[-1] < len(every):
        raise ValueError(
            f"layers={layers}: give some of the decoder layers, which are 0 to {len(every) - 1}"
        )
    return [every[i] for i in wanted]
