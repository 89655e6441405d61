"""Translation with a causal language model: prompts in, hypotheses out; the cap on new tokens.

How the search goes, and what it equals, is told in `mlq_utils.modeling.beam`. Models that it cannot
search (ALiBi, attention windows shorter than a sentence) are searched by transformers itself.
"""

import inspect
import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
import transformers
from transformers import GenerationConfig, PreTrainedModel

from mlq_utils.modeling import distributed
from mlq_utils.modeling.beam import ENGINE, Batch, Output
from mlq_utils.modeling.settings import PAPER_CAP
from mlq_utils.tokenization import tokenizer as tokenizers

__all__ = [
    "ENGINE",
    "PAPER_CAP",
    "Output",
    "beam_search",
    "context_length",
    "generate",
    "scaled_cap",
    "translate",
]


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
        model: A causal language model with attention "sdpa" or "eager", that is told positions,
            and whose attention windows, if any, are no shorter than prompt and cap.
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
    if reason := _unsearchable(model, prompts, caps):
        raise ValueError(f"beam_search cannot search this model: {reason}; generate can")
    # Longest first: lengths within a batch are alike, and what does not fit in memory fails early.
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))

    def search(rows: list[int]) -> list[Output]:
        some = [prompts[i] for i in rows], [caps[i] for i in rows]
        return Batch(model, *some, beam_size).run(eos_id)

    found = _in_batches(model, order, batch_size, search)
    return [found[i] for i in range(len(prompts))]


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    beam_size: int = 4,
    max_new_tokens: int | Sequence[int],
    eos_id: int,
    batch_size: int = 128,
) -> list[Output]:
    """Continue each prompt by transformers' own beam search, slower and for every model.

    Arguments, what is found and errors are those of `beam_search`. What the model's generation
    configuration says (temperatures, penalties) is left out. A score is NaN for one beam.
    """
    prompts, caps = list(map(list, prompts)), _caps(max_new_tokens, len(prompts))
    _check(model, prompts, caps, beam_size, batch_size)
    order = sorted(range(len(prompts)), key=lambda i: (caps[i], len(prompts[i])))
    usual, found = model.generation_config, {}
    try:
        for cap, group in itertools.groupby(order, key=caps.__getitem__):
            model.generation_config = GenerationConfig(
                num_beams=beam_size,
                max_new_tokens=cap,
                eos_token_id=eos_id,
                pad_token_id=eos_id,  # what stands after the end is cut off below
                **({"early_stopping": False, "length_penalty": 1.0} if beam_size > 1 else {}),
            )
            found |= _in_batches(
                model, list(group), batch_size, lambda rows: _generate(model, prompts, rows)
            )
    finally:
        model.generation_config = usual
    return [found[i] for i in range(len(prompts))]


def _in_batches(
    model: PreTrainedModel,
    order: Sequence[int],
    batch_size: int,
    search: Callable[[list[int]], list[Output]],
) -> dict[int, Output]:
    """Search prompts by number, in this order, with the model as it is in use.

    Fewer at once, from there on, where memory ends; in fp32 that changes no result.
    """
    outputs: dict[int, Output] = {}
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            while len(outputs) < len(order):
                rows = list(order[len(outputs) : len(outputs) + batch_size])
                try:
                    outputs |= zip(rows, search(rows), strict=True)
                except torch.OutOfMemoryError:
                    if len(rows) == 1:
                        raise
                    batch_size = len(rows) // 2
                else:
                    continue
                if model.device.type == "cuda":  # only now: the error holds what was computed
                    torch.cuda.empty_cache()
                warnings.warn(
                    f"out of memory with {len(rows)} sentences at once: {batch_size} from here on",
                    stacklevel=4,
                )
    finally:
        model.train(training)
    return outputs


def _generate(model: PreTrainedModel, prompts: list[list[int]], rows: list[int]) -> list[Output]:
    """Search a batch by `model.generate`, under the generation configuration that is set."""
    prompts = [prompts[i] for i in rows]
    eos = model.generation_config.eos_token_id
    width = max(map(len, prompts))
    ids = torch.tensor([[eos] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    found = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        return_dict_in_generate=True,
        output_scores=True,
    )
    scores = getattr(found, "sequences_scores", None)
    scores = [math.nan] * len(prompts) if scores is None else scores.tolist()
    outputs = []
    for new, score in zip(found.sequences[:, width:].tolist(), scores, strict=True):
        finished = eos in new
        outputs.append(Output(new[: new.index(eos)] if finished else new, score, finished))
    return outputs


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
    if model.config.get_text_config().vocab_size < 2 * beam_size:
        raise ValueError(f"{beam_size} beams need a vocabulary of {2 * beam_size} tokens or more")


def _unsearchable(model: PreTrainedModel, prompts: list[list[int]], caps: list[int]) -> str | None:
    """Return why `beam_search` cannot search a model; None where it can."""
    config = model.config.get_text_config()
    if config._attn_implementation not in ("sdpa", "eager"):
        return f"its attention is {config._attn_implementation}, neither sdpa nor eager"
    # A beam's tokens are not side by side in the cache, so what counts places there is misled.
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return f"{config.model_type} takes no positions"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None)
    longest = max(len(p) + cap for p, cap in zip(prompts, caps, strict=True))
    if not kinds <= {"full_attention", "sliding_attention"}:
        return f"its layers attend by {', '.join(sorted(kinds - {'full_attention'}))}"
    if window and window < longest:
        return f"it attends to the last {window} tokens, of {longest}"
    return None


def context_length(model: PreTrainedModel) -> int:
    """Return the most tokens, prompt and continuation together, that the model was made for.

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
        model: Any causal language model: what `beam_search` cannot search, `generate` does.
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
    limits = {i: min(caps[i], room[i]) for i in fit}
    own = not fit or _unsearchable(model, [ids[i] for i in fit], list(limits.values())) is None
    share = distributed.share(fit)
    outputs = share and (beam_search if own else generate)(
        model,
        [ids[i] for i in share],
        beam_size=beam_size,
        max_new_tokens=[limits[i] for i in share],
        eos_id=eos_id,
        batch_size=batch_size,
    )
    outputs = distributed.gather_shares(outputs)
    frame = pd.DataFrame({"hypothesis": "", "tokens": 0, "cap_hit": False}, index=range(len(ids)))
    for i, output in zip(fit, outputs, strict=True):
        text = tokenizer.decode(output.ids).strip()
        frame.loc[i] = [text, len(output.ids) + output.finished, not output.finished]
    frame.attrs = {
        "cap_hit_rate": float(frame["cap_hit"].sum() / max(len(fit), 1)),
        "skipped": [i for i in range(len(ids)) if room[i] <= 0],
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
