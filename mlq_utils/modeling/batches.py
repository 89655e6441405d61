"""Tuning data as a model reads it: encoded, drawn in batches, cut by length, and labelled."""

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from accelerate.utils import gather_object
from peft import PeftModel
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from mlq_utils.modeling import distributed
from mlq_utils.modeling.loading import Model

IGNORED = -100
"""Label of tokens that are not trained on, as in transformers."""
OVERHEAD = 300
"""What a micro-batch costs beyond its tokens, in tokens. Of 60, 160, 300 and 500, it and the next
make training of the mini base fastest on a CPU. It must not depend on the machine, since sums
in another order are rounded differently."""
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


def micro_batches(lengths: Sequence[int], limit: float = math.inf) -> list[slice]:
    """Cut a batch into micro-batches of similar length, which are computed one after another.

    Of all cuts it is the one with the fewest tokens, those of padding and `OVERHEAD` included.

    Args:
        lengths: Length of each example of the batch, the longest first.
        limit: Largest number of tokens of a micro-batch, padding included. A longer example is
            computed alone. Defaults to no limit.
    """
    best = [(0, 0)]  # the least cost of the first examples, and where their last part starts
    for end in range(1, len(lengths) + 1):
        tokens = [(end - start) * lengths[start] for start in range(end)]
        starts = [start for start in range(end) if tokens[start] <= limit] or [end - 1]
        best.append(min((best[start][0] + tokens[start] + OVERHEAD, start) for start in starts))
    found, end = [], len(lengths)
    while end:
        found.insert(0, slice(best[end][1], end))
        end = best[end][1]
    return found


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
    decoder, rows = model.get_decoder(), model.get_output_embeddings().weight.shape[0]
    name = next(name for name, child in model.named_children() if child is decoder)
    targets = labels[:, 1:]
    trained = targets != IGNORED
    # No attention mask: padding is on the right, where causal attention cannot see it.
    hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][trained]

    def loss(hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        # The model goes on from what is given, since the head is not all: Gemma 2 caps its logits.
        given = torch.nn.Identity()
        given.forward = lambda *_, **__: BaseModelOutputWithPast(last_hidden_state=hidden[None])
        setattr(model, name, given)
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
