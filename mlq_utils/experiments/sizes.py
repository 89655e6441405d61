"""How large a model is, by its configuration alone: operations, memory, what a strategy trains."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig
from transformers.pytorch_utils import Conv1D

from mlq_utils import modeling

KNOWN = {
    "huggyllama/llama-7b": LlamaConfig(
        vocab_size=32_000,
        hidden_size=4096,
        intermediate_size=11_008,
        num_hidden_layers=32,
        num_attention_heads=32,
        max_position_embeddings=2048,
    )
}
"""Configurations that need no network: the paper's base (Touvron et al. 2023, Table 2)."""


@dataclass(frozen=True)
class Size:
    """What a model is in numbers, and what a strategy trains of it.

    Attributes:
        parameters: All.
        matmul: Those that a token is multiplied by, the head's included.
        trained: Those that the strategy trains, LoRA's own included.
        trained_matmul: Those of them that a token is multiplied by.
        flops_per_token: Of a step of tuning: 2 a parameter forward, 2 for the gradient of what goes
            into a matrix where anything below it is trained, 2 for that of the matrix where it is
            trained. In all 6 `matmul` for full FT, 4 for Embed FT. Attention's own products are
            left out: for LLaMA-7B, 2% with 500 tokens.
        cache: Numbers kept of a token for those that follow it, keys and values.
        layers: Decoder layers.
        width: Of the hidden state.
    """

    parameters: int
    matmul: int
    trained: int
    trained_matmul: int
    flops_per_token: int
    cache: int
    layers: int
    width: int


@cache
def size(
    base: str, strategy: str, layers: tuple[int, ...] | None = None, revision: str | None = None
) -> Size:
    """Return the size of a base model, by its configuration alone.

    Args:
        base: What `modeling.load` takes, and keys of `KNOWN`.
        strategy: What `modeling.prepare` takes.
        layers: For the strategy "layers".
        revision: Of a base on the Hub.

    Raises:
        FileNotFoundError: There is no such model.
        ConnectionError: The Hub cannot be reached.
        ValueError: Unknown strategy, layers that the model has not, or a model whose matrices are
            not all layers of their own, as in a mixture of experts.
    """
    config = _config(base, revision)
    config.tie_word_embeddings = False
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        parameters = sum(p.numel() for p in model.parameters())
        model = modeling.prepare(model, strategy, layers=layers)
        try:
            products = _products(model)
        except RuntimeError as error:
            raise ValueError(f"{base}: its operations cannot be counted: {error}") from error
    rest = parameters - model.get_input_embeddings().weight.numel()
    if (found := sum(n for n, _, _ in products)) < rest / 2:
        raise ValueError(
            f"{base}: its operations cannot be counted: of {rest:,} parameters beside embeddings "
            f"only {found:,} are in linear layers"
        )
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Size(
        parameters=parameters,
        matmul=found,
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        trained_matmul=sum(n for n, weight, _ in products if weight),
        flops_per_token=sum(2 * n * (1 + weight + below) for n, weight, below in products),
        cache=2 * heads * head * text.num_hidden_layers,
        layers=text.num_hidden_layers,
        width=text.hidden_size,
    )


def _products(model: torch.nn.Module) -> list[tuple[int, bool, bool]]:
    """Return of each matrix its size, and whether it and what goes into it have a gradient."""
    found = []

    def note(module: torch.nn.Module, given: tuple[torch.Tensor, ...], _: Any) -> None:
        weight = module.weight
        found.append((weight.numel(), weight.requires_grad, given[0].requires_grad))

    hooks = [
        module.register_forward_hook(note)
        for module in model.modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
    ]
    model(input_ids=torch.zeros(1, 2, dtype=torch.long))
    for hook in hooks:
        hook.remove()
    return found


def _config(base: str, revision: str | None) -> PreTrainedConfig:
    if about := modeling.saved_as(Path(base).expanduser()):
        return _config(about["base"], about["revision"])
    if base in KNOWN and not Path(base).expanduser().is_dir():
        return KNOWN[base].__class__.from_dict(KNOWN[base].to_dict())
    return modeling.configuration(base, revision)


def memory(model: Size, tokens_at_once: int) -> float:
    """Return the peak in tuning on a GPU, in bytes.

    What is trained: 4 bytes a parameter in fp32, as many for its gradient, 8 for AdamW's moments,
    and for a matrix 2 for the copy that is computed with; what is not: 2. And activations, without
    gradient checkpointing: 34 bytes a token, layer and unit of width (Korthikanti et al. 2022,
    equation 2, but for attention's scores, which fused attention does not keep).
    """
    states = 2 * (model.parameters - model.trained) + 16 * model.trained + 2 * model.trained_matmul
    return states + 34 * model.layers * model.width * tokens_at_once
