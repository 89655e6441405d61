"""What a device does fast, and how much memory something took on it at its highest."""

import os
import platform
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


def fast_bf16(device: torch.device) -> bool:
    """Return whether bf16 is faster than fp32 on a device; on older processors it is far slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)


def placement() -> tuple[torch.device, torch.dtype]:
    """Return the device that runs are computed on, and what weights are loaded in there.

    A GPU where there is one, of several processes each its own, with weights in bf16 where it
    computes in that; what is trained is fp32 in any case (`modeling.prepare`).
    """
    if not torch.cuda.is_available():
        return torch.device("cpu"), torch.float32
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device, torch.bfloat16 if fast_bf16(device) else torch.float32


def hardware() -> str:
    """Return what this process computes on, as records name it."""
    processor = f"{os.cpu_count()} {platform.machine()} cores, {torch.get_num_threads()} threads"
    if not torch.cuda.is_available():
        return processor
    count = int(os.environ.get("WORLD_SIZE", "1"))
    return f"{processor}, {count} x {torch.cuda.get_device_name()}".replace(", 1 x ", ", ")


class Peak:
    """The most memory held at once since this was made: torch's on a GPU, else the process's.

    The process's peak is Linux's, which alone can set it back; it holds the interpreter and all
    that was loaded before, a few hundred MB.
    """

    def __init__(self, device: torch.device) -> None:
        """Set the counter back to what is held now."""
        self._device = device
        self._known = True
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            (_PROCESS / "clear_refs").write_text("5")
        except OSError:
            self._known = False

    def read(self) -> int | None:
        """Return the peak in bytes, or None where the system does not tell."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        if not self._known:
            return None
        status = (_PROCESS / "status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
