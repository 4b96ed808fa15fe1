"""Runs a fuzz target under libFuzzer, with limits on its time and memory.

A failure is any exception but timebox's own errors, more than half a gigabyte of memory, or more than five seconds for
one input. libFuzzer writes the input that caused it into the current directory.
"""

import contextlib
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

# pyarrow's own allocator reserves gigabytes of addresses, which the limit below counts as memory.
os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"

import atheris

from timebox.errors import TimeboxError

MAX_INPUT_BYTES = 1 << 17
MAX_SECONDS = 5  # of processor time
WAIT_SECONDS = 120  # of wall-clock time: on a busy machine the process itself may have to wait
MAX_GROWTH_BYTES = 512 << 20

# libFuzzer is guided by the coverage of the modules imported here: the readers, and the libraries they read with.
with atheris.instrument_imports(
    include=[
        "timebox",
        "tarfile",
        "zipfile",
        "gzip",
        "pickle",
        "tomllib",
        "json",
        "PIL",
        "python_multipart",
        "starlette",
    ],
    enable_loader_override=False,
):
    for name in (
        "data",
        "recipes",
        "jobs",
        "run",
        "distributed.messages",
        "tuning.directory",
        "benchmarking.directory",
        "serving.http.bodies",
    ):
        import_module(f"timebox.{name}")
    import_module("timebox.estimator")

Target = Callable[[Path, bytes], object]


def fuzz(target: Target) -> None:
    """Call `target` with a scratch folder and libFuzzer's bytes, until libFuzzer ends.

    The command line takes libFuzzer's options: a folder for the corpus, -max_total_time=60 and so on.
    """
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="timebox-fuzz-", ignore_cleanup_errors=True) as scratch:

        def once(data: bytes) -> None:
            started = time.process_time()
            with contextlib.suppress(TimeboxError):
                target(Path(scratch), data)
            if (seconds := time.process_time() - started) > MAX_SECONDS:
                raise TimeoutError(f"{seconds:.0f} s of processor time for {len(data):,} bytes")

        limits = [f"-max_len={MAX_INPUT_BYTES}", f"-timeout={WAIT_SECONDS}", "-rss_limit_mb=3072"]
        _limit_memory()
        atheris.Setup([sys.argv[0], *limits, *sys.argv[1:]], once)
        atheris.Fuzz()


def _limit_memory() -> None:
    """Limit memory to its present use and MAX_GROWTH_BYTES more; a MemoryError that escapes is a failure."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + MAX_GROWTH_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
