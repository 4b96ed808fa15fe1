"""``timebox doctor``: versions, processor, memory, disks, cache and speed of this machine, and its problems."""

import locale
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from timebox.diagnosis.disks import CacheContent, Disk, cache_content, disk_problems, disks
from timebox.diagnosis.installation import Extra, extras, installation_problems, package_versions
from timebox.machine import available_memory, available_threads, format_bytes, processor_name
from timebox.version import VERSION

if TYPE_CHECKING:
    from timebox.diagnosis.speed import TrainingSpeed

# Variables of the environment that change how torch computes, or where timebox keeps what it measured.
VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "CUDA_VISIBLE_DEVICES",
    "PYTORCH_ENABLE_MPS_FALLBACK",
)  # fmt: skip
LITTLE_MEMORY = 2 << 30
# A file that the driver of NVIDIA's GPUs makes.
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Result of :func:`doctor`. It names no file of the user's and no machine, so it can go into a bug report.

    Attributes:
        problems: a sentence each, with what to do about it; empty where nothing is wrong.
        timebox: its version.
        python: version of Python, and its implementation.
        packages: version of each package that timebox needs, None where it is not installed.
        extras: the optional parts, and what of them is installed.
        system: operating system and architecture.
        processor: its name, with family and model where they are known.
        cores: number of cores of the machine.
        usable_cores: number that this process may use, within affinity and the quota of a container.
        memory_bytes: that can be allocated now; None where unknown.
        variables: those of the environment that change how torch computes, where they are set.
        disks: where runs and the cache are written to.
        cache: content of the cache.
        speed: what a minute buys here; None where torch cannot be used.
    """

    problems: tuple[str, ...]
    timebox: str
    python: str
    packages: Mapping[str, str | None]
    extras: tuple[Extra, ...]
    system: str
    processor: str
    cores: int
    usable_cores: int
    memory_bytes: int | None
    variables: Mapping[str, str]
    disks: tuple[Disk, ...]
    cache: CacheContent
    speed: "TrainingSpeed | None"

    def as_dict(self) -> dict[str, object]:
        """Ready for JSON."""
        return asdict(self)


def doctor() -> Diagnosis:
    """Look at this installation and this machine: what is there, how fast it is, and what is wrong.

    Writes a small file to the working directory, or to ``runs/`` in it, and to the cache, and removes both. Measures
    the training of a network for a few seconds, as the beginning of a training does. It takes about ten seconds.

    >>> import timebox
    >>> found = timebox.doctor()
    >>> found.speed.images_per_second > 0
    True
    """
    cores, usable_cores, memory_bytes = os.cpu_count() or 1, available_threads(), available_memory()
    variables = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    speed, torch_problem = _speed()
    found_disks = disks()
    problems = (
        *torch_problem,
        *installation_problems(),
        *(_device_problems(speed) if speed else ()),
        *_limits(cores, usable_cores, memory_bytes, variables),
        *disk_problems(found_disks),
    )
    return Diagnosis(
        problems=problems,
        timebox=VERSION,
        python=f"{platform.python_version()} ({platform.python_implementation()})",
        packages=package_versions(),
        extras=tuple(extras()),
        system=f"{platform.system()} {platform.release()}, {platform.machine()}",
        processor=processor_name(),
        cores=cores,
        usable_cores=usable_cores,
        memory_bytes=memory_bytes,
        variables=variables,
        disks=tuple(found_disks),
        cache=cache_content(),
        speed=speed,
    )


def _speed() -> "tuple[TrainingSpeed | None, list[str]]":
    """The measured speed, or the problem that stands in its way: whatever is wrong with torch may raise anything."""
    try:
        from timebox.diagnosis.speed import measure_speed
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return None, [f"torch cannot be imported ({reason}): reinstall it, pip install --force-reinstall torch"]
    try:
        return measure_speed(), []
    except Exception as error:
        return None, [f"a training cannot be measured: {type(error).__name__}: {error}"]


def _device_problems(speed: "TrainingSpeed") -> Iterator[str]:
    if speed.device != "cpu" or not NVIDIA_DRIVER.exists():
        return
    if speed.cuda is None:
        yield "there is an NVIDIA GPU, but this torch is built without CUDA: install the build that pytorch.org names"
    else:
        yield (
            f"there is an NVIDIA GPU, but torch, built for CUDA {speed.cuda}, cannot use it: update its driver, or "
            "install a torch for an older CUDA"
        )


def _limits(cores: int, usable_cores: int, memory_bytes: int | None, variables: Mapping[str, str]) -> Iterator[str]:
    fixed = variables.get("OMP_NUM_THREADS", "")
    if fixed.isdecimal() and int(fixed) < usable_cores:
        yield f"OMP_NUM_THREADS={fixed} limits training to {fixed} of {usable_cores} cores: unset it"
    if usable_cores < cores:
        yield (
            f"{usable_cores} of {cores} cores may be used, by the quota of a container or by affinity: give it more "
            "where more speed is wanted"
        )
    if memory_bytes is not None and memory_bytes < LITTLE_MEMORY:
        yield f"{format_bytes(memory_bytes)} of memory are free: close other programs, or train with --train-limit"
    if (encoding := locale.getpreferredencoding(False).lower().replace("-", "")) not in ("utf8", "cp65001"):
        yield f"the locale's encoding is {encoding}, in which some file names cannot be shown: set LC_ALL=C.UTF-8"
