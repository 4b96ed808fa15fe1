"""Heat maps lie where the evidence is: known networks, and an occlusion test on trained ones."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from small_runs import quick
from timebox.errors import UsageError
from timebox.evaluation.heat_map import heat_map
from timebox.models import Ensemble
from timebox.models.pretrained import Blend, BlendWeights, PretrainedClassifier
from timebox.run import Run

SIDE, PATCH = 32, 8


class ColourNet(nn.Module):
    """Class c is the mean of channel c: what speaks for it is where that channel is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        self.conv.weight.data = torch.eye(3)[:, :, None, None]

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).mean((2, 3))  # type: ignore[no-any-return]


def spots() -> Tensor:
    """An image with a red spot up left and a blue one down right."""
    image = torch.zeros(1, 3, SIDE, SIDE)
    image[0, 0, :PATCH, :PATCH] = 1
    image[0, 2, -PATCH:, -PATCH:] = 1
    return image


@pytest.mark.parametrize("model", [ColourNet(), Ensemble([ColourNet(), ColourNet()])])
@pytest.mark.parametrize(("class_index", "corner"), [(0, slice(0, PATCH)), (2, slice(-PATCH, None))])
def test_each_class_has_its_own_places(model: nn.Module, class_index: int, corner: slice) -> None:
    heat = heat_map(model.eval(), spots(), class_index)
    assert heat is not None
    assert heat.shape == (SIDE, SIDE)
    assert heat[corner, corner].min() == heat.max() == 1
    heat[corner, corner] = 0
    assert heat.max() == 0


def test_a_class_that_nothing_speaks_for_has_no_places() -> None:
    heat = heat_map(ColourNet().eval(), spots(), 1)
    assert heat is not None and not heat.any()


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_both_networks_of_a_blend_count(share: float) -> None:
    torch.manual_seed(0)
    pretrained = PretrainedClassifier(3, 64).eval()
    heat = heat_map(Blend(ColourNet(), pretrained, BlendWeights(share, 1.0)).eval(), spots(), 0)
    assert heat is not None
    assert heat.shape == (SIDE, SIDE)
    assert heat.isfinite().all() and heat.min() >= 0


def test_a_network_without_places_has_none() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 2)).eval()
    assert heat_map(model, spots(), 0) is None


def test_the_model_is_left_as_it_was(trained: Run) -> None:
    before = trained.predict_proba(np.zeros((1, 8, 8, 3), np.uint8))
    trained.explain(np.full((8, 8, 3), 200, np.uint8))
    assert not any(module._forward_hooks for module in trained.predictor.modules())
    assert all(parameter.grad is None for parameter in trained.predictor.parameters())
    np.testing.assert_array_equal(trained.predict_proba(np.zeros((1, 8, 8, 3), np.uint8)), before)


def test_each_of_several_threads_gets_its_own() -> None:
    """Each waits in the middle of the model until all are there."""
    barrier = threading.Barrier(4)

    class Waiting(ColourNet):
        def forward(self, images: Tensor) -> Tensor:
            features = self.conv(images)
            barrier.wait(10)
            return features.mean((2, 3))  # type: ignore[no-any-return]

    model, images = Waiting().eval(), [spots().roll(3 * step, 3) for step in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: heat_map(model, image, 0), images))
    for image, heat in zip(images, found, strict=True):
        alone = heat_map(ColourNet().eval(), image, 0)
        assert heat is not None and alone is not None
        assert torch.equal(heat, alone)


def test_a_run_explains_one_image_and_a_class_of_its_own(trained: Run) -> None:
    image = np.random.default_rng(0).integers(0, 255, (20, 14, 3), dtype=np.uint8)
    heat = trained.explain(image)
    assert heat.dtype == np.float32 and heat.shape == (8, 8)
    predicted = trained.predict(image)[0]
    np.testing.assert_array_equal(trained.explain(image, predicted), heat)
    with pytest.raises(UsageError, match="'purple' is no class of the run; it has"):
        trained.explain(image, "purple")
    with pytest.raises(UsageError, match="one image can be explained at a time, not 2"):
        trained.explain([image, image])


def marked(num: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise images with a mark of 8x8 pixels at a place of its own: stripes that lie or that stand; labels, places."""
    rng = np.random.default_rng(seed)
    images = rng.integers(60, 160, (num, SIDE, SIDE, 3), dtype=np.uint8)
    labels, places = np.arange(num) % 2, rng.integers(0, SIDE - PATCH, (num, 2))
    stripes = np.repeat(np.tile(np.array([0, 255], np.uint8), PATCH // 2)[:, None], PATCH, 1)
    for image, label, (y, x) in zip(images, labels, places, strict=True):
        image[y : y + PATCH, x : x + PATCH] = (stripes if label else stripes.T)[..., None]
    return images, labels, places


@pytest.mark.integration
def test_hiding_the_hottest_place_costs_the_class_more_than_hiding_others(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("marks")
    images, labels, _ = marked(600, 0)
    np.savez(
        folder / "marks.npz", train_images=images, train_labels=labels, class_names=np.array(["lying", "standing"])
    )
    run = quick(folder / "marks.npz", folder / "run", steps=200)
    images, labels, places = marked(60, 1)
    probabilities = run.predict_proba(images, "none")
    assert (probabilities.argmax(1) == labels).mean() > 0.9
    inside, drops, other_drops = [], [], []
    rng = np.random.default_rng(2)
    for image, label, place in zip(images, labels, places, strict=True):
        heat = run.explain(image, run.class_names[label])
        hottest = np.array(np.unravel_index(heat.argmax(), heat.shape))
        inside.append(bool((abs(hottest - place - PATCH / 2) <= PATCH).all()))
        elsewhere = rng.integers(0, SIDE - PATCH, 2)
        for corner, kept in ((hottest - PATCH // 2, drops), (elsewhere, other_drops)):
            hidden = image.copy()
            y, x = np.clip(corner, 0, SIDE - PATCH)
            hidden[y : y + PATCH, x : x + PATCH] = 110
            before, after = run.predict_proba(np.stack([image, hidden]), "none", calibrate=False)[:, label]
            kept.append(float(np.log(before / (1 - before)) - np.log(after / (1 - after))))
    assert np.mean(inside) > 0.8, np.mean(inside)
    assert np.mean(drops) > 5 * abs(np.mean(other_drops)), (np.mean(drops), np.mean(other_drops))
