import base64

import numpy as np
import pytest

from timebox.reporting import SplitPredictions, image_browser
from timebox.reporting.image_browser import by_interest
from timebox.run.results.thumbnails import Thumbnails, encode_thumbnail, thumbnails_from_columns

from .factories import make_predictions, make_run_data


def decoded(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype)


def make_thumbnails(num=5, split="test", side=32):
    rng = np.random.default_rng(0)
    images = [encode_thumbnail(rng.integers(0, 256, (side, side, 3), dtype=np.uint8), 16) for _ in range(num)]
    return Thumbnails(split, np.arange(num, dtype=np.int64)[::-1].copy(), tuple(images))


def test_errors_come_first_by_confidence_then_correct_ones_with_the_lowest():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55]], np.float32)
    predictions = SplitPredictions("test", np.array([0, 0, 1, 1, 1]), probabilities, np.array(list("abcde")))
    assert by_interest(predictions).tolist() == [2, 1, 4, 3, 0]


def test_the_data_are_those_of_the_predictions():
    run, predictions = make_run_data(), make_predictions()
    data, order = image_browser.image_browser(run, predictions).data, by_interest(predictions)
    assert data["files"] == predictions.ids[order].tolist()
    assert (decoded(data["labels"], np.uint16) == predictions.labels[order]).all()
    top = decoded(data["topClasses"], np.uint16).reshape(-1, 3)
    assert (top[:, 0] == predictions.predicted[order]).all()
    probabilities = decoded(data["topProbabilities"], np.float32).reshape(-1, 3)
    assert (np.diff(probabilities, axis=1) <= 0).all()
    assert probabilities.sum(1) == pytest.approx(1, abs=1e-5)
    losses = decoded(data["losses"], np.float32)
    of_label = probabilities[top == predictions.labels[order][:, None]]
    assert losses == pytest.approx(-np.log(of_label), abs=1e-5)


def test_the_probabilities_are_calibrated():
    sharper = make_run_data(summary={"temperature": 0.5})
    first = [
        decoded(image_browser.image_browser(run, make_predictions()).data["topProbabilities"], np.float32)
        for run in (make_run_data(summary={"temperature": None}), sharper)
    ]
    assert first[1][0] > first[0][0]


@pytest.mark.parametrize("num_classes", [2, 5, 6, 1000])
def test_the_most_probable_classes_of_many(num_classes, monkeypatch):
    monkeypatch.setattr(image_browser, "_CHUNK_PROBABILITIES", 3 * num_classes)
    predictions = make_predictions(num=20, num_classes=num_classes)
    data = image_browser.image_browser(make_run_data(summary={"temperature": None}), predictions).data
    rows, num_top = predictions.probabilities[by_interest(predictions)], min(5, num_classes)
    expected = np.argsort(-rows, axis=1, kind="stable")[:, :num_top]
    assert data["numTop"] == num_top
    assert (decoded(data["topClasses"], np.uint16).reshape(-1, num_top) == expected).all()


def test_the_first_of_equal_classes_is_the_predicted_one():
    predictions = SplitPredictions(
        "test", np.array([2, 2]), np.full((2, 9), 1 / 9, np.float32), np.array(["a.png", "b.png"])
    )
    data = image_browser.image_browser(make_run_data(class_names=list("abcdefghi")), predictions).data
    assert decoded(data["topClasses"], np.uint16).reshape(2, 5)[:, 0].tolist() == [0, 0]


def test_thumbnails_stand_at_the_places_of_their_images():
    predictions, thumbnails = make_predictions(num=12), make_thumbnails()
    shown = image_browser.image_browser(make_run_data(thumbnails=thumbnails), predictions).thumbnails
    for place, row in enumerate(by_interest(predictions).tolist()):
        position = thumbnails.rows.tolist().index(row) if row < 5 else None
        expected = None if position is None else base64.b64encode(thumbnails.images[position]).decode()
        assert shown[place] == expected


def test_thumbnails_of_another_split_are_not_shown():
    browser = image_browser.image_browser(make_run_data(thumbnails=make_thumbnails(split="val")), make_predictions())
    assert not any(browser.thumbnails)


def test_beyond_the_limit_the_surest_correct_images_are_left_out(monkeypatch):
    monkeypatch.setattr(image_browser, "MAX_IMAGES", 50)
    browser = image_browser.image_browser(make_run_data(), make_predictions(num=200))
    assert (browser.num_images, browser.num_left_out) == (50, 150)
    assert len(browser.data["files"]) == len(browser.thumbnails) == 50


def test_the_folder_is_named_where_the_files_lie_in_it(tmp_path):
    (tmp_path / "test").mkdir()
    for k in range(200):
        (tmp_path / "test" / f"{k}.png").touch()
    table = tmp_path / "labels.csv"
    table.touch()
    for data in (tmp_path, table):
        found = image_browser.image_browser(make_run_data(data=str(data)), make_predictions()).data
        assert (found["folder"], found["folderUrl"]) == (str(tmp_path), tmp_path.as_uri())
    hidden = image_browser.image_browser(make_run_data(data=str(tmp_path), shows_images=False), make_predictions()).data
    assert (hidden["folder"], hidden["folderUrl"]) == (str(tmp_path), "")
    for data in ("", "cifar10", str(tmp_path / "other"), "\0"):
        assert image_browser.image_browser(make_run_data(data=data), make_predictions()).data["folder"] == ""


def test_thumbnails_are_read_as_they_were_written():
    thumbnails = make_thumbnails()
    again = thumbnails_from_columns(thumbnails.columns(), {"test": 5})
    assert again.split == "test"
    assert (again.rows == thumbnails.rows).all()
    assert again.images == thumbnails.images
    assert thumbnails.num_bytes == sum(map(len, thumbnails.images))


def spoilt(name, value):
    return {**make_thumbnails().columns(), name: value}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({}, "lacks 'split'"),
        (spoilt("bytes", np.zeros(3, np.int64)), "other types or shapes"),
        (spoilt("row", np.zeros((5, 1), np.int64)), "other types or shapes"),
        (spoilt("row", np.arange(6)), "does not fit"),
        (spoilt("row", np.arange(5) + 1), "does not fit"),
        (spoilt("row", np.arange(5) - 1), "does not fit"),
        (spoilt("split", np.array("val")), "does not fit"),
        (spoilt("end", np.arange(5)), "impossible sizes"),
        (spoilt("end", make_thumbnails().columns()["end"][::-1].copy()), "impossible sizes"),
        (spoilt("bytes", np.zeros_like(make_thumbnails().columns()["bytes"])), "no image"),
    ],
)
def test_damaged_thumbnails_are_refused(columns, words):
    with pytest.raises(ValueError, match=words):
        thumbnails_from_columns(columns, {"test": 5})


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("has_webp", [True, False])
def test_a_thumbnail_keeps_its_proportions_and_is_never_enlarged(channels, has_webp, monkeypatch):
    import io

    from PIL import Image

    monkeypatch.setattr("timebox.run.results.thumbnails.features.check", lambda name: has_webp)
    image = np.full((40, 80, channels), 200, np.uint8)
    for max_side, size in ((20, (20, 10)), (160, (80, 40))):
        thumbnail = Image.open(io.BytesIO(encode_thumbnail(image, max_side)))
        assert thumbnail.size == size
        assert thumbnail.format == ("WEBP" if has_webp else "PNG" if channels == 4 else "JPEG")
