"""Run.predict takes images as people have them: one or many, of any size, layout and scale that is certain."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

import timebox
from small_runs import CLASSES, coloured, quick
from timebox.errors import DataError, RunError
from timebox.run import Run, load

IMAGES, LABELS = coloured(12, side=20, seed=6)
NAMES = [CLASSES[label] for label in LABELS]
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on grey images of 8x8."""
    folder = tmp_path_factory.mktemp("grey")
    images, labels = coloured(60)
    np.savez(folder / "grey.npz", images=images[..., :1], labels=labels)
    return quick(folder / "grey.npz", folder / "run", steps=2)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The images as files, of different sizes."""
    folder = tmp_path_factory.mktemp("files")
    for number, pixels in enumerate(IMAGES):
        Image.fromarray(pixels).resize((20 + number, 30)).save(folder / f"{number:02}.png")
    return sorted(folder.iterdir())


def refusal(call: Callable[[], object], error: type[Exception] = DataError) -> str:
    with pytest.raises(error) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_path_is_one_image(trained: Run, files: list[Path]) -> None:
    assert trained.predict(str(files[0])) == trained.predict(files[0]) == trained.predict([files[0]]) == NAMES[:1]
    assert timebox.predict(trained, files[1]) == NAMES[1:2]
    assert trained.predict_proba(files[0]).shape == (1, 3)


def test_one_image_in_memory_is_one_image(trained: Run, files: list[Path]) -> None:
    with Image.open(files[0]) as image:
        assert trained.predict(image) == NAMES[:1]
    assert trained.predict(files[0].read_bytes()) == NAMES[:1]
    assert trained.predict(io.BytesIO(files[0].read_bytes())) == NAMES[:1]
    with files[0].open("rb") as file:
        assert trained.predict(file) == NAMES[:1]


def test_one_array_is_one_image(trained: Run) -> None:
    assert trained.predict(IMAGES[0]) == NAMES[:1]
    np.testing.assert_array_equal(trained.predict_proba(IMAGES[0]), trained.predict_proba(IMAGES[:1]))
    opaque = np.concatenate([IMAGES[0], np.full((20, 20, 1), 255, np.uint8)], 2)
    assert trained.predict(opaque) == NAMES[:1]
    assert len(trained.predict(IMAGES[0, ..., 0])) == len(trained.predict(IMAGES[0, ..., :1])) == 1


@pytest.mark.parametrize(
    "wrap",
    [
        list,
        tuple,
        iter,
        lambda x: (image for image in x),
        lambda x: [Image.fromarray(image) for image in x],
        lambda x: [image[None] for image in x],
        lambda x: torch.from_numpy(x).permute(0, 3, 1, 2),
        lambda x: torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255,
        lambda x: [torch.from_numpy(image).permute(2, 0, 1) / 255 for image in x],
        lambda x: x.transpose(0, 3, 1, 2),
        lambda x: x.astype(np.int64),
        lambda x: x.astype(np.float32),
        lambda x: x / 255,
        lambda x: (x / 255).astype(np.float16),
        lambda x: x / 255 * 1.0000000002,
        lambda x: x.tolist(),
    ],
)
def test_containers_and_scales_of_the_same_images(wrap: Callable[[Pixels], object], trained: Run) -> None:
    small, _ = coloured(12, seed=6)
    expected = trained.predict_proba(small)
    np.testing.assert_allclose(trained.predict_proba(wrap(small)), expected, atol=2e-3)
    assert trained.predict(wrap(IMAGES)) == NAMES


def test_arrays_of_different_sizes_and_files_in_one_list(trained: Run, files: list[Path]) -> None:
    mixed = [IMAGES[0, :13], files[1], IMAGES[2, :, 3:], Image.fromarray(IMAGES[3]), torch.from_numpy(IMAGES[4])]
    assert trained.predict(mixed) == NAMES[:5]
    each = np.concatenate([trained.predict_proba([image]) for image in mixed])
    np.testing.assert_allclose(trained.predict_proba(mixed), each, atol=1e-6)


def test_other_heights_and_widths_are_fitted_as_in_training(trained: Run) -> None:
    for shape in ((3, 32, 20, 3), (3, 6, 8, 3), (2, 100, 9, 3)):
        assert trained.predict_proba(np.zeros(shape, np.uint8)).shape == (shape[0], 3)


@pytest.mark.parametrize("num", [1, 2, 3, 4, 5])
def test_a_stack_of_grey_images_stays_a_stack(num: int, grey: Run) -> None:
    assert len(grey.predict(IMAGES[:num, ..., 0])) == num
    assert len(grey.predict(list(IMAGES[:num, ..., 0]))) == num


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.zeros((3, 20, 20), np.uint8),
            "images is (3, 20, 20): 3 grey images, or one image with its 3 channels first; give images[..., None] for "
            "grey images, images[None] for one image",
        ),
        (
            np.zeros((5, 64), np.uint8),
            "images is (5, 64), which looks like rows of pixels: give images.reshape(-1, 8, 8)",
        ),
        (
            np.zeros((5, 192), np.uint8),
            "images is (5, 192), which looks like rows of pixels: give images.reshape(-1, 8, 8, 3)",
        ),
        (
            np.zeros((2, 8, 8, 2), np.uint8),
            "images is (2, 8, 8, 2): images are (N, H, W), or (N, H, W, C) with 1, 3 or 4 channels",
        ),
        (np.zeros((2, 0, 8, 3), np.uint8), "images is (2, 0, 8, 3): images without pixels"),
        (
            np.linspace(-2, 2, 192).reshape(1, 8, 8, 3),
            "images is float64 and runs from -2 to 2: it must be uint8, lie in 0...1, or be whole numbers of 0...255",
        ),
        (
            np.full((1, 8, 8, 3), 999, np.uint16),
            "images is uint16 and runs from 999 to 999: it must be uint8, lie in 0...1, or be whole numbers of 0...255",
        ),
        (
            np.full((2, 8, 8, 3), np.nan),
            "images has 384 values that are NaN or infinite (inf), the first in image 0: leave out such images",
        ),
        (None, "images is a NoneType: give an array (N, H, W, C), or a list of paths, arrays and PIL images"),
        (7, "images is a int: give an array (N, H, W, C), or a list of paths, arrays and PIL images"),
        ({"a": "b"}, "images is a dict, which has no order of images: give a list or an array"),
        ([np.zeros((8, 8, 3), np.uint8), None], "images[1] is None: leave out images that are missing"),
        (
            [np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3))],
            "images mixes arrays of float64 and uint8, whose scales may differ: convert them to one",
        ),
        ("one.png", "image 'one.png' cannot be read: No such file or directory"),
        ("x" * 5000, f"image {'x' * 5000!r} cannot be read: File name too long"),
        ("a\0b", "image 'a\\x00b' cannot be read: embedded null byte"),
        (b"no image", "image number 0 cannot be read: not an image that can be read here"),
    ],
)
def test_other_values_than_images_are_refused(images: object, message: str, trained: Run) -> None:
    assert refusal(lambda: trained.predict(images)) == message


def test_a_folder_is_refused(trained: Run, tmp_path: Path) -> None:
    words = f"image {str(tmp_path)!r} is a folder: give its files, for instance sorted(Path({str(tmp_path)!r}).glob"
    for images in (tmp_path, str(tmp_path), [tmp_path]):
        assert refusal(lambda images=images: trained.predict(images)).startswith(words)  # type: ignore[misc]


def damaged(run: Run, folder: Path, value: float, name: str = "head.weight") -> Path:
    """A copy of a run in whose weights one value of a tensor is another."""
    run.save(_new(folder))
    tensors = load_file(folder / "model.safetensors")
    tensors[name].flatten()[0] = value
    save_file(tensors, folder / "model.safetensors")
    return folder


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_every_verb(value: float, trained: Run, tmp_path: Path) -> None:
    path = damaged(trained, tmp_path / "run", value)
    num = trained.model.state_dict()["head.weight"].numel()
    words = (
        f"the model of run {str(path)!r} cannot be used: 1 of {num} values of its tensor 'head.weight' are NaN or "
        "infinite; train again, with a lower learning rate if it was the training"
    )
    assert refusal(lambda: load(path), RunError) == words
    assert refusal(lambda: timebox.predict(path, IMAGES), RunError) == words
    assert refusal(lambda: timebox.export(path, "torch"), RunError) == words
    source = str(trained.config["source"]["data"])  # type: ignore[index, call-overload]
    assert refusal(lambda: timebox.evaluate(path, source), RunError) == words
    start = refusal(lambda: timebox.train(source, steps=1, init=path, out=tmp_path / "next"), RunError)
    assert start.startswith(f"{str(path / 'model.safetensors')!r} cannot be used: 1 of {num} values of its tensor")


def test_batch_statistics_that_are_not_finite_are_refused(trained: Run, tmp_path: Path) -> None:
    name = next(name for name, tensor in trained.model.state_dict().items() if "running_var" in name)
    path = damaged(trained, tmp_path / "run", float("inf"), name)
    assert f"of its tensor {name!r} are NaN or infinite" in refusal(lambda: load(path), RunError)


def test_probabilities_that_are_not_finite_are_refused(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = np.full((1, 3), np.nan, np.float32)
    monkeypatch.setattr("timebox.run.run.predict_probabilities", lambda *rest: broken)
    assert refusal(lambda: trained.predict(IMAGES[0]), RunError) == (
        f"the model of run {str(trained.path)!r} computes NaN for some images: train it again"
    )


def test_indices_are_those_of_the_probabilities_however_few_may_be_held(
    trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).integers(0, 255, (25, 8, 8, 3), dtype=np.uint8)
    expected = trained.predict_proba(images).argmax(1)
    monkeypatch.setattr(sys.modules["timebox.run.run"], "GPU_BATCH_SIZE", 10)
    monkeypatch.setattr(sys.modules["timebox.run.run"], "MAX_PROBABILITIES", 3)
    np.testing.assert_array_equal(trained.predict_indices(images), expected)
    assert trained.predict(images) == [trained.class_names[index] for index in expected]
    assert trained.predict_indices(images[:0]).shape == (0,)
