import numpy as np
import pytest
import torch

from timebox.data import fit_images
from timebox.data.images.fit import batch_fit, fit_weights


def fitted(images, height, width, fit="crop"):
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    return batch_fit(planes, height, width, fit).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("size", [(40, 40), (64, 48), (33, 100), (9, 31), (7, 5), (32, 32)])
@pytest.mark.parametrize("working", [(32, 32), (16, 24), (8, 8)])
@pytest.mark.parametrize("fit", ["crop", "letterbox"])
def test_batch_fit_equals_pillow(size, working, fit):
    images = np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    # Where an image becomes much smaller, Pillow averages blocks of pixels first, which is faster and less exact.
    tolerance = 1 if max(size[0] / working[0], size[1] / working[1]) < 6 else 10
    expected = fit_images(images, working, 3, fit).astype(float)
    assert np.abs(fitted(images, *working, fit) - expected).max() <= tolerance


def test_images_of_the_working_size_are_unchanged():
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 20, 1), dtype=np.uint8)
    assert np.array_equal(fitted(images, 12, 20), images)


def test_pixels_are_whole_numbers_in_range():
    result = fitted(np.full((1, 30, 20, 3), 255, np.uint8), 8, 8)
    assert result.shape == (1, 8, 8, 3)
    assert (result == 255).all()


@pytest.mark.parametrize("size", [(64, 64), (48, 48), (96, 96), (24, 32), (40, 40), (128, 96)])
@pytest.mark.parametrize("fit", ["crop", "letterbox"])
def test_halves_are_rounded_equally_in_any_precision(size, fit):
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (16, 3, *size))).float()
    down, across = fit_weights(images.double(), 32, 32, fit)
    resized = down @ images.double() @ across.T
    fitted_in_float64 = batch_fit(images.double(), 32, 32, fit)
    assert torch.equal(batch_fit(images, 32, 32, fit), fitted_in_float64.float())
    halves = (resized % 1 - 0.5).abs() < 1e-9
    assert torch.equal(fitted_in_float64[halves], resized[halves].round(decimals=6).add(0.5))


def test_weights_of_large_images_have_float32_accuracy():
    images = torch.zeros(1, 1, 3001, 4003)
    for exact, weights in zip(fit_weights(images.double(), 224, 200), fit_weights(images, 224, 200), strict=True):
        assert (weights - exact).abs().max() < 2 * torch.finfo(torch.float32).eps * exact.max()
