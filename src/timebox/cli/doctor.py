"""`timebox doctor`: prints what is installed, what this machine can do, and what is wrong with either."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from timebox.cli import display
from timebox.cli.exit_status import DONE
from timebox.cli.formatting import facts, json_line, write
from timebox.cli.parsing import VerbHelp
from timebox.configs.verbs import DoctorConfig
from timebox.file_versions import DISTRIBUTION
from timebox.formatting import plural
from timebox.machine import format_bytes

if TYPE_CHECKING:
    from timebox.diagnosis import Diagnosis
    from timebox.diagnosis.findings import TrainingSpeed

HELP = VerbHelp(
    DoctorConfig,
    "show versions, speed, disks and cache of this machine, and what is wrong",
    "Reads versions and limits, measures disks and the training of a network, in about ten seconds, and prints "
    "problems first, each with what to do. Names no file of yours and no machine: the output can go into a bug "
    "report. The exit status is 0, also where there are problems.",
    ("timebox doctor", "timebox doctor --json > doctor.json"),
)


def run(args: argparse.Namespace) -> int:
    with display.progress() as reporter:
        reporter.phase("measuring")
        from timebox.diagnosis import doctor

        found = doctor()
    if args.json:
        write(json_line(found.as_dict()))
    else:
        write(f"{facts(result_rows(found))}\n")
    return DONE


def result_rows(found: "Diagnosis") -> Iterator[tuple[str, str]]:
    """The lines printed, as (label, value)."""
    for problem in found.problems:
        yield "problem", problem
    if not found.problems:
        yield "problems", "none"
    yield "", ""
    yield "timebox", found.timebox
    yield "python", found.python
    for package, version in found.packages.items():
        yield package, version or "not installed"
    for extra in found.extras:
        installed = ", ".join(f"{name} {version}" for name, version in extra.installed.items())
        missing = f"not installed: pip install '{DISTRIBUTION}[{extra.name}]'" if extra.missing else ""
        yield f"[{extra.name}]", missing or installed
    yield "", ""
    yield "system", found.system
    yield "processor", found.processor
    yield "cores", f"{found.usable_cores} of {found.cores}"
    yield "memory", f"{format_bytes(found.memory_bytes)} free" if found.memory_bytes is not None else "unknown"
    for name, value in found.variables.items():
        yield "environment", f"{name}={value}"
    yield "", ""
    for disk in found.disks:
        yield f"disk of {disk.use}", disk.error or _disk_line(disk.folder, disk.write_seconds, disk.free_bytes)
    sets = plural(found.cache.num_datasets, "data set")
    yield "cache", f"{format_bytes(found.cache.num_bytes)}, {sets}; it may be deleted at any time"
    yield "", ""
    if found.speed:
        yield from _speed_rows(found.speed)


def _disk_line(folder: str | None, write_seconds: float | None, free_bytes: int | None) -> str:
    speed = f"a small file takes {1000 * (write_seconds or 0):.0f} ms"
    return f"{folder}: {speed}, {format_bytes(free_bytes or 0)} free"


def _speed_rows(speed: "TrainingSpeed") -> Iterator[tuple[str, str]]:
    threads = f", {plural(speed.threads, 'thread')}, {speed.instructions}" if speed.threads else ""
    yield "device", f"{speed.device}{threads}, {speed.precision} is fastest"
    yield "a minute buys", f"{speed.epochs:.0f} epochs of 5,000 images, {speed.images_per_second:,.0f} images/s"
    yield "", f"with {speed.network}"
