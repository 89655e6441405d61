"""Settings of a run: strategies, the training schedule and the cap. Needs no torch."""

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
"""New tokens at most in the paper's released code, whatever the language."""

MINI_RATES = {"embed": 3e-3, "full": 3e-3, "lora": 1e-2, "layers": 3e-3}
"""The mini world's learning rates. Of two to four rates each, those with the best score on
held-out languages (Welsh; for full FT also Hindi) that spare the pretraining languages in Embed FT.
"""


@dataclass(frozen=True)
class Schedule:
    """How long, in what steps and at what rate a model is tuned. AdamW, cosine to zero.

    Attributes:
        learning_rate: The highest rate.
        epochs: Passes over the data.
        batch_size: Examples a step.
        warmup_steps: Steps of linear warm-up; below 1 a share of all steps.
        weight_decay: Of AdamW.
        max_grad_norm: Gradients are scaled down to this norm.
        block: The longest example, in tokens; longer ones are skipped and counted.
        seed: Decides the order of examples and the start of LoRA.
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
        """Return the mini world's schedule for a strategy, with the changes given."""
        one_of("strategy", strategy, STRATEGIES)
        return cls(**{"learning_rate": MINI_RATES[strategy]} | changes)

    @classmethod
    def paper(cls, strategy: str, **changes: float) -> "Schedule":
        """Return the paper's schedule (section 3, and its released scripts) for a strategy."""
        rate = 1e-4 if one_of("strategy", strategy, STRATEGIES) == "lora" else 2e-5
        own = {"learning_rate": rate, "batch_size": 128, "warmup_steps": 0.03, "seed": 42}
        return cls(**own | changes)

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step of so many, counted from 0, as transformers does."""
        warmup = self.warmup_steps
        warmup = math.ceil(warmup * steps) if warmup < 1 else warmup
        if step < warmup:
            return self.learning_rate * step / warmup
        done = (step - warmup) / max(1, steps - warmup)
        return self.learning_rate * max(0.0, 0.5 * (1 + math.cos(math.pi * done)))
