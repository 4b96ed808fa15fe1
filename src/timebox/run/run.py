"""A run directory, loaded: its model, which predicts, its configuration and its summary."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from timebox.builders import build_model
from timebox.configs.call import refuse_unknown_arguments
from timebox.data import decode_image, fit_images
from timebox.data.images.collate import ImageFile, as_batch, collate
from timebox.data.images.fit import batch_fit
from timebox.data.images.pixel_range import BYTE, PixelScale
from timebox.errors import DataError, RunError, TimeboxError, UsageError
from timebox.evaluation.calibration import apply_temperature
from timebox.evaluation.inference import GPU_BATCH_SIZE, InferenceConfig, inference_batch_size, predict_probabilities
from timebox.evaluation.inference_memory import inference_bytes, inference_bytes_bound, pretrained_bytes
from timebox.evaluation.scoring import MAX_PROBABILITIES
from timebox.evaluation.tta import check_tta
from timebox.file_versions import MODEL_FORMAT, SUMMARY_FORMAT
from timebox.files import write_whole
from timebox.machine import available_threads, check_memory
from timebox.models.pretrained import Blend, BlendWeights, PretrainedClassifier
from timebox.paths import expand_user
from timebox.recipe import Recipe, recipe_from, upgrade_fields
from timebox.run.checkpoint import Checkpoint, read_checkpoint
from timebox.run.files import CHECKPOINT, CONFIG, MODEL, PRETRAINED, SUMMARY, read_json, to_json
from timebox.run.json_values import from_values
from timebox.run.model_config import ModelConfig
from timebox.run.pretrained import read_pretrained
from timebox.run.summary import uncalibrated_reason, valid_summary
from timebox.run.tensors import check_finite, read_tensors, to_safetensors
from timebox.runtime.device import free_memory, resolve_device
from timebox.runtime.precision import PRECISIONS, Precision
from timebox.runtime.threads import limit_threads_to_container
from timebox.runtime.torch_state import retain_freed_memory
from timebox.training.state import TrainingState

# Files that are decoded and predicted together: fewer where their pixels and probabilities take more bytes than this.
FILES_AT_ONCE, BYTES_AT_ONCE = 125, 1 << 28
BYTE_SCALE = PixelScale(0.0, BYTE, BYTE)  # of the images that a run is trained on


@dataclass(frozen=True, eq=False)
class FilePrediction:
    """The prediction for one file.

    Attributes:
        probabilities: float32 (num_classes,); None for a file that cannot be read.
        error: why it cannot be read, None for a file that can.
    """

    path: str
    probabilities: NDArray[np.float32] | None
    error: str | None


class Run:
    """A run directory, loaded.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``, for predictions.
    Attributes:
        config: all of model.json in its newest format.
        class_names: in the order of the columns of :meth:`predict_proba`.
        preprocessing: how images reach the network.
        pretrained: the classifier on pretrained features that the run was trained beside; None without one.
    Raises:
        RunError: where there is no run, or its model.json is damaged.
    """

    def __init__(self, path: str | Path, device: str = "auto") -> None:
        if not isinstance(path, str | os.PathLike) or not os.fspath(path):
            raise UsageError(f"run {path!r} must be the path of a run directory, such as 'runs/demo'")
        self.path = Path(expand_user(path))
        self.device = resolve_device(device)
        self.config = read_json(self.path / CONFIG, MODEL_FORMAT)
        where = repr(str(self.path / CONFIG))
        model = from_values(self.config, ModelConfig, where)
        self.class_names, self.preprocessing = model.class_names, model.preprocessing
        self.pretrained = model.pretrained
        try:
            self.recipe: Recipe = recipe_from(model.recipe)
        except (TypeError, ValueError) as error:
            raise RunError(f"{where} is damaged: {error}") from error
        self.config["recipe"] = self.recipe.as_dict()

    @classmethod
    def of(cls, run: "str | Path | Run", device: str) -> "Run":
        """``run`` itself, or the run in that directory."""
        return run if isinstance(run, Run) else cls(run, device)

    @cached_property
    def summary(self) -> dict[str, object]:
        """summary.json in its newest format, without damaged values; empty where the run was killed."""
        if not os.path.lexists(self.path / SUMMARY):
            return {}
        summary = valid_summary(read_json(self.path / SUMMARY, SUMMARY_FORMAT))
        recipe = summary.get("recipe")
        return {**summary, "recipe": upgrade_fields(recipe)} if isinstance(recipe, dict) else summary

    @property
    def val_accuracy(self) -> float | None:
        """Accuracy on the validation images, 0...1; None without any."""
        return self._number("val_accuracy")

    @property
    def test_accuracy(self) -> float | None:
        """Accuracy on the test images, 0...1; None without any."""
        return self._number("test_accuracy")

    @property
    def temperature(self) -> float:
        """The temperature that calibrates probabilities; 1 where none was fitted, see ``uncalibrated_reason``."""
        temperature = self._number("temperature")
        return 1.0 if temperature is None else temperature

    @property
    def blend_weights(self) -> BlendWeights:
        """The weights of the network and of the pretrained classifier in predictions; a share of 0 without one.

        Before the training has ended the pretrained classifier predicts alone: the network is not yet good.
        """
        if self.pretrained is None:
            return BlendWeights(0.0, 1.0)
        match self.summary.get("blend"):
            case {"share": int() | float() as share, "temperature": int() | float() as temperature}:
                return BlendWeights(share, temperature)
            case _:
                return BlendWeights(1.0, 1.0)

    @property
    def uncalibrated_reason(self) -> str | None:
        """Why no temperature was fitted on the validation images, for the user; None where one was."""
        training = self.config.get("training")
        return uncalibrated_reason(self.summary, not isinstance(training, dict) or training.get("scoring") is not False)

    def _number(self, key: str) -> float | None:
        """A number of the summary, None where it has none."""
        value = self.summary.get(key)
        return float(value) if isinstance(value, int | float) else None

    @cached_property
    def model(self) -> nn.Module:
        """The network with its trained weights, in evaluation mode, on the device."""
        model = self.bare_model()
        try:
            weights = read_tensors(self.path / MODEL, model.state_dict())
        except FileNotFoundError:
            weights = self._weights_of_checkpoint()
        check_finite(weights, f"the model of run {str(self.path)!r}")
        model.load_state_dict(weights, assign=True)
        return model.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload,no-any-return]

    @cached_property
    def predictor(self) -> nn.Module:
        """The network, or its blend with the run's classifier on pretrained features: predictions are made with it."""
        weights = self.blend_weights
        return Blend(self.model, self.pretrained_classifier, weights).eval() if weights.share else self.model

    @cached_property
    def pretrained_classifier(self) -> PretrainedClassifier:
        """The classifier on pretrained features, on the device. Raises RunError where the run has none."""
        if self.pretrained is None:
            raise RunError(f"run {str(self.path)!r} was trained from scratch: it has no pretrained features")
        classifier = read_pretrained(self.path, len(self.class_names), self.pretrained.side)
        return classifier.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def bare_model(self) -> nn.Module:
        """The network on the meta device, where weights take no memory: model.json may describe a huge one."""
        with torch.device("meta"):
            return build_model(self.recipe, self.preprocessing.channels, len(self.class_names))

    @cached_property
    def bytes_per_image(self) -> int:
        """Bytes that the networks take for each image that they compute at once."""
        own_bytes = inference_bytes(self.bare_model().eval(), self.preprocessing.image_shape)
        return max(own_bytes, self._pretrained_bytes)

    @property
    def _pretrained_bytes(self) -> int:
        """An upper bound of the bytes that the pretrained classifier takes for each image."""
        height, width = self.preprocessing.size
        return pretrained_bytes(self.pretrained.side, height / width) if self.pretrained else 0

    def check_memory(self, num_bytes: int, purpose: str, available: int | None = None) -> None:
        """Raise RunError where `num_bytes` for a purpose cannot be allocated: model.json may claim any size. See
        :func:`timebox.machine.check_memory`."""
        check_memory(num_bytes, f"run {str(self.path)!r}", purpose, RunError, available)

    def _batch_size(self, num_images: int) -> int | None:
        """Images that are computed at once; None for the usual number. Raises RunError where not even one fits."""
        usual, available = min(num_images, inference_batch_size(self.device, 0.0)), free_memory(self.device)
        if available is None:
            return None
        bound = inference_bytes_bound(self.recipe, self.preprocessing.image_shape, len(self.class_names))
        bound = max(bound, self._pretrained_bytes)
        room = available // 2  # the rest is for images, and for other programs
        if usual * bound <= room or usual * self.bytes_per_image <= room:
            return None
        height, width = self.preprocessing.size
        self.check_memory(self.bytes_per_image, f"an image of {height}x{width} pixels in its network", available)
        return max(1, room // self.bytes_per_image)

    def checkpoint(self) -> Checkpoint:
        """The last checkpoint. Raises RunError where there is none."""
        if checkpoint := read_checkpoint(self.path / CHECKPOINT):
            return checkpoint
        raise RunError(f"run {str(self.path)!r} ended before a model was saved: nothing can be loaded from it")

    def save(self, path: Path) -> None:
        """Write model.json, model.safetensors and summary.json to a directory. Raises OSError where that fails."""
        write_whole(path / CONFIG, to_json(self.config))
        write_whole(path / SUMMARY, to_json(self.summary))
        write_whole(path / MODEL, to_safetensors(self.model.state_dict()))
        if isinstance(self.predictor, Blend):
            write_whole(path / PRETRAINED, to_safetensors(self.predictor.pretrained.state_dict()))

    def _weights_of_checkpoint(self) -> dict[str, Tensor]:
        """The weights of the last checkpoint, averaged where the recipe averages them."""
        plan = self.config.get("plan")
        precision = plan.get("precision") if isinstance(plan, dict) else None
        if precision not in PRECISIONS:
            raise RunError(f"{str(self.path / CONFIG)!r} is damaged: its plan has no precision")
        model = self.bare_model()
        state = TrainingState(model, self.recipe, Precision(str(precision), torch.device("cpu")))
        tensors = self.checkpoint().snapshot(state.tensors()).tensors
        prefix = "model." if state.average.model is model else "average."
        return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

    def views(self, tta: str) -> str:
        """The test-time augmentation to use: the recipe's own for ``recipe``. Raises UsageError for an unknown one."""
        views = self.recipe.tta if tta == "recipe" else tta
        check_tta(views)
        return views

    @refuse_unknown_arguments
    def predict(self, images: object, tta: str = "recipe") -> list[str]:
        """The most probable class of each image, by name; see :meth:`predict_proba`."""
        return [self.class_names[index] for index in self.predict_indices(images, tta)]

    @refuse_unknown_arguments
    def predict_indices(self, images: object, tta: str = "recipe") -> NDArray[np.int64]:
        """The index of the most probable class of each image, int64 (N,); see :meth:`predict_proba`.

        The probabilities of all images are never held together: with many classes they would take gigabytes.
        """
        array, views = self._as_array(images), self.views(tta)
        num_whole_batches = MAX_PROBABILITIES // len(self.class_names) // GPU_BATCH_SIZE
        size = max(1, num_whole_batches) * GPU_BATCH_SIZE
        parts = [self._probabilities(array[i : i + size], views).argmax(1) for i in range(0, len(array), size)]
        return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)

    @refuse_unknown_arguments
    def predict_proba(self, images: object, tta: str = "recipe", calibrate: bool = True) -> NDArray[np.float32]:
        """Class probabilities: float32 (N, num_classes), in the order of ``class_names``; rows sum to one.

        Args:
            images: an array or a tensor of images, (N, H, W, C), (N, C, H, W) or grey (N, H, W), or of one image,
                (H, W, C) or (H, W); a list, tuple or iterator of paths, PIL images, arrays and tensors of any size and
                mode; or one of those. Pixels are uint8, booleans, whole numbers of 0...255, or floating-point numbers
                of 0...1. Images of another size are resized to the model's as in training.
            tta: ``recipe`` (as the run was scored), ``none``, ``mirror``, ``shift`` or ``mirror_shift``.
            calibrate: whether to divide logits by the temperature fitted on the validation images, if there were any.
        Raises:
            DataError: for an image that cannot be read, and for arrays whose layout or scale has two readings.
            RunError: where probabilities are not finite, or they or the images do not fit into memory.
        """
        views = self.views(tta)
        array = self._as_array(images)
        if not len(array):
            return np.zeros((0, len(self.class_names)), np.float32)
        return apply_temperature(self._probabilities(array, views), self.temperature if calibrate else 1.0)

    def _probabilities(self, array: NDArray[np.uint8], views: str) -> NDArray[np.float32]:
        """Class probabilities, not calibrated, of images of the working size. Raises RunError for those not finite."""
        self.check_memory(
            len(array) * self._probability_bytes, f"the probabilities of {len(self.class_names):,} classes"
        )
        config = InferenceConfig(*self.preprocessing.tensors(), views, self._batch_size(len(array)))
        with limit_threads_to_container(), retain_freed_memory():
            probabilities = predict_probabilities(self.predictor, array, config, self.device)
        if not np.isfinite(probabilities).all():
            raise RunError(f"the model of run {str(self.path)!r} computes NaN for some images: train it again")
        return probabilities

    def predict_files(self, paths: Iterable[str | Path], tta: str = "recipe") -> Iterator[FilePrediction]:
        """Predictions for image files, in order, with calibrated probabilities. An unreadable file raises nothing.

        Files are decoded in threads while earlier ones are predicted, a few hundred in memory at a time.
        """
        remaining = iter(paths)
        at_once = max(1, min(FILES_AT_ONCE, BYTES_AT_ONCE // (self._pixel_bytes + self._probability_bytes)))
        with ThreadPoolExecutor(available_threads()) as pool:
            started: deque[tuple[list[str | Path], Iterator[NDArray[np.uint8] | str]]] = deque()
            while True:
                while len(started) < 2 and (batch := list(islice(remaining, at_once))):
                    started.append((batch, pool.map(self._decode_or_explain, batch)))
                if not started:
                    return
                batch, decoded = started.popleft()
                images = list(decoded)
                readable = [image for image in images if not isinstance(image, str)]
                rows = iter(self.predict_proba(np.stack(readable), tta) if readable else ())
                for path, image in zip(batch, images, strict=True):
                    error = image if isinstance(image, str) else None
                    yield FilePrediction(str(path), next(rows) if error is None else None, error)

    @property
    def _pixel_bytes(self) -> int:
        """Bytes of an image of the model's size."""
        return prod(self.preprocessing.image_shape)

    @property
    def _probability_bytes(self) -> int:
        """Bytes of the probabilities of an image, in the three copies that calibration makes."""
        return len(self.class_names) * 3 * np.dtype(np.float32).itemsize

    def _decode_or_explain(self, path: str | Path) -> NDArray[np.uint8] | str:
        """The pixels of a file, or the reason why it cannot be read."""
        try:
            return self._decode(path)
        except TimeboxError as error:
            return str(error)

    def _decode(self, image: ImageFile) -> NDArray[np.uint8]:
        if isinstance(image, str | Path):
            image = expand_user(image)
        form = self.preprocessing
        return decode_image(image, form.size, form.channels, self.recipe.image_fit, form.white_16bit)

    def _as_array(self, images: object) -> NDArray[np.uint8]:
        """Images of :meth:`predict_proba` as uint8 (N, H, W, C) of the working size."""
        shape = self.preprocessing.image_shape
        batch = collate(images, "images")
        if isinstance(batch, np.ndarray):
            return self._resized(*BYTE_SCALE.to_uint8([as_batch(batch, "images", shape)], "images"))
        if not batch:
            return np.zeros((0, *shape), np.uint8)
        self.check_memory(2 * len(batch) * self._pixel_bytes, f"{len(batch):,} images of its size")
        arrays = iter(BYTE_SCALE.to_uint8([item for item in batch if isinstance(item, np.ndarray)], "images"))
        return np.stack(
            [
                self._resized(next(arrays)[None])[0] if isinstance(item, np.ndarray) else self._read(item, position)
                for position, item in enumerate(batch)
            ]
        )

    def _resized(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Images (N, H, W, C) with the channels and the size of the model's."""
        # torch takes neither arrays with negative strides nor read-only ones.
        writable = np.require(images, requirements=["C", "W"])
        array = fit_images(writable, images.shape[1:3], self.preprocessing.channels)
        return array if array.shape[1:3] == self.preprocessing.size else self._fitted(array)

    def _fitted(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Images resized to the working size, with the same tensor operations as in an exported model."""
        self.check_memory(len(images) * self._pixel_bytes, f"{len(images):,} images of its size")
        fitted = np.empty((len(images), *self.preprocessing.image_shape), np.uint8)
        for position, image in enumerate(images):
            planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
            planes = batch_fit(planes, *self.preprocessing.size, self.recipe.image_fit)[0]
            fitted[position] = planes.permute(1, 2, 0).numpy()
        return fitted

    def _read(self, image: ImageFile, position: int) -> NDArray[np.uint8]:
        name = repr(str(image)) if isinstance(image, str | Path) else f"number {position}"
        try:
            return self._decode(image)
        except DataError as error:
            if isinstance(image, str | Path) and os.path.isdir(image):  # noqa: PTH112  # refuses no name, unlike Path's
                raise DataError(
                    f"image {name} is a folder: give its files, for instance sorted(Path({name}).glob('*.jpg')), or "
                    "`timebox predict` the folder"
                ) from error
            raise DataError(f"image {name} cannot be read: {error}") from error


@refuse_unknown_arguments
def load(path: str | Path, device: str = "auto") -> Run:
    """Load a run directory. Raises RunError where there is none, or no model was saved yet.

    >>> import timebox
    >>> run = timebox.load("runs/demo")
    >>> run.predict_proba(["photos/red/1.png"]).shape
    (1, 2)
    """
    run = Run(path, device)
    _ = run.predictor
    return run
