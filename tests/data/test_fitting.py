import numpy as np
import pytest
import torch

from timebox.data import fit_images
from timebox.data.fitting import batch_fit


def fitted(images, height, width, fit="crop"):
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    return batch_fit(planes, height, width, fit).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("size", [(40, 40), (64, 48), (33, 100), (9, 31), (7, 5), (32, 32)])
@pytest.mark.parametrize("working", [(32, 32), (16, 24), (8, 8)])
@pytest.mark.parametrize("fit", ["crop", "letterbox"])
def test_it_does_what_pillow_does(size, working, fit):
    images = np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    # Where an image becomes much smaller, Pillow averages blocks of pixels first, which is faster and less exact.
    tolerance = 1 if max(size[0] / working[0], size[1] / working[1]) < 6 else 10
    expected = fit_images(images, working, 3, fit).astype(float)
    assert np.abs(fitted(images, *working, fit) - expected).max() <= tolerance


def test_images_of_the_working_size_stay_as_they_are():
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 20, 1), dtype=np.uint8)
    assert np.array_equal(fitted(images, 12, 20), images)


def test_pixels_are_whole_numbers_in_range():
    result = fitted(np.full((1, 30, 20, 3), 255, np.uint8), 8, 8)
    assert result.shape == (1, 8, 8, 3)
    assert (result == 255).all()
