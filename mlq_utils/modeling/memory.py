"""Memory: smaller batches when it runs out, and how much of it was used at the peak."""

import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")


class BatchSize:
    """A batch size that is halved each time memory runs out, and stays so.

    Unlike `accelerate.utils.find_executable_batch_size` it can be used for every batch, since it
    neither starts anew nor collects garbage each time.

    Attributes:
        size: The largest number of things that is tried at once.
    """

    def __init__(self, size: int, things: str) -> None:
        """Start with a size.

        Args:
            size: Largest number of things at once.
            things: What they are, for the warning ("sentences").
        """
        self.size, self._things = size, things

    def run(self, compute: Callable[[int], T], available: int | None = None) -> T:
        """Return `compute(size)`, trying again with half the size when memory runs out.

        Args:
            compute: What to compute, given the number of things at once.
            available: How many things there are, if this can be fewer than the size.

        Raises:
            torch.OutOfMemoryError: A single thing does not fit.
        """
        size = min(self.size, available or self.size)
        while True:
            try:
                return compute(size)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
            # Outside of `except`, because the error holds on to what has been computed.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.size = size // 2
            warnings.warn(
                f"out of memory with {size} {self._things} at once: {self.size} from here on",
                stacklevel=3,
            )
            size = self.size


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
