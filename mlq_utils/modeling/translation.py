"""Translation with a causal language model: prompts in, hypotheses out.

`beam_search` is the package's own search (see `mlq_utils.modeling.beam`). Models that it cannot
search, because of ALiBi or attention windows shorter than a sentence, go to `generate`.
"""

import inspect
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
import transformers
from accelerate.utils import gather_object
from transformers import GenerationConfig, PreTrainedModel

from mlq_utils import tokenization
from mlq_utils.modeling import distributed
from mlq_utils.modeling.beam import ENGINE, Batch, Output
from mlq_utils.modeling.memory import halving
from mlq_utils.modeling.strategies import PAPER_CAP


def beam_search(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    beam_size: int = 4,
    max_new_tokens: int | Sequence[int],
    eos_id: int,
    batch_size: int = 128,
) -> list[Output]:
    """Continue each prompt by the most probable continuation that beam search finds.

    Args:
        model: A causal language model with "sdpa" or "eager" attention that takes position ids, and
            whose attention windows, if any, hold prompt and new tokens.
        prompts: Token ids of each prompt, including BOS if the model wants one.
        beam_size: Number of beams; 1 is greedy decoding. Defaults to 4.
        max_new_tokens: Largest number of new tokens, EOS included: one number, or one per prompt.
        eos_id: Id of the end-of-sentence token.
        batch_size: Number of sentences searched at once, halved when memory runs out. In fp32 it
            does not change the result. Defaults to 128.

    Returns:
        One output per prompt, in the order of the prompts.

    Raises:
        ValueError: An empty list or prompt, a prompt that exceeds the context with its new tokens,
            a wrong number of caps, a number below 1, or a model that cannot be searched or that
            returns NaN.
    """
    prompts, caps = _checked(model, prompts, max_new_tokens, beam_size, batch_size)
    longest = max(len(p) + cap for p, cap in zip(prompts, caps, strict=True))
    if reason := _unsearchable(model, longest):
        raise ValueError(f"beam_search cannot search this model: {reason}; generate can")

    def search(rows: list[int]) -> list[Output]:
        some = [prompts[i] for i in rows], [caps[i] for i in rows]
        return Batch(model, *some, beam_size).run(eos_id)

    # Longest first: lengths within a batch are similar, and what does not fit fails early.
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    return _in_batches(model, order, batch_size, search)


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    beam_size: int = 4,
    max_new_tokens: int | Sequence[int],
    eos_id: int,
    batch_size: int = 128,
) -> list[Output]:
    """Continue each prompt by transformers' own beam search, which is slower but for every model.

    Arguments, results and errors are those of `beam_search`. The model's generation configuration
    (temperatures, penalties) is ignored. Scores are NaN for one beam.
    """
    prompts, caps = _checked(model, prompts, max_new_tokens, beam_size, batch_size)

    def search(rows: list[int]) -> list[Output]:
        found = []
        for cap, same in itertools.groupby(rows, key=caps.__getitem__):
            found += _generate(model, [prompts[i] for i in same], beam_size, cap, eos_id)
        return found

    order = sorted(range(len(prompts)), key=lambda i: (caps[i], len(prompts[i])))
    return _in_batches(model, order, batch_size, search)


def _generate(
    model: PreTrainedModel, prompts: list[list[int]], beam_size: int, cap: int, eos_id: int
) -> list[Output]:
    """Search one batch by `model.generate`."""
    width = max(map(len, prompts))
    ids = torch.tensor([[eos_id] * (width - len(p)) + p for p in prompts], device=model.device)
    seen = torch.arange(width)[None] >= torch.tensor([[width - len(p)] for p in prompts])
    beams = {"early_stopping": False, "length_penalty": 1.0} if beam_size > 1 else {}
    usual = model.generation_config
    # A configuration given as an argument would be completed from that of the model.
    model.generation_config = GenerationConfig(
        num_beams=beam_size,
        max_new_tokens=cap,
        eos_token_id=eos_id,
        pad_token_id=eos_id,  # everything after the first EOS is cut off below
        return_dict_in_generate=True,
        output_scores=True,
        **beams,
    )
    try:
        found = model.generate(input_ids=ids, attention_mask=seen.long().to(model.device))
    finally:
        model.generation_config = usual
    scores = found.sequences_scores.tolist() if beam_size > 1 else [math.nan] * len(prompts)
    outputs = []
    for new, score in zip(found.sequences[:, width:].tolist(), scores, strict=True):
        finished = eos_id in new
        outputs.append(Output(new[: new.index(eos_id)] if finished else new, score, finished))
    return outputs


@torch.inference_mode()
def _in_batches(
    model: PreTrainedModel,
    order: Sequence[int],
    batch_size: int,
    search: Callable[[list[int]], list[Output]],
) -> list[Output]:
    """Search prompts, given by number, in batches; return their outputs by number."""
    size, outputs, training = min(batch_size, len(order)), {}, model.training
    model.eval()
    try:
        while rest := order[len(outputs) :]:
            found, size = halving(lambda n, rest=rest: search(rest[:n]), size, "sentences")
            outputs |= zip(rest, found, strict=False)
    finally:
        model.train(training)
    return [outputs[i] for i in range(len(order))]


def _caps(cap: int | Sequence[int], count: int) -> list[int]:
    """Return the cap of each of `count` prompts."""
    caps = [cap] * count if isinstance(cap, int) else [int(c) for c in cap]
    if len(caps) != count:
        raise ValueError(f"{len(caps)} caps for {count} prompts")
    if caps and min(caps) < 1:
        raise ValueError(f"the cap on new tokens must be 1 or more, not {min(caps)}")
    return caps


def _checked(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int | Sequence[int],
    beam_size: int,
    batch_size: int,
) -> tuple[list[list[int]], list[int]]:
    """Return prompts and caps as lists, or raise the errors of `beam_search`."""
    prompts, caps = list(map(list, prompts)), _caps(max_new_tokens, len(prompts))
    if not prompts:
        raise ValueError("the list of prompts is empty")
    for name, value in (("beam_size", beam_size), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, not {value}")
    context = context_length(model)
    for i, (prompt, cap) in enumerate(zip(prompts, caps, strict=True)):
        if not prompt:
            raise ValueError(f"prompt {i} is empty")
        if len(prompt) + cap > context:
            raise ValueError(
                f"prompt {i} has {len(prompt)} tokens: with {cap} new ones it exceeds the model's "
                f"context of {context}"
            )
    if model.config.get_text_config().vocab_size < 2 * beam_size:
        raise ValueError(f"{beam_size} beams need a vocabulary of {2 * beam_size} tokens or more")
    return prompts, caps


def _unsearchable(model: PreTrainedModel, longest: int) -> str | None:
    """Return why `beam_search` cannot search a model up to this length, or None if it can."""
    config = model.config.get_text_config()
    if config._attn_implementation not in ("sdpa", "eager"):
        return f"its attention is {config._attn_implementation}, neither sdpa nor eager"
    # The tokens of a beam are not neighbours in the cache, so models must not count places there.
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return f"{config.model_type} takes no positions"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if other := kinds - {"full_attention", "sliding_attention"}:
        return f"its layers attend by {', '.join(sorted(other))}"
    window = getattr(config, "sliding_window", None)
    if window and window < longest:
        return f"it attends to the last {window} tokens, of {longest}"
    return None


def context_length(model: PreTrainedModel) -> int:
    """Return the largest number of tokens, prompt and continuation, that a model was made for.

    Raises:
        ValueError: The configuration does not say.
    """
    config = model.config.get_text_config()
    for name in ("max_position_embeddings", "max_seq_len", "seq_length"):  # MPT's, BLOOM's
        if length := getattr(config, name, None):
            return length
    raise ValueError(
        f"the configuration of {config.model_type} does not say how long a text may be: add "
        "max_position_embeddings to its config.json"
    )


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
        model: Any causal language model.
        tokenizer: What `tokenization.wrap` takes. It must not add special tokens.
        prompts: The whole prompt of each sentence, as in tuning.
        beam_size: Number of beams. Defaults to 4, as in the paper.
        cap: Largest number of new tokens, see `scaled_cap`. Defaults to 256, as in the paper.
        batch_size: Number of sentences searched at once. Defaults to 128.
        bos_id: Id put before each prompt, or None.
        eos_id: Id of the end-of-sentence token.

    Returns:
        One row per prompt: `hypothesis` (stripped), `tokens` (number generated, EOS included) and
        `cap_hit` (whether the cap or the end of the context ended the sentence). Prompts that leave
        no room in the context are skipped and have an empty hypothesis. `attrs` holds
        `cap_hit_rate` (0 to 1, skipped ones excluded), `skipped` (row numbers), `cap` (the number,
        or the smallest and largest), `beam_size`, `engine`, and `precision` (type of the weights).

    Raises:
        ValueError: As `beam_search`.
    """
    if not len(prompts):
        raise ValueError("the list of prompts is empty")
    tokenizer, caps = tokenization.wrap(tokenizer), _caps(cap, len(prompts))
    start = [] if bos_id is None else [bos_id]
    ids = [start + encoded for encoded in tokenizer.encode(list(prompts))]
    room = context_length(model)
    limits = [min(cap, room - len(prompt)) for cap, prompt in zip(caps, ids, strict=True)]
    fit = [i for i, limit in enumerate(limits) if limit > 0]
    own = not _unsearchable(model, max((len(ids[i]) + limits[i] for i in fit), default=0))
    found, share = [], distributed.share(fit)
    if share:
        found = (beam_search if own else generate)(
            model,
            [ids[i] for i in share],
            beam_size=beam_size,
            max_new_tokens=[limits[i] for i in share],
            eos_id=eos_id,
            batch_size=batch_size,
        )
    frame = pd.DataFrame({"hypothesis": "", "tokens": 0, "cap_hit": False}, index=range(len(ids)))
    for i, output in zip(fit, gather_object(found), strict=True):
        text = tokenizer.decode(output.ids).strip()
        frame.loc[i] = [text, len(output.ids) + output.finished, not output.finished]
    frame.attrs = {
        "cap_hit_rate": float(frame["cap_hit"].sum() / max(len(fit), 1)),
        "skipped": [i for i, limit in enumerate(limits) if limit <= 0],
        "cap": caps[0] if min(caps) == max(caps) else [min(caps), max(caps)],
        "beam_size": beam_size,
        "engine": ENGINE if own else f"transformers {transformers.__version__} generate",
        "precision": str(model.dtype).removeprefix("torch."),
    }
    return frame


def scaled_cap(
    tokenizer: Any, references: Sequence[str], *, factor: float = 1.5, minimum: int = 32
) -> int:
    """Return a cap on new tokens that suits a language and a tokenizer.

    The paper's code stops at 256 tokens in every language, which is less than most sentences of
    Telugu, Lao or Khmer take. This cap is `factor` times the longest reference, and EOS.

    Args:
        tokenizer: What `tokenization.wrap` takes.
        references: Sentences in the language. They should come from the training split, since a
            cap from the references that are scored would leak their length.
        factor: Length allowed, relative to the longest reference. Defaults to 1.5.
        minimum: Smallest cap. Defaults to 32.

    Raises:
        ValueError: There are no references.
    """
    if not len(references):
        raise ValueError("the list of references is empty")
    longest = max(map(len, tokenization.wrap(tokenizer).encode(list(references))))
    return max(minimum, math.ceil(factor * longest) + 1)
