"""Checkpoints: the state of a training run in one safetensors file, without pickles.

The weights, the optimizer's moments and the progress (JSON in the header) are in one file, so that
they can never belong to different steps.
"""

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mlq_utils.data import atomic_write
from mlq_utils.modeling import distributed

Weights = Mapping[str, torch.nn.Parameter]
Moments = Mapping[torch.nn.Parameter, Mapping[str, torch.Tensor]]
"""What optimizers keep of each weight: the `state` of an optimizer, or of several."""


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
    weights: Weights,
    moments: Moments,
) -> None:
    """Write a checkpoint atomically: a kill leaves the old one or the new one.

    The main process writes whole tensors, so any number of processes can resume from it. It alone
    keeps them until they are written, which takes the size of the file in the processor's memory
    for a model on a GPU. Moments are fp32, since in bf16 they would change the rest of the run.

    Args:
        path: The file.
        run: The run's `identity`.
        progress: Anything else that is needed to resume, as JSON can hold it.
        weights: The trained parameters by name.
        moments: The optimizer's state, or nothing if it is no longer needed.
    """
    tensors = {}
    for name, tensor in _tensors(weights, moments).items():
        whole = distributed.whole(tensor)  # by all processes, which drop it at once but for one
        if distributed.state().is_main_process:
            tensors[name] = whole.cpu().contiguous()
    if tensors:
        with atomic_write(path) as aside:
            save_file(tensors, aside, metadata={"run": run, "progress": json.dumps(progress)})


def check_disk(path: Path, weights: Weights, moments: Moments) -> None:
    """Raise OSError if the disk has no room for a checkpoint beside the last one."""

    def missing() -> str | None:
        path.parent.mkdir(parents=True, exist_ok=True)
        size = sum(tensor.nbytes for tensor in _tensors(weights, moments).values())
        needed = 2 * size - (path.stat().st_size if path.exists() else 0)
        free = shutil.disk_usage(path.parent).free
        return f"{needed:,} bytes, and {path.parent} has {free:,}" if free < needed else None

    if about := distributed.broadcast_from_main(missing):
        raise OSError(
            f"two checkpoints need {about} bytes free: set MLQ_CHECKPOINTS to a folder on another "
            "disk, or give fine_tune checkpoint=None"
        )


def load(path: Path, run: str, weights: Weights, moments: Moments) -> dict[str, Any] | None:
    """Restore weights and moments from a checkpoint, which the main process alone reads.

    Args:
        path: The file.
        run: The run's `identity`.
        weights: The trained parameters by name, changed in place.
        moments: The optimizer's state, which is allocated already and changed in place.

    Returns:
        The `progress` that was saved. If there is no file or it is damaged, None, for the latter
        with a warning: the run then starts again, which costs time but does not change the result.

    Raises:
        ValueError: The checkpoint belongs to another run.
    """
    header = distributed.broadcast_from_main(lambda: _header(path))
    if header is None:
        return None
    owner, progress, shapes = header
    if owner != run:
        raise ValueError(
            f"{path} is the checkpoint of another run, with other data, schedule, strategy or base."
            " Delete it, or load the base model anew if it was tuned meanwhile"
        )
    file = safe_open(path, "pt") if distributed.state().is_main_process else None
    kept = _tensors(weights, moments)
    for key, shape in shapes.items():  # one by one, since all may not fit beside the model
        found = file.get_tensor(key) if file else torch.empty(shape, dtype=kept[key].dtype)
        kept[key].copy_(distributed.from_main(found, kept[key]))
    return progress


def _tensors(weights: Weights, moments: Moments) -> dict[str, torch.Tensor]:
    """Return what a checkpoint holds, each tensor by what it is ("weight") and of which weight."""
    found = {f"weight {name}": weight.detach() for name, weight in weights.items()}
    for name, weight in weights.items():
        found |= {f"{k} {name}": v for k, v in moments.get(weight, {}).items()}
    return found


def _header(path: Path) -> tuple[str, dict[str, Any], dict[str, list[int]]] | None:
    """Return the run, the progress and the shapes in a checkpoint, or None if it is no use."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
        return metadata["run"], json.loads(metadata["progress"]), shapes
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"{path} is damaged ({error}): the run starts anew", stacklevel=5)
        return None
