"""Settings of a run: strategies, training schedules and the paper's cap. Needs no torch."""

import math
from dataclasses import dataclass

from mlq_utils.data import one_of

STRATEGIES = {
    "embed": "input embeddings only (the paper's Embed FT)",
    "full": "all parameters",
    "lora": "low-rank updates of the query and value projections; of all three where one matrix "
    "holds them",
    "layers": "the decoder layers given, norms included (Tables 14 and 15)",
}
"""What each strategy trains."""

PAPER_CAP = 256
"""Largest number of new tokens in the paper's released code, for every language."""

MINI_RATES = {"embed": 3e-3, "full": 3e-3, "lora": 1e-2, "layers": 3e-3}
"""Learning rates of the mini world. Of two to four rates each, these score best on held-out
languages (Welsh; for full FT also Hindi) and spare the pretraining languages in Embed FT."""


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
