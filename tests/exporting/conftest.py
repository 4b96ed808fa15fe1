from collections.abc import Callable
from copy import copy
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import timebox
from timebox import ImageDataset, Run
from timebox.exporting import Exported, export
from timebox.exporting.check import Answer, pictures_without_ties
from timebox.exporting.export import SUFFIXES

TrainingResult = Callable[..., Run]
ExportedOnce = Callable[[str, str, str, str], tuple[Run, Exported]]


def labelled_images(channels: int = 3) -> ImageDataset:
    """Three classes told apart by where it is dark, images of 20x20."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (200, 20, 20, channels), dtype=np.uint8), np.arange(200) % 3
    images[labels == 1, :10] //= 2
    images[labels == 2, :, 10:] //= 3
    ids = tuple(map(str, range(200)))
    return ImageDataset(images, labels.astype(np.int64), ("all", "lower", "left"), ids)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """trained(recipe, precision, image_fit, channels, **settings) -> a run of a few steps, trained once a session."""

    @cache
    def once(recipe: str, precision: str, channels: int, **settings: object) -> Run:
        chosen = {"width": 8, "batch_size": 32, **settings}
        if recipe == "superconvergence":
            # At its own rate the network is sure of one class whatever it sees, so that no change of it shows.
            chosen["max_lr"] = "x0.1"
        return timebox.train(
            labelled_images(channels),
            steps=30,
            recipe=recipe,
            precision=precision,
            settings=[f"{name}={value}" for name, value in chosen.items()],
            val=0.2,
            device="cpu",
            out=tmp_path_factory.mktemp("exporting") / "run",
        )

    def run(
        recipe: str, precision: str = "fp32", image_fit: str = "crop", channels: int = 3, **settings: object
    ) -> Run:
        # All images have the working size: how others are fitted changes nothing in the training.
        fitted = copy(once(recipe, precision, channels, **settings))
        fitted.recipe = fitted.recipe.replace(image_fit=image_fit)
        return fitted

    return run


@pytest.fixture(scope="session")
def exported(trained: TrainingResult, tmp_path_factory: pytest.TempPathFactory) -> ExportedOnce:
    """exported(format, recipe, precision, image_fit) -> a run and its export, written once a session."""

    @cache
    def once(format: str, recipe: str, precision: str, image_fit: str) -> tuple[Run, Exported]:
        run = trained(recipe, precision, image_fit)
        return run, export(run, format, output=tmp_path_factory.mktemp("exported") / f"model{SUFFIXES[format]}")

    return once


@pytest.fixture(scope="session")
def plain(trained: TrainingResult) -> Run:
    """A network that is quickly exported."""
    return trained("haet2021", tta="none")


@pytest.fixture(scope="session")
def run(trained: TrainingResult) -> Run:
    """Two networks that work on larger images, whose sides are even where they are halved."""
    run = trained("airbench94", tta="mirror_shift", ensemble_size=2, input_scale=1.25, blur_pool="true")
    assert run.recipe.ensemble_size == 2
    return run


def onnx_answers(path: Path) -> Answer:
    """What an ONNX file answers."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return lambda images: session.run(["probabilities"], {"images": images})[0]


def apart(answer: Answer, run: Run, number: int, height: int, width: int, tta: str = "recipe") -> float:
    """How far an exported model and its run are apart, as a share of a probability, on pictures both resize alike."""
    images = pictures_without_ties(run, number, height, width)
    expected = run.predict_proba(images, tta)
    return float((np.abs(answer(images) - expected) / expected).max())
