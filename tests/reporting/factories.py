"""Made-up runs for the pages."""

import numpy as np

from timebox.reporting import Example, RunData, SplitPredictions

CLASSES = ("cat", "dog", "<emu>")


def make_predictions(split: str = "test", num: int = 200, num_classes: int = 3, seed: int = 0) -> SplitPredictions:
    """Predictions with an accuracy of about 0.8 and similar confidences."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num)
    predicted = np.where(rng.random(num) < 0.8, labels, (labels + 1) % num_classes)
    probabilities = rng.random((num, num_classes)) * 0.2
    probabilities[np.arange(num), predicted] += 1
    probabilities /= probabilities.sum(1, keepdims=True)
    ids = np.array([f"{split}/{k}.png" for k in range(num)])
    return SplitPredictions(split, labels.astype(np.int64), probabilities.astype(np.float32), ids)


def make_examples(side: int = 32, channels: int = 3) -> list[Example]:
    """Three errors, two uncertain correct predictions and two augmented images."""
    rng = np.random.default_rng(0)
    kinds = [("mistake", 0, 1)] * 3 + [("unsure", 2, 2)] * 2 + [("augmented", 1, 1)] * 2
    return [
        Example(kind, rng.integers(0, 256, (side, side, channels), dtype=np.uint8), f"{k}.png", label, predicted, 0.7)
        for k, (kind, label, predicted) in enumerate(kinds)
    ]


def make_run_data(**changed: object) -> RunData:
    """A run with every field; ``summary`` updates its summary, other arguments replace fields of RunData."""
    summary: dict[str, object] = {
        "budget_seconds": 60.0,
        "elapsed_seconds": 58.2,
        "phases": {"start-up": 1.5, "reading": 0.4, "planning": 2.1, "training": 50.0, "scoring": 4.0, "saving": 0.2},
        "steps": 300,
        "epochs": 12.5,
        "images_per_second": 900.0,
        "train_images": 1000,
        "num_classes": 3,
        "temperature": 0.8,
        "data": {
            "name": "pets",
            "format": "folder of class folders",
            "why": "images lie in the folders cat, dog, <emu>",
        },
        "device": "cpu",
        "threads": 2,
        "precision": "bf16",
        "seed": 0,
        "recipe": {"name": "auto", "width": 32, "flip": "none"},
        "plan": ["one network of width 32 on 32 px", "batch 64: about 300 steps"],
        "notes": ["images of 3 sizes brought to 32x32"],
        "events": ["the loss became nan at step 9: back to step 1"],
        "bad_files": [{"path": "cat/empty.jpg", "reason": "empty file (0 bytes)"}],
        "command": "timebox train pets --budget 1m",
        "versions": {"timebox": "0.1.0", "torch": "2.13"},
    }
    steps = [{"step": k, "loss": 2 / (1 + k / 50), "lr": 0.01 * k, "momentum": 0.85} for k in range(1, 301)]
    validations = [{"step": k, "val_accuracy": k / 400} for k in (60, 120, 180, 240)]
    fields: dict[str, object] = {
        "name": "pets-1",
        "class_names": CLASSES,
        "metrics": [*steps, *validations],
        "predictions": [make_predictions(), make_predictions("val", 90, seed=1)],
        "examples": make_examples(),
        **changed,
    }
    return RunData(summary={**summary, **fields.pop("summary", {})}, **fields)  # type: ignore[arg-type, dict-item]
