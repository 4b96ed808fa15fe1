"""Images per second of a training step, change by change, and its share of what the processor multiplies at best.

    python benchmarks/step_speed.py [--rounds 5] [--only TEXT] [--compile] [--out FILE.jsonl]

All rows run interleaved in one process, round by round, on the network of airbench94 (708 MFLOP per image); a figure is
the median over the rounds of the fastest of three steps. `plain` rows are what one would write with torch alone:
nn.Conv2d, nn.BatchNorm2d, torch.optim.SGD, one batch made beforehand. `timebox` rows are the whole step of a training:
batch made from uint8 images, forward, backward, update. The peak is that of square matrices of 2,048 in the row's
precision; a share counts the network's operations alone.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timebox.builders import build_augmentation, build_model
from timebox.data.dataset import ImageDataset
from timebox.data.device.augment import ChannelStatistics
from timebox.data.device.loader import DeviceLoader, Sampling
from timebox.data.device.resident import ResidentImages
from timebox.models import count_flops
from timebox.optim.loss import Loss
from timebox.recipes import get_recipe
from timebox.runtime.precision import Precision
from timebox.runtime.timing import fastest_seconds
from timebox.runtime.torch_state import retain_freed_memory
from timebox.training.state import TrainingState
from timebox.training.step import training_step

CPU = torch.device("cpu")
StepRecord = Callable[[], object]
LEARNING, FROZEN = 0.0, 1.0  # progress at which the bias behind the whitening learns, and does no more


@dataclass(frozen=True)
class Row:
    """One way to take a step."""

    name: str
    batch: int
    precision: str
    make: Callable[["Row"], StepRecord]
    side: int = 32
    around: Callable[[], AbstractContextManager[None]] = nullcontext
    channels_last: bool = True
    optimizer: str = "sgd"
    progress: float = LEARNING
    parts: int = 0
    compiled: bool = False

    @property
    def is_plain(self) -> bool:
        return self.make is plain


def plain(row: Row) -> StepRecord:
    """A step in torch alone."""
    memory_format = torch.channels_last if row.channels_last else torch.contiguous_format
    model = PlainNetwork().to(memory_format=memory_format)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-3, momentum=0.85, nesterov=True, fused=True)
    images = torch.randn(row.batch, 3, row.side, row.side).to(memory_format=memory_format)
    labels = torch.arange(row.batch) % 10
    network = torch.compile(model) if row.compiled else model

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=row.precision == "bf16"):
            logits = network(images)
        F.cross_entropy(logits.float(), labels, label_smoothing=0.2).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


class PlainNetwork(nn.Module):
    """airbench94's network from torch's own layers, its whitening frozen but for the bias."""

    def __init__(self) -> None:
        super().__init__()
        self.whitening = nn.Conv2d(3, 24, 2)
        self.whitening.weight.requires_grad_(False)
        layers: list[nn.Module] = [nn.GELU()]
        for inputs, outputs in ((24, 64), (64, 256), (256, 256)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.MaxPool2d(2)]
            layers += [nn.BatchNorm2d(outputs), nn.GELU()]
            layers += [nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.GELU()]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(256, 10, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(self.whitening(images)).amax((2, 3))) / 256
        return logits


def whole(row: Row) -> StepRecord:
    """The step of a training."""
    recipe = get_recipe("airbench94").replace(batch_size=row.batch, optimizer=row.optimizer, max_lr=1.0)
    state = TrainingState(build_model(recipe, 3, 10).train(), recipe, Precision(row.precision, CPU))
    state.optimizer.prepare(1e-6, 0.85, row.progress)
    augmentation = build_augmentation(recipe)
    half = torch.full((3,), 0.5)
    images = ResidentImages.from_dataset(noise(max(row.batch, 500), row.side), CPU)
    loader = DeviceLoader(images, ChannelStatistics(half, half / 2), augmentation, Sampling(row.batch, seed=0))

    def step() -> None:
        batch = loader.batch(state.step)
        training_step(state, Loss(0.2), batch, row.parts or row.batch)
        state.advance(row.progress)

    return step


def noise(num: int, side: int) -> ImageDataset:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (num, side, side, 3), dtype=np.uint8)
    return ImageDataset(images, np.arange(num) % 10, tuple("0123456789"), tuple(map(str, range(num))))


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows(with_compile: bool) -> list[Row]:
    plain32 = Row("plain, batch 128", 128, "fp32", plain)
    plain16 = replace(plain32, precision="bf16")
    step = Row("timebox, batch 128", 128, "bf16", whole)
    kept = replace(step, name="+ memory kept", around=retain_freed_memory)
    frozen = replace(kept, name="+ nothing that is frozen in autograd", progress=FROZEN)
    muon = replace(frozen, name="+ Muon on the filters", optimizer="muon")
    return [
        replace(plain32, name="plain, batch 128, contiguous", channels_last=False),
        replace(plain32, name="plain, batch 128, one thread", around=one_thread),
        replace(plain32, name="plain, batch 32", batch=32),
        plain32,
        replace(plain32, name="plain, batch 500", batch=500),
        replace(plain16, name="plain, batch 32", batch=32),
        plain16,
        replace(plain16, name="plain, batch 500", batch=500),
        *([replace(p, name=f"{p.name}, torch.compile", compiled=True) for p in (plain32, plain16) if with_compile]),
        replace(step, precision="fp32"),
        replace(frozen, name="timebox, batch 128, memory kept, frozen", precision="fp32"),
        step,
        kept,
        frozen,
        muon,
        replace(muon, name="+ batch 64", batch=64),
        replace(muon, name="+ batch 250", batch=250),
        replace(muon, name="+ batch 500", batch=500),
        replace(muon, name="+ batch 500 in parts of 125", batch=500, parts=125),
        replace(muon, name="+ batch 250 at 28 pixels", batch=250, side=28),
        replace(muon, name="+ batch 250 at 24 pixels", batch=250, side=24),
    ]


def matmul_peak(precision: str) -> float:
    """GFLOP/s."""
    matrix = torch.randn(2048, 2048).to(torch.bfloat16 if precision == "bf16" else torch.float32)
    return 2 * 2048**3 / fastest_seconds(lambda: matrix @ matrix, CPU, 1.0) / 1e9


def measure(listed: list[Row], rounds: int) -> list[dict[str, object]]:
    """Every row in every round; figures per row."""
    steps, first_seconds = [], []
    for row in listed:
        steps.append(row.make(row))
        started = time.perf_counter()
        with row.around():
            steps[-1]()
        first_seconds.append(time.perf_counter() - started)
    speeds: list[list[float]] = [[] for _ in listed]
    peaks: dict[str, list[float]] = {precision: [] for precision in ("fp32", "bf16")}
    for _ in range(rounds):
        for precision, values in peaks.items():
            values.append(matmul_peak(precision))
        for row, step, found in zip(listed, steps, speeds, strict=True):
            with row.around():
                found.append(row.batch / fastest_seconds(step, CPU, limit_seconds=60, max_repeats=3))
    peak = {precision: statistics.median(values) for precision, values in peaks.items()}
    plain_best = max(statistics.median(s) for row, s in zip(listed, speeds, strict=True) if row.is_plain)
    return [
        {
            "row": row.name,
            "precision": row.precision,
            "images_per_second": round(statistics.median(found), 1),
            "lowest": round(min(found), 1),
            "highest": round(max(found), 1),
            "against_best_plain": round(statistics.median(found) / plain_best, 3),
            "gflops": round(statistics.median(found) * flops(row.side) / 1e9, 1),
            "matmul_peak_gflops": round(peak[row.precision], 1),
            "share_of_peak": round(statistics.median(found) * flops(row.side) / 1e9 / peak[row.precision], 3),
            "first_step_seconds": round(first, 2),
            "rounds": rounds,
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
        }
        for row, found, first in zip(listed, speeds, first_seconds, strict=True)
    ]


def flops(side: int) -> float:
    with torch.device("meta"):
        return count_flops(build_model(get_recipe("airbench94"), 3, 10), (3, side, side))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose name holds this text, besides the plain ones")
    parser.add_argument("--compile", action="store_true", help="also torch.compile, which needs a C++ compiler")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    listed = [row for row in rows(arguments.compile) if row.is_plain or arguments.only in row.name]
    results = measure(listed, arguments.rounds)
    print(f"{'row':<42}{'':<6}{'images/s':>9}{'range':>16}{'x plain':>9}{'of peak':>9}{'first step':>12}")
    for result in results:
        span = f"{result['lowest']}-{result['highest']}"
        print(
            f"{result['row']:<42}{result['precision']:<6}{result['images_per_second']:>9}{span:>16}"
            f"{result['against_best_plain']:>9}{result['share_of_peak']:>9}{result['first_step_seconds']:>11}s"
        )
    if arguments.out:
        with arguments.out.open("a", encoding="utf-8") as log:
            log.writelines(json.dumps(result) + "\n" for result in results)


if __name__ == "__main__":
    main()
