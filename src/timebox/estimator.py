"""TimeboxClassifier: timebox as a scikit-learn estimator."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from timebox.data.images.decode import read_header
from timebox.data.reading.encoded_images import working_side
from timebox.data.reading.options import DEFAULT_MAX_SIDE
from timebox.errors import DataError, RunError, UsageError
from timebox.file_versions import ESTIMATOR_FORMAT
from timebox.files import parse_json_object, read_regular, temporary_directory
from timebox.paths import expand_user
from timebox.pipelines import train
from timebox.planning.dataset_profile import MIN_SIDE
from timebox.planning.image_size import largest_side_for
from timebox.recipe import parse_recipe
from timebox.run import load
from timebox.runtime.device import resolve_device

SQUARE, FIT = "square", "fit"
ESTIMATOR, CLASSES = "estimator.json", "classes.npy"
MAX_JSON_BYTES = 1 << 20
File = str | Path | Image.Image


class TimeboxClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A scikit-learn classifier of images, trained from scratch within a time budget.

    Args:
        budget: deadline of one ``fit``, from call to return: seconds, or text such as ``"60s"`` or ``"10m"``.
        steps: number of training steps in place of a budget. No clock is read: the same data, ``random_state`` and
            number of threads give the same results.
        recipe, settings, device, precision: as of :func:`timebox.train`.
        image_shape: shape of the image in each row of a 2-D ``X``: (H, W) or (H, W, C), C of 1, 3 or 4. ``"square"``
            fills the smallest square that holds the features row by row, and pads it with zeros. None where ``X`` has
            images.
        scale: (low, high), the values of black and white in ``X``; values beyond are clipped. None: 0 and 255 for
            uint8, else 0.0 and 1.0. ``"fit"``: the lowest and the highest value of the training images.
        random_state: an int, a numpy RandomState, or None for a random seed.

    Attributes:
        classes_: the distinct labels, sorted.
        run_: the trained :class:`timebox.Run`.
        n_features_in_: number of features, where ``X`` is 2-D.

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
        self.budget, self.steps, self.recipe, self.settings = budget, steps, recipe, settings
        self.image_shape, self.scale, self.random_state = image_shape, scale, random_state
        self.device, self.precision = device, precision

    def fit(self, X: object, y: ArrayLike) -> "TimeboxClassifier":  # noqa: N803
        """Train on N images, see the class, and their labels: (N,), of any type.

        Raises UsageError or DataError, both ValueErrors, for parameters, images or labels that cannot be trained on.
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
        dataset = ImageDataset(pixels, indices.astype(np.int64), _class_names(self.classes_), ids)
        with temporary_directory("timebox-") as folder:
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
            _ = self.run_.model, self.run_.summary  # read before the folder is removed
        return self

    def predict_proba(self, X: object) -> NDArray[np.float32]:  # noqa: N803
        """Class probabilities, float32 (N, num_classes), in the order of ``classes_``."""
        check_is_fitted(self, "run_")
        return self.run_.predict_proba(self._pixels(X))

    def predict(self, X: object) -> NDArray[np.generic]:  # noqa: N803
        """The most probable label of each image, (N,)."""
        probabilities = self.predict_proba(X)  # first, as it raises NotFittedError
        labels: NDArray[np.generic] = self.classes_[probabilities.argmax(1)]
        return labels

    def save(self, path: str | Path) -> None:
        """Write the fitted classifier to a new directory, without pickle: a run, the labels and the parameters.

        Raises UsageError where the directory is not empty, or the labels are neither numbers nor texts.
        """
        check_is_fitted(self, "run_")
        folder = Path(expand_user(path))
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{str(folder)!r} is not empty; give another directory")
        labels = self.classes_ if self.classes_.dtype.kind in "biufU" else self.classes_.astype(str)
        if labels.tolist() != self.classes_.tolist():
            raise UsageError("only labels that are numbers or texts can be saved")
        parameters = self.get_params()
        if not isinstance(self.random_state, int | None):  # JSON has no RandomState
            parameters["random_state"] = None
        values = ESTIMATOR_FORMAT.numbered({"parameters": parameters, "range": self._range})
        if hasattr(self, "n_features_in_"):
            values["n_features_in"] = self.n_features_in_
        text = json.dumps(values, indent=2, default=float)  # converts NumPy scalars
        folder.mkdir(parents=True, exist_ok=True)
        self.run_.save(folder)
        np.save(folder / CLASSES, labels, allow_pickle=False)
        (folder / ESTIMATOR).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> "TimeboxClassifier":
        """Read a classifier that :meth:`save` wrote, without pickle. Raises RunError where there is none, or it is
        damaged."""
        folder = Path(expand_user(path))
        run = load(folder, device)
        try:
            values = parse_json_object(read_regular(folder / ESTIMATOR, MAX_JSON_BYTES))
            values = ESTIMATOR_FORMAT.upgraded(values, repr(str(folder / ESTIMATOR)))
            labels = np.load(folder / CLASSES, allow_pickle=False)
            match values:
                case {"parameters": dict(parameters), "range": [int() | float() as low, int() | float() as high]}:
                    classifier = cls()
                    classifier.set_params(**{name: _to_tuples(value) for name, value in parameters.items()})
                case _:
                    raise ValueError("it lacks parameters or a range")
        except (OSError, EOFError, ValueError) as error:
            raise RunError(f"{str(folder)!r} holds no classifier, or a damaged one: {error}") from error
        if labels.shape != (len(run.class_names),):
            raise RunError(f"{str(folder)!r} is damaged: labels {labels.shape} for {len(run.class_names)} classes")
        classifier.run_, classifier.classes_, classifier._range = run, labels, (float(low), float(high))
        if isinstance(num_features := values.get("n_features_in"), int):
            classifier.n_features_in_ = num_features
        return classifier

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.non_deterministic = self.steps is None
        return tags

    def _pixels(self, X: object, y: object = None) -> NDArray[np.uint8]:  # noqa: N803
        """The images as uint8 (N, H, W, C). With y, the values of black and white are fitted first."""
        is_fit = y is not None
        if files := _files(X):
            if is_fit:
                self._range = (0.0, 255.0)
            return self._decode_files(files, is_fit)
        arguments = {"y": y} if is_fit else {}
        dtypes = [np.float64, np.float32, np.uint8]  # other types are converted to the first
        images = validate_data(self, X, **arguments, reset=is_fit, allow_nd=True, dtype=dtypes)
        if is_fit:
            images = images[0]
            self._range = self._fit_range(images)
        return self._to_pixels(images)

    def _decode_files(self, files: Sequence[File], is_fit: bool) -> NDArray[np.uint8]:
        """Decode files to squares: of the run's size, or of one that fits the recipe and the files."""
        if is_fit:
            image_size, image_fit = parse_recipe(self.recipe, self.settings).image_form
            side = image_size or working_side([_read_size(file) for file in files], self._largest_side(len(files)))
        else:
            side, image_fit = self.run_.preprocessing.size[0], self.run_.recipe.image_fit
        return np.stack([_decode_file(file, side, image_fit) for file in files])

    def _largest_side(self, num_images: int) -> int:
        """Limit of the images' side in pixels."""
        if parse_recipe(self.recipe).fixed:
            return DEFAULT_MAX_SIDE
        budget_seconds = None if self.steps is not None else parse_budget(self.budget)
        return largest_side_for(budget_seconds, resolve_device(self.device))(num_images)

    def _fit_range(self, images: NDArray[np.generic]) -> tuple[float, float]:
        """The values of black and white. Raises UsageError where ``scale`` is wrong, or missing and needed."""
        if self.scale is None and images.dtype == np.uint8:
            return 0.0, 255.0
        if self.scale is None or (isinstance(self.scale, str) and self.scale == FIT):
            low, high = float(images.min()), float(images.max())
            if self.scale == FIT:
                return low, high if high > low else low + 1.0
            if low < 0 or high > 1:
                raise UsageError(
                    f"X is {images.dtype} and runs from {low:g} to {high:g}: without scale=(low, high) it must be "
                    "uint8, or lie in 0...1; give the values of black and white, or scale='fit'"
                )
            return 0.0, 1.0
        if isinstance(self.scale, str):
            raise UsageError(f"scale {self.scale!r} must be (low, high), 'fit' or None")
        low, high = map(float, self.scale)
        if not low < high or not math.isfinite(high - low):
            raise UsageError(f"scale {self.scale!r} must be two numbers, the first below the second")
        return low, high

    def _to_pixels(self, images: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Convert (N, H, W), (N, H, W, C) or (N, num_features) to uint8 (N, H, W, C)."""
        low, high = self._range
        if images.dtype != np.uint8 or (low, high) != (0.0, 255.0):
            scaled = (images.astype(np.float64) - low) * (255 / (high - low))
            images = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
        if images.ndim == 2:
            images = self._reshape_rows(images)
        images = images[..., None] if images.ndim == 3 else images
        if images.ndim != 4 or images.shape[3] not in (1, 3, 4):
            raise DataError(f"X is {images.shape}: images are (N, H, W), or (N, H, W, C) with 1, 3 or 4 channels")
        return images.astype(np.uint8, copy=False)

    def _reshape_rows(self, rows: NDArray[np.generic]) -> NDArray[np.generic]:
        """Reshape (N, num_features) to images; a square below the least size is enlarged by a whole factor."""
        num_features = rows.shape[1]
        if self.image_shape is None:
            raise UsageError(
                f"X is 2-D with {num_features} features: set image_shape=(H, W) or (H, W, C), the image of each row"
            )
        if isinstance(self.image_shape, str):
            if self.image_shape != SQUARE:
                raise UsageError(f"image_shape {self.image_shape!r} must be (H, W), (H, W, C) or 'square'")
            side = math.ceil(math.sqrt(num_features))
            padded = np.zeros((len(rows), side * side), rows.dtype)
            padded[:, :num_features] = rows
            factor = math.ceil(MIN_SIDE / side)
            return padded.reshape(len(rows), side, side).repeat(factor, axis=1).repeat(factor, axis=2)
        if len(self.image_shape) not in (2, 3) or math.prod(self.image_shape) != num_features:
            raise UsageError(
                f"image_shape {tuple(self.image_shape)} has {math.prod(self.image_shape)} values, X has {num_features}"
            )
        return rows.reshape(len(rows), *self.image_shape)


def _files(X: object) -> list[File]:  # noqa: N803
    """The items of X where all are paths or PIL images; else an empty list."""
    if not isinstance(X, Sequence | np.ndarray) or isinstance(X, str):
        return []
    if isinstance(X, np.ndarray) and X.dtype.kind not in "OU":
        return []
    files: list[File] = [
        item if isinstance(item, Image.Image) else Path(expand_user(item)) for item in X if isinstance(item, File)
    ]
    return files if files and len(files) == len(X) else []


def _decode_file(file: File, side: int, image_fit: str) -> NDArray[np.uint8]:
    with _add_file_to_errors(file):
        return decode_image(file, (side, side), 3, image_fit)


def _read_size(file: File) -> tuple[int, int]:
    """(width, height) in pixels, from the header."""
    if isinstance(file, Image.Image):
        return file.size
    with _add_file_to_errors(file):
        header = read_header(Path(file))
    return header.width, header.height


@contextmanager
def _add_file_to_errors(file: File) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def _class_names(labels: NDArray[np.generic]) -> tuple[str, ...]:
    """The labels as texts; their indices where two texts are equal or one is empty."""
    names = tuple(map(str, labels))
    return names if len(set(names)) == len(names) and all(names) else tuple(map(str, range(len(names))))


def _to_tuples(value: object) -> object:
    """Convert JSON lists, nested ones too, to tuples."""
    return tuple(map(_to_tuples, value)) if isinstance(value, list) else value
