"""The machine and the package versions that a model was computed with, as model.json and summary.json record them."""

import platform

import numpy as np
import torch
from msgspec import Struct

from timebox.run.fields import PositiveCount
from timebox.version import VERSION


class Machine(Struct, frozen=True, kw_only=True):
    """The properties of a machine that decide how floating-point sums are rounded.

    Attributes:
        device: ``cpu``, or the name of the GPU.
        threads: number of torch's threads in each process.
        processes: number of processes that trained together under torchrun; 1 without it.
        processor: architecture of the processor, such as ``x86_64``.
        instructions: instruction set that torch's CPU kernels use, such as ``AVX2``.
    """

    device: str
    threads: PositiveCount
    processes: PositiveCount = 1
    processor: str
    instructions: str

    @classmethod
    def current(cls, device: torch.device, num_processes: int = 1) -> "Machine":
        """This machine, as torch is set up in this process."""
        return cls(
            device=device_name(device),
            threads=torch.get_num_threads(),
            processes=num_processes,
            processor=platform.machine(),
            instructions=torch.backends.cpu.get_cpu_capability(),
        )


def installed_versions() -> dict[str, str]:
    """The versions of timebox, torch, numpy and Python, by name."""
    return {
        "timebox": VERSION,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def device_name(device: torch.device) -> str:
    """``cpu``, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
