"""TimeboxClassifier takes images and labels as people have them, or refuses them in one sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse

import timebox
from data.arrays.test_labels import Column
from test_estimator import quick, squares
from timebox import TimeboxClassifier
from timebox.errors import DataError, TimeboxError, UsageError

IMAGES, LABELS = squares()
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def expected() -> NDArray[np.float32]:
    """Probabilities of a classifier fitted on uint8 images, for them."""
    return quick().fit(IMAGES, LABELS).predict_proba(IMAGES)


def refusal(call: Callable[[], object], kind: type[TimeboxError] = DataError) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert isinstance(caught.value, ValueError)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


FORMS: dict[str, Callable[[Pixels], Any]] = {
    "uint8": lambda x: x,
    "int64": lambda x: x.astype(np.int64),
    "whole floats": lambda x: x.astype(np.float32),
    "/ 255": lambda x: x / 255,
    "/ 255 and a rounding error": lambda x: x / 255 * 1.0000000002,
    "list": list,
    "tuple of arrays / 255": lambda x: tuple(x / 255),
    "nested lists": lambda x: x.tolist(),
    "uint8 tensor": torch.from_numpy,
    "float tensor": lambda x: torch.from_numpy(x).float() / 255,
    "channels first": lambda x: torch.from_numpy(x)[:, None],
    "list of tensors": lambda x: list(torch.from_numpy(x)[:, None].float() / 255),
    "objects": lambda x: object_array(list(x)),
    "Series": lambda x: Column(object_array(list(x))),
}


def object_array(items: list[Any]) -> NDArray[np.object_]:
    array = np.empty(len(items), object)
    for position, item in enumerate(items):
        array[position] = item
    return array


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_images_fits_the_same(form: str, expected: NDArray[np.float32]) -> None:
    classifier = quick().fit(FORMS[form](IMAGES), LABELS)
    for asked in FORMS.values():
        np.testing.assert_array_equal(classifier.predict_proba(asked(IMAGES)), expected)


@pytest.mark.parametrize(("fitted", "asked"), [(1, 255), (255, 1)])
def test_rows_on_another_scale_are_converted(fitted: int, asked: int) -> None:
    rows = IMAGES.reshape(60, -1)
    classifier = quick(image_shape=(12, 12)).fit(rows / fitted if fitted > 1 else rows, LABELS)
    same = classifier.predict_proba(rows / fitted if fitted > 1 else rows)
    np.testing.assert_array_equal(classifier.predict_proba(rows / asked if asked > 1 else rows), same)


def test_the_scale_is_kept_with_a_saved_classifier(tmp_path: Path) -> None:
    for number, scale in enumerate((None, "fit", (0, 1))):
        classifier = quick(scale=scale).fit(IMAGES / 255, LABELS)
        classifier.save(tmp_path / str(number))
        loaded = TimeboxClassifier.load(tmp_path / str(number))
        np.testing.assert_array_equal(loaded.predict_proba(IMAGES), classifier.predict_proba(IMAGES / 255))


def test_a_scale_that_does_not_fit_is_refused() -> None:
    classifier = quick().fit(IMAGES / 255, LABELS)
    assert refusal(lambda: classifier.predict(IMAGES / 127.5 - 1)) == (
        "X is float64 and runs from -1 to 0.639216: it must be uint8, lie in 0...1, or be whole numbers of 0...255"
    )
    centred = quick(scale=(-1, 1)).fit(IMAGES / 127.5 - 1, LABELS)
    assert refusal(lambda: centred.predict(IMAGES)) == (
        "X is uint8 and runs from 0 to 209, but the training images were on the scale (-1, 1): convert it to that scale"
    )
    assert refusal(lambda: quick(scale=(0, 1)).fit(IMAGES, LABELS), UsageError) == (
        "X is uint8 and runs from 0 to 209, mostly beyond scale=(0, 1): give its own"
    )


def test_images_of_other_sizes_are_fitted_as_in_training() -> None:
    classifier = quick().fit(IMAGES, LABELS)
    large = IMAGES.repeat(2, 1).repeat(2, 2)
    assert classifier.predict(large).tolist() == LABELS.tolist()
    assert classifier.predict(np.zeros((3, 8, 6))).shape == (3,)
    assert classifier.predict([large[0], IMAGES[1], large[2, 2:, 2:]]).tolist() == LABELS[:3].tolist()
    assert not hasattr(classifier, "n_features_in_")


def test_one_image_gives_one_answer() -> None:
    classifier = quick().fit(IMAGES, LABELS)
    assert classifier.predict(IMAGES[0]).tolist() == LABELS[:1].tolist()
    assert classifier.predict(Image.fromarray(IMAGES[1])).tolist() == LABELS[1:2].tolist()
    colour = np.stack([IMAGES] * 3, 3)
    classifier = quick().fit(colour, LABELS)
    assert classifier.predict(colour[0]).tolist() == LABELS[:1].tolist()
    assert classifier.predict(colour[0] / 255).tolist() == LABELS[:1].tolist()


def test_arrays_of_different_sizes_are_fitted_as_files_are(tmp_path: Path) -> None:
    images = [image[: 12 - number % 2] for number, image in enumerate(IMAGES)]
    paths = [tmp_path / f"{number:02}.png" for number in range(60)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    by_arrays, by_files = quick().fit(images, LABELS), quick().fit(paths, LABELS)
    np.testing.assert_array_equal(by_arrays.predict_proba(paths), by_files.predict_proba(paths))
    floats = [image / 255 for image in images]
    np.testing.assert_array_equal(quick().fit(floats, LABELS).predict_proba(paths), by_files.predict_proba(paths))
    mixed = [*paths[:20], *(Image.fromarray(image) for image in images[20:40]), *images[40:]]
    np.testing.assert_array_equal(quick().fit(mixed, LABELS).predict_proba(paths), by_files.predict_proba(paths))
    assert by_files.predict(str(paths[0])).tolist() == LABELS[:1].tolist()


def test_a_classifier_of_arrays_reads_files(tmp_path: Path) -> None:
    path = tmp_path / "0.png"
    Image.fromarray(IMAGES[0]).save(path)
    for scale, fitted in ((None, IMAGES / 255), ("fit", IMAGES), ("fit", IMAGES / 255)):
        classifier = quick(scale=scale).fit(fitted, LABELS)
        np.testing.assert_array_equal(classifier.predict_proba([path]), classifier.predict_proba(fitted[:1]))
    centred = quick(scale=(-1, 1)).fit(IMAGES / 127.5 - 1, LABELS)
    assert refusal(lambda: centred.predict([path])) == (
        "the training images were on the scale (-1, 1), which files do not have: give arrays on that scale"
    )


@pytest.mark.parametrize(
    "labels",
    [
        list(LABELS),
        tuple(LABELS),
        LABELS == "upper",
        [bool(one) for one in LABELS == "upper"],
        (LABELS == "upper").astype(np.float32),
        torch.from_numpy(LABELS == "upper"),
        Column(LABELS.astype(object)),
        list(torch.from_numpy(LABELS == "upper")),
    ],
)
def test_labels_of_every_kind(labels: Any) -> None:
    classifier = quick().fit(IMAGES, labels)
    values = labels.to_numpy() if isinstance(labels, Column) else np.asarray(labels)
    assert classifier.predict(IMAGES).tolist() == values.tolist()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES, [None, *LABELS[1:]], "1 label is missing in y (None, NaN or infinite), the first at position 0"),
        (
            IMAGES,
            [*LABELS[:58], np.nan, np.nan],
            "2 labels are missing in y (None, NaN or infinite), the first at positi",
        ),
        (IMAGES, LABELS[:59], "X has 60 images and y 59 labels: each image needs one label"),
        (IMAGES[:59], LABELS, "X has 59 images and y 60 labels: each image needs one label"),
        (list(IMAGES[:59]), LABELS, "X has 59 images and y 60 labels: each image needs one label"),
        (IMAGES, ["upper"] * 60, "y has one class, 'upper': a classifier needs at least two"),
        (IMAGES, np.eye(60), "y is (60, 60): labels are (N,); of one-hot labels give y.argmax(1)"),
        (IMAGES, np.linspace(0, 1, 60), "Unknown label type: continuous."),
        (IMAGES, [1, *LABELS[1:]], "y mixes texts and other labels, such as 'lower' and 1: give one kind"),
        ([], [], "X has no images"),
        (IMAGES[:0], LABELS[:0], "X is (0, 12, 12): it has no images"),
        (IMAGES[:, :0], LABELS, "X is (60, 0, 12): images are (N, H, W), or (N, H, W, C) with 1, 3 or 4 channels"),
        (
            IMAGES[..., None, None],
            LABELS,
            "X is (60, 12, 12, 1, 1): images are (N, H, W), or (N, H, W, C) with 1, 3 or 4",
        ),
        (
            np.full((60, 12, 12), np.nan),
            LABELS,
            "X has 8,640 values that are NaN or infinite (inf), the first in image 0",
        ),
        (np.full((60, 144), np.inf), LABELS, "X has 8,640 values that are NaN or infinite (inf), the first in image 0"),
        (IMAGES * 1j, LABELS, "X is complex128: pixels must be real numbers, such as uint8 or float32"),
        ([*IMAGES[:59], None], LABELS, "X[59] is None: leave out images that are missing"),
        (["no.png"] * 60, LABELS, "no.png cannot be read: No such file or directory"),
        (sparse.csr_matrix(IMAGES[0]), LABELS, "X is a sparse matrix: give X.toarray()"),
        (None, LABELS, "X is a NoneType: give an array (N, H, W, C), or a list of paths, arrays and PIL images"),
        (
            {"images": IMAGES},
            LABELS,
            "X is a dict, which has no order of images: give a list or an array",
        ),
    ],
)
def test_images_and_labels_that_cannot_be_trained_on(images: Any, labels: Any, message: str) -> None:
    assert refusal(lambda: quick(image_shape=(12, 12)).fit(images, labels)).startswith(message)


class Frame(Column):
    """A DataFrame of pandas, known by its columns."""

    ndim = 2

    def __init__(self, values: NDArray[Any], columns: list[str]) -> None:
        super().__init__(values)
        self.columns, self.shape = columns, values.shape

    def __len__(self) -> int:
        return len(self._values)

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        return np.asarray(self._values, dtype)


def test_a_table_of_paths_and_other_columns_is_refused() -> None:
    frame = Frame(np.array([["a.png", 3], ["b.png", 4]], object), ["path", "width"])
    assert refusal(lambda: quick().fit(frame, ["a", "b"])) == (
        "X has columns that are no numbers, such as 'path': give one column of images"
    )
    missing = Frame(np.array([["a.png"], ["b.png"]], object), ["path"])
    assert refusal(lambda: quick().fit(missing, ["a", "b"])) == "a.png cannot be read: No such file or directory"


def test_a_table_of_pixels(expected: NDArray[np.float32]) -> None:
    frame = Frame(IMAGES.reshape(60, -1), [f"pixel{k}" for k in range(144)])
    classifier = quick(image_shape=(12, 12)).fit(frame, LABELS)
    np.testing.assert_array_equal(classifier.predict_proba(frame), expected)


def test_tables_of_pandas(tmp_path: Path, expected: NDArray[np.float32]) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(IMAGES.reshape(60, -1), columns=[f"pixel{k}" for k in range(144)])
    classes = pandas.Series(LABELS, dtype="category")
    classifier = quick(image_shape=(12, 12)).fit(frame, classes)
    np.testing.assert_array_equal(classifier.predict_proba(frame), expected)
    assert classifier.feature_names_in_.tolist() == frame.columns.tolist()
    holes = classes.copy()
    holes[3] = None
    assert refusal(lambda: quick(image_shape=(12, 12)).fit(frame, holes)).startswith("1 label is missing in y")
    paths = [str(tmp_path / f"{number}.png") for number in range(60)]
    for path, image in zip(paths, IMAGES, strict=True):
        Image.fromarray(image).save(path)
    table = pandas.DataFrame({"path": paths, "label": LABELS})
    for column in (table["path"], table[["path"]], table["path"].astype("string")):
        assert quick().fit(column, table["label"]).predict(column).tolist() == LABELS.tolist()
    assert "such as 'path'" in refusal(lambda: quick().fit(table, LABELS))
    numbers = pandas.array([1, None, *[2] * 58], dtype="Int64")
    assert refusal(lambda: quick().fit(IMAGES, numbers)).startswith("1 label is missing in y")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"settings": "width=8"}, "settings 'width=8' must be a list of texts"),
        ({"recipe": None}, "recipe None must be a text that is not empty"),
        ({"recipe": ""}, "recipe '' must be a text that is not empty"),
        ({"steps": 0}, "steps 0 must be a whole number of at least 1"),
        ({"device": "gpu"}, "device 'gpu' must be one of auto, cpu, cuda; did you mean 'cpu'?"),
        ({"image_shape": 5}, "image_shape 5 must be (H, W), (H, W, C) or 'square'"),
    ],
)
def test_parameters_that_cannot_work(parameters: dict[str, Any], message: str) -> None:
    assert refusal(lambda: quick(**parameters).fit(IMAGES.reshape(60, -1), LABELS), UsageError) == message
    if "image_shape" not in parameters:
        assert refusal(lambda: quick(**parameters).fit(["no.png"] * 60, LABELS), UsageError) == message


def test_small_images_name_the_argument() -> None:
    assert refusal(lambda: quick().fit(IMAGES[:, :6, :8], LABELS), UsageError) == (
        "images of 8x6 pixels are too small: both sides must be 8 to 4096; use "
        'settings=["image_size=8"] to have them scaled'
    )


def test_a_new_fit_forgets_the_features_of_the_last() -> None:
    classifier = quick(image_shape=(12, 12)).fit(IMAGES.reshape(60, -1), LABELS)
    assert classifier.n_features_in_ == 144
    assert classifier.predict(IMAGES).tolist() == LABELS.tolist(), "images in place of rows"
    with pytest.raises(ValueError, match="expecting 144 features"):
        classifier.predict(np.zeros((3, 48)))
    classifier.fit(IMAGES, LABELS)
    assert not hasattr(classifier, "n_features_in_")
    assert refusal(lambda: classifier.predict(IMAGES.reshape(60, -1))) == (
        "X is (60, 144), which looks like rows of pixels: give X.reshape(-1, 12, 12)"
    )
    assert isinstance(classifier.run_, timebox.Run)
