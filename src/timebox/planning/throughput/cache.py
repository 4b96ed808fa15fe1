"""Cache of measured throughput: a second run on the same machine need not measure again what the first one did."""

import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import torch
from msgspec import Meta, Struct

from timebox.errors import TimeboxError, UsageError
from timebox.files import check_own, open_regular, parse_json_object, read_open
from timebox.files.folders import Folder
from timebox.machine import available_threads, processor_name
from timebox.paths import cache_folder
from timebox.version import VERSION

FILE, MAX_BYTES = "measured/throughput.json", 1 << 20
# Kept of each: the machines and the measurements of last.
MAX_MACHINES, MAX_MEASUREMENTS = 8, 500
# A machine is as it was if a measurement differs from the cached one by this factor at most: an idle virtual machine
# differs from itself by a quarter.
MAX_DRIFT = 1.35
T = TypeVar("T")
# Environment variables that limit the instructions of torch's kernels.
_INSTRUCTION_LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")

PositiveSeconds = Annotated[float, Meta(gt=0, le=1e6)]
CpuPrecision = Annotated[str, Meta(pattern="^(fp32|bf16)$")]


class Measurements(Struct, kw_only=True):
    """The measurements of one machine, by network; those made last are at the end.

    Attributes:
        precisions: the fastest number format.
        seconds: seconds per training image.
        checks: the same, measured briefly, to be compared with a measurement of the same length.
    """

    precisions: dict[str, CpuPrecision] = {}
    seconds: dict[str, PositiveSeconds] = {}
    checks: dict[str, PositiveSeconds] = {}


class ThroughputCache:
    """The measurements of this machine by earlier runs. They count once :meth:`check` has found that they still hold.

    A file that is damaged, belongs to another user or cannot be written costs nothing but time: all is measured again.

    Args:
        path: of the file; None to remember nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._machine = path, machine_key() if path else ""
        self._machines = _read(path) if path else {}
        self._own = self._machines.pop(self._machine, Measurements())
        self._drift: float | None = None
        self._is_changed = False

    @classmethod
    def of_user(cls) -> "ThroughputCache":
        """The cache in the folder that TIMEBOX_CACHE names, else in the user's cache."""
        try:
            folder = cache_folder()
        except UsageError:  # ~ for a user without a home
            folder = None
        return cls(folder / FILE if folder else None)

    @property
    def remembers(self) -> bool:
        """Whether there is a file to remember measurements in."""
        return self._path is not None

    @property
    def holds(self) -> bool:
        """Whether the cached measurements were found to hold."""
        return self._drift is not None

    def check(self, key: str, seconds: float) -> None:
        """Compare a brief measurement of a network with the cached one, and find out whether the cache holds.

        Where it does not, as the machine is busy or was replaced, all of it is dropped.
        """
        cached = self._own.checks.get(key)
        if cached is not None and 1 / MAX_DRIFT <= seconds / cached <= MAX_DRIFT:
            self._drift = seconds / cached
            return
        if cached is not None:
            self._own = Measurements()
        _put(self._own.checks, key, seconds)
        self._is_changed = True

    def precision(self, key: str) -> str | None:
        """The fastest number format of a network by earlier runs; None where that is not known."""
        return self._own.precisions.get(key)

    def seconds(self, key: str) -> float | None:
        """Seconds per image at the machine's speed of today; None where that is not known."""
        cached = self._own.seconds.get(key)
        return None if cached is None or self._drift is None else cached * self._drift

    def record(self, key: str, seconds: float) -> None:
        """Remember a measurement, in place of an earlier one."""
        _put(self._own.seconds, key, seconds / (self._drift or 1.0))
        self._is_changed = True

    def record_precision(self, key: str, precision: str) -> None:
        """Remember which number format is the fastest for a network."""
        self._is_changed |= self._own.precisions.get(key) != precision
        _put(self._own.precisions, key, precision)

    def save(self) -> None:
        """Write the file, if anything in it has changed, not waiting for the disk."""
        if self._path is None or not self._is_changed:
            return
        machines = dict(list(self._machines.items())[-(MAX_MACHINES - 1) :]) | {self._machine: self._own}
        with suppress(OSError, TimeboxError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with Folder(self._path.parent) as folder:
                folder.write_unsynced(self._path.name, msgspec.json.encode(machines))


def _put(values: dict[str, T], key: str, value: T) -> None:
    """Put a value at the end, and drop the first ones beyond :data:`MAX_MEASUREMENTS`."""
    values.pop(key, None)
    values[key] = value
    for old in list(values)[:-MAX_MEASUREMENTS]:
        del values[old]


def machine_key() -> str:
    """The properties of a machine that its speed depends on: processor, instructions, threads, versions."""
    limits = (os.environ.get(name, "") for name in _INSTRUCTION_LIMITS)
    parts = (processor_name(), platform.machine(), torch.backends.cpu.get_cpu_capability(), *limits)
    return "|".join((*parts, f"{available_threads()} processors", str(torch.__version__), VERSION))


def _read(path: Path) -> dict[str, Measurements]:
    """The measurements by machine; none where the file is missing, damaged or somebody else's."""
    try:
        with open_regular(path, follow=False) as file:
            check_own(path.parent, path.parent.stat())
            check_own(path, os.fstat(file.fileno()))
            values = parse_json_object(read_open(file, MAX_BYTES))
        return msgspec.convert(values, dict[str, Measurements])
    except (OSError, ValueError, TimeboxError):  # msgspec's errors are ValueErrors
        return {}
