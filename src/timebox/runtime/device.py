"""The torch device: a CPU or a CUDA GPU."""

import torch

from timebox.errors import UsageError, option_text
from timebox.machine import available_memory


def resolve_device(device: str) -> torch.device:
    """The device for ``auto`` (a CUDA GPU where there is one), ``cpu`` or ``cuda``. Raises UsageError without it."""
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device {device!r} is unknown; use auto, cpu or cuda")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UsageError(
            f"device 'cuda' is not available: torch finds no CUDA GPU here; use {option_text('device', 'cpu')} or auto"
        )
    return torch.device("cuda" if device != "cpu" and available else "cpu")


def device_name(device: torch.device) -> str:
    """The model name of a GPU, or ``cpu``. Opens a CUDA context."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def free_memory(device: torch.device) -> int | None:
    """Bytes that this process can allocate on a device; None if unknown."""
    if device.type != "cuda":
        return available_memory()
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
