"""What preparing a batch costs beside the training step it feeds, in one run, interleaved.

    python benchmarks/data_path.py [--width 32] [--batch-size 128] [--side 32] [--repeats 30]

Prints one JSON line: median milliseconds of a prepared batch (gather, crop, flip, normalise, cutout) and of a training
step (forward, backward, update, average), and the share of the former.
"""

import argparse
import json
import statistics
from collections.abc import Callable

import numpy as np
import torch

from timebox.clock import now
from timebox.data import ImageDataset
from timebox.data.loader import Augmentation, DeviceLoader
from timebox.engine.build import build_model, resolve_device
from timebox.engine.precision import PRECISIONS, Precision
from timebox.engine.speed import synchronize
from timebox.engine.step import training_step
from timebox.optim import WeightAverage, sgd
from timebox.recipe import get_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--num-images", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS)
    print(json.dumps(measure(**vars(parser.parse_args()))))


def measure(
    width: int, batch_size: int, side: int, num_images: int, repeats: int, device: str, precision: str
) -> dict[str, object]:
    """Median milliseconds of both, and their ratio."""
    on = resolve_device(device)
    random = np.random.default_rng(0)
    data = ImageDataset(
        random.integers(0, 256, (num_images, side, side, 3), dtype=np.uint8),
        random.integers(0, 10, num_images),
        tuple("0123456789"),
        tuple(map(str, range(num_images))),
    )
    recipe = get_recipe("haet2021").replace(width=width, batch_size=batch_size)
    augmentation = Augmentation(crop_padding=4, flip="alternating", cutout_size=8)
    loader = DeviceLoader(data, batch_size, torch.full((3,), 0.5), torch.full((3,), 0.3), augmentation, 0, on)
    model = build_model(recipe, 3, 10).to(on).train()
    optimizer = sgd(model, lr=0.01, momentum=0.9, weight_decay=5e-4, bias_lr_multiplier=64.0)
    average, numbers = WeightAverage(model, 0.1), Precision(precision, on)

    def step(number: int) -> None:
        training_step(model, optimizer, batch, numbers, 0.1)
        average.update(0.01)

    batch = loader.batch(0)
    preparing, training = [], []
    for number in range(repeats + 3):
        preparing.append(_milliseconds(loader.batch, number, on))
        training.append(_milliseconds(step, number, on))
    prepare_ms, step_ms = statistics.median(preparing[3:]), statistics.median(training[3:])
    return {
        "device": str(on),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "width": width,
        "batch_size": batch_size,
        "side": side,
        "repeats": repeats,
        "prepare_ms": round(prepare_ms, 3),
        "step_ms": round(step_ms, 3),
        "share": round(prepare_ms / (prepare_ms + step_ms), 4),
    }


def _milliseconds(work: Callable[[int], object], number: int, device: torch.device) -> float:
    before = now()
    work(number)
    synchronize(device)
    return 1000 * (now() - before)


if __name__ == "__main__":
    main()
