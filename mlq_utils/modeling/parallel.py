"""One run in several processes, a GPU each, as `accelerate launch` or `torchrun` starts them.

Every process computes the same run. In training the model's parameters, gradients and optimizer are
sharded over them (FSDP2, `torch.distributed.fsdp.fully_shard`), and so are the examples of a batch;
in translation each process has the whole model and every n-th sentence. Where nothing was launched
there is one process, and all of this does nothing.
"""

import atexit
import copy
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from mlq_utils.modeling.strategies import decoder_layers

T = TypeVar("T")


def count() -> int:
    """Return how many processes there are; 1 where nothing launched more."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return this process's number, from 0."""
    return state().process_index if count() > 1 else 0


@cache
def state() -> PartialState:
    """Return accelerate's state: the group of processes, and this one's device.

    The group is left in order when the process ends: threads that it leaves behind can abort it.
    """
    found = PartialState(cpu=not torch.cuda.is_available())
    if count() > 1:
        atexit.register(_leave)
    return found


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def agreed(value: Callable[[], T]) -> T:
    """Return what the first process finds, in every process: they may not see the same files."""
    if count() == 1:
        return value()
    state()
    return broadcast_object_list([value() if rank() == 0 else None])[0]


def gathered(some: Sequence[T], total: int) -> list[T]:
    """Return what all processes have, where each has every n-th of `total` things."""
    if count() == 1:
        return list(some)
    state()
    parts = gather_object([list(some)])
    return [parts[i % count()][i // count()] for i in range(total)]


def mine(things: Sequence[T]) -> list[T]:
    """Return this process's share: every n-th."""
    return list(things[rank() :: count()])


def summed(value: torch.Tensor) -> torch.Tensor:
    """Return the sum of a tensor over all processes."""
    if count() > 1:
        torch.distributed.all_reduce(value)
    return value


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor that may be sharded as one; every process has to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return this process's shard of a tensor that may be sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor, sharded where another is; every process has to ask."""
    if not isinstance(other, DTensor):
        return tensor
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)


def shard(model: torch.nn.Module, base: torch.nn.Module, precision: str) -> torch.nn.Module:
    """Shard a model over the processes, and return a shell of it for `restored`.

    The decoder and the head are sharded each by itself, as `training.label_loss` calls them.

    Args:
        model: What is trained; where peft wraps it, with its matrices.
        base: The model that it wraps, or itself.
        precision: "bf16" or "fp32", what is computed in; what is trained stays fp32.
    """
    hollow = {id(p): _hollow(p) for p in model.parameters()}
    shell = copy.deepcopy(model, hollow)
    narrow = torch.bfloat16 if precision == "bf16" else None
    options = {
        "mesh": torch.distributed.init_device_mesh(state().device.type, (count(),)),
        "mp_policy": MixedPrecisionPolicy(narrow, torch.float32, cast_forward_inputs=False),
    }
    decoder = base.get_decoder()
    for module in (*decoder_layers(base), decoder, base.get_output_embeddings()):
        fully_shard(module, **options)
    return shell


def restored(shell: torch.nn.Module, model: torch.nn.Module) -> torch.nn.Module:
    """Return a sharded model as it was before, with the weights that it has now."""
    weights = {name: whole(p.detach()) for name, p in model.named_parameters()}
    shell.load_state_dict(weights, assign=True, strict=False)  # it has buffers of its own
    return shell


def _hollow(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    empty = torch.empty_like(parameter, device="meta")
    return torch.nn.Parameter(empty, requires_grad=parameter.requires_grad)


def only() -> bool:
    """Return whether this is the process that writes and prints."""
    return rank() == 0
