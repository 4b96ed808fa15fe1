"""Images from Python as a model takes them; tests/run/test_images.py has what Run.predict takes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from timebox.data import decode_image
from timebox.data.images.decode import WHITE_16BIT
from timebox.data.images.model_input import ModelInput
from timebox.errors import DataError, RunError

RNG = np.random.default_rng(0)
ROOM = 1 << 20  # bytes that may be allocated


def check_memory(num_bytes: int, purpose: str) -> None:
    if num_bytes > ROOM:
        raise RunError(f"no memory for {purpose}")


RGB = ModelInput((8, 6, 3), "crop", WHITE_16BIT, check_memory)


def test_images_of_the_working_size_are_unchanged() -> None:
    images = RNG.integers(0, 256, (5, 8, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(RGB.convert(images), images)
    np.testing.assert_array_equal(RGB.convert(list(images)), images)
    np.testing.assert_array_equal(RGB.convert(images[0]), images[:1])
    assert RGB.convert([]).shape == (0, 8, 6, 3)
    assert RGB.num_bytes == 8 * 6 * 3


@pytest.mark.parametrize("fit", ["crop", "letterbox"])
def test_files_and_arrays_are_fitted_alike(fit: str, tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    form = ModelInput((8, 6, 3), fit, WHITE_16BIT, check_memory)
    decoded = form.decode(tmp_path / "a.png")
    np.testing.assert_array_equal(decoded, decode_image(tmp_path / "a.png", (8, 6), 3, fit))
    mixed = form.convert([tmp_path / "a.png", pixels])
    np.testing.assert_array_equal(mixed[0], decoded)
    assert np.abs(mixed[1].astype(int) - decoded).max() <= 1, "Pillow rounds after each direction"


def test_refusals_name_the_image(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"^image '.*text\.jpg' cannot be read: "):
        RGB.convert([tmp_path / "text.jpg"])
    with pytest.raises(DataError, match="is a folder: give its files"):
        RGB.convert(tmp_path)


def test_memory_is_checked_before_images_are_read() -> None:
    with pytest.raises(RunError, match=r"^no memory for 10,000 images of its size$"):
        RGB.convert([*np.zeros((9_999, 4, 4, 3), np.uint8), "missing.png"])
    with pytest.raises(RunError, match=r"^no memory for 10,000 images of its size$"):
        RGB.convert(np.zeros((10_000, 5, 5, 3), np.uint8))
