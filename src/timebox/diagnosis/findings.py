"""``timebox doctor``: versions, processor, memory, disks, cache and speed of this machine, and its problems."""

import locale
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from timebox.diagnosis.disks import CacheContent, Disk, cache_content, disk_problems, disks
from timebox.diagnosis.installation import Extra, extras, installation_problems, package_versions
from timebox.diagnosis.shown_paths import without_home
from timebox.errors import one_line
from timebox.file_versions import DIAGNOSIS_FORMAT, DISTRIBUTION
from timebox.machine import available_memory, available_threads, format_bytes, processor_name
from timebox.version import VERSION

# Variables of the environment that change how torch computes, or where timebox keeps what it measured.
VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "CUDA_VISIBLE_DEVICES",
    "PYTORCH_ENABLE_MPS_FALLBACK",
)  # fmt: skip
LITTLE_MEMORY = 2 << 30
# A file that the driver of NVIDIA's GPUs makes.
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class TrainingSpeed:
    """The device, precision and threads that are taken here, and the training that a minute buys.

    Attributes:
        device: ``cpu``, or the model name of a GPU.
        instructions: the vector instructions that torch uses on the CPU, such as ``AVX2``.
        cuda: version of CUDA that torch was built for; None for a build without it.
        threads: torch's threads for this training; 0 on a GPU.
        precision: ``fp32``, ``bf16`` or ``fp16``, the fastest as measured.
        network: the network that the recipe ``auto`` takes for 5,000 images of 32 px and a minute.
        images_per_second: training images.
        epochs: times that each of the 5,000 images is seen in the minute.
    """

    device: str
    instructions: str
    cuda: str | None
    threads: int
    precision: str
    network: str
    images_per_second: float
    epochs: float


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
    speed: TrainingSpeed | None

    def as_dict(self) -> dict[str, object]:
        """Ready for JSON, with the number of the format."""
        return DIAGNOSIS_FORMAT.numbered(asdict(self))


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
    speed, speed_problem = _speed()
    found_disks = disks()
    problems = (
        *speed_problem,
        *installation_problems(),
        *(_device_problems(speed, variables) if speed else ()),
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


def _speed() -> tuple[TrainingSpeed | None, list[str]]:
    """The measured speed, or the problem that stands in its way: a damaged package may raise anything."""
    for package in ("numpy", "torch"):  # torch imports numpy, and fails with it
        try:
            import_module(package)
        except Exception as error:
            advice = f"reinstall it, pip install --force-reinstall {package}"
            return None, [f"{package} cannot be imported ({_reason(error)}): {advice}"]
    try:
        measured: TrainingSpeed = import_module("timebox.diagnosis.speed").measure_speed()
        return measured, []
    except Exception as error:
        advice = f"where a package is damaged, pip install --force-reinstall {DISTRIBUTION}"
        return None, [f"a training cannot be measured ({_reason(error)}): {advice}"]


def _reason(error: Exception) -> str:
    """An exception in one line, with its type, and ``~`` for the home directory."""
    first = next(iter(str(error).strip().splitlines()), "")
    return without_home(one_line(f"{type(error).__name__}: {first}"))


def _device_problems(speed: TrainingSpeed, variables: Mapping[str, str]) -> Iterator[str]:
    if speed.device != "cpu" or not NVIDIA_DRIVER.exists():
        return
    visible = variables.get("CUDA_VISIBLE_DEVICES")
    if speed.cuda is not None and visible is not None and not visible.strip(" -1"):
        yield f"there is an NVIDIA GPU, and CUDA_VISIBLE_DEVICES={visible} hides it: unset it"
    elif speed.cuda is None:
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
    # getpreferredencoding() says utf-8 of the locale C too, in which Python sets its UTF-8 mode.
    encoding = locale.getencoding()
    if os.name != "nt" and encoding.lower().replace("-", "") != "utf8":
        yield f"the locale's encoding is {encoding}, in which some file names cannot be shown: set LC_ALL=C.UTF-8"
