"""Tuning data as a model reads it: encoded, cut into batches of similar length, and labelled."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from peft import PeftModel
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from mlq_utils.modeling.loading import Model

IGNORED = -100
"""Label of tokens that are not trained on, as in transformers."""
WINDOW = 16
"""Number of batches within which examples are sorted by length: little padding, much chance."""


@dataclass(frozen=True)
class Examples:
    """Encoded prompts with their targets.

    Attributes:
        ids: For each example, the ids of BOS, prompt, target and EOS.
        prompts: For each example, the number of ids that come before the target.
        skipped: Number of pairs that were left out because they are longer than the block.
    """

    ids: list[list[int]] = field(repr=False)
    prompts: list[int] = field(repr=False)
    skipped: int

    def labels(self, indices: Iterable[int]) -> int:
        """Return the number of tokens that some examples train."""
        return sum(len(self.ids[i]) - self.prompts[i] for i in indices)


def examples(frame: pd.DataFrame, base: Model, block: int = 1024) -> Examples:
    """Encode prompts and targets.

    Args:
        frame: Columns `prompt` and `target`.
        base: The model whose tokenizer and special ids are used.
        block: Longest example in tokens, at most the model's context. Defaults to 1024.

    Raises:
        ValueError: There are no pairs, one has no text (its row is named), or all are too long.
    """
    if frame.empty:
        raise ValueError("no pairs to tune on: the frame is empty")
    for column in ("prompt", "target"):
        wrong = [i for i, text in frame[column].items() if not isinstance(text, str)]
        if wrong:
            raise ValueError(f"row {wrong[0]} of the tuning data has no text in {column!r}")
    block = min(block, getattr(base.model.config, "max_position_embeddings", block))
    start = [] if base.bos is None else [base.bos]
    # Prompt and target are encoded separately, so that the prompt has the ids of inference.
    prompts = [start + ids for ids in base.tokenizer.encode(list(frame["prompt"]))]
    targets = [[*ids, base.eos] for ids in base.tokenizer.encode(list(frame["target"]))]
    pairs = [(p, t) for p, t in zip(prompts, targets, strict=True) if len(p) + len(t) <= block]
    if not pairs:
        raise ValueError(f"all {len(frame):,} pairs are longer than {block:,} tokens")
    skipped = len(frame) - len(pairs)
    return Examples([p + t for p, t in pairs], [len(p) for p, _ in pairs], skipped)


def batches(lengths: Sequence[int], size: int, seed: int, epoch: int = 0) -> list[list[int]]:
    """Return the batches of an epoch as lists of indices, similar lengths together.

    Args:
        lengths: Length of each example.
        size: Number of examples per batch.
        seed: Random seed for the order of examples and of batches.
        epoch: Number of the epoch, from 0. Each has an order of its own.
    """
    # Python promises that `random` gives the same numbers in later versions, but not `shuffle`.
    draw = random.Random(f"batches {seed} {epoch}").random
    order = sorted(range(len(lengths)), key=[draw() for _ in lengths].__getitem__)
    found = []
    for start in range(0, len(order), size * WINDOW):
        alike = sorted(order[start : start + size * WINDOW], key=lengths.__getitem__)
        found += [alike[i : i + size] for i in range(0, len(alike), size)]
    return sorted(found, key=lambda _: draw())


def collate(
    data: Examples, indices: Sequence[int], pad: int, rows: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ids and labels of a batch, padded on the right.

    Args:
        data: The examples.
        indices: Indices of the examples of the batch.
        pad: Id of the padding token.
        rows: Least number of rows. Missing ones are padding, which trains nothing.

    Returns:
        Two integer tensors of shape (rows, longest example). Labels are `IGNORED` for prompts and
        padding.
    """
    known = [(data.ids[i], data.prompts[i]) for i in indices]
    known += [([pad, pad], 2)] * (rows - len(known))
    ids = [torch.tensor(tokens) for tokens, _ in known]
    # Masked by position and never by token: EOS is trained even where it is also the padding.
    labels = [torch.tensor([IGNORED] * prompt + tokens[prompt:]) for tokens, prompt in known]
    return pad_sequence(ids, True, pad), pad_sequence(labels, True, IGNORED)


def label_loss(
    model: PreTrainedModel | PeftModel, ids: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Return the loss of `model(ids, labels=labels)`, with the head computed at labels only.

    The head is 30 to 50% of a model of 3 million parameters, and much memory at 7 billion.

    Args:
        model: A causal language model, wrapped by peft or not.
        ids: Token ids of shape (examples, tokens), padded on the right.
        labels: Labels of the same shape, `IGNORED` where nothing is trained.
    """
    model = model.get_base_model() if isinstance(model, PeftModel) else model
    targets = labels[:, 1:]
    trained = targets != IGNORED

    def select(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        return inputs[0][:, :-1][trained.to(inputs[0].device)]

    # A hook, because the head is not all: Gemma 2 caps its logits, Granite scales them.
    with model.get_output_embeddings().register_forward_pre_hook(select):
        # No attention mask: padding is on the right, where causal attention cannot see it.
        logits = model(input_ids=ids, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.float(), targets[trained], reduction="sum")
    return loss / trained.sum().clamp(min=1)
