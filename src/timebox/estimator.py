"""timebox as a scikit-learn estimator."""

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from timebox.clock import parse_budget
from timebox.data import ImageDataset, decode_image
from timebox.data.formats.base import USUAL_SIDE
from timebox.data.images.decode import read_header
from timebox.data.reading.encoded_images import working_side
from timebox.errors import DataError, RunError, UsageError
from timebox.file_versions import ESTIMATOR_FORMAT
from timebox.files import parse_json_object, read_regular
from timebox.jobs.config import image_form, is_planned
from timebox.pipelines import train
from timebox.planning.dataset_profile import MIN_SIDE
from timebox.planning.image_size import largest_side_for
from timebox.run import load
from timebox.runtime.device import resolve_device

SQUARE, FIT = "square", "fit"
ESTIMATOR, CLASSES = "estimator.json", "classes.npy"
MAX_JSON_BYTES = 1 << 20


class TimeboxClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """An image classifier trained from scratch under a time limit, for scikit-learn's tools.

    Args:
        budget: deadline of one ``fit``, from call to return: seconds, or text such as ``"60s"`` or ``"10m"``.
        steps: train for so many steps in place of a budget and read no clock: with the same data, ``random_state`` and
            threads the results are the same, which repeated checks need.
        recipe: ``auto``, a built-in recipe or a TOML file.
        settings: ``"FIELD=VALUE"`` texts that override the recipe.
        image_shape: what a row of a 2-D ``X`` is: (H, W) or (H, W, C), C of 1, 3 or 4. ``"square"`` lays the features
            out row by row in the smallest square that holds them. Where ``X`` has images, None.
        scale: (low, high): what ``X`` holds for black and white. None: 0 and 255 where it is uint8, else 0.0 and 1.0.
            ``"fit"``: the lowest and the highest value of the training images. What lies beyond is cut off.
        random_state: an int, a numpy RandomState, or None for another training each time.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto`` (the measured fastest), ``fp32``, ``bf16`` or ``fp16``.

    Attributes:
        classes_: the labels, sorted.
        run_: the trained :class:`timebox.Run`.
        n_features_in_: features of a row, where ``X`` is 2-D.

    ``X`` may be uint8 or floating point, (N, H, W), (N, H, W, C) or, with ``image_shape``, 2-D; or a sequence of paths
    and PIL images.

    >>> from sklearn.datasets import load_digits
    >>> from timebox import TimeboxClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> classifier = TimeboxClassifier(steps=100, image_shape=(8, 8), scale=(0, 16), random_state=0)
    >>> bool(classifier.fit(X[:1500], y[:1500]).score(X[1500:], y[1500:]) > 0.9)
    True
    """

    def __init__(
        self,
        budget: str | float = "60s",
        *,
        steps: int | None = None,
        recipe: str = "auto",
        settings: Sequence[str] = (),
        image_shape: tuple[int, ...] | str | None = None,
        scale: tuple[float, float] | str | None = None,
        random_state: object = None,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        self.budget = budget
        self.steps = steps
        self.recipe = recipe
        self.settings = settings
        self.image_shape = image_shape
        self.scale = scale
        self.random_state = random_state
        self.device = device
        self.precision = precision

    def fit(self, X: object, y: ArrayLike) -> "TimeboxClassifier":  # noqa: N803
        """Train on images and their labels.

        Args:
            X: N images, see the class.
            y: (N,), labels of any kind.
        Raises:
            UsageError, DataError: both are ValueErrors; for what cannot be trained on.
        """
        if y is None:
            raise UsageError("TimeboxClassifier requires y to be passed, but the target y is None")
        pixels = self._pixels(X, y)
        labels = column_or_1d(np.asarray(y), warn=True)
        check_classification_targets(labels)
        self.classes_, indices = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"y has one class, {self.classes_[0]!r}: a classifier needs at least two")
        ids = tuple(map(str, range(len(pixels))))
        dataset = ImageDataset(pixels, indices.astype(np.int64), _names(self.classes_), ids)
        with tempfile.TemporaryDirectory(prefix="timebox-") as folder:
            self.run_ = train(
                dataset,
                budget=None if self.steps is not None else self.budget,
                steps=self.steps,
                recipe=self.recipe,
                settings=tuple(self.settings),
                val="none",
                test="none",
                scoring=False,
                seed=int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max)),
                device=self.device,
                precision=self.precision,
                out=Path(folder) / "run",
            )
            _ = self.run_.model, self.run_.summary  # what is needed of the files
        return self

    def predict_proba(self, X: object) -> NDArray[np.float32]:  # noqa: N803
        """Class probabilities, float32 (N, num_classes), in the order of ``classes_``."""
        check_is_fitted(self, "run_")
        return self.run_.predict_proba(self._pixels(X))

    def predict(self, X: object) -> NDArray[np.generic]:  # noqa: N803
        """The most probable label of each image, (N,)."""
        probabilities = self.predict_proba(X)  # says that it is not fitted, if it is not
        chosen: NDArray[np.generic] = self.classes_[probabilities.argmax(1)]
        return chosen

    def save(self, path: str | Path) -> None:
        """Write the fitted classifier to a new directory, without pickle: a run directory, and what this class adds.

        Raises UsageError where the directory is not empty, or the labels are neither numbers nor texts.
        """
        check_is_fitted(self, "run_")
        folder = Path(path)
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{str(folder)!r} is not empty; give another directory")
        labels = self.classes_ if self.classes_.dtype.kind in "biufU" else self.classes_.astype(str)
        if labels.tolist() != self.classes_.tolist():
            raise UsageError("only labels that are numbers or texts can be saved")
        facts = ESTIMATOR_FORMAT.numbered({"parameters": self._parameters(), "range": self._range})
        if hasattr(self, "n_features_in_"):
            facts["n_features_in"] = self.n_features_in_
        text = json.dumps(facts, indent=2, default=float)  # numpy's numbers
        folder.mkdir(parents=True, exist_ok=True)
        self.run_.save(folder)
        np.save(folder / CLASSES, labels, allow_pickle=False)
        (folder / ESTIMATOR).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> "TimeboxClassifier":
        """A classifier that :meth:`save` wrote. Nothing of it is unpickled. Raises RunError where there is none."""
        folder = Path(path)
        run = load(folder, device)
        try:
            values = parse_json_object(read_regular(folder / ESTIMATOR, MAX_JSON_BYTES))
            facts = ESTIMATOR_FORMAT.upgraded(values, repr(str(folder / ESTIMATOR)))
            labels = np.load(folder / CLASSES, allow_pickle=False)
            match facts:
                case {"parameters": dict(parameters), "range": [int() | float() as low, int() | float() as high]}:
                    classifier = cls()
                    classifier.set_params(**{name: _tuples(value) for name, value in parameters.items()})
                case _:
                    raise ValueError("it lacks parameters or a range")
        except (OSError, EOFError, ValueError) as error:
            raise RunError(f"{str(folder)!r} holds no classifier, or a damaged one: {error}") from error
        if labels.shape != (len(run.class_names),):
            raise RunError(f"{str(folder)!r} is damaged: labels {labels.shape} for {len(run.class_names)} classes")
        classifier.run_, classifier.classes_, classifier._range = run, labels, (float(low), float(high))
        if isinstance(number := facts.get("n_features_in"), int):
            classifier.n_features_in_ = number
        return classifier

    def _parameters(self) -> dict[str, object]:
        """Those it was made with; a random state that is no number is not kept."""
        kept: dict[str, object] = self.get_params()
        if not isinstance(kept["random_state"], int | None):
            kept["random_state"] = None
        return kept

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.non_deterministic = self.steps is None
        return tags

    def _pixels(self, X: object, y: object = None) -> NDArray[np.uint8]:  # noqa: N803
        """uint8 (N, H, W, C) of what is given. With y it is settled what stands for black and white."""
        fitting = y is not None
        if files := _files(X):
            if fitting:
                self._range = (0.0, 255.0)
            return self._decoded(files, fitting)
        arguments = {"y": y} if fitting else {}
        kinds = [np.float64, np.float32, np.uint8]  # of other kinds the first is made
        checked = validate_data(self, X, **arguments, reset=fitting, allow_nd=True, dtype=kinds)
        images = checked[0] if fitting else checked
        if fitting:
            self._range = self._fitted_range(images)
        return self._as_pixels(images)

    def _decoded(self, files: Sequence[str | Path | Image.Image], fitting: bool) -> NDArray[np.uint8]:
        if fitting:
            asked, fit = image_form(self.recipe, self.settings)
            side = asked or working_side([_size_of(file) for file in files], self._largest_side(len(files)))
        else:
            side, fit = self.run_.preprocessing.size[0], self.run_.recipe.image_fit
        return np.stack([_decoded(file, side, fit) for file in files])

    def _largest_side(self, num_images: int) -> int:
        if not is_planned(self.recipe):
            return USUAL_SIDE
        budget_seconds = None if self.steps is not None else parse_budget(self.budget)
        return largest_side_for(budget_seconds, resolve_device(self.device))(num_images)

    def _fitted_range(self, images: NDArray[np.generic]) -> tuple[float, float]:
        """What is black and what is white."""
        if isinstance(self.scale, str) or self.scale is None:
            if self.scale not in (None, FIT):
                raise UsageError(f"scale {self.scale!r} must be (low, high), 'fit' or None")
            if self.scale is None and images.dtype == np.uint8:
                return 0.0, 255.0
            low, high = float(images.min()), float(images.max())
            if self.scale == FIT:
                return low, high if high > low else low + 1.0
            if low < 0 or high > 1:
                raise UsageError(
                    f"X is {images.dtype} and runs from {low:g} to {high:g}: without scale=(low, high) it must be "
                    "uint8, or lie in 0...1; give what stands for black and white, or scale='fit'"
                )
            return 0.0, 1.0
        low, high = map(float, self.scale)
        if not low < high or not math.isfinite(high - low):
            raise UsageError(f"scale {self.scale!r} must be two numbers, the first below the second")
        return low, high

    def _as_pixels(self, images: NDArray[np.generic]) -> NDArray[np.uint8]:
        """uint8 (N, H, W, C)."""
        low, high = self._range
        if images.dtype != np.uint8 or (low, high) != (0.0, 255.0):
            scaled = (images.astype(np.float64) - low) * (255 / (high - low))
            images = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
        if images.ndim == 2:
            images = self._laid_out(images)
        images = images[..., None] if images.ndim == 3 else images
        if images.ndim != 4 or images.shape[3] not in (1, 3, 4):
            raise DataError(f"X is {images.shape}: images are (N, H, W), or (N, H, W, C) with 1, 3 or 4 channels")
        return images.astype(np.uint8, copy=False)

    def _laid_out(self, rows: NDArray[np.generic]) -> NDArray[np.generic]:
        """Rows of features as images."""
        num_features = rows.shape[1]
        if self.image_shape is None:
            raise UsageError(
                f"X is 2-D with {num_features} features: say with image_shape=(H, W) or (H, W, C) how they make an "
                "image"
            )
        if isinstance(self.image_shape, str):
            if self.image_shape != SQUARE:
                raise UsageError(f"image_shape {self.image_shape!r} must be (H, W), (H, W, C) or 'square'")
            side = math.ceil(math.sqrt(num_features))
            padded = np.zeros((len(rows), side * side), rows.dtype)
            padded[:, :num_features] = rows
            block = math.ceil(MIN_SIDE / side)
            return padded.reshape(len(rows), side, side).repeat(block, axis=1).repeat(block, axis=2)
        if len(self.image_shape) not in (2, 3) or math.prod(self.image_shape) != num_features:
            raise UsageError(
                f"image_shape {tuple(self.image_shape)} has {math.prod(self.image_shape)} values, X has {num_features}"
            )
        return rows.reshape(len(rows), *self.image_shape)


def _files(X: object) -> list[str | Path | Image.Image]:  # noqa: N803
    """Paths and PIL images, if that is what X is made of; else nothing."""
    if isinstance(X, np.ndarray) and X.dtype.kind not in "OU":
        return []
    if not isinstance(X, Sequence | np.ndarray) or isinstance(X, str):
        return []
    files = [item for item in X if isinstance(item, str | Path | Image.Image)]
    return files if files and len(files) == len(X) else []


def _decoded(file: str | Path | Image.Image, side: int, fit: str) -> NDArray[np.uint8]:
    try:
        return decode_image(file, (side, side), 3, fit)
    except DataError as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def _size_of(file: str | Path | Image.Image) -> tuple[int, int]:
    """(width, height) in pixels."""
    if isinstance(file, Image.Image):
        return file.size
    try:
        header = read_header(Path(file))
    except DataError as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    return header.width, header.height


def _names(labels: NDArray[np.generic]) -> tuple[str, ...]:
    """Labels as class names, or their numbers where that would not tell them apart."""
    names = tuple(map(str, labels))
    return names if len(set(names)) == len(names) and all(names) else tuple(map(str, range(len(names))))


def _tuples(value: object) -> object:
    """JSON's lists as the tuples they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
