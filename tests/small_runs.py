"""Small data sets on disk, and runs that train on them in about a second."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from timebox.errors import RunError
from timebox.pipelines import train
from timebox.planning.plan import Plan
from timebox.recipes import Recipe
from timebox.run import Run

SMALL = ("width=4", "batch_size=32", "ghost_size=16", "crop_padding=1", "max_lr=0.2", "flip=none", "tta=none")
CLASSES = ("red", "green", "blue")
FILES = {
    "examples.npz", "metrics.jsonl", "model.json", "model.safetensors", "predictions.npz", "report.html",
    "summary.json", "suspects.npz", "thumbnails.npz", "trained_on.npy",
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


def save_photos(root: Path, num: int, side: int = 8, name: str = "{}") -> Path:
    """Write noise images, ``num`` of cats and as many of dogs, into class folders; ``root``."""
    rng = np.random.default_rng(0)
    for folder in ("cat", "dog"):
        (root / folder).mkdir(parents=True)
        for number in range(num):
            pixels = rng.integers(0, 255, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{name.format(number)}.png")
    return root


def refusal(call: Callable[[], object], error: type[Exception] = RunError) -> str:
    """The message of the error that a call raises, which is one line."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def slow_down(patch: pytest.MonkeyPatch, module: ModuleType, name: str, seconds: float) -> None:
    """Have each call of a module's function wait for ``seconds`` first."""
    function = getattr(module, name)

    def slowly(*arguments: object) -> object:
        time.sleep(seconds)
        return function(*arguments)

    patch.setattr(module, name, slowly)


def small_plan(recipe: Recipe, **changes: Any) -> Plan:
    """A plan of a training on the CPU, under a deadline."""
    plan = Plan(
        recipe=recipe,
        device=torch.device("cpu"),
        threads=1,
        precision="fp32",
        num_steps=None,
        micro_batch=32,
        step_seconds=0.1,
        expected_steps=9,
        scoring_seconds=1.0,
        saving_seconds=0.1,
        finish_seconds=1.0,
        num_val_images=0,
        scoring_batch=50,
        lines=("a line",),
    )
    return replace(plan, **changes)


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
