from collections.abc import Callable
from copy import copy
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import timebox
from timebox import ImageDataset, Run
from timebox.exporting import Exported, export
from timebox.exporting.export import SUFFIXES
from timebox.exporting.parity import PredictFn, images_without_ties

TrainingResult = Callable[..., Run]
ExportedOnce = Callable[[str, str, str, str], tuple[Run, Exported]]


def labelled_images(channels: int = 3) -> ImageDataset:
    """200 images of 20x20 in three classes: evenly bright, dark upper half, dark right half."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (200, 20, 20, channels), dtype=np.uint8), np.arange(200) % 3
    images[labels == 1, :10] //= 2
    images[labels == 2, :, 10:] //= 3
    ids = tuple(map(str, range(200)))
    return ImageDataset(images, labels.astype(np.int64), ("all", "lower", "left"), ids)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """trained(recipe, precision, image_fit, channels, **settings): a run of 30 steps, trained once per session."""

    @cache
    def once(recipe: str, precision: str, channels: int, **settings: object) -> Run:
        values = {"width": 8, "batch_size": 32, **settings}
        if recipe == "superconvergence":
            # At its own learning rate the network predicts one class for every image, which would hide any change.
            values["max_lr"] = "x0.1"
        return timebox.train(
            labelled_images(channels),
            steps=30,
            recipe=recipe,
            precision=precision,
            settings=[f"{name}={value}" for name, value in values.items()],
            val=0.2,
            device="cpu",
            out=tmp_path_factory.mktemp("exporting") / "run",
        )

    def run(
        recipe: str, precision: str = "fp32", image_fit: str = "crop", channels: int = 3, **settings: object
    ) -> Run:
        # Training does not depend on image_fit: all images have the working size.
        fitted = copy(once(recipe, precision, channels, **settings))
        fitted.recipe = fitted.recipe.replace(image_fit=image_fit)
        return fitted

    return run


@pytest.fixture(scope="session")
def exported(trained: TrainingResult, tmp_path_factory: pytest.TempPathFactory) -> ExportedOnce:
    """exported(format, recipe, precision, image_fit): a run and its export, written once per session."""

    @cache
    def once(format: str, recipe: str, precision: str, image_fit: str) -> tuple[Run, Exported]:
        run = trained(recipe, precision, image_fit)
        return run, export(run, format, output=tmp_path_factory.mktemp("exported") / f"model{SUFFIXES[format]}")

    return once


@pytest.fixture(scope="session")
def plain(trained: TrainingResult) -> Run:
    """A run with one network and one view, which exports fast."""
    return trained("haet2021", tta="none")


@pytest.fixture(scope="session")
def run(trained: TrainingResult) -> Run:
    """A run with an ensemble of two, six views, larger input images and BlurPool."""
    run = trained("airbench94", tta="mirror_shift", ensemble_size=2, input_scale=1.25, blur_pool="true")
    assert run.recipe.ensemble_size == 2
    return run


def onnx_predict(path: Path) -> PredictFn:
    """The predictions of an ONNX file by ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return lambda images: session.run(["probabilities"], {"images": images})[0]


def max_difference(predict: PredictFn, run: Run, shape: tuple[int, int, int], tta: str = "recipe") -> float:
    """The largest relative difference between an exported model and its run on images of (number, height, width)."""
    images = images_without_ties(run, *shape)
    expected = run.predict_proba(images, tta)
    return float((np.abs(predict(images) - expected) / expected).max())
