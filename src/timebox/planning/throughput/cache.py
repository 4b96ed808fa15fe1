"""Cache of measured throughput: a second run on the same machine need not measure again what the first one did."""

import os
import platform
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
import torch
from msgspec import Meta, Struct

from timebox.errors import TimeboxError
from timebox.files import parse_json_object, read_regular, write_whole
from timebox.machine import available_threads, processor_name
from timebox.paths import cache_folder
from timebox.version import VERSION

FILE, MAX_BYTES = "measured/throughput.json", 1 << 20
# Kept of each: the machines and the measurements used last.
MAX_MACHINES, MAX_MEASUREMENTS = 8, 500
# A machine is as it was if a measurement differs from the cached one by this factor at most: an idle virtual machine
# differs from itself by a quarter.
MAX_DRIFT = 1.35
# Environment variables that limit the instructions of torch's kernels.
_INSTRUCTION_LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")

PositiveSeconds = Annotated[float, Meta(gt=0, le=1e6)]


class Measurements(Struct, kw_only=True):
    """The measurements of one machine.

    Attributes:
        precision: the fastest number format of the probe networks; None where only one was asked for so far.
        seconds: seconds per training image by :data:`MeasurementKey`, the one used last at the end.
    """

    precision: Annotated[str, Meta(pattern="^(fp32|bf16|fp16)$")] | None = None
    seconds: dict[str, PositiveSeconds] = {}


class ThroughputCache:
    """The measurements of this machine by earlier runs. They count once :meth:`check` has found that they still hold.

    A file that is damaged or cannot be written costs nothing but time: all is measured again.

    Args:
        path: of the file; None to remember nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._machine = path, machine_key() if path else ""
        self._machines = _read(path) if path else {}
        self._own = self._machines.pop(self._machine, Measurements())
        self._drift: float | None = None

    @classmethod
    def of_user(cls) -> "ThroughputCache":
        """The cache in the folder that TIMEBOX_CACHE names, else in the user's cache."""
        folder = cache_folder()
        return cls(folder / FILE if folder else None)

    @property
    def holds(self) -> bool:
        """Whether the cached measurements were found to hold."""
        return self._drift is not None

    @property
    def precision(self) -> str | None:
        """The fastest number format of earlier runs; None where there were none."""
        return self._own.precision

    def check(self, key: str, measure_seconds: Callable[[], float]) -> None:
        """Measure one of the cached networks again, and find out whether the cache holds.

        Where it does not, as the machine is busy or was replaced, all of it is dropped.
        """
        if (cached := self._own.seconds.get(key)) is None:
            return
        drift = measure_seconds() / cached
        if 1 / MAX_DRIFT <= drift <= MAX_DRIFT:
            self._drift = drift
        else:
            self._own = Measurements()

    def seconds(self, key: str) -> float | None:
        """Seconds per image at the machine's speed of today; None where that is not known."""
        cached = self._own.seconds.get(key)
        return None if cached is None or self._drift is None else cached * self._drift

    def record(self, key: str, seconds: float) -> None:
        """Remember a measurement, in place of an earlier one."""
        self._own.seconds.pop(key, None)
        self._own.seconds[key] = seconds / (self._drift or 1.0)

    def save(self, precision: str | None) -> None:
        """Write the file, with the number format that was chosen among several, None where one was asked for."""
        if self._path is None:
            return
        self._own.precision = precision or self._own.precision
        self._own.seconds = dict(list(self._own.seconds.items())[-MAX_MEASUREMENTS:])
        machines = dict(list(self._machines.items())[-(MAX_MACHINES - 1) :]) | {self._machine: self._own}
        with suppress(OSError, TimeboxError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, msgspec.json.encode(machines))


NO_CACHE = ThroughputCache(None)


def machine_key() -> str:
    """The properties of a machine that its speed depends on: processor, instructions, threads, versions."""
    limits = (os.environ.get(name, "") for name in _INSTRUCTION_LIMITS)
    parts = (processor_name(), platform.machine(), torch.backends.cpu.get_cpu_capability(), *limits)
    return "|".join((*parts, f"{available_threads()} processors", str(torch.__version__), VERSION))


def _read(path: Path) -> dict[str, Measurements]:
    """The measurements by machine; none where the file is missing or damaged."""
    try:
        return msgspec.convert(parse_json_object(read_regular(path, MAX_BYTES)), dict[str, Measurements])
    except (OSError, ValueError, TimeboxError):  # msgspec's errors are ValueErrors
        return {}
