"""Small data sets on disk, and runs that train on them in about a second."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timebox.pipelines import train
from timebox.run import Run

SMALL = ("width=4", "batch_size=32", "ghost_size=16", "crop_padding=1", "max_lr=0.2", "flip=none", "tta=none")
CLASSES = ("red", "green", "blue")
FILES = {
    "examples.npz", "metrics.jsonl", "model.json", "model.safetensors", "predictions.npz", "report.html",
    "summary.json", "trained_on.npy",
}  # fmt: skip
Listing = Callable[[], list[str]]


def coloured(num: int, side: int = 8, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noise images, uint8 (num, side, side, 3), tinted in the colour of their class, and labels, int64 (num,)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % 3
    images = rng.integers(0, 150, (num, side, side, 3))
    images[np.arange(num), :, :, labels] += 100
    return images.astype(np.uint8), labels


def save_npz(path: Path, num: int = 150, num_val: int = 0, num_test: int = 0, names: tuple[str, ...] = CLASSES) -> Path:
    """Write an .npz file with these numbers of images in train, val and test; its path."""
    arrays: dict[str, NDArray[np.generic]] = {"class_names": np.array(names)}
    for seed, (split, count) in enumerate((("train", num), ("val", num_val), ("test", num_test))):
        if count:
            arrays[f"{split}_images"], arrays[f"{split}_labels"] = coloured(count, seed=seed)
    np.savez(path, **arrays)
    return path


def quick(data: str | Path, out: Path, steps: int = 6, **options: object) -> Run:
    """Train a small network for a few steps: a second or less."""
    arguments = {"recipe": "haet2021", "settings": SMALL, "device": "cpu", "precision": "fp32", **options}
    return train(data, steps=steps, out=out, **arguments)  # type: ignore[arg-type]


def weights(run: Run) -> bytes:
    return (run.path / "model.safetensors").read_bytes()


class UnforeseenError(Exception):
    """An error that no code expects."""


def fail(*rest: object, **more: object) -> None:
    raise UnforeseenError
