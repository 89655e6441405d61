"""Memory: what happens when it runs out, and how much of it was used at the peak."""

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from accelerate.utils import release_memory

T = TypeVar("T")
SIGNS = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
"""What errors say when memory runs out for CUDA itself, for the processor and for cuBLAS."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, of whatever kind it is."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


@contextlib.contextmanager
def phase(doing: str, remedy: str = "use a device with more memory, or several") -> Iterator[None]:
    """Say in one line in which phase ("loading the model") memory ran out, and what helps.

    Raises:
        torch.OutOfMemoryError: Whatever kind of error told it.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise torch.OutOfMemoryError(f"out of memory {doing}: {remedy}") from error


def halving(compute: Callable[[int], T], size: int, things: str, least: int = 1) -> tuple[T, int]:
    """Return `compute(size)`, trying again with half the size when memory runs out.

    Unlike `accelerate.utils.find_executable_batch_size` it can be used for every batch, since it
    collects no garbage where memory suffices.

    Args:
        compute: What to compute, given the largest number of things at once.
        size: The number to start with.
        things: What they are, for the warning ("sentences").
        least: The number below which it is of no use to go. Defaults to 1.

    Returns:
        What was computed, and the size that fitted, with which the next batch should start.

    Raises:
        torch.OutOfMemoryError: The least number does not fit.
    """
    while True:
        try:
            return compute(size), size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if size <= least:
                raise torch.OutOfMemoryError(str(error)) from error
        # Outside of `except`, because the error holds on to what has been computed.
        release_memory()
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
