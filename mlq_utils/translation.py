"""Translation with a causal language model: prompts in, hypotheses out; the cap on new tokens.

How the search goes, and what it equals, is told in `mlq_utils.beam`.
"""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel

from mlq_utils import tokenizer as tokenizers
from mlq_utils.beam import ENGINE, Batch, Output

__all__ = [
    "ENGINE",
    "PAPER_CAP",
    "Output",
    "beam_search",
    "context_length",
    "scaled_cap",
    "translate",
]

PAPER_CAP = 256
"""New tokens at most in the paper's released code, whatever the language."""


def beam_search(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    beam_size: int = 4,
    max_new_tokens: int | Sequence[int],
    eos_id: int,
    batch_size: int = 128,
) -> list[Output]:
    """Continue each prompt by its most probable continuation that beam search finds.

    Args:
        model: A causal language model of full attention with attention "sdpa" or "eager".
        prompts: Token ids, any beginning-of-sentence token included; order and lengths are free.
        beam_size: Beams; 1 is greedy decoding.
        max_new_tokens: The cap: how many tokens may be generated, the end-of-sentence token
            included; one number, or one for each prompt.
        eos_id: Id of the end-of-sentence token.
        batch_size: Sentences (not beams) decoded at once.

    Returns:
        One output for each prompt, in the order given.

    Raises:
        ValueError: An empty list or prompt, a prompt and cap longer than the context, a wrong
            number of caps, a number below 1, a model whose attention cannot take a mask of this
            kind, or one that returns NaN.
    """
    prompts, caps = list(map(list, prompts)), _caps(max_new_tokens, len(prompts))
    _check(model, prompts, caps, beam_size, batch_size)
    # Longest first: lengths within a batch are alike, and what does not fit in memory fails early.
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    outputs: dict[int, Output] = {}
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                batch = Batch(model, [prompts[i] for i in rows], [caps[i] for i in rows], beam_size)
                outputs |= zip(rows, batch.run(eos_id), strict=True)
    finally:
        model.train(training)
    return [outputs[i] for i in range(len(prompts))]


def _caps(cap: int | Sequence[int], count: int) -> list[int]:
    """Return a cap for each of `count` prompts; a ValueError unless there are as many, all >= 1."""
    caps = [cap] * count if isinstance(cap, int) else [int(c) for c in cap]
    if len(caps) != count:
        raise ValueError(f"{len(caps)} caps for {count} prompts")
    if caps and min(caps) < 1:
        raise ValueError(f"the cap on new tokens must be 1 or more, not {min(caps)}")
    return caps


def _check(
    model: PreTrainedModel,
    prompts: list[list[int]],
    caps: list[int],
    beam_size: int,
    batch_size: int,
) -> None:
    if not len(prompts):
        raise ValueError("the list of prompts is empty")
    for name, value in (("beam_size", beam_size), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, not {value}")
    context = context_length(model)
    for i, (prompt, cap) in enumerate(zip(prompts, caps, strict=True)):
        if not len(prompt):
            raise ValueError(f"prompt {i} is empty")
        if len(prompt) + cap > context:
            raise ValueError(
                f"prompt {i} has {len(prompt)} tokens: with {cap} new ones it exceeds the model's "
                f"context of {context}"
            )
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    # A window counts positions in the cache, and here beams stand side by side in it.
    if kinds != {"full_attention"} or getattr(config, "sliding_window", None):
        raise ValueError("beam_search needs full attention in every layer")
    if config._attn_implementation not in ("sdpa", "eager"):
        raise ValueError(
            f"beam_search needs attention sdpa or eager, not {config._attn_implementation}: "
            "load the model with attn_implementation='sdpa'"
        )
    if config.vocab_size < 2 * beam_size:
        raise ValueError(f"{beam_size} beams need a vocabulary of {2 * beam_size} tokens or more")


def context_length(model: PreTrainedModel) -> int:
    """Return the most tokens, prompt and continuation together, that the model was made for."""
    return model.config.get_text_config().max_position_embeddings


def translate(
    model: PreTrainedModel,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    beam_size: int = 4,
    cap: int | Sequence[int] = PAPER_CAP,
    batch_size: int = 128,
    bos_id: int | None,
    eos_id: int,
) -> pd.DataFrame:
    """Translate by continuing prompts.

    Args:
        model: See `beam_search`.
        tokenizer: What `mlq_utils.tokenizer.wrap` takes; gives no special tokens of its own.
        prompts: The whole prompt of each sentence, as in tuning.
        beam_size: Beams; the paper uses 4.
        cap: New tokens at most, the end-of-sentence token included; see `scaled_cap`.
        batch_size: Sentences decoded at once.
        bos_id: Id put before each prompt; None for none.
        eos_id: Id of the end-of-sentence token.

    Returns:
        A row a prompt: `hypothesis` (outer whitespace removed), `tokens` generated (the
        end-of-sentence token included) and `cap_hit` (the cap, or the end of the context, ended the
        sentence). A prompt that leaves no room in the context is skipped: its hypothesis is empty,
        its tokens 0. `attrs`: `cap_hit_rate` (0 to 1, of the prompts not skipped), `skipped` (row
        numbers), `cap` (the number, or the smallest and largest), `beam_size`, `engine`,
        `precision` (torch's name of the weights' type: see `modeling.for_translation`).

    Raises:
        ValueError: As `beam_search`.
    """
    prompts = list(prompts)
    if not prompts:
        raise ValueError("the list of prompts is empty")
    tokenizer = tokenizers.wrap(tokenizer)
    start = [] if bos_id is None else [bos_id]
    ids = [start + encoded for encoded in tokenizer.encode(prompts)]
    room = [context_length(model) - len(prompt) for prompt in ids]
    caps = _caps(cap, len(prompts))
    fit = [i for i in range(len(ids)) if room[i] > 0]
    outputs = fit and beam_search(
        model,
        [ids[i] for i in fit],
        beam_size=beam_size,
        max_new_tokens=[min(caps[i], room[i]) for i in fit],
        eos_id=eos_id,
        batch_size=batch_size,
    )
    frame = pd.DataFrame({"hypothesis": "", "tokens": 0, "cap_hit": False}, index=range(len(ids)))
    for i, output in zip(fit, outputs, strict=True):
        text = tokenizer.decode(output.ids).strip()
        frame.loc[i] = [text, len(output.ids) + output.finished, not output.finished]
    frame.attrs = {
        "cap_hit_rate": float(frame["cap_hit"].sum() / max(len(fit), 1)),
        "skipped": [i for i in range(len(ids)) if room[i] <= 0],
        "cap": caps[0] if min(caps) == max(caps) else [min(caps), max(caps)],
        "beam_size": beam_size,
        "engine": ENGINE,
        "precision": str(model.dtype).removeprefix("torch."),
    }
    return frame


def scaled_cap(
    tokenizer: Any, references: Sequence[str], *, factor: float = 1.5, minimum: int = 32
) -> int:
    """Return a cap on new tokens that suits a language and a tokenizer.

    The paper's code stops at 256 tokens in every language, which is less than most sentences of
    Telugu, Lao or Khmer take. Here it is `factor` times the longest of some sentences, rounded up,
    and one more for the end of the sentence. They should come from the training split: a cap from
    the references that are scored would leak their length.

    Args:
        tokenizer: What `mlq_utils.tokenizer.wrap` takes.
        references: Sentences in the language.
        factor: How much longer than the longest of them a translation may be.
        minimum: The least that is returned.

    Raises:
        ValueError: No sentence is given.
    """
    if not len(references):
        raise ValueError("the list of references is empty")
    longest = max(map(len, tokenizers.wrap(tokenizer).encode(list(references))))
    return max(minimum, math.ceil(factor * longest) + 1)
