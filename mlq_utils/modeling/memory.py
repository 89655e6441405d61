"""Memory: smaller batches when it runs out, and how much of it was used at the peak."""

import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")


def halving(compute: Callable[[int], T], size: int, things: str) -> tuple[T, int]:
    """Return `compute(size)`, trying again with half the size when memory runs out.

    Unlike `accelerate.utils.find_executable_batch_size` it can be used for every batch, since it
    collects no garbage where memory suffices.

    Args:
        compute: What to compute, given the largest number of things at once.
        size: The number to start with.
        things: What they are, for the warning ("sentences").

    Returns:
        What was computed, and the size that fitted, with which the next batch should start.

    Raises:
        torch.OutOfMemoryError: A single thing does not fit.
    """
    while True:
        try:
            return compute(size), size
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        # Outside of `except`, because the error holds on to what has been computed.
        torch.cuda.empty_cache()
        message = f"out of memory with {size} {things} at once: {size // 2} from here on"
        warnings.warn(message, stacklevel=3)
        size //= 2


def track_peak_memory(device: torch.device) -> Callable[[], int | None]:
    """Start to measure the peak of memory use.

    Args:
        device: On a GPU the memory that torch allocates is measured. On the CPU it is the resident
            memory of the process, which includes the interpreter and all that is loaded already.

    Returns:
        A function that returns the peak since now in bytes, or None if the system is not Linux.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return partial(torch.cuda.max_memory_allocated, device)
    process = Path("/proc/self")
    try:
        (process / "clear_refs").write_text("5")  # resets the peak
    except OSError:
        return lambda: None
    return lambda: 1024 * int(re.search(r"VmHWM:\s+(\d+)", (process / "status").read_text())[1])
