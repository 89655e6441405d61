"""Tuning data as a model reads it: encoded, cut into batches of like length, labelled."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch

from mlq_utils.modeling.loading import Model

IGNORED = -100
"""The label of what is not trained, as in transformers."""
WINDOW = 16
"""Batches are made of like lengths within this many batches: little padding, much chance."""


@dataclass(frozen=True)
class Examples:
    """Encoded prompts with their targets.

    Attributes:
        ids: For each example BOS, prompt, target and EOS.
        prompts: For each example how many of these come before the target.
        skipped: How many pairs were longer than the block, and left out.
    """

    ids: list[list[int]] = field(repr=False)
    prompts: list[int] = field(repr=False)
    skipped: int

    def labels(self, indices: Iterable[int]) -> int:
        """Return how many tokens of some examples are trained on."""
        return sum(len(self.ids[i]) - self.prompts[i] for i in indices)


def examples(frame: pd.DataFrame, base: Model, block: int = 1024) -> Examples:
    """Encode prompts and targets: BOS, prompt, target, EOS.

    Prompt and target are encoded apart, so that the prompt's ids are those of inference.

    Args:
        frame: Columns `prompt` and `target`.
        base: The model whose tokenizer and special ids are used.
        block: The longest example, in tokens; no longer than the model's context in any case.

    Raises:
        ValueError: There are no pairs, one is no text (its row is named), or all are too long.
    """
    if frame.empty:
        raise ValueError("no pairs to tune on: the frame is empty")
    for column in ("prompt", "target"):
        wrong = [i for i, text in frame[column].items() if not isinstance(text, str)]
        if wrong:
            raise ValueError(f"row {wrong[0]} of the tuning data has no text in {column!r}")
    block = min(block, getattr(base.model.config, "max_position_embeddings", block))
    start = [] if base.bos is None else [base.bos]
    prompts = [start + ids for ids in base.tokenizer.encode(list(frame["prompt"]))]
    targets = [[*ids, base.eos] for ids in base.tokenizer.encode(list(frame["target"]))]
    pairs = [(p, t) for p, t in zip(prompts, targets, strict=True) if len(p) + len(t) <= block]
    if not pairs:
        raise ValueError(f"all {len(frame):,} pairs are longer than {block:,} tokens")
    skipped = len(frame) - len(pairs)
    return Examples([p + t for p, t in pairs], [len(p) for p, _ in pairs], skipped)


def batches(lengths: Sequence[int], size: int, seed: int, epoch: int = 0) -> list[list[int]]:
    """Return the indices of each batch of an epoch: like lengths together, in random order."""
    draw = random.Random(f"batches {seed} {epoch}").random  # only this is promised to stay the same
    order = sorted(range(len(lengths)), key=[draw() for _ in lengths].__getitem__)
    found = []
    for start in range(0, len(order), size * WINDOW):
        alike = sorted(order[start : start + size * WINDOW], key=lengths.__getitem__)
        found += [alike[i : i + size] for i in range(0, len(alike), size)]
    return sorted(found, key=lambda _: draw())


def collate(
    data: Examples, indices: Sequence[int], pad: int, rows: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and labels of a batch, padded on the right.

    Args:
        data: The examples.
        indices: Those of the batch.
        pad: The id that fills up.
        rows: How many rows there should be; what lacks is padding, of which nothing is trained.

    Returns:
        Two integer tensors of shape (examples, longest of them); prompts and padding are `IGNORED`
        in the labels, found by position, so that EOS is trained even where it also pads.
    """
    longest = max((len(data.ids[i]) for i in indices), default=2)
    shape = max(len(indices), rows), longest
    ids, labels = torch.full(shape, pad), torch.full(shape, IGNORED)
    for row, i in enumerate(indices):
        tokens, prompt = torch.tensor(data.ids[i]), data.prompts[i]
        ids[row, : len(tokens)] = tokens
        labels[row, prompt : len(tokens)] = tokens[prompt:]
    return ids, labels
