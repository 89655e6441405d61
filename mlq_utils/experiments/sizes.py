"""How large a model is, by its configuration alone: operations, memory, what a strategy trains."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mlq_utils import modeling

if TYPE_CHECKING:
    import torch
    from transformers.utils import ModelOutput

LLAMA = "huggyllama/llama-7b"
"""The paper's base. The defaults of `LlamaConfig` are its numbers, so no network is needed."""
TOKENS = 256
"""Number of tokens in the example whose operations are counted."""
AT_ONCE = 2048
"""Number of tokens in a micro-batch, for the peak of memory. Training starts with whole batches and
halves them until they fit, so a card with less room than for this many is too small."""
KEPT = 32.2
"""Bytes per token and unit of width that a layer of LLaMA's shape keeps for its backward pass, in
bf16 and without the scores of attention, as counted on a CPU."""
KEPT_FOR_WEIGHTS = {"embed": 0.0, "lora": 2.1, "full": 13.4, "layers": 13.4, "rows": 0.0}
"""Bytes that it keeps in addition, by strategy, if weights of its own are trained."""


@dataclass(frozen=True)
class Size:
    """What a model is in numbers, and what a strategy trains of it.

    Attributes:
        matrices: Number of parameters in matrices, without the input embeddings. Translation reads
            them at every step.
        trained: Number of parameters that the strategy trains, including those that LoRA adds.
        forward_flops: Operations per token of a forward pass over `TOKENS` tokens.
        step_flops: Operations per token of a training step, forward and backward.
        cache: Numbers kept per token for those that follow it: keys and values.
        memory: Bytes of a GPU at the peak of training, with micro-batches of `AT_ONCE` tokens.
    """

    matrices: int
    trained: int
    forward_flops: float
    step_flops: float
    cache: int
    memory: int


@cache
def size(
    base: str, strategy: str, layers: tuple[int, ...] | None = None, revision: str | None = None
) -> Size:
    """Return the size of a base model without loading its weights.

    Operations are counted by torch's `FlopCounterMode` on the meta device, so that any architecture
    can be planned, and nothing is computed.

    Args:
        base: Base model, as `modeling.load` takes it. LLaMA-7B needs no network.
        strategy: Training strategy, as `modeling.prepare` takes it.
        layers: Layers to train, for the strategy "layers".
        revision: Commit of a base on the Hub.

    Raises:
        FileNotFoundError, ConnectionError: As `modeling.configuration`.
        ValueError: The strategy is unknown, the model lacks a layer, or its forward pass looks at
            values, so that its operations cannot be counted.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model, whole, output, forward = _forward(base, revision, strategy == "lora")
    if strategy != "lora":
        modeling.prepare(model, strategy, layers=layers)
    trained = list(modeling.trainable(model).values())
    with FlopCounterMode(display=False) as backward:
        torch.autograd.grad(output.logits.sum(), trained, retain_graph=True)
    embeddings, config = model.get_input_embeddings().weight, model.config.get_text_config()
    attended = getattr(output.get("past_key_values"), "layers", ())  # none without attention

    def in_matrices(weights: "Sequence[torch.Tensor]") -> int:
        return sum(w.numel() for w in weights if w.ndim > 1 and w is not embeddings)

    every, changed = (sum(weight.numel() for weight in some) for some in (whole, trained))
    # What is trained takes 4 bytes in fp32, 4 for its gradient, 8 for AdamW's moments and, in a
    # matrix, 2 for the bf16 copy that is computed with; what is not takes 2.
    states = 2 * (every - changed) + 16 * changed + 2 * in_matrices(trained)
    own = layers or range(config.num_hidden_layers)  # below the lowest of them nothing is kept
    kept = KEPT * (config.num_hidden_layers - min(own)) + KEPT_FOR_WEIGHTS[strategy] * len(own)
    activations = round(kept * config.hidden_size * AT_ONCE)
    return Size(
        matrices=in_matrices(whole),
        trained=changed,
        forward_flops=forward / TOKENS,
        step_flops=(forward + backward.get_total_flops()) / TOKENS,
        cache=sum(kept.keys.numel() + kept.values.numel() for kept in attended) // TOKENS,
        memory=states + activations,
    )


@cache
def _forward(
    base: str, revision: str | None, lora: bool
) -> "tuple[torch.nn.Module, list[torch.nn.Parameter], ModelOutput, int]":
    """Return a model, its parameters without LoRA's, its output and the operations of that.

    The output keeps its graph, from which the backward pass of each strategy is counted.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM, LlamaConfig

    known = base == LLAMA and not Path(base).is_dir()
    config = LlamaConfig() if known else modeling.configuration(base, revision)
    config.tie_word_embeddings = False
    # Meta tensors have no values, at which these defaults would look.
    config.pad_token_id, config._experts_implementation = None, "batched_mm"
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        whole = list(model.parameters())
        model = modeling.prepare(model, "lora" if lora else "full")
        try:
            with FlopCounterMode(display=False) as counter:
                ids = torch.zeros(1, TOKENS, dtype=torch.long)
                output = model(input_ids=ids, use_cache=True)
        except RuntimeError as error:
            raise ValueError(f"{base}: its operations cannot be counted: {error}") from error
    return model, whole, output, counter.get_total_flops()
