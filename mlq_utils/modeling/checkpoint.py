"""Checkpoints: the state of a training run in one safetensors file, without pickles.

The weights, the optimizer's moments and the progress (JSON in the header) are in one file, so that
they can never belong to different steps.
"""

import hashlib
import json
import warnings
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mlq_utils.data import atomic_write
from mlq_utils.modeling import distributed


def identity(model: torch.nn.Module, *description: Any) -> str:
    """Return a hash of a run, by which its checkpoint is recognised.

    Args:
        model: The model before training. Only a sample of its weights is hashed, since they can be
            as large as 28 GB.
        *description: Everything else that decides the result, as JSON can hold it.
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
    progress: Mapping[str, Any],
    weights: Mapping[str, torch.nn.Parameter],
    *optimizers: torch.optim.Optimizer,
) -> None:
    """Write a checkpoint atomically: a kill leaves the old one or the new one.

    The main process writes whole tensors, so any number of processes can resume from it.

    Args:
        path: The file.
        run: The run's `identity`.
        progress: Anything else that is needed to resume, as JSON can hold it.
        weights: The trained parameters by name.
        *optimizers: The optimizers, if their state is still needed.
    """
    found = {f"weight {name}": weight.detach() for name, weight in weights.items()}
    for optimizer in optimizers:
        for name, weight in weights.items():
            found |= {f"{k} {name}": v for k, v in optimizer.state.get(weight, {}).items()}
    tensors = {key: distributed.whole(tensor).cpu().contiguous() for key, tensor in found.items()}
    if distributed.state().is_main_process:
        with atomic_write(path) as aside:
            save_file(tensors, aside, metadata={"run": run, "progress": json.dumps(progress)})


def load(
    path: Path,
    run: str,
    weights: Mapping[str, torch.nn.Parameter],
    *optimizers: torch.optim.Optimizer,
) -> dict[str, Any] | None:
    """Restore weights and optimizers from a checkpoint.

    Args:
        path: The file.
        run: The run's `identity`.
        weights: The trained parameters by name, changed in place.
        *optimizers: The optimizers, changed in place.

    Returns:
        The `progress` that was saved. If the file is damaged, None with a warning: the run then
        starts again, which costs time but does not change the result.

    Raises:
        ValueError: The checkpoint belongs to another run.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        owner, progress = metadata["run"], json.loads(metadata["progress"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"{path} is damaged ({error}): the run starts anew", stacklevel=3)
        return None
    if owner != run:
        raise ValueError(
            f"{path} is the checkpoint of another run, with other data, schedule, strategy or base."
            " Delete it, or load the base model anew if it was tuned meanwhile"
        )
    slots: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        slot, name = key.split(" ", 1)
        weight = weights[name]
        # A step counter has no dimension, and is the same in every shard.
        slots[name][slot] = (
            distributed.sharded_like(tensor, weight) if tensor.dim() else tensor.to(weight.device)
        )
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(slots[name].pop("weight"))
    names = {id(weight): name for name, weight in weights.items()}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            optimizer.state.update({p: slots[names[id(p)]] for p in group["params"]})
    return progress
