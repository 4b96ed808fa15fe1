"""A run directory, loaded: its model, which predicts, its configuration and its summary."""

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from timebox.builders import build_model
from timebox.configs.call import refuse_unknown_arguments
from timebox.custom import Code, is_code, use_code
from timebox.data.images.model_input import ModelInput
from timebox.errors import RunError, UsageError
from timebox.evaluation.calibration import apply_temperature
from timebox.evaluation.inference import GPU_BATCH_SIZE, InferenceConfig, inference_batch_size, predict_probabilities
from timebox.evaluation.inference_memory import inference_bytes, inference_bytes_bound, pretrained_bytes
from timebox.evaluation.scoring import MAX_PROBABILITIES
from timebox.evaluation.tta import check_tta
from timebox.file_versions import MODEL_FORMAT, SUMMARY_FORMAT
from timebox.files import write_whole
from timebox.machine import check_memory
from timebox.models.pretrained import Blend, BlendWeights, PretrainedClassifier
from timebox.paths import expand_user
from timebox.recipes import Recipe, recipe_from, upgrade_fields
from timebox.run.checkpoint import Checkpoint, model_weights, read_checkpoint
from timebox.run.files import CHECKPOINT, CONFIG, MODEL, PRETRAINED, SUMMARY, read_json, to_json
from timebox.run.json_values import from_values
from timebox.run.model_config import ModelConfig
from timebox.run.predicting.explanation import explain
from timebox.run.predicting.files import FilePrediction, predict_files
from timebox.run.pretrained import read_pretrained
from timebox.run.results.curves import metrics_table
from timebox.run.results.html import to_html
from timebox.run.results.predictions import mistakes_table, predictions_table
from timebox.run.results.suspects import suspects_table
from timebox.run.results.table import Table
from timebox.run.results.text import describe, number
from timebox.run.summary import uncalibrated_reason, valid_summary
from timebox.run.tensors import check_finite, read_tensors, to_safetensors
from timebox.runtime.device import free_memory, resolve_device
from timebox.runtime.threads import limit_threads_to_container
from timebox.runtime.torch_state import retain_freed_memory


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
        self.pretrained, self._code = model.pretrained, model.code
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
        return number(self.summary, "val_accuracy")

    @property
    def test_accuracy(self) -> float | None:
        """Accuracy on the test images, 0...1; None without any."""
        return number(self.summary, "test_accuracy")

    @property
    def temperature(self) -> float:
        """The temperature that calibrates probabilities; 1 where none was fitted, see ``uncalibrated_reason``."""
        temperature = number(self.summary, "temperature")
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

    def with_code(
        self, given: Mapping[str, object], trust_code: bool = False, fields: Iterable[str] = ("model",)
    ) -> "Run":
        """The run itself, whose code may now be used; see :func:`timebox.custom.use_code`."""
        use_code(self.recipe.as_dict(), self._code, given, trust_code, fields)
        return self

    @cached_property
    def model(self) -> nn.Module:
        """The network with its trained weights, in evaluation mode, on the device."""
        model = self.bare_model()
        try:
            weights = read_tensors(self.path / MODEL, model.state_dict())
        except FileNotFoundError:
            plan, where = self.config.get("plan"), repr(str(self.path / CONFIG))
            weights = model_weights(self.checkpoint(), self.bare_model(), self.recipe, plan, where)
        check_finite(weights, f"the model of run {str(self.path)!r}")
        if is_code(self.recipe.model):  # keeps the memory format that its layers need
            model.load_state_dict(weights)
            return model.to(self.device).eval()
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
        """The network on the meta device, where weights take no memory: model.json may describe a huge one. One of the
        user's is on the CPU."""
        with torch.device("meta"):
            form = self.preprocessing
            return build_model(self.recipe, form.channels, len(self.class_names), form.size)

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
        array, views = self.model_input.convert(images), self.views(tta)
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
        array = self.model_input.convert(images)
        if not len(array):
            return np.zeros((0, len(self.class_names)), np.float32)
        return apply_temperature(self._probabilities(array, views), self.temperature if calibrate else 1.0)

    def _probabilities(self, array: NDArray[np.uint8], views: str) -> NDArray[np.float32]:
        """Class probabilities, not calibrated, of images of the working size. Raises RunError for those not finite."""
        self.check_memory(
            len(array) * self.probability_bytes, f"the probabilities of {len(self.class_names):,} classes"
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
        return predict_files(self, paths, tta)

    @refuse_unknown_arguments
    def explain(self, image: object, label: str | None = None) -> NDArray[np.float32]:
        """Where the image has what speaks for a class: Grad-CAM on the last feature map of the network.

        Args:
            image: one image, as :meth:`predict_proba` takes it.
            label: the class; by default the most probable one.
        Returns:
            float32 (H, W) in 0...1, for the image resized to the model's size; 0 where nothing speaks for the class.
        Raises:
            DataError: for an image that cannot be read. UsageError: for more than one image, for a class that the run
            does not have, and for a network without feature maps.
        """
        return explain(self, image, label)

    @property
    def model_input(self) -> ModelInput:
        """The conversion of images to those of the network."""
        form = self.preprocessing
        return ModelInput(form.image_shape, self.recipe.image_fit, form.white_16bit, self.check_memory)

    @property
    def probability_bytes(self) -> int:
        """Bytes of the probabilities of an image, in the three copies that calibration makes."""
        return len(self.class_names) * 3 * np.dtype(np.float32).itemsize

    @refuse_unknown_arguments
    def predictions(self, split: str = "test") -> Table:
        """The predictions for the images that were scored at the end of the training, a row for each. Loads no network.

        Args:
            split: ``test``, ``val``, or ``all`` for both.
        Returns:
            A pandas DataFrame where pandas is installed, else a dict of arrays (N,). Its columns: ``file`` (str), the
            path relative to the data, or the position in arrays; ``label`` and ``predicted`` (str), names of classes;
            ``probability`` (float32, 0...1) of the predicted class, calibrated as by :meth:`predict_proba`; ``loss``
            (float64, nats), the negative logarithm of the calibrated probability of the label, 27.6 at most; for
            ``all`` first ``split`` (str). Columns of texts have dtype object.
        Raises:
            RunError: where the run has no such predictions, or predictions.npz is damaged. UsageError: for a split of
            another name.
        """
        return predictions_table(self, split)

    @refuse_unknown_arguments
    def mistakes(self, split: str = "test") -> Table:
        """The rows of :meth:`predictions` whose predicted class is not the label, highest probability first.

        Mistakes that the model is sure of are often wrong labels. Without a mistake the table has no rows.
        """
        return mistakes_table(self, split)

    def suspects(self) -> Table:
        """Training images whose label the training doubts, the most suspect first: at most 1,000.

        On average over the training the network preferred another class. Wrong labels come first; hard images, and in
        short trainings many right ones, are among them too.

        Returns:
            A pandas DataFrame where pandas is installed, else a dict of arrays (N,). Its columns: ``file`` (str), the
            path relative to the data, or the position in arrays; ``label`` and ``looks_like`` (str), names of classes;
            ``margin`` (float32, below 0), the logit of the label less the largest other one, averaged over the times
            that the image was seen (G. Pleiss et al. 2020, arXiv 2001.10528).
        Raises:
            RunError: where they are not known, as of runs on several ranks, or suspects.npz is damaged.
        """
        return suspects_table(self)

    @property
    def metrics(self) -> Table:
        """The training by step: the lines of metrics.jsonl, which is read anew at each access.

        A pandas DataFrame where pandas is installed, else a dict of arrays (N,). Its columns: ``step`` (int64, from 1
        on), and as float64 ``epoch``, ``progress`` (0...1, of the schedule), ``lr``, ``momentum``, ``loss`` (of the
        training), ``resolution`` (pixels), ``micro_batch`` (images), ``threads`` (NaN where their number never
        changed) and ``val_accuracy`` (0...1, NaN for steps without a validation). A value that is missing, or was not
        finite, is NaN. Steps that a rollback undid are left out. Raises RunError where the file is missing or damaged.
        """
        return metrics_table(self.path)

    def __repr__(self) -> str:
        return describe(self)

    def _repr_html_(self) -> str:
        """The run in a notebook: a table, and its most confident mistakes."""
        return to_html(self)


@refuse_unknown_arguments
def load(path: str | Path, device: str = "auto", *, network: Code | None = None, trust_code: bool = False) -> Run:
    """Load a run directory. Raises RunError where there is none, or no model was saved yet.

    Args:
        network: the network of a run that was trained with one of your own, as of :func:`timebox.train`.
        trust_code: whether to import the code that the run names. Only for runs that you trust: a run of somebody else
            may name any code that is installed here.

    >>> import timebox
    >>> run = timebox.load("runs/demo")
    >>> run.predict_proba(["photos/red/1.png"]).shape
    (1, 2)
    """
    run = Run(path, device).with_code({"model": network}, trust_code)
    _ = run.predictor
    return run
