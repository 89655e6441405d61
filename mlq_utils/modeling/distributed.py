"""The device that a run is computed on, and runs in several processes with one GPU each.

`accelerate launch` or `torchrun` starts the processes, and each computes the same run. In training
the model's parameters, gradients and optimizer state are sharded over them (FSDP2), and so are the
examples of a batch. In translation each process has the whole model and a share of the sentences.
Without a launcher there is one process, and all functions here work the same.
"""

import atexit
import copy
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, broadcast_object_list
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from mlq_utils.modeling.strategies import decoder_layers

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others before it gives up."""
SETTLING = 0.5
"""Seconds that the threads of a group get at the end, since leaving does not end them. One that
gives back a tensor when the interpreter has ended aborts the process ("terminate called …")."""

# Batches differ in shape, which would leave holes between blocks of memory. Torch reads this when
# CUDA starts, unless PYTORCH_CUDA_ALLOC_CONF is set.
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")


@cache
def state() -> PartialState:
    """Return accelerate's state: `num_processes`, `process_index`, `is_main_process`, `device`."""
    found = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    # Registered after torch's own functions, this one is called before them.
    atexit.register(_leave)
    return found


def _leave() -> None:
    """Leave the group of processes, whose threads can abort a process that they outlive.

    After an error the others may still wait for this one. Leaving would wait for them in turn, so
    the process ends at once: then the others are told that it is gone.
    """
    if not torch.distributed.is_initialized():
        return
    if hasattr(sys, "last_value"):  # the interpreter has shown an error
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
    torch.distributed.destroy_process_group()
    time.sleep(SETTLING)


if hasattr(os, "register_at_fork"):
    # Processes that are launched from a notebook must not take over the state of the notebook.
    os.register_at_fork(after_in_child=lambda: (state.cache_clear(), PartialState._reset_state()))


def fast_bf16(device: torch.device) -> bool:
    """Return whether a device computes faster in bf16 than in fp32; older processors do not."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)


def placement() -> tuple[torch.device, torch.dtype]:
    """Return the device for runs, and the type in which weights are loaded there.

    Returns:
        This process's GPU, or the CPU if there is none; and bf16 on a GPU that computes in it,
        otherwise fp32. Parameters that are trained become fp32 in any case (`modeling.prepare`).

    Raises:
        RuntimeError: There is a GPU, but it cannot compute.
    """
    device = state().device
    try:
        torch.ones(2, device=device).sum().item()  # nothing before this needs a driver and kernels
    except (RuntimeError, AssertionError) as error:  # the latter from a torch without CUDA
        raise RuntimeError(
            f"the GPU cannot compute ({str(error).splitlines()[0]}): install a driver and a torch "
            "that fit it, or set CUDA_VISIBLE_DEVICES= to compute on the processor"
        ) from error
    narrow = device.type == "cuda" and fast_bf16(device)
    return device, torch.bfloat16 if narrow else torch.float32


def hardware() -> str:
    """Return a description of the hardware of this process, as records name it."""
    processor = f"{os.cpu_count()} {platform.machine()} cores, {torch.get_num_threads()} threads"
    if not torch.cuda.is_available():
        return processor
    gpus = f"{state().num_processes} x {torch.cuda.get_device_name()}".removeprefix("1 x ")
    return f"{processor}, {gpus}"


def broadcast_from_main(value: Callable[[], T]) -> T:
    """Call a function in the main process and return its result in every process.

    Processes on several machines need not see the same files, so only one of them looks.
    """
    return broadcast_object_list([value() if state().is_main_process else None])[0]


def share(things: Sequence[T]) -> list[T]:
    """Return this process's share of some things, in order; `accelerate.gather_object` joins them.

    Unlike that of `PartialState.split_between_processes` it is empty where there are too few.
    """
    size = -(-len(things) // state().num_processes)
    start = size * state().process_index
    return list(things[start : start + size])


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor unsharded. Every process has to call this for a sharded one."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def from_main(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return a tensor of the main process on the device of another, and sharded as that is.

    Every process has to call this, with any tensor of the same shape and type.
    """
    tensor = tensor.to(other.device)
    if not isinstance(other, DTensor):
        return broadcast(tensor)
    return distribute_tensor(tensor, other.device_mesh, other.placements)


def shard(model: torch.nn.Module, base: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """Shard a model over the processes.

    Args:
        model: The model that is trained, with peft's matrices if it has any. Changed in place.
        base: The model inside peft's wrapper, or the same model.
        dtype: Type to compute in. The shards stay fp32 where trained.

    Returns:
        An unsharded copy of the model without weights, for `unshard`.
    """
    empty = {
        id(p): torch.nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
        for p in model.parameters()
    }
    shell = copy.deepcopy(model, empty)
    mesh = torch.distributed.init_device_mesh(state().device.type, (state().num_processes,))
    policy = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
    # Embeddings are looked up as they are, see `precision.computing_in`.
    fully_shard(base.get_input_embeddings(), mesh=mesh)
    for module in (*decoder_layers(base), base.get_decoder(), base.get_output_embeddings()):
        fully_shard(module, mesh=mesh, mp_policy=policy)
    return shell


def unshard(shell: torch.nn.Module, model: torch.nn.Module) -> torch.nn.Module:
    """Return the copy that `shard` made, with the weights that the sharded model has now."""
    weights = {name: whole(p.detach()) for name, p in model.named_parameters()}
    shell.load_state_dict(weights, assign=True, strict=False)  # buffers are the copy's own
    return shell.to(state().device)
