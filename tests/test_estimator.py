import json
import pickle

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

from budgets import within_budget
from timebox import TimeboxClassifier
from timebox.errors import DataError, RunError, UsageError

# scikit-learn skips these checks by itself, without SCIPY_ARRAY_API or pandas; no check is excluded here.
SKIPPED = {"check_array_api_input", "check_classifier_data_not_an_array"}
MIN_CHECKS = 40


def squares(num: int = 60, side: int = 12, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """Noise images, uint8 (num, side, side), with a bright half, and which half: "upper" or "lower"."""
    rng = np.random.default_rng(seed)
    labels = np.array(["upper", "lower"])[np.arange(num) % 2]
    images = rng.integers(0, 60, (num, side, side), dtype=np.uint8)
    images[labels == "upper", : side // 2] += 150
    images[labels == "lower", side // 2 :] += 150
    return images, labels


def quick(**parameters: object) -> TimeboxClassifier:
    return TimeboxClassifier(**{"steps": 20, "random_state": 0, "settings": ("width=8",), **parameters})


def plain(**parameters: object) -> TimeboxClassifier:
    """A small network for rows of features."""
    settings = ("width=8", "ensemble_size=1", "input_scale=2", "flip=none", "crop_padding=0", "batch_size=64")
    return quick(**{"image_shape": "square", "scale": "fit", "settings": settings, **parameters})


@pytest.mark.integration
def test_scikit_learns_estimator_checks():
    results = check_estimator(plain(steps=30), on_fail=None, on_skip=None)
    assert not [(one["check_name"], one["exception"]) for one in results if one["status"] in ("failed", "xfail")]
    assert {one["check_name"] for one in results if one["status"] == "skipped"} <= SKIPPED
    assert len({one["check_name"] for one in results if one["status"] == "passed"}) >= MIN_CHECKS


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("form", ["grey", "channels", "rows"])
def test_the_same_images_in_any_dtype_and_layout_train_the_same(kind, form):
    images, labels = squares()
    shape = {"grey": images.shape, "channels": (*images.shape, 1), "rows": (len(images), -1)}[form]
    given = images.reshape(shape) if kind is np.uint8 else (images.reshape(shape) / 255).astype(kind)
    classifier = quick(image_shape=(12, 12) if form == "rows" else None).fit(given, labels)
    assert classifier.score(given, labels) == 1
    expected = quick().fit(images, labels).predict_proba(images)
    assert np.array_equal(classifier.predict_proba(given), expected)
    assert expected.shape == (60, 2)
    assert np.allclose(expected.sum(1), 1)
    assert classifier.classes_.tolist() == ["lower", "upper"]


def test_files_and_pillow_images(tmp_path):
    images, labels = squares()
    pictures = [Image.fromarray(image).resize((20, 17)) for image in images]
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
    paths = [tmp_path / f"{number}.png" for number in range(len(pictures))]
    classifier = quick().fit(paths, labels)
    assert classifier.run_.preprocessing.size == (16, 16)
    assert classifier.score(list(map(str, paths)), labels) == 1
    assert np.array_equal(classifier.predict_proba(pictures), classifier.predict_proba(np.array(paths, object)))
    (tmp_path / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"0\.png' cannot be read: empty file"):
        classifier.predict(paths)


def test_a_custom_scale():
    images, labels = squares()
    classifier = quick(scale=(-1, 1)).fit(images / 127.5 - 1, labels)
    assert np.array_equal(
        classifier.predict_proba(images / 127.5 - 1), quick().fit(images, labels).predict_proba(images)
    )
    outlier, clipped = images / 127.5 - 1, images / 127.5 - 1
    outlier[:, 0, :6], clipped[:, 0, :6] = 9, 1
    assert np.array_equal(classifier.predict_proba(outlier), classifier.predict_proba(clipped))


@pytest.mark.parametrize(
    ("parameters", "shape", "words"),
    [
        (
            {},
            (10, 144),
            r"X is 2-D with 144 features: set image_shape=\(H, W\) or \(H, W, C\), the image of each row",
        ),
        ({"image_shape": (12, 13)}, (10, 144), r"image_shape \(12, 13\) has 156 values, X has 144"),
        ({"image_shape": "round"}, (10, 144), "image_shape 'round' must be"),
        ({"scale": (1, 0)}, (10, 12, 12), r"scale \(1, 0\) must be two numbers, the first below the second"),
        ({"scale": "wide"}, (10, 12, 12), r"scale 'wide' must be \(low, high\), 'fit' or None"),
        ({}, (10, 12, 12, 2), r"X is \(10, 12, 12, 2\): images are \(N, H, W\), or \(N, H, W, C\) with 1, 3 or 4"),
        ({}, (10, 4, 4), "4x4"),
        ({"recipe": "nonesuch"}, (10, 12, 12), "nonesuch"),
        ({"settings": ("wdth=8",)}, (10, 12, 12), "wdth"),
    ],
)
def test_wrong_parameters_or_images_are_value_errors(parameters, shape, words):
    given = np.random.default_rng(0).random(shape)
    with pytest.raises(ValueError, match=words):
        quick(**parameters).fit(given, [0, 1] * 5)


def test_values_beyond_1_without_a_scale_are_refused():
    with pytest.raises(UsageError, match=r"X is float64 and runs from 0 to 9: without scale=\(low, high\) it must"):
        quick().fit(np.linspace(0, 9, 1440).reshape(10, 12, 12), [0, 1] * 5)


@pytest.mark.integration
def test_cross_validation_and_grid_search_of_a_pipeline():
    images, labels = squares(90)
    rows = images.reshape(90, -1) / 255
    scores = cross_val_score(quick(image_shape=(12, 12)), rows, labels, cv=3, n_jobs=2)
    assert scores.tolist() == [1, 1, 1]
    pipeline = make_pipeline(FunctionTransformer(), quick(image_shape=(12, 12)))
    search = GridSearchCV(pipeline, {"timeboxclassifier__steps": [1, 20]}, cv=3).fit(rows, labels)
    assert search.best_params_ == {"timeboxclassifier__steps": 20}
    assert search.predict(rows[:4]).tolist() == labels[:4].tolist()


@pytest.mark.integration
def test_a_budget_is_kept():
    images, labels = squares()

    def fitted(seconds):
        return TimeboxClassifier(budget=f"{seconds:g}s", settings=("width=8",)).fit(images, labels)

    classifier, budget = within_budget(fitted, 5.0)
    assert classifier.run_.summary["budget_seconds"] == budget
    assert classifier.run_.summary["elapsed_seconds"] <= budget
    assert classifier.predict(images).shape == labels.shape


@pytest.mark.parametrize("labels", [["a", "b"], [3, 7], [True, False], [1.0, 2.0]])
def test_a_saved_classifier_loads_unchanged(tmp_path, labels):
    images, which = squares()
    y = np.array(labels, object if labels[0] == "a" else None)[(which == "upper").astype(int)]
    classifier = quick(image_shape=(12, 12)).fit(images.reshape(60, -1), y)
    classifier.save(tmp_path / "saved")
    loaded = TimeboxClassifier.load(tmp_path / "saved")
    assert loaded.get_params() == classifier.get_params()
    assert np.array_equal(loaded.predict(images.reshape(60, -1)), classifier.predict(images.reshape(60, -1)))
    assert loaded.n_features_in_ == 144
    with pytest.raises(UsageError, match="is not empty; give another directory"):
        classifier.save(tmp_path / "saved")
    pickled = pickle.loads(pickle.dumps(classifier))
    assert np.array_equal(pickled.predict(images.reshape(60, -1)), classifier.predict(images.reshape(60, -1)))
    assert clone(classifier).get_params() == classifier.get_params()


def test_a_damaged_or_missing_classifier_is_refused(tmp_path):
    images, labels = squares()
    quick().fit(images, labels).save(tmp_path / "saved")
    (tmp_path / "saved" / "estimator.json").write_text(json.dumps({"parameters": {"nonesuch": 1}, "range": [0, 1]}))
    with pytest.raises(RunError, match="holds no classifier, or a damaged one: Invalid parameter 'nonesuch'"):
        TimeboxClassifier.load(tmp_path / "saved")
    for values in ({"range": [0, 10**400]}, {"range": [-(10**400), 1]}, {"range": [0, 1], "natural_white": 10**400}):
        (tmp_path / "saved" / "estimator.json").write_text(json.dumps({"parameters": {}, **values}))
        with pytest.raises(
            RunError, match=r"estimator.json' cannot be read: .*0000 is no number of JSON, or too large"
        ):
            TimeboxClassifier.load(tmp_path / "saved")
    (tmp_path / "saved" / "estimator.json").unlink()
    with pytest.raises(RunError, match="holds no classifier"):
        TimeboxClassifier.load(tmp_path / "saved")
