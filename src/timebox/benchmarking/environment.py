"""The machine, the versions and the git commit that a benchmark runs with."""

import os
import platform
from pathlib import Path

import torch
from msgspec import Struct

from timebox.machine import available_threads, field_of, processor_name
from timebox.processes.children import output_of, output_of_code
from timebox.run.json_values import Count, PositiveCount
from timebox.run.model_config import installed_versions

PACKAGE = Path(__file__).parents[1]
_LONGEST_SECONDS = 60
# Run in a process of its own: reading the name in this one would keep a CUDA context open beside every trial.
_DEVICE_NAME = "import torch; print(torch.cuda.get_device_name())"


class Environment(Struct, frozen=True, kw_only=True):
    """The machine and the versions that a benchmark ran with.

    Attributes:
        processor: name of the processor.
        cores: number of its cores.
        threads: number of threads that the container allows.
        commit: git commit of timebox's source; null outside a checkout.
    """

    processor: str
    cores: PositiveCount | None
    threads: PositiveCount
    memory_bytes: Count | None
    system: str
    device: str
    versions: dict[str, str]
    commit: str | None


def environment(device: torch.device, root: Path = Path("/")) -> Environment:
    """The machine and the versions.

    Args:
        root: where ``proc`` is found.
    """
    memory = field_of(root / "proc/meminfo", "MemTotal").removesuffix(" kB")
    return Environment(
        processor=processor_name(root),
        cores=os.cpu_count(),
        threads=available_threads(),
        memory_bytes=int(memory) * 1024 if memory.isdigit() else None,
        system=platform.system(),
        device=device_name(device),
        versions=installed_versions(),
        commit=commit(),
    )


def device_name(device: torch.device) -> str:
    """``cpu``, or the name of the GPU."""
    if device.type != "cuda":
        return "cpu"
    return output_of_code(_DEVICE_NAME, _LONGEST_SECONDS) or "cuda"


def commit(package: Path = PACKAGE) -> str | None:
    """The git commit of a package's source, marked ``-dirty`` where the package holds changes; None for no checkout.

    A package that merely lies inside some repository, as in a virtual environment there, is no checkout of it.
    """
    # A program that the settings of a repository name is not run: the package may lie in somebody else's.
    git = ["git", "-c", "core.fsmonitor=false", "-C", str(package)]
    if not output_of([*git, "ls-files", "__init__.py"], _LONGEST_SECONDS):
        return None
    changed = output_of([*git, "status", "--porcelain", "--", "."], _LONGEST_SECONDS)
    head = output_of([*git, "rev-parse", "--short", "HEAD"], _LONGEST_SECONDS)
    return f"{head}{'-dirty' if changed else ''}"
