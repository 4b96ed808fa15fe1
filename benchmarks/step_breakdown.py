"""Where the time of a training step goes: convolution, other operators, making the batch, and Python.

    python benchmarks/step_breakdown.py [--width 64] [--side 32 64 96] [--held 128] [--precision bf16] [--out FILE]

A row is a network of `auto` that takes images of one side, from images held at `--held` pixels, or at that side if it
is larger. The step is the whole one of a training: batch made from uint8 images, forward, backward, update with Muon.
Its seconds are the median of the steps measured without a profiler; the shares come from steps under torch's profiler,
by the time that each operator takes itself. Python is what no operator accounts for.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from step_speed import noise
from timebox.builders import build_augmentation, build_model, build_resizing
from timebox.data.device.augment import ChannelStatistics
from timebox.data.device.loader import DeviceLoader, Sampling
from timebox.data.device.resident import ResidentImages
from timebox.optim.loss import Loss
from timebox.planning.auto import AUTO_BASE
from timebox.runtime.precision import Precision
from timebox.runtime.torch_state import retain_freed_memory
from timebox.training.state import TrainingState
from timebox.training.step import training_step

CPU = torch.device("cpu")
NUM_CLASSES, PROGRESS, WARM_UP_STEPS = 10, 0.7, 3  # full-size images, the bias behind the whitening frozen
BATCH = "making the batch"
PARTS = ("convolution", "other operators", BATCH, "Python")


def build_step(width: int, side: int, held: int, batch_size: int, precision: str) -> Callable[[], None]:
    """A step of a training that takes images of ``side`` pixels from images held at ``held``."""
    held = max(held, side)
    recipe = AUTO_BASE.replace(
        width=width, input_scale=side / held, batch_size=batch_size, crop_padding=max(1, held // 16), flip="alternating"
    )
    state = TrainingState(build_model(recipe, 3, NUM_CLASSES).train(), recipe, Precision(precision, CPU))
    state.optimizer.prepare(1e-6, 0.85, PROGRESS)
    half = torch.full((3,), 0.5)
    loader = DeviceLoader(
        ResidentImages.from_dataset(noise(1024, held), CPU),
        ChannelStatistics(half, half / 2),
        build_augmentation(recipe),
        Sampling(batch_size, seed=0),
        build_resizing(recipe),
    )

    def step() -> None:
        with record_function(BATCH):
            batch = loader.batch(state.step, PROGRESS)
        training_step(state, Loss(0.2), batch, batch_size)
        state.advance(PROGRESS)

    return step


def seconds_of(step: Callable[[], None], num_steps: int) -> float:
    """Median seconds of a step."""
    seconds = []
    for _ in range(num_steps):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def shares_of(step: Callable[[], None], num_steps: int) -> dict[str, float]:
    """Share of the time of profiled steps by part, which add up to 1."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()  # the first one under a profiler takes a second more
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        started = time.perf_counter()
        for _ in range(num_steps):
            step()
        elapsed = time.perf_counter() - started
    seconds: dict[str, float] = defaultdict(float)
    for event in profiler.events() or ():
        part = "convolution" if "conv" in event.name else "other operators"
        if event.name == BATCH:
            seconds[BATCH] += event.cpu_time_total / 1e6
        elif not is_inside(event, BATCH):
            seconds[part] += event.self_cpu_time_total / 1e6
    seconds["Python"] = max(0.0, elapsed - sum(seconds.values()))
    return {part: seconds[part] / sum(seconds.values()) for part in PARTS}


def is_inside(event: torch.autograd.profiler_util.FunctionEvent, name: str) -> bool:
    """Whether an event has one of this name around it."""
    parent = event.cpu_parent
    while parent is not None and parent.name != name:
        parent = parent.cpu_parent
    return parent is not None


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, nargs="+", default=[64])
    parser.add_argument("--side", type=int, nargs="+", default=[32, 48, 64, 96, 128])
    parser.add_argument("--held", type=int, default=0, help="side in pixels at which images are held")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    print(f"{'width':>5}{'side':>5}{'held':>5}{'ms a step':>11}{'images/s':>10}" + "".join(f"{p:>18}" for p in PARTS))
    for width in given.width:
        for side in given.side:
            with retain_freed_memory():
                step = build_step(width, side, given.held, given.batch_size, given.precision)
                seconds_of(step, WARM_UP_STEPS)
                seconds, shares = seconds_of(step, given.steps), shares_of(step, given.steps)
            row = {"width": width, "side": side, "held": max(given.held, side), "precision": given.precision}
            row |= {"batch_size": given.batch_size, "threads": torch.get_num_threads(), "seconds": round(seconds, 5)}
            row |= {part: round(share, 4) for part, share in shares.items()}
            figures = f"{1000 * seconds:>11.1f}{given.batch_size / seconds:>10.0f}"
            print(
                f"{width:>5}{side:>5}{row['held']:>5}{figures}" + "".join(f"{100 * shares[p]:>16.1f} %" for p in PARTS),
                flush=True,
            )
            if given.out:
                with given.out.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
