"""TimeboxClassifier: timebox as a scikit-learn estimator."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from timebox.clock import Deadline, now, parse_budget
from timebox.configs.call import refuse_unknown_arguments
from timebox.configs.train import CODE, SCRATCH, TrainConfig
from timebox.custom import Code, code_names, is_known, trust
from timebox.data import IN_MEMORY, ImageDataset, decode_image
from timebox.data.arrays.labels import class_names
from timebox.data.arrays.npy import read_npy
from timebox.data.images.collate import LAYOUTS, NUM_CHANNELS, Array, Batch, ImageFile, as_batch, collate
from timebox.data.images.decode import WHITE_16BIT, white_of
from timebox.data.images.image_file import decode_file, largest_16bit_value_of, size_of, with_file_in_errors
from timebox.data.images.pixel_range import BYTE, PixelScale, check_numbers
from timebox.data.reading.encoded_images import working_side
from timebox.data.reading.options import DEFAULT_MAX_SIDE
from timebox.data.reading.threads import read_in_time
from timebox.data.reading.time_limit import ReadingTime, timed
from timebox.errors import DataError, RunError, UsageError, option_text
from timebox.estimator.tables import is_table, read_targets, reshape_rows, squeeze
from timebox.file_versions import ESTIMATOR_FORMAT
from timebox.files import check_readable, open_regular, temporary_directory, write_whole, written
from timebox.paths import expand_user
from timebox.pipelines import train
from timebox.planning.image_size import largest_side_for
from timebox.recipes import RecipeLike, RecipeSpec, parse_recipe, parse_settings, recipe_request
from timebox.run import load
from timebox.run.files import CLASSES, ESTIMATOR, MAX_JSON_BYTES, read_object, to_npy
from timebox.runtime.device import resolve_device

BYTE_SCALE = PixelScale(0.0, BYTE, BYTE)  # of image files


class TimeboxClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A scikit-learn classifier of images, trained within a time budget.

    Args:
        budget: deadline of one ``fit``, from call to return: seconds, or text such as ``"60s"`` or ``"10m"``.
        steps: number of training steps in place of a budget. No clock is read: the same data, ``random_state`` and
            number of threads give the same results.
        recipe, settings, network, augment, loss, optimizer, device, precision: as of :func:`timebox.train`.
        init: as of :func:`timebox.train`. Without validation images pretrained features have half of the weight.
        verbose: whether ``fit`` shows its progress, on a terminal or in a notebook.
        image_shape: shape of the image in each row of a 2-D ``X``: (H, W) or (H, W, C), C of 1, 3 or 4. ``"square"``
            fills the smallest square that holds the features row by row, and pads it with zeros. None where ``X`` has
            images.
        scale: (low, high), the values of black and white in ``X``; values beyond are clipped. ``"fit"``: the lowest and
            the highest value of the training images. None: 0 and 255 for uint8 and for whole numbers that reach 128,
            0.0 and 1.0 for floating-point values within them.
        random_state: an int, a numpy RandomState, or None for a random seed.

    Attributes:
        classes_: the distinct labels, sorted.
        run_: the trained :class:`timebox.Run`.
        n_features_in_: number of features, where ``X`` is 2-D.

    ``X`` is an array or a tensor, (N, H, W), (N, H, W, C), (N, C, H, W) or, with ``image_shape``, 2-D; or a list, tuple
    or Series of arrays, tensors, paths and PIL images, which may have different sizes. ``predict`` takes images of
    other sizes, dtypes and scales than ``fit``: sizes are fitted as in training, and a scale is converted where dtype
    and values show it (uint8, or floating point within 0...1); else a DataError, a ValueError, is raised.

    >>> from sklearn.datasets import load_digits
    >>> from timebox import TimeboxClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> classifier = TimeboxClassifier(steps=100, image_shape=(8, 8), scale=(0, 16), random_state=0)
    >>> bool(classifier.fit(X[:1500], y[:1500]).score(X[1500:], y[1500:]) > 0.9)
    True
    """

    @refuse_unknown_arguments
    def __init__(
        self,
        budget: str | float = "60s",
        *,
        steps: int | None = None,
        recipe: RecipeLike = "auto",
        settings: Sequence[str] = (),
        network: Code | None = None,
        augment: Code | None = None,
        loss: Code | None = None,
        optimizer: Code | None = None,
        image_shape: tuple[int, ...] | str | None = None,
        scale: tuple[float, float] | str | None = None,
        random_state: object = None,
        device: str = "auto",
        precision: str = "auto",
        init: str = SCRATCH,
        verbose: bool = False,
    ) -> None:
        self.budget, self.steps, self.recipe, self.settings = budget, steps, recipe, settings
        self.network, self.augment, self.loss, self.optimizer = network, augment, loss, optimizer
        self.image_shape, self.scale, self.random_state = image_shape, scale, random_state
        self.device, self.precision, self.init, self.verbose = device, precision, init, verbose

    def fit(self, X: object, y: object) -> "TimeboxClassifier":  # noqa: N803
        """Train on N images, see the class, and their labels: (N,), numbers or texts.

        Raises UsageError or DataError, both ValueErrors, for parameters, images or labels that cannot be trained on.
        """
        started_at = now()
        if y is None:
            raise UsageError("TimeboxClassifier requires y to be passed, but the target y is None")
        options: dict[str, Any] = {
            "budget": None if self.steps is not None else self.budget,
            "steps": self.steps,
            **self._requested_recipe(),
            "device": self.device,
            "precision": self.precision,
            "init": self.init,
        }
        config = TrainConfig.from_call({**options, "data": IN_MEMORY})  # refuses before images are read
        deadline = Deadline(config.budget, started_at)
        labels = read_targets(y)
        batch = self._collate(X, is_fit=True)
        if len(batch) != len(labels):
            raise DataError(f"X has {len(batch):,} images and y {len(labels):,} labels: each image needs one label")
        time = ReadingTime(deadline)
        time.source = "X"
        pixels = read_in_time(lambda notify: self._training_pixels(batch, time), time, lambda text: None)
        self.classes_, indices = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"y has one class, {self.classes_.tolist()[0]!r}: a classifier needs at least two")
        ids = tuple(map(str, range(len(pixels))))
        dataset = ImageDataset(pixels, indices.astype(np.int64), class_names(self.classes_), ids)
        with temporary_directory("timebox-") as folder:
            self.run_ = train(
                dataset,
                **options,
                val="none",
                test="none",
                scoring=False,
                seed=int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max)),
                out=Path(folder) / "run",
                deadline=deadline,
                progress=bool(self.verbose),
            )
            _ = self.run_.model, self.run_.predictor, self.run_.summary  # read before the folder is removed
        return self

    def predict_proba(self, X: object) -> NDArray[np.float32]:  # noqa: N803
        """Class probabilities, float32 (N, num_classes), in the order of ``classes_``."""
        images = self._images(X)  # first, as it raises NotFittedError
        return self.run_.predict_proba(images)

    def predict(self, X: object) -> NDArray[np.generic]:  # noqa: N803
        """The most probable label of each image, (N,)."""
        images = self._images(X)  # first, as it raises NotFittedError
        labels: NDArray[np.generic] = self.classes_[self.run_.predict_indices(images)]
        return labels

    def _images(self, X: object) -> object:  # noqa: N803
        """Images as :meth:`Run.predict_proba` takes them. Raises NotFittedError before ``fit``."""
        check_is_fitted(self, "run_")
        batch = self._collate(X, is_fit=False)
        if isinstance(batch, list):
            arrays = iter(self._scale.to_uint8([item for item in batch if isinstance(item, np.ndarray)], "X"))
            return [next(arrays) if isinstance(item, np.ndarray) else self._file_on_scale(item) for item in batch]
        (pixels,) = self._scale.to_uint8([batch], "X")
        images = reshape_rows(pixels, self.image_shape) if pixels.ndim == 2 else pixels
        return images[..., None] if images.ndim == 3 else images

    def save(self, path: str | Path) -> None:
        """Write the fitted classifier to a new directory, without pickle: a run, the labels and the parameters.

        Raises OutputError, and UsageError for a directory that is not empty, or labels that are no numbers or texts.
        """
        check_is_fitted(self, "run_")
        folder = Path(expand_user(path))
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{str(folder)!r} is not empty; give another directory")
        labels = self.classes_ if self.classes_.dtype.kind in "biufU" else self.classes_.astype(str)
        if labels.tolist() != self.classes_.tolist():
            raise UsageError("only labels that are numbers or texts can be saved")
        parameters = self.get_params() | self._requested_recipe()
        if not isinstance(self.random_state, int | None):  # JSON has no RandomState
            parameters["random_state"] = None
        scale = self._scale
        values = {"parameters": parameters, "range": (scale.low, scale.high), "natural_white": scale.natural_white}
        values = ESTIMATOR_FORMAT.numbered({**values, "white_16bit": self._white_16bit})
        if hasattr(self, "n_features_in_"):
            values["n_features_in"] = self.n_features_in_
        content = json.dumps(values, indent=2, default=float, allow_nan=False).encode()  # float of NumPy scalars
        with written(repr(str(folder))):
            folder.mkdir(parents=True, exist_ok=True)
            self.run_.save(folder)
            write_whole(folder / CLASSES, to_npy(labels))
            write_whole(folder / ESTIMATOR, check_readable(content, MAX_JSON_BYTES, ESTIMATOR))

    @classmethod
    def load(
        cls, path: str | Path, device: str = "auto", *, network: Code | None = None, trust_code: bool = False
    ) -> "TimeboxClassifier":
        """Read a classifier that :meth:`save` wrote. Raises RunError where there is none, or it is damaged.

        Args:
            network, trust_code: as of :func:`timebox.load`.
        """
        folder = Path(expand_user(path))
        run, name = load(folder, device, network=network, trust_code=trust_code), CLASSES
        try:
            with open_regular(folder / CLASSES, follow=False) as file:
                labels = read_npy(file, os.fstat(file.fileno()).st_size)
            values = read_object(folder / (name := ESTIMATOR)) or {}
            values = ESTIMATOR_FORMAT.upgraded(values, repr(str(folder / ESTIMATOR)))
            match values:
                case {"parameters": dict(parameters), "range": [int() | float() as low, int() | float() as high]}:
                    if low >= high:
                        raise ValueError(f"its range of pixels from {low:g} to {high:g} is empty")
                    classifier = cls()
                    classifier.set_params(**{name: _to_tuples(value) for name, value in parameters.items()})
                    classifier._check_code(trust_code)
                case _:
                    raise ValueError("it lacks parameters or a range")
        except (OSError, EOFError, ValueError, MemoryError) as error:
            raise RunError(f"{str(folder)!r} holds no classifier, or a damaged one: {error} ({name})") from error
        if labels.shape != (len(run.class_names),) or len(np.unique(labels)) < len(labels):
            raise RunError(f"{str(folder / CLASSES)!r} does not hold {len(run.class_names)} different labels")
        classifier.run_, classifier.classes_ = run, labels
        # Before there was this key, images without a scale of their own were on 0...1 or 0...255.
        white = values.get("natural_white", high if classifier.scale is None else None)
        natural_white = float(white) if isinstance(white, int | float) else None
        classifier._scale = PixelScale(float(low), float(high), natural_white, is_natural=classifier.scale is None)
        white_16bit = values.get("white_16bit", WHITE_16BIT)
        classifier._white_16bit = white_16bit if isinstance(white_16bit, int) and white_16bit > 0 else WHITE_16BIT
        if isinstance(num_features := values.get("n_features_in"), int):
            classifier.n_features_in_ = num_features
        return classifier

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.non_deterministic = self.steps is None
        return tags

    def _collate(self, X: object, is_fit: bool) -> Batch:  # noqa: N803
        """The images as an array, of rows (N, num_features) or images (N, H, W) and (N, H, W, C), or as a list."""
        if callable(getattr(X, "tocsr", None)):
            raise DataError("X is a sparse matrix: give X.toarray()")
        if is_fit:
            for name in ("n_features_in_", "feature_names_in_"):  # of an earlier fit
                if hasattr(self, name):
                    delattr(self, name)
        batch: Any = X if is_table(X) else collate(X, "X")
        if isinstance(batch, list):
            if not batch:
                raise DataError("X has no images")
            return batch
        if batch.ndim <= 2:
            return self._rows(batch, is_fit)
        if not is_fit:
            batch = as_batch(batch, "X", self.run_.preprocessing.image_shape)
        if batch.ndim > 4 or 0 in batch.shape[1:]:
            raise DataError(f"X is {batch.shape}: {LAYOUTS}")
        if not len(batch):
            raise DataError(f"X is {batch.shape}: it has no images")
        return batch  # type: ignore[no-any-return]

    def _rows(self, table: Any, is_fit: bool) -> Array:
        """Rows of pixels (N, num_features), checked as scikit-learn does; else one grey image (H, W)."""
        rows = np.asarray(table)
        if rows.dtype.kind == "f":
            check_numbers([rows], "X")
        if rows.dtype.kind == "O" and (columns := getattr(table, "columns", None)) is not None:
            names = [str(name) for name, cell in zip(columns, rows[0], strict=True) if not np.isreal(cell)]
            if names:
                raise DataError(f"X has columns that are no numbers, such as {names[0]!r}: give one column of images")
        if not is_fit and rows.ndim == 2 and not hasattr(self, "n_features_in_"):
            return as_batch(rows, "X", self.run_.preprocessing.image_shape)
        checked: Array = validate_data(self, table, reset=is_fit, dtype="numeric")
        return checked

    def _training_pixels(self, batch: Batch, time: ReadingTime) -> NDArray[np.uint8]:
        """Training images as uint8 (N, H, W, C); determines the scale of pixels."""
        arrays = [item for item in batch if isinstance(item, np.ndarray)] if isinstance(batch, list) else [batch]
        self._scale = PixelScale.fit(arrays, "X", self.scale) if arrays else BYTE_SCALE
        self._white_16bit = WHITE_16BIT  # of files; _decode finds it
        pixels = self._scale.to_uint8(arrays, "X")
        if isinstance(batch, list):
            remaining = iter(pixels)
            files = [Image.fromarray(squeeze(next(remaining))) if isinstance(x, np.ndarray) else x for x in batch]
            return self._decode(files, time)
        images: NDArray[np.uint8] = reshape_rows(pixels[0], self.image_shape) if batch.ndim == 2 else pixels[0]
        images = images[..., None] if images.ndim == 3 else images
        if images.ndim != 4 or images.shape[3] not in NUM_CHANNELS:
            raise DataError(f"X is {images.shape}: {LAYOUTS}")
        # torch takes neither arrays with negative strides nor read-only ones, as pandas gives them.
        return np.require(images, requirements=["C", "W"])

    def _decode(self, files: Sequence[ImageFile], time: ReadingTime) -> NDArray[np.uint8]:
        """Decode training images to squares of a side that fits the recipe and the images."""
        image_size, image_fit = self._spec().image_form
        sizes = [size_of(file) for file in timed(time, files, "looked at")]
        side = image_size or working_side(sizes, self._largest_side(len(files)))
        self._white_16bit = white = white_of(max(map(largest_16bit_value_of, timed(time, files, "measured"))))
        return np.stack([decode_file(file, (side, side), 3, image_fit, white) for file in timed(time, files, "read")])

    def _file_on_scale(self, file: ImageFile) -> ImageFile | NDArray[np.uint8]:
        """A file to predict; its pixels, where training images were on a scale of their own."""
        scale = self._scale
        if scale.is_natural or scale == BYTE_SCALE:
            if self._white_16bit == WHITE_16BIT:
                return file
            form = self.run_.preprocessing
            return decode_file(file, form.size, form.channels, self.run_.recipe.image_fit, self._white_16bit)
        if scale.natural_white is None:
            raise DataError(
                f"the training images were on the scale ({scale.low:g}, {scale.high:g}), which files do not have: give "
                "arrays on that scale"
            )
        with with_file_in_errors(file):
            (pixels,) = scale.to_uint8([decode_image(file)], "X")
        return pixels

    def _largest_side(self, num_images: int) -> int:
        """Limit of the images' side in pixels."""
        if not self._spec().extends_auto:
            return DEFAULT_MAX_SIDE
        budget_seconds = None if self.steps is not None else parse_budget(self.budget)
        return largest_side_for(budget_seconds, resolve_device(self.device))(num_images)

    def _requested_recipe(self) -> dict[str, Any]:
        """The recipe and settings that stand for the parameters."""
        settings = self.settings if isinstance(self.settings, str) else tuple(self.settings)
        return recipe_request(self.recipe, settings, {name: getattr(self, name) for name in CODE})

    def _check_code(self, is_trusted: bool) -> None:
        """Raise RunError where the parameters, read from a file, name code that :meth:`fit` may not import."""
        settings = self.settings if isinstance(self.settings, tuple) else ()
        named = [*code_names(parse_settings(settings)).values(), *(getattr(self, name) for name in CODE)]
        names = [name for name in named if isinstance(name, str)]
        if is_trusted:
            trust(names)
        if unknown := [name for name in names if not is_known(name)]:
            allowed = option_text("trust_code", True)
            raise RunError(f"its parameters name the code {unknown[0]!r}, which is only used with {allowed}")

    def _spec(self) -> RecipeSpec:
        requested = self._requested_recipe()
        return parse_recipe(str(requested["recipe"]), requested["settings"])


def _to_tuples(value: object) -> object:
    """Convert JSON lists, nested ones too, to tuples."""
    return tuple(map(_to_tuples, value)) if isinstance(value, list) else value
