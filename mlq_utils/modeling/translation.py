"""Translation with a causal language model: prompts in, hypotheses out."""

import inspect
import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Literal
from weakref import WeakKeyDictionary

import pandas as pd
import torch
import transformers
from accelerate.utils import gather_object
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedModel

from mlq_utils import tokenization
from mlq_utils.modeling import distributed
from mlq_utils.modeling.beam import ENGINE, STEPS, Batch, Output
from mlq_utils.modeling.memory import halving, phase
from mlq_utils.modeling.precision import attention
from mlq_utils.modeling.strategies import PAPER_CAP

SHARE = 0.8
"""Share of the free memory of a GPU that the keys and values of a search may take."""
_FITTED: WeakKeyDictionary[PreTrainedModel, int] = WeakKeyDictionary()
"""Numbers of sentences that fitted when the memory for a model had run out."""


@torch.inference_mode()
def beam_search(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    beam_size: int = 4,
    max_new_tokens: int | Sequence[int],
    eos_id: int,
    batch_size: int | None = None,
    engine: Literal["own", "generate"] = "own",
) -> list[Output]:
    """Continue each prompt by the most probable continuation that beam search finds.

    Args:
        model: A causal language model.
        prompts: Token ids of each prompt, including BOS if the model wants one.
        beam_size: Number of beams; 1 is greedy decoding. Defaults to 4.
        max_new_tokens: Largest number of new tokens, EOS included: one number, or one per prompt.
        eos_id: Id of the end-of-sentence token.
        batch_size: Number of sentences searched at once, halved when memory runs out. In fp32 it
            does not change the result. Defaults to 128 on a CPU and to what fits into a GPU's free
            memory, at most 256, or to what fitted for this model when memory ran out before.
        engine: "own" (the default) for `beam.Batch`, which cannot search models with ALiBi or with
            attention windows shorter than a sentence; "generate" for transformers' search, slower
            but for every model. Its scores are NaN for one beam.

    Returns:
        One output per prompt, in the order of the prompts.

    Raises:
        ValueError: An empty list or prompt, a prompt too long for the context, a wrong number of
            caps, a number below 1, or a model that cannot be searched or that returns NaN.
    """
    caps = _caps(max_new_tokens, len(prompts))
    prompts, longest = _checked(model, prompts, caps, beam_size, batch_size)
    if engine == "own" and (reason := _unsearchable(model, longest)):
        raise ValueError(f"the package's beam search cannot search this model: {reason}")
    # Largest first: lengths within a batch are similar, and what does not fit fails early.
    order = sorted(range(len(prompts)), key=lambda i: (-caps[i], -len(prompts[i])))
    most = batch_size or _fitting(model, longest, beam_size, engine)
    outputs, size, training = [], min(most, len(order)), model.training

    def search(size: int) -> list[Output]:
        rows = order[len(outputs) :][:size]
        some = [prompts[i] for i in rows], [caps[i] for i in rows]
        if engine == "generate":
            return _generate(model, *some, beam_size, eos_id)
        with attention(model, model.dtype):
            return Batch(model, *some, beam_size).run(eos_id)

    model.eval()
    try:
        while len(outputs) < len(order):
            with phase("translating one sentence at a time", "give fewer beams or a lower cap"):
                found, fitted = halving(search, size, "sentences")
            if fitted < size:
                size = _FITTED[model] = fitted
            outputs += found
    finally:
        model.train(training)
    return [output for _, output in sorted(zip(order, outputs, strict=True))]


def _fitting(model: PreTrainedModel, longest: int, beam_size: int, engine: str) -> int:
    """Return how many sentences of at most `longest` tokens to search at once."""
    if model.device.type != "cuda":
        return _FITTED.get(model, 128)
    # Beams share all but their last tokens, and `generate` keeps each apart.
    places = longest + 2 * STEPS * beam_size if engine == "own" else longest * beam_size
    config = model.config.get_text_config()
    place = 2 * config.num_hidden_layers * config.hidden_size * model.dtype.itemsize
    unused = torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    free = torch.cuda.mem_get_info(model.device)[0] + unused
    return max(1, min(_FITTED.get(model, 256), int(SHARE * free / (place * places))))


def _generate(
    model: PreTrainedModel, prompts: list[list[int]], caps: list[int], beam_size: int, eos_id: int
) -> list[Output]:
    """Search one batch by `model.generate`."""
    outputs, usual = [], model.generation_config
    beams = {"early_stopping": False, "length_penalty": 1.0} if beam_size > 1 else {}
    for cap, group in groupby(zip(prompts, caps, strict=True), key=lambda pair: pair[1]):
        same = [prompt for prompt, _ in group]
        ids = pad_sequence([torch.tensor(p) for p in same], True, eos_id, "left")
        mask = pad_sequence([torch.ones(len(p), dtype=torch.long) for p in same], True, 0, "left")
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
            found = model.generate(ids.to(model.device), attention_mask=mask.to(model.device))
        finally:
            model.generation_config = usual
        scores = found.sequences_scores.tolist() if beam_size > 1 else [math.nan] * len(same)
        for new, score in zip(found.sequences[:, ids.shape[1] :].tolist(), scores, strict=True):
            finished = eos_id in new
            outputs.append(Output(new[: new.index(eos_id)] if finished else new, score, finished))
    return outputs


def _caps(cap: int | Sequence[int], count: int) -> list[int]:
    """Return the cap of each of `count` prompts."""
    caps = [cap] * count if isinstance(cap, int) else list(map(int, cap))
    if not count:
        raise ValueError("the list of prompts is empty")
    if len(caps) != count:
        raise ValueError(f"{len(caps)} caps for {count} prompts")
    if min(caps) < 1:
        raise ValueError(f"the cap on new tokens must be 1 or more, not {min(caps)}")
    return caps


def _checked(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    caps: list[int],
    beam_size: int,
    batch_size: int | None,
) -> tuple[list[list[int]], int]:
    """Return prompts as lists, and the most tokens, or raise the errors of `beam_search`."""
    for name, value in (("beam_size", beam_size), ("batch_size", batch_size)):
        if value is not None and value < 1:
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
    return list(map(list, prompts)), max(len(p) + c for p, c in zip(prompts, caps, strict=True))


def _unsearchable(model: PreTrainedModel, longest: int) -> str | None:
    """Return why the package's own search cannot search so many tokens, or None if it can."""
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
        bos_id: Id put before each prompt, or None.
        eos_id: Id of the end-of-sentence token.

    Returns:
        One row per prompt: `hypothesis` (empty for a prompt that leaves no room in the context),
        `tokens` (number generated, EOS included) and `cap_hit` (whether the cap or the end of the
        context ended the sentence). `attrs` holds `cap_hit_rate` (of rows with room), `skipped`
        (rows without), `cap` (or smallest and largest), `beam_size`, `engine` and `precision`.

    Raises:
        ValueError: As `beam_search`.
    """
    caps = _caps(cap, len(prompts))
    tokenizer, start = tokenization.wrap(tokenizer), [] if bos_id is None else [bos_id]
    ids = [start + encoded for encoded in tokenizer.encode(list(prompts))]
    limits = [min(c, context_length(model) - len(p)) for p, c in zip(ids, caps, strict=True)]
    fit = [i for i, limit in enumerate(limits) if limit > 0]
    own = not _unsearchable(model, max((len(ids[i]) + limits[i] for i in fit), default=0))
    outputs = []
    if share := distributed.share(fit):
        outputs = beam_search(
            model,
            [ids[i] for i in share],
            beam_size=beam_size,
            max_new_tokens=[limits[i] for i in share],
            eos_id=eos_id,
            engine="own" if own else "generate",
        )
    rows = [("", 0, False)] * len(ids)
    for i, found in zip(fit, gather_object(outputs), strict=True):
        text = tokenizer.decode(found.ids).strip()
        rows[i] = text, len(found.ids) + found.finished, not found.finished
    frame = pd.DataFrame(rows, columns=["hypothesis", "tokens", "cap_hit"])
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
