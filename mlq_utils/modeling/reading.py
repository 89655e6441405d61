"""How a model reads sentences that it does not translate: their bits, and its hidden states."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from mlq_utils.modeling.batches import IGNORED, Examples, collate
from mlq_utils.modeling.loading import Model
from mlq_utils.modeling.memory import halving
from mlq_utils.modeling.translation import context_length

AT_ONCE = 16
"""Number of sentences that are read at once, halved when memory runs out."""


@torch.inference_mode()
def read(
    base: Model,
    sentences: Sequence[str],
    prompts: Sequence[str] | None = None,
    *,
    hidden: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bits of each sentence and its mean hidden states, from one forward pass.

    Args:
        base: The model.
        sentences: What is read.
        prompts: What stands before each sentence. Defaults to nothing.
        hidden: Whether to keep the hidden states, which take far more memory than the bits. Without
            them, they are all missing. Defaults to True.

    Returns:
        Two arrays, in which sentences longer than the context are missing (NaN). The first has the
        negative log2 of each sentence's probability after its prompt at the beginning of a text,
        which BOS opens, or EOS in models without BOS. The second is of shape (layers + 1,
        sentences, width), the
        embeddings first, and has the means over the tokens of a sentence.
    """
    start, context = base.eos if base.bos is None else base.bos, context_length(base.model)
    texts = base.tokenizer.encode(list(sentences))
    before = base.tokenizer.encode(list(prompts)) if prompts else [[]] * len(texts)
    ids = [[start, *first, *row] for first, row in zip(before, texts, strict=True)]
    fit = [i for i, row in enumerate(ids) if len(row) <= context]
    order = sorted(fit, key=lambda i: -len(ids[i]))
    data = Examples(ids, [1 + len(first) for first in before], 0)
    bits, states, size = {}, {}, AT_ONCE

    def some(size: int) -> None:
        rows = order[len(bits) :][:size]
        # Padding is on the right, where causal attention cannot see it.
        batch = collate(data, [[i] for i in rows], base.pad)[:2]
        given, labels = (each.to(base.model.device) for each in batch)
        out = base.model(input_ids=given, output_hidden_states=hidden, use_cache=False)
        logits = out.logits[:, :-1].float().mT
        nats = cross_entropy(logits, labels[:, 1:], ignore_index=IGNORED, reduction="none").sum(1)
        kept = (labels != IGNORED)[..., None]
        means = [(layer * kept).sum(1) / kept.sum(1) for layer in out.hidden_states or ()]
        if means:
            states.update(zip(rows, torch.stack(means, 1).float().cpu().numpy(), strict=True))
        bits.update(zip(rows, (nats / math.log(2)).tolist(), strict=True))

    while len(bits) < len(order):
        _, size = halving(some, size, "sentences")
    blank = np.full_like(next(iter(states.values()), np.zeros((1, 1))), np.nan)
    every = range(len(ids))
    means = np.stack([states.get(i, blank) for i in every], axis=1)
    return np.array([bits.get(i, np.nan) for i in every]), means
