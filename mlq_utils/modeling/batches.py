"""Tuning data as a model reads it: encoded, drawn in batches, packed into rows, and labelled."""

import inspect
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from accelerate.utils import gather_object
from peft import PeftModel
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from mlq_utils.modeling import distributed
from mlq_utils.modeling.loading import Model

IGNORED = -100
"""Label of tokens that are not trained on, as in transformers."""
ROW = 128
"""Least number of tokens that a row of several examples may have. Of 96 to 384, it and 96 make
training of the mini base fastest on a CPU. Longer rows are padded less and attend to more."""
LOGITS = 2**27
"""Largest number of logits that are computed at once, which take 14 bytes each, 2 GB in all."""


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


def batches(count: int, size: int, seed: int, epoch: int = 0) -> list[list[int]]:
    """Return the batches of an epoch as lists of indices, drawn at random.

    Args:
        count: Number of examples.
        size: Number of examples per batch. The last one has what is left.
        seed: Random seed for the order.
        epoch: Number of the epoch, from 0. Each has an order of its own.
    """
    # Python promises that `random` gives the same numbers in later versions, but not `shuffle`.
    draw = random.Random(f"batches {seed} {epoch}").random
    order = sorted(range(count), key=[draw() for _ in range(count)].__getitem__)
    return [order[start : start + size] for start in range(0, count, size)]


def pack(lengths: Sequence[int], length: int) -> list[list[int]]:
    """Put examples into few rows: the longest first, each into the first row that has room.

    Args:
        lengths: Length of each example.
        length: Largest length of a row of several examples. With 0 each has a row of its own.

    Returns:
        For each row, the indices of its examples.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        row = next((n for n, left in enumerate(room) if left >= lengths[i]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(length)
        rows[row].append(i)
        room[row] -= lengths[i]
    return rows


def collate(
    data: Examples, rows: Sequence[Sequence[int]], pad: int, shape: tuple[int, int] = (0, 0)
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the ids, labels and positions of rows of examples, padded on the right.

    Args:
        data: The examples.
        rows: For each row, the indices of its examples.
        pad: Id of the padding token.
        shape: Least number of rows and of tokens. What is missing is padding.

    Returns:
        Three integer tensors of shape (rows, longest row). Labels are `IGNORED` for prompts and
        padding. Positions start from 0 in each example.
    """
    longest = max((sum(len(data.ids[i]) for i in row) for row in rows), default=0)
    count, length = max(len(rows), shape[0]), max(longest, shape[1])
    ids, labels = torch.full((count, length), pad), torch.full((count, length), IGNORED)
    positions = torch.arange(length).repeat(count, 1)
    for n, row in enumerate(rows):
        end = 0
        for i in row:
            start, end = end, end + len(data.ids[i])
            ids[n, start:end] = torch.tensor(data.ids[i])
            # Masked by position and never by token: EOS is trained even where it is the padding.
            labels[n, start + data.prompts[i] : end] = ids[n, start + data.prompts[i] : end]
            positions[n, start:end] -= start
        positions[n, end:] -= end
    return ids, labels, positions


def keeps_apart(model: PreTrainedModel | PeftModel, first: list[int], second: list[int]) -> bool:
    """Return whether a model computes the same for an example that has others in its row.

    Most do if positions start anew in each. Recurrent layers do not, nor does ALiBi.

    Args:
        model: A causal language model, wrapped by peft or not, without dropout.
        first: Ids of the example that stands before the other one.
        second: Ids of the other one, whose hidden states are compared.
    """
    decoder = _unwrapped(model).get_decoder()
    if "position_ids" not in inspect.signature(decoder.forward).parameters:
        return False
    ids = torch.tensor([first + second], device=model.device)
    places = torch.tensor([[*range(len(first)), *range(len(second))]], device=model.device)
    with torch.no_grad():
        alone = decoder(input_ids=ids[:, len(first) :], use_cache=False).last_hidden_state
        found = decoder(input_ids=ids, position_ids=places, use_cache=False).last_hidden_state
    difference = (found[:, len(first) :] - alone).abs().mean() / alone.abs().mean()
    return bool(difference < 0.05)  # rounding to bf16 is well below, and another example above


def _unwrapped(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    return model.get_base_model() if isinstance(model, PeftModel) else model


def label_loss(
    model: PreTrainedModel | PeftModel,
    ids: torch.Tensor,
    labels: torch.Tensor,
    positions: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the loss of `model(ids, labels=labels)`, with the head computed at labels only.

    The head is 30 to 50% of a model of 3 million parameters, and much memory at 7 billion.

    Args:
        model: A causal language model, wrapped by peft or not.
        ids: Token ids of shape (examples, tokens), padded on the right.
        labels: Labels of the same shape, `IGNORED` where nothing is trained.
        positions: Positions of the same shape if rows hold several examples, which are kept apart
            by the positions that start anew (see `keeps_apart`).
    """
    model = _unwrapped(model)
    decoder, rows = model.get_decoder(), model.get_output_embeddings().weight.shape[0]
    name = next(name for name, child in model.named_children() if child is decoder)
    targets = labels[:, 1:]
    trained = targets != IGNORED
    # No attention mask: padding is on the right, where causal attention cannot see it.
    given = {} if positions is None else {"position_ids": positions}
    hidden = decoder(input_ids=ids, use_cache=False, **given).last_hidden_state[:, :-1][trained]

    def loss(hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        # The model goes on from what is given, since the head is not all: Gemma 2 caps its logits.
        known = torch.nn.Identity()
        known.forward = lambda *_, **__: BaseModelOutputWithPast(last_hidden_state=hidden[None])
        setattr(model, name, known)
        try:
            logits = model(input_ids=ids).logits[0]
        finally:
            setattr(model, name, decoder)
        return cross_entropy(logits.float(), targets, reduction="sum")

    targets = targets[trained]
    most = len(targets)
    if distributed.state().num_processes > 1:  # each call of the head gathers its shards from all
        most = max(gather_object([most]))
    count = math.ceil(most / max(1, LOGITS // rows))
    if count <= 1:
        return loss(hidden, targets) / max(1, len(targets))
    # The logits of a part are dropped, and computed again in the backward pass.
    parts = zip(hidden.tensor_split(count), targets.tensor_split(count), strict=True)
    found = sum(checkpoint(loss, *part, use_reentrant=False) for part in parts)
    return found / max(1, len(targets))
