"""A training run's state in one safetensors file, whole or not there; nothing is pickled.

One file, so that weights, the optimizer's moments and the step counter can never be of different
moments: the counters are JSON in its header.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mlq_utils.data import atomic_write
from mlq_utils.modeling import parallel as _parallel


def identity(model: torch.nn.Module, *description: Any) -> str:
    """Return a hash of what a run is, by which its checkpoint is known.

    Args:
        model: The model before training. Of its weights, which can be 28 GB, a sample is hashed.
        *description: What else decides the result, as JSON can hold it.
    """
    digest = hashlib.sha256(json.dumps(description).encode())
    for name, weight in model.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)} {weight.requires_grad}".encode())
        sample = weight.detach().flatten()[:: max(1, weight.numel() // 1024)]
        digest.update(sample.float().cpu().numpy().tobytes())
    return digest.hexdigest()


def save(
    path: Path,
    run: str,
    state: Mapping[str, Any],
    weights: Mapping[str, torch.nn.Parameter],
    *optimizers: torch.optim.Optimizer,
) -> None:
    """Write a checkpoint aside, sync it and rename it: a kill leaves the old one or the new one.

    Of several processes the first writes it, whole; so it can be taken up by any number of them.
    """
    tensors = {f"weight {name}": _whole(weight.detach()) for name, weight in weights.items()}
    for optimizer in optimizers:
        names = _names(weights, optimizer)
        for i, slots in optimizer.state_dict()["state"].items():
            tensors |= {f"{k} {names[i]}": _whole(value) for k, value in slots.items()}
    if not _parallel.only():
        return
    with atomic_write(path) as aside:
        save_file(tensors, aside, metadata={"run": run, "state": json.dumps(state)})


def load(
    path: Path,
    run: str,
    weights: Mapping[str, torch.nn.Parameter],
    *optimizers: torch.optim.Optimizer,
) -> dict[str, Any] | None:
    """Put a checkpoint's tensors into weights and optimizers, and return its counters.

    Returns:
        The `state` that was saved; None, with a warning, where the file is damaged: the run then
        starts anew, which costs time and changes nothing.

    Raises:
        ValueError: The checkpoint is another run's.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        state = json.loads(metadata["state"])
        owner = metadata["run"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"{path} is damaged ({error}): the run starts anew", stacklevel=3)
        return None
    if owner != run:
        raise ValueError(
            f"{path} is the checkpoint of another run: other data, schedule, strategy or base. "
            "Delete it, or load the base model anew if it was tuned meanwhile"
        )
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(_parallel.like(tensors.pop(f"weight {name}"), weight))
    slots: dict[str, dict[str, torch.Tensor]] = {name: {} for name in weights}
    for key, tensor in tensors.items():
        slot, name = key.split(" ", 1)
        slots[name][slot] = _parallel.like(tensor, weights[name]) if tensor.dim() else tensor
    for optimizer in optimizers:
        own = {i: slots[name] for i, name in enumerate(_names(weights, optimizer))}
        optimizer.load_state_dict(optimizer.state_dict() | {"state": own})
    return state


def _whole(tensor: Any) -> torch.Tensor:
    tensor = _parallel.whole(torch.as_tensor(tensor)).contiguous()
    return tensor.cpu() if _parallel.count() > 1 else tensor


def _names(
    weights: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> list[str]:
    """Return the names of an optimizer's parameters, in the order that its state counts them."""
    names = {id(weight): name for name, weight in weights.items()}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
