"""How a model reads sentences that it does not translate: their bits, and its hidden states."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from mlq_utils.modeling.batches import IGNORED, Examples, collate
from mlq_utils.modeling.loading import Model
from mlq_utils.modeling.memory import halving
from mlq_utils.modeling.translation import context_length

AT_ONCE = 16
"""Number of sentences that are read at once, halved when memory runs out."""


def bits(base: Model, sentences: Sequence[str]) -> np.ndarray:
    """Return how many bits a model needs for each sentence, from one forward pass.

    The bits are the negative log2 of the sentence's probability at the beginning of a text, which
    BOS opens, or EOS in models that have no BOS. Divided by the number of characters they can be
    compared between tokenizers. Sentences longer than the context are missing (NaN).
    """

    def compute(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = base.model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        nats = cross_entropy(logits.mT, labels[:, 1:], ignore_index=IGNORED, reduction="none")
        return nats.sum(1) / math.log(2)

    found = np.full(len(sentences), np.nan)
    for i, value in _read(base, sentences, compute):
        found[i] = value.item()
    return found


def states(base: Model, sentences: Sequence[str]) -> np.ndarray:
    """Return the hidden states of each sentence, averaged over its tokens.

    Returns:
        An array of shape (layers + 1, sentences, width), whose first layer is the embeddings.
        Sentences longer than the context are missing (NaN).
    """

    def compute(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        decoder, kept = base.model.get_decoder(), (labels != IGNORED)[..., None]
        layers = decoder(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
        return torch.stack([(each * kept).sum(1) / kept.sum(1) for each in layers], 1).float()

    found = dict(_read(base, sentences, compute))
    blank = np.full_like(next(iter(found.values())).cpu(), np.nan)
    rows = [found[i].cpu().numpy() if i in found else blank for i in range(len(sentences))]
    return np.stack(rows, axis=1)


@torch.inference_mode()
def _read(
    base: Model,
    sentences: Sequence[str],
    compute: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield the index of each sentence that fits, and what is computed of its ids and labels."""
    start, context = base.eos if base.bos is None else base.bos, context_length(base.model)
    ids = [[start, *row] for row in base.tokenizer.encode(list(sentences))]
    data = Examples(ids, [1] * len(ids), 0)
    # Padding is on the right, where causal attention cannot see it.
    order = sorted(
        (i for i, row in enumerate(ids) if 1 < len(row) <= context), key=lambda i: -len(ids[i])
    )

    def some(size: int) -> list[torch.Tensor]:
        given, labels, _ = collate(data, [[i] for i in order[done : done + size]], base.pad)
        return list(compute(given.to(base.model.device), labels.to(base.model.device)))

    done, size = 0, AT_ONCE
    while done < len(order):
        found, size = halving(some, size, "sentences")
        yield from zip(order[done : done + len(found)], found, strict=True)
        done += len(found)
