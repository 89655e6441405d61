"""What each of the paper's strategies trains in a model."""

import operator
from collections.abc import Sequence

import peft
import torch
from transformers import PreTrainedModel

from mlq_utils.data import one_of
from mlq_utils.modeling.settings import STRATEGIES


def prepare(
    model: PreTrainedModel,
    strategy: str,
    *,
    layers: Sequence[int] | None = None,
    lora_rank: int = 8,
    lora_alpha: int = 16,
    seed: int = 0,
) -> PreTrainedModel | peft.PeftModel:
    """Set `requires_grad` for the parameters that a strategy trains, and for no others.

    Args:
        model: A model with an untied head, as `load` returns it. It is changed in place.
        strategy: A key of `STRATEGIES`.
        layers: Indices of decoder layers from 0, for the strategy "layers" only.
        lora_rank: Rank for "lora". Defaults to 8, as in the paper.
        lora_alpha: Scale for "lora", without dropout. Defaults to 16, as in the paper.
        seed: Random seed for the first matrix of "lora"; the second is zero. Defaults to 0.

    Returns:
        The model, for "lora" wrapped by peft. Trained parameters are fp32, whatever the others are.

    Raises:
        ValueError: Unknown strategy, tied head, or layers missing, out of range or not asked for.
        TypeError: The model is wrapped by peft already, or an index is not an integer.
    """
    one_of("strategy", strategy, STRATEGIES)
    if isinstance(model, peft.PeftModel):
        raise TypeError("the model is wrapped by peft already: prepare the one inside it")
    if (layers is None) == (strategy == "layers"):
        raise ValueError(f"strategy {strategy!r} with layers={layers}: give layers for 'layers'")
    if model.get_output_embeddings().weight is model.get_input_embeddings().weight:
        raise ValueError("the head is tied to the input embeddings; load() unties it")
    chosen = _layers(model, layers) if layers is not None else []
    model.requires_grad_(strategy == "full")
    if strategy == "embed":
        model.get_input_embeddings().requires_grad_(True)
    for layer in chosen:
        layer.requires_grad_(True)
    if strategy == "lora":
        config = peft.LoraConfig(
            r=lora_rank,
            lora_alpha=lora_alpha,
            target_modules=_projections(model),
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = peft.get_peft_model(model, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            # bf16 would lose updates smaller than about a thousandth of a weight.
            parameter.data = parameter.data.float()
    return model


def trainable(model: torch.nn.Module) -> list[str]:
    """Return the names of the parameters that training changes."""
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def decoder_layers(model: PreTrainedModel) -> torch.nn.ModuleList:
    """Return a model's decoder layers, the lowest first."""
    # They are called `layers`, `blocks` or `h`, but are the decoder's only module list everywhere.
    return next(
        child for child in model.get_decoder().children() if isinstance(child, torch.nn.ModuleList)
    )


def _projections(model: PreTrainedModel) -> list[str]:
    """Return the names of the matrices that LoRA updates, the paper's if there are such."""
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    for known in (["q_proj", "v_proj"], ["qkv_proj"], ["query_key_value"], ["Wqkv"], ["c_attn"]):
        if names.issuperset(known):
            return known
    raise ValueError(f"lora: {model.config.model_type} has no query and value projections known")


def _layers(model: PreTrainedModel, layers: Sequence[int]) -> list[torch.nn.Module]:
    every = decoder_layers(model)
    wanted = sorted({operator.index(i) for i in layers})
    if not wanted or not 0 <= wanted[0] <= wanted[-1] < len(every):
        raise ValueError(
            f"layers={layers}: give some of the decoder layers, which are 0 to {len(every) - 1}"
        )
    return [every[i] for i in wanted]
