"""timebox's command line with faults injected.

    TIMEBOX_FAULTS='{"interval": 0.3}' python tests/endurance/scenarios/fault_injection.py train digits --steps 100

The faults are injected on the clock, once the signal handlers are installed; the rest is the real program. The keys of
TIMEBOX_FAULTS, all optional:

    interval      seconds between two checkpoints
    checkpoints   false: none is ever due
    pause         {phase, seconds}: a phase begins with a pause
    kill_at       {number, under}: SIGKILL at that file operation (open, rename, unlink, mkdir, rmdir) below a folder
    stop_at       {step, signal}: a signal to itself right after a step
    slow_part     seconds of one uninterruptible operation before each micro-batch
    files         [{call, name, at, lasting, after, errno}]: a file operation on a matching path fails
    non_finite    {where: loss|gradient, value, step, lasting}: a value that is not finite
    memory        {more_than, error: runtime|python}: micro-batches of more images than that do not fit
"""

import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import timebox.cli
import timebox.cli.train

Faults = dict[str, object]
KILLED_AT = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")


def main() -> None:
    faults = json.loads(os.environ.get("TIMEBOX_FAULTS", "{}"))
    # A shell script that runs this in its background has SIGINT ignored.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    real = timebox.cli.train.run

    def run(args: object) -> object:
        print("start-up", file=sys.stderr, flush=True)
        inject(faults)
        return real(args)

    timebox.cli.train.run = run
    timebox.cli.main()


def inject(faults: Faults) -> None:
    """Patch the program with each fault that is asked for."""
    from timebox.training import checkpointer as checkpointer

    checkpointer.INTERVAL_SECONDS = faults.get("interval", checkpointer.INTERVAL_SECONDS)
    if "interval" in faults:
        checkpointer.INTERVAL_COSTS = 1.0
    if not faults.get("checkpoints", True):
        checkpointer.AsyncCheckpointer.is_due = lambda self: False
    for name, patch in PATCHES.items():
        if name in faults:
            patch(faults[name])


def pause(fault: Faults) -> None:
    from timebox.progress import terminal

    real = terminal.PlainReporter.phase

    def phase(self: terminal.PlainReporter, name: str) -> None:
        real(self, name)
        if name == fault["phase"]:
            time.sleep(fault["seconds"])

    terminal.PlainReporter.phase = phase


def kill_at(fault: Faults) -> None:
    seen = 0

    def hook(event: str, given: tuple[object, ...]) -> None:
        nonlocal seen
        if event in KILLED_AT and _is_below(fault["under"], event, given):
            # Reading kills no file.
            seen += event != "open" or bool(given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            if seen == fault["number"]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _is_below(folder: str, event: str, given: tuple[object, ...]) -> bool:
    """Whether an operation is on a path below a folder, or on a mere name, relative to an open directory there."""
    if any(str(word).startswith(folder) for word in given[:2]):
        return True
    if "/" in str(given[0]) or isinstance(given[0], int):
        return False
    # The event of an opened file does not tell the directory: timebox writes only files of runs by mere names.
    place = {"os.rename": 2, "os.remove": 1, "os.mkdir": 2, "os.rmdir": 1}.get(event)
    return place is None or (given[place] >= 0 and path_of(given[place]).startswith(folder))


def stop_at(fault: Faults) -> None:
    from timebox.training.state import TrainingState

    real = TrainingState.advance

    def advance(self: TrainingState, progress: float) -> None:
        real(self, progress)
        if self.step == fault["step"]:
            os.kill(os.getpid(), fault["signal"])

    TrainingState.advance = advance


def slow_part(seconds: float) -> None:
    import torch

    side, needed = 256, 0.0
    while needed < 0.05:
        side *= 2
        matrix = torch.rand(side, side)
        before = time.perf_counter()
        matrix @ matrix
        needed = time.perf_counter() - before
    large = torch.rand(*[round(side * (seconds / needed) ** (1 / 3))] * 2)

    def before_part(size: int) -> None:
        large @ large

    _before_each_part(before_part)


def memory(fault: Faults) -> None:
    def before_part(size: int) -> None:
        if size > fault["more_than"]:
            if fault["error"] == "python":
                raise MemoryError
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
                "you tried to allocate 68719476736 bytes. Error code 12 (Cannot allocate memory)"
            )

    _before_each_part(before_part)


def _before_each_part(act: Callable[[int], None]) -> None:
    from timebox.data.device.loader import Batch
    from timebox.training import step

    real = step.split_batch

    def split_batch(batch: Batch, size: int) -> Iterator[Batch]:
        for part in real(batch, size):
            act(len(part.labels))
            yield part

    step.split_batch = split_batch


def non_finite(fault: Faults) -> None:
    from torch import Tensor

    from timebox.data.device.loader import Batch
    from timebox.training import step as steps
    from timebox.training.state import TrainingState

    real_step, real_advance = steps.training_step, TrainingState.advance
    value, started, happened = float(fault["value"]), 0, False

    def advance(self: TrainingState, progress: float) -> None:
        nonlocal started
        real_advance(self, progress)
        started = self.step

    def training_step(state: TrainingState, loss_fn: object, batch: Batch, micro_batch: int) -> Tensor:
        nonlocal happened
        wrong = started + 1 == fault["step"] and not happened
        wrong |= bool(fault["lasting"]) and started + 1 >= fault["step"]
        if not wrong:
            return real_step(state, loss_fn, batch, micro_batch)
        happened = True
        if fault["where"] == "loss":
            return real_step(state, loss_fn, Batch(batch.images * value, batch.labels), micro_batch)
        weight = next(p for p in state.model.parameters() if p.requires_grad)
        hook = weight.register_hook(lambda gradient: gradient * value)
        loss = real_step(state, loss_fn, batch, micro_batch)
        hook.remove()
        return loss

    steps.training_step, TrainingState.advance = training_step, advance


def files(faults: list[Faults]) -> None:
    hits = [0] * len(faults)

    def check(call: str, path: str, size: int = 0) -> None:
        """Raise what is due; for a write, the error carries how many bytes still arrive."""
        for i, fault in enumerate(faults):
            if fault["call"] == call and any(fnmatch(path, f"*{name}") for name in fault["name"].split("|")):
                hits[i] += 1
                if hits[i] == fault["at"] or (fault["lasting"] and hits[i] > fault["at"]):
                    number = getattr(errno, fault["errno"])
                    error = OSError(number, os.strerror(number), path)
                    error.arriving = min(fault.get("after", 0), size)
                    raise error

    real_open, real_replace, real_fsync, real_write = os.open, os.replace, os.fsync, os.write

    def opened(path: object, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT:
            check("open", full_path(path, dir_fd))
        return real_open(path, flags, mode, dir_fd=dir_fd)

    def replace(old: object, new: object, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        check("replace", full_path(new, dst_dir_fd))
        real_replace(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def fsync(handle: int) -> None:
        check("fsync", path_of(handle))
        real_fsync(handle)

    def write(handle: int, content: bytes) -> int:
        try:
            check("write", path_of(handle), len(content))
        except OSError as error:
            real_write(handle, content[: error.arriving])
            raise
        return real_write(handle, content)

    os.open, os.replace, os.fsync, os.write = opened, replace, fsync, write


def full_path(path: object, handle: int | None) -> str:
    """Of a name that may be relative to an open directory."""
    return str(path) if handle is None or handle < 0 else f"{path_of(handle)}/{path}"


def path_of(handle: int) -> str:
    """Of an open file."""
    return str(Path(f"/proc/self/fd/{handle}").readlink())


PATCHES = {f.__name__: f for f in (pause, kill_at, stop_at, slow_part, memory, non_finite, files)}

if __name__ == "__main__":
    main()
