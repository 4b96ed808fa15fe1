"""The device that computes: a CPU or a CUDA GPU."""

import torch

from timebox.errors import UsageError


def resolve_device(device: str) -> torch.device:
    """``auto`` takes a CUDA device where there is one, else the CPU. Raises UsageError for one that is not here."""
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device {device!r} is unknown; use auto, cpu or cuda")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UsageError("device 'cuda' is not available: torch finds no CUDA GPU here; use --device cpu or auto")
    return torch.device("cuda" if device != "cpu" and available else "cpu")
