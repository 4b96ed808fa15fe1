"""timebox beside a plain PyTorch loop, with the same network, data and budget, in turn.

    python benchmarks/plain_loop.py DATA.npz --budget 60 --seeds 5 --out results.jsonl

The plain loop is what an expert writes in an hour: images as a tensor in memory, crops and flips for whole batches,
AdamW with one cycle that follows the clock, label smoothing, weights in channels_last, bf16 where it is faster. It
needs no planning, no files and no report: its clock begins when the data lie in memory, and stops before scoring;
that of timebox counts everything. Both train on the training images less a tenth, and are scored on the test images.
A line of JSON for each training.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

import timebox
from timebox.models import ResNet18

BATCH_SIZE, MAX_LR, WEIGHT_DECAY, WARMUP, LABEL_SMOOTHING, MAX_SHIFT = 64, 2e-3, 0.05, 0.2, 0.1, 4
RESNET_WIDTH = 16
# Seconds for which each number format is measured.
PROBE_SECONDS = 1.0
Shape = tuple[int, int, int]


def resnet18(num_classes: int, image_shape: Shape) -> nn.Module:
    """A ResNet-18 with a quarter of the usual channels."""
    return ResNet18(image_shape[0], num_classes, width=RESNET_WIDTH)


class TinyViT(nn.Module):
    """A vision transformer of six layers with 96 channels on patches of 4x4 pixels."""

    def __init__(self, num_classes: int, image_shape: Shape, width: int = 96, depth: int = 6, patch: int = 4) -> None:
        super().__init__()
        channels, height, side = image_shape
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, (height // patch) * (side // patch), width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        logits: Tensor = self.head(self.blocks(tokens).mean(1))
        return logits


class TinyConvNeXt(nn.Module):
    """Depthwise 7x7 convolutions and pointwise layers, as in ConvNeXt, on patches of 2x2 pixels."""

    def __init__(self, num_classes: int, image_shape: Shape, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(image_shape[0], width, 2, 2)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 7, padding=3, groups=width),
                nn.GroupNorm(1, width),
                nn.Conv2d(width, 4 * width, 1),
                nn.GELU(),
                nn.Conv2d(4 * width, width, 1),
            )
            for _ in range(depth)
        )
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.stem(images)
        for number, block in enumerate(self.blocks):
            hidden = hidden + block(hidden)
            if number == len(self.blocks) // 2 - 1:
                hidden = F.avg_pool2d(hidden, 2)
        logits: Tensor = self.head(hidden.mean((2, 3)))
        return logits


def depthwise(num_classes: int, image_shape: Shape, width: int = 32) -> nn.Module:
    """Depthwise and pointwise convolutions with batch normalisation, as in MobileNet."""

    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False), nn.BatchNorm2d(inputs), nn.ReLU(),
            nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
        ]  # fmt: skip

    return nn.Sequential(
        nn.Conv2d(image_shape[0], width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        *block(width, 2 * width, 2), *block(2 * width, 2 * width, 1), *block(2 * width, 4 * width, 2),
        *block(4 * width, 4 * width, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[int, Shape], nn.Module]] = {
    "resnet18": resnet18,
    "vit": TinyViT,
    "convnext": TinyConvNeXt,
    "depthwise": depthwise,
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--networks", nargs="+", default=["resnet18", "vit"], choices=NETWORKS)
    parser.add_argument("--methods", nargs="+", default=["plain", "timebox"])
    parser.add_argument("--budget", type=float, default=60.0, help="seconds")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for network in args.networks:
            for method in args.methods if seed % 2 else reversed(args.methods):
                train = train_plainly if method == "plain" else train_with_timebox
                result = train(args.data, NETWORKS[network], args.budget, seed)
                line = {"network": network, "method": method, "seed": seed, "budget": args.budget, **result}
                with args.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(json.dumps(line), flush=True)


def train_with_timebox(
    data: Path, network: Callable[[int, Shape], nn.Module], budget: float, seed: int
) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        run = timebox.train(data, budget=budget, network=network, seed=seed, val=0.1, out=Path(folder) / "run")
        summary = run.summary
        return {
            "accuracy": run.test_accuracy,
            "images": summary["test_images"],
            "epochs": summary["epochs"],
            "images_per_second": summary["images_per_second"],
            "training_seconds": summary["phases"]["training"],  # type: ignore[index]
            "late": summary["late"],
            "lr": run.recipe.max_lr,
        }


def train_plainly(
    data: Path, network: Callable[[int, Shape], nn.Module], budget: float, seed: int
) -> dict[str, object]:
    torch.manual_seed(seed)
    arrays = np.load(data)
    images, labels = arrays["train_images"], torch.from_numpy(arrays["train_labels"].astype(np.int64))
    kept = torch.from_numpy(np.random.default_rng(seed).permutation(len(images))[: round(0.9 * len(images))])
    mean, std = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in _statistics(images))
    test_images, test_labels = _as_inputs(arrays["test_images"], mean, std), torch.from_numpy(arrays["test_labels"])
    inputs, labels = _as_inputs(images, mean, std)[kept], labels[kept]
    height, width = inputs.shape[2:]
    num_classes = int(labels.max()) + 1
    started = time.perf_counter()
    precision = _fastest_precision(network, inputs, labels)
    torch.manual_seed(seed)
    model = network(num_classes, (inputs.shape[1], height, width)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=MAX_LR, weight_decay=WEIGHT_DECAY, fused=True)
    padded, steps = F.pad(inputs, [MAX_SHIFT] * 4, mode="reflect"), 0
    order = torch.randperm(len(inputs))
    while (progress := (time.perf_counter() - started) / budget) < 1:
        first = steps * BATCH_SIZE % (len(inputs) - BATCH_SIZE + 1)
        if first < BATCH_SIZE:
            order = torch.randperm(len(inputs))
        chosen = order[first : first + BATCH_SIZE]
        optimizer.param_groups[0]["lr"] = MAX_LR * min(progress / WARMUP, (1 - progress) / (1 - WARMUP))
        loss = _loss(model, _augment(padded, chosen, height, width), labels[chosen], precision)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps += 1
    seconds = time.perf_counter() - started
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(part) + model(part.flip(3)) for part in test_images.split(256)])
    return {
        "accuracy": float((logits.argmax(1) == test_labels).float().mean()),
        "images": len(test_labels),
        "epochs": steps * BATCH_SIZE / len(inputs),
        "images_per_second": steps * BATCH_SIZE / seconds,
        "training_seconds": seconds,
        "lr": MAX_LR,
    }


def _statistics(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    pixels = images.reshape(-1, images.shape[-1]) / 255
    return pixels.mean(0), pixels.std(0)


def _as_inputs(images: NDArray[np.uint8], mean: Tensor, std: Tensor) -> Tensor:
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


def _augment(padded: Tensor, chosen: Tensor, height: int, width: int) -> Tensor:
    """Shifts that four groups of a batch have in common, as is usual without a loop over the images; flips of each."""
    parts = []
    for part in chosen.chunk(4):
        y, x = torch.randint(0, 2 * MAX_SHIFT + 1, (2,)).tolist()
        parts.append(padded[part, :, y : y + height, x : x + width])
    images = torch.cat(parts)
    is_flipped = torch.rand(len(images)) < 0.5
    images[is_flipped] = images[is_flipped].flip(3)
    return images.contiguous(memory_format=torch.channels_last)


def _loss(model: nn.Module, images: Tensor, labels: Tensor, precision: torch.dtype) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        logits = model(images)
    return F.cross_entropy(logits.float(), labels, label_smoothing=LABEL_SMOOTHING)


def _fastest_precision(network: Callable[[int, Shape], nn.Module], inputs: Tensor, labels: Tensor) -> torch.dtype:
    """The format with more steps in a second."""
    speeds = {}
    for precision in (torch.float32, torch.bfloat16):
        model = network(int(labels.max()) + 1, (inputs.shape[1], *inputs.shape[2:])).to(
            memory_format=torch.channels_last  # type: ignore[call-overload]
        )
        _loss(model, inputs[:BATCH_SIZE], labels[:BATCH_SIZE], precision).backward()
        started, steps = time.perf_counter(), 0
        while time.perf_counter() - started < PROBE_SECONDS:
            _loss(model, inputs[:BATCH_SIZE], labels[:BATCH_SIZE], precision).backward()
            steps += 1
        speeds[precision] = steps / (time.perf_counter() - started)
    return max(speeds, key=lambda precision: speeds[precision])


if __name__ == "__main__":
    main()
