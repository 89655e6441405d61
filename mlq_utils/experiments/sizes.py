"""How large a model is, by its configuration alone: operations, memory, what a strategy trains."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mlq_utils import modeling

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

KNOWN = {
    "huggyllama/llama-7b": {
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
    }
}
"""LLaMA configurations that need no network: the paper's base (Touvron et al. 2023, Table 2)."""
TOKENS = 256
"""Number of tokens in the example whose operations are counted."""


@dataclass(frozen=True)
class Size:
    """What a model is in numbers, and what a strategy trains of it.

    Attributes:
        parameters: Number of parameters of the model, without those that LoRA adds.
        matrices: Number of parameters in matrices, without the input embeddings. Translation reads
            them at every step.
        trained: Number of parameters that the strategy trains, including those that LoRA adds.
        trained_matrices: Number of those that are in matrices, without the input embeddings.
        forward_flops: Operations per token of a forward pass over `TOKENS` tokens.
        step_flops: Operations per token of a training step, forward and backward.
        cache: Numbers kept per token for those that follow it: keys and values.
        layers: Number of decoder layers.
        width: Size of the hidden state.
    """

    parameters: int
    matrices: int
    trained: int
    trained_matrices: int
    forward_flops: float
    step_flops: float
    cache: int
    layers: int
    width: int


@cache
def size(
    base: str, strategy: str, layers: tuple[int, ...] | None = None, revision: str | None = None
) -> Size:
    """Return the size of a base model without loading its weights.

    Operations are counted by torch's `FlopCounterMode` on the meta device, so that any architecture
    can be planned, and nothing is computed.

    Args:
        base: Base model, as `modeling.load` takes it, or a key of `KNOWN`.
        strategy: Training strategy, as `modeling.prepare` takes it.
        layers: Layers to train, for the strategy "layers".
        revision: Commit of a base on the Hub.

    Raises:
        FileNotFoundError: There is no such model.
        ConnectionError: The Hub cannot be reached.
        ValueError: The strategy is unknown, the model lacks a layer, or its forward pass looks at
            values, so that its operations cannot be counted.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    config = _config(base, revision)
    config.tie_word_embeddings = False
    # Meta tensors have no values, at which these defaults would look.
    config.pad_token_id, config._experts_implementation = None, "batched_mm"
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        embeddings, whole = model.get_input_embeddings().weight, list(model.parameters())
        model = modeling.prepare(model, strategy, layers=layers)
        try:
            with FlopCounterMode(display=False) as counter:
                logits = model(input_ids=torch.zeros(1, TOKENS, dtype=torch.long)).logits
                forward = counter.get_total_flops()
                logits.sum().backward()
        except RuntimeError as error:
            raise ValueError(f"{base}: its operations cannot be counted: {error}") from error
    trained = [weight for weight in model.parameters() if weight.requires_grad]

    def in_matrices(weights: list[torch.Tensor]) -> int:
        return sum(w.numel() for w in weights if w.ndim > 1 and w is not embeddings)

    text = config.get_text_config()
    return Size(
        parameters=sum(weight.numel() for weight in whole),
        matrices=in_matrices(whole),
        trained=sum(weight.numel() for weight in trained),
        trained_matrices=in_matrices(trained),
        forward_flops=forward / TOKENS,
        step_flops=counter.get_total_flops() / TOKENS,
        cache=_cache(text),
        layers=text.num_hidden_layers,
        width=text.hidden_size,
    )


def _cache(config: "PreTrainedConfig") -> int:
    """Return how many numbers attention keeps per token, which is none without attention."""
    heads = getattr(config, "num_attention_heads", 0)
    if not heads:
        return 0
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return 2 * kept * width * config.num_hidden_layers


def _config(base: str, revision: str | None) -> "PreTrainedConfig":
    folder = Path(base).expanduser()
    if about := modeling.saved_as(folder):
        return _config(about["base"], about["revision"])
    if base in KNOWN and not folder.is_dir():
        from transformers import LlamaConfig

        return LlamaConfig(**KNOWN[base])
    return modeling.configuration(base, revision)


def memory(model: Size, tokens_at_once: int) -> float:
    """Return the peak of a GPU's memory during training, in bytes.

    A trained parameter takes 4 bytes in fp32, 4 for its gradient, 8 for AdamW's moments and, in a
    matrix, 2 for the bf16 copy that is computed with; any other parameter takes 2. Activations take
    34 bytes per token, layer and unit of width, without gradient checkpointing (Korthikanti et al.
    2022, equation 2, less the scores of attention, which fused attention does not keep).
    """
    fixed = 2 * (model.parameters - model.trained)
    states = fixed + 16 * model.trained + 2 * model.trained_matrices
    return states + 34 * model.layers * model.width * tokens_at_once
