"""Precision: what is computed in bf16, and what stays in fp32.

Only this file casts weights. Buffers are never cast: rounded to bf16, the frequencies of rotary
embeddings are off by up to 0.4%, and an angle at position 300 by 0.4 rad.
"""

import contextlib
import copy
import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.distributed.tensor import DTensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from mlq_utils.data import one_of
from mlq_utils.modeling.distributed import fast_bf16

if TYPE_CHECKING:
    from mlq_utils.modeling.loading import Model

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
"""The type of each precision."""


def choose_precision(
    model: torch.nn.Module, precision: str = "auto", device: torch.device | None = None
) -> str:
    """Return the precision to compute in, "bf16" or "fp32".

    Args:
        model: The model.
        precision: "bf16", "fp32", or "auto" for bf16 if it is fast on the device or if some weights
            are narrower than fp32 anyway. Defaults to "auto".
        device: Device of the computation. Defaults to that of the model.

    Raises:
        ValueError: Unknown precision, or fp32 for a model with narrower weights.
    """
    one_of("precision", precision, ("auto", *DTYPES))
    narrow = any(p.dtype != torch.float32 for p in model.parameters())
    if precision == "fp32" and narrow:
        raise ValueError("precision 'fp32' needs fp32 weights: load the model with that dtype")
    if precision == "auto":
        return "bf16" if narrow or fast_bf16(device or model.device) else "fp32"
    return precision


def cast(model: torch.nn.Module, dtype: torch.dtype, *, frozen: bool = False) -> None:
    """Cast all weights of a model in place, or those that are `frozen`."""
    for weight in model.parameters():  # one by one, so that no other is held twice meanwhile
        if not (frozen and weight.requires_grad):
            weight.data = weight.data.to(dtype)


def for_translation(base: "Model", precision: str = "auto") -> "Model":
    """Return a model to translate with, which is a copy with bf16 weights where that is faster.

    Beam search in bf16 takes two thirds of the time on processors that are fast at it, and finds
    another translation for about one sentence in fifty.

    Args:
        base: The model. Weights that are in bf16 already are shared with the copy.
        precision: See `choose_precision`. Defaults to "auto".
    """
    dtype = DTYPES[choose_precision(base.model, precision)]
    if all(weight.dtype == dtype for weight in base.model.parameters()):
        return base
    # Given to `deepcopy` as copied already, so that buffers alone are copied as they are.
    weights = {
        id(weight): torch.nn.Parameter(weight.detach().to(dtype), weight.requires_grad)
        for weight in base.model.parameters()
    }
    return dataclasses.replace(base, model=copy.deepcopy(base.model, weights))


@contextlib.contextmanager
def attention(model: PreTrainedModel, dtype: torch.dtype) -> Iterator[None]:
    """Compute attention by what is fastest on the model's device, for ever new shapes."""
    usual = model.config._attn_implementation
    if dtype == torch.bfloat16 and model.device.type == "cpu":
        # In bf16 torch 2.13's fused kernel takes twice the time of plain products on a CPU, and
        # with the backward pass five times.
        model.set_attn_implementation("eager")
    # Without cuDNN, which torch prefers on Hopper: it plans for some 30 ms at each new shape.
    kernels = SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH
    try:
        with sdpa_kernel(list(kernels)):
            yield
    finally:
        model.set_attn_implementation(usual)


@contextlib.contextmanager
def computing_in(model: PreTrainedModel, dtype: torch.dtype) -> Iterator[None]:
    """Put copies in the place of a model's weights, whose gradients the weights themselves get.

    Autocast would cast matrices alone, and the residual stream would have the type of embeddings.
    Here all weights are cast, as FSDP casts those of a shard. What embeddings return is cast, and
    not they themselves: on a CPU their gradients in bf16 would be rounded at each token.

    Args:
        model: The model, without peft's wrapper.
        dtype: Type of the copies.
    """
    embeddings = model.get_input_embeddings()
    places = [
        (module, name, weight)
        for module in model.modules()
        for name, weight in module.named_parameters(recurse=False)
        if weight.dtype != dtype and weight is not embeddings.weight
        if not isinstance(weight, DTensor)  # FSDP casts it
    ]

    def add(weight: torch.nn.Parameter, copied: torch.nn.Parameter) -> None:
        new, copied.grad = copied.grad.to(weight.dtype), None
        weight.grad = new if weight.grad is None else weight.grad.add_(new)

    try:
        for module, name, weight in places:
            copied = torch.nn.Parameter(weight.detach().to(dtype), weight.requires_grad)
            if weight.requires_grad:
                copied.register_post_accumulate_grad_hook(partial(add, weight))
            setattr(module, name, copied)
        hook = embeddings.register_forward_hook(lambda _, ids, found: found.to(dtype))
        with hook, attention(model, dtype):
            yield
    finally:
        for module, name, weight in places:
            setattr(module, name, weight)
