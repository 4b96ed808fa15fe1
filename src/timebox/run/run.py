"""A finished run: its model, ready to call, and what is known of it."""

import reprlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from timebox.builders import build_model
from timebox.data import decode_image, fit_images
from timebox.data.images.fit import batch_fit
from timebox.errors import DataError, RunError, TimeboxError, UsageError
from timebox.evaluation.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE, apply_temperature
from timebox.evaluation.inference import InferenceConfig, predict_probabilities
from timebox.evaluation.tta import check_tta
from timebox.file_versions import MODEL_FORMAT, SUMMARY_FORMAT
from timebox.machine import available_threads
from timebox.recipe import Recipe, recipe_from, upgrade_fields
from timebox.run.checkpoint import Checkpoint, read_checkpoint
from timebox.run.files import CHECKPOINT, CONFIG, MODEL, SUMMARY, read_json, read_weights, to_json, to_safetensors
from timebox.runtime.allocator import retain_freed_memory
from timebox.runtime.device import resolve_device
from timebox.runtime.precision import PRECISIONS, Precision
from timebox.runtime.threads import limit_threads_to_container
from timebox.training.state import TrainingState

FILES_AT_ONCE = 125
MIN_STD = 1e-4  # training writes none below 1/255; a smaller one would only blow the inputs up


@dataclass(frozen=True, eq=False)
class FilePrediction:
    """What the model says of one file: float32 (num_classes,) probabilities, or why it could not be read."""

    path: str
    probabilities: NDArray[np.float32] | None
    error: str | None


@dataclass(frozen=True)
class Preprocessing:
    """How an image reaches the network: working size (height, width), channels, and the training data's statistics."""

    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def square_side(self) -> int | None:
        """The working size in pixels where it is square, as a reader takes it."""
        return self.size[0] if self.size[0] == self.size[1] else None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return (*self.size, self.channels)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """mean and std, float32 (C,)."""
        return torch.tensor(self.mean), torch.tensor(self.std)


class Run:
    """A run directory, loaded.

    Args:
        path: the directory.
        device: ``auto``, ``cpu`` or ``cuda``: where it predicts.
    Raises:
        RunError: where the directory is none, or is damaged.
    """

    def __init__(self, path: str | Path, device: str = "auto") -> None:
        self.path = Path(path)
        self.device = resolve_device(device)
        self.config = read_json(self.path / CONFIG, MODEL_FORMAT)
        try:
            self.class_names = _class_names(self.config["class_names"])
            self.recipe: Recipe = recipe_from(mapping(self.config["recipe"]))
            self.preprocessing = _preprocessing(mapping(self.config["preprocessing"]))
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise RunError(f"{str(self.path / CONFIG)!r} is damaged: {error}") from error
        self.config["recipe"] = self.recipe.as_dict()

    @cached_property
    def summary(self) -> dict[str, object]:
        """summary.json; empty where the run ended before it was written."""
        if not (self.path / SUMMARY).is_file():
            return {}
        summary = read_json(self.path / SUMMARY, SUMMARY_FORMAT)
        recipe = summary.get("recipe")
        return {**summary, "recipe": upgrade_fields(recipe)} if isinstance(recipe, dict) else summary

    @property
    def val_accuracy(self) -> float | None:
        """Accuracy on the validation images, 0...1; None without any."""
        return _accuracy(self.summary.get("val_accuracy"))

    @property
    def test_accuracy(self) -> float | None:
        """Accuracy on the test images, 0...1; None without any."""
        return _accuracy(self.summary.get("test_accuracy"))

    @cached_property
    def model(self) -> nn.Module:
        """The network with its trained weights, in evaluation mode, on the device."""
        model = self.bare_model()
        if (self.path / MODEL).exists():
            weights = read_weights(self.path, model.state_dict())
        else:
            weights = self._weights_of_checkpoint()
        model.load_state_dict(weights, assign=True)
        return model.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload,no-any-return]

    def bare_model(self) -> nn.Module:
        """The network without memory for its weights, however large a one model.json asks for."""
        with torch.device("meta"):
            return build_model(self.recipe, self.preprocessing.channels, len(self.class_names))

    def checkpoint(self) -> Checkpoint:
        """The last checkpoint of a run that has not come to its end. Raises RunError where there is none."""
        if checkpoint := read_checkpoint(self.path / CHECKPOINT):
            return checkpoint
        raise RunError(f"run {str(self.path)!r} ended before a model was saved: nothing can be loaded from it")

    def save(self, path: Path) -> None:
        """Write what it takes to load the model, and its summary, to a directory. Raises OSError where that fails."""
        (path / CONFIG).write_bytes(to_json(self.config))
        (path / SUMMARY).write_bytes(to_json(self.summary))
        (path / MODEL).write_bytes(to_safetensors(self.model))

    def _weights_of_checkpoint(self) -> dict[str, Tensor]:
        """The averaged weights, as far as the training came."""
        plan = self.config.get("plan")
        precision = plan.get("precision") if isinstance(plan, dict) else None
        if precision not in PRECISIONS:
            raise RunError(f"{str(self.path / CONFIG)!r} is damaged: its plan has no precision")
        model = self.bare_model()
        state = TrainingState(model, self.recipe, Precision(str(precision), torch.device("cpu")))
        tensors = self.checkpoint().snapshot(state.tensors()).tensors
        part = "average" if state.average.model is not model else "model"
        return {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}

    @property
    def temperature(self) -> float:
        """What probabilities are calibrated with; 1 where there was nothing to fit it on."""
        value = self.summary.get("temperature")
        return value if isinstance(value, float) and MIN_TEMPERATURE <= value <= MAX_TEMPERATURE else 1.0

    def views(self, tta: str) -> str:
        """The views that are averaged: the run's own for ``recipe``. Raises UsageError for unknown ones."""
        views = self.recipe.tta if tta == "recipe" else tta
        check_tta(views)
        return views

    def predict(self, images: object, tta: str = "recipe") -> list[str]:
        """The most probable class of each image, by name; see :meth:`predict_proba`."""
        return [self.class_names[i] for i in self.predict_proba(images, tta).argmax(1)]

    def predict_proba(self, images: object, tta: str = "recipe", calibrate: bool = True) -> NDArray[np.float32]:
        """Class probabilities.

        Args:
            images: uint8 (N, H, W, C) or (N, H, W), or a sequence of paths and PIL images of any size and mode. Images
                of another size are brought to the model's as in training.
            tta: ``recipe`` (as the run was scored), ``none``, ``mirror``, ``shift`` or ``mirror_shift``.
            calibrate: with the temperature fitted on the validation images, if the run had any.
        Returns:
            float32 (N, num_classes), in the order of ``class_names``; rows sum to one.
        Raises:
            DataError: for an image that cannot be read.
        """
        views = self.views(tta)
        array = self._as_array(images)
        if not len(array):
            return np.zeros((0, len(self.class_names)), np.float32)
        config = InferenceConfig(*self.preprocessing.tensors(), views)
        with limit_threads_to_container(), retain_freed_memory():
            probabilities = predict_probabilities(self.model, array, config, self.device)
        return apply_temperature(probabilities, self.temperature if calibrate else 1.0)

    def predict_files(self, paths: Iterable[str | Path], tta: str = "recipe") -> Iterator[FilePrediction]:
        """Predictions for image files, in order, with calibrated probabilities.

        Files are decoded in threads while those before them are predicted, a few hundred in memory at a time. An
        unreadable file is no error: it comes back with its reason.
        """
        remaining = iter(paths)
        with ThreadPoolExecutor(available_threads()) as pool:
            started: deque[tuple[list[str | Path], Iterator[NDArray[np.uint8] | str]]] = deque()
            while True:
                while len(started) < 2 and (batch := list(islice(remaining, FILES_AT_ONCE))):
                    started.append((batch, pool.map(self._decoded, batch)))
                if not started:
                    return
                batch, decoded = started.popleft()
                yield from self._predicted(batch, list(decoded), tta)

    def _predicted(
        self, paths: Sequence[str | Path], images: Sequence[NDArray[np.uint8] | str], tta: str
    ) -> Iterator[FilePrediction]:
        """Predictions for images, each a file's pixels or the reason why there are none."""
        readable = [image for image in images if not isinstance(image, str)]
        rows = iter(self.predict_proba(np.stack(readable), tta) if readable else ())
        for path, image in zip(paths, images, strict=True):
            if isinstance(image, str):
                yield FilePrediction(str(path), None, image)
            else:
                yield FilePrediction(str(path), next(rows), None)

    def _decoded(self, path: str | Path) -> NDArray[np.uint8] | str:
        try:
            return decode_image(path, self.preprocessing.size, self.preprocessing.channels, self.recipe.image_fit)
        except TimeboxError as error:
            return str(error)

    def _as_array(self, images: object) -> NDArray[np.uint8]:
        """uint8 (N, H, W, C) of the working size."""
        size, channels = self.preprocessing.size, self.preprocessing.channels
        if isinstance(images, np.ndarray):
            array = images[..., None] if images.ndim == 3 else images
            if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] not in (1, 3, 4) or 0 in array.shape[1:3]:
                raise DataError(
                    f"images are {images.dtype} {images.shape}: they must be uint8 (N, H, W), "
                    "or (N, H, W, C) with 1, 3 or 4 channels"
                )
            # torch takes neither mirrored nor read-only arrays.
            array = fit_images(np.require(array, requirements=["C", "W"]), array.shape[1:3], channels)
            return array if array.shape[1:3] == size else self._fitted(array)
        if not isinstance(images, Sequence) or isinstance(images, str):
            raise DataError("images must be a uint8 array (N, H, W, C) or a list of paths and PIL images")
        if not images:
            return np.zeros((0, *size, channels), np.uint8)
        return np.stack([self._read(image, position) for position, image in enumerate(images)])

    def _fitted(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Images brought to the working size, with the tensor operations that a model is exported with."""
        fitted = np.empty((len(images), *self.preprocessing.image_shape), np.uint8)
        for position, image in enumerate(images):
            planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
            fitted[position] = (
                batch_fit(planes, *self.preprocessing.size, self.recipe.image_fit)[0].permute(1, 2, 0).numpy()
            )
        return fitted

    def _read(self, image: object, position: int) -> NDArray[np.uint8]:
        if not isinstance(image, str | Path | Image.Image):
            raise DataError(f"image number {position} is a {type(image).__name__}: it must be a path or a PIL image")
        try:
            return decode_image(image, self.preprocessing.size, self.preprocessing.channels, self.recipe.image_fit)
        except DataError as error:
            name = f"number {position}" if isinstance(image, Image.Image) else repr(str(image))
            raise DataError(f"image {name} cannot be read: {error}") from error


def load(path: str | Path, device: str = "auto") -> Run:
    """Load a run directory; raises RunError where there is none or nothing was saved yet.

    >>> import timebox
    >>> run = timebox.load("runs/demo")
    >>> run.predict_proba(["photos/red/1.png"]).shape
    (1, 2)
    """
    run = Run(path, device)
    _ = run.model
    return run


def _class_names(value: object) -> tuple[str, ...]:
    names = tuple(name for name in _list(value) if isinstance(name, str) and name)
    if len(names) != len(_list(value)):
        raise ValueError("class_names must be texts, none of them empty")
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError("class_names must be two or more, no two alike")
    return names


def _preprocessing(values: dict[str, object]) -> Preprocessing:
    shape = _list(values["image_shape"])
    mean, std = _numbers(values["mean"]), _numbers(values["std"])
    lengths = [length for length in shape if isinstance(length, int)]
    if len(shape) != 3 or len(lengths) != 3:
        raise ValueError(f"image_shape {reprlib.repr(shape)} is no height, width and channels")
    height, width, channels = lengths
    if channels not in (1, 3, 4) or not 8 <= min(height, width) <= max(height, width) <= 4096:
        raise ValueError(f"image_shape {reprlib.repr(shape)} is out of range")
    if len(mean) != channels or len(std) != channels:
        raise ValueError("mean and std do not fit the image's channels")
    if not all(MIN_STD <= value <= 1 for value in std):
        raise ValueError(f"std must lie in {MIN_STD:g}...1")
    return Preprocessing((height, width), channels, mean, std)


def mapping(value: object) -> dict[str, object]:
    """A mapping of model.json. Raises TypeError for anything else."""
    if not isinstance(value, dict):
        raise TypeError(f"{reprlib.repr(value)} is no mapping")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(f"{reprlib.repr(value)} is no list")
    return value


def _numbers(value: object) -> tuple[float, ...]:
    numbers = [float(item) for item in _list(value) if isinstance(item, int | float) and 0 <= item <= 1]
    if len(numbers) != len(_list(value)):
        raise ValueError("mean and std must be numbers in 0...1")
    return tuple(numbers)


def _accuracy(value: object) -> float | None:
    return value if isinstance(value, float) and 0 <= value <= 1 else None
