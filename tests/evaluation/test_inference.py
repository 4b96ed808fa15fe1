"""Inference: probabilities of an image do not depend on other images; views, order and early stop."""

import numpy as np
import pytest
import torch
from torch import nn

from timebox.builders import build_model
from timebox.errors import UsageError
from timebox.evaluation.inference import BATCH_SIZE, InferenceConfig, evaluation_mode, predict_probabilities
from timebox.evaluation.metrics import accuracy
from timebox.evaluation.tta import NUM_VIEWS
from timebox.models import ResNet9, ResNet18
from timebox.recipes import get_recipe
from timebox.runtime.async_scalars import AsyncScalars
from timebox.runtime.device import resolve_device
from timebox.runtime.timing import fastest_seconds
from tiny import CPU, bands, tiny_recipe

HALF = torch.full((3,), 0.5)


def model() -> nn.Module:
    torch.manual_seed(0)
    network = build_model(tiny_recipe(), 3, 3)
    with torch.no_grad():
        network.train()(torch.randn(32, 3, 8, 8))
    return network


def probabilities(network: nn.Module, images: np.ndarray, tta: str = "none") -> np.ndarray:
    return predict_probabilities(network, images, InferenceConfig(HALF, HALF, tta), CPU)


def test_probabilities() -> None:
    images = bands(20).images
    result = probabilities(model(), images)
    assert result.shape == (20, 3)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.sum(1), 1, atol=1e-6)
    expected = model().eval()((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5).softmax(1)
    np.testing.assert_allclose(result, expected.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("tta", NUM_VIEWS)
def test_the_result_of_an_image_does_not_depend_on_the_batch(tta: str) -> None:
    images = bands(30).images
    together = probabilities(model(), images, tta)
    alone = np.concatenate([probabilities(model(), image[None], tta) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_mirror_is_the_mean_of_both_views() -> None:
    images = bands(10).images
    network = model()
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    both = probabilities(network, images, "mirror")
    np.testing.assert_allclose(both, (probabilities(network, images) + probabilities(network, mirrored)) / 2, atol=1e-6)
    np.testing.assert_allclose(both, probabilities(network, mirrored, "mirror"), atol=1e-6)


@pytest.mark.parametrize(("whole", "each"), [("shift", "none"), ("mirror_shift", "mirror")])
def test_shifted_views_have_half_of_the_weight(whole: str, each: str) -> None:
    images = bands(10).images
    network = model()
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    shifted = [probabilities(network, np.ascontiguousarray(padded[:, i : i + 8, i : i + 8]), each) for i in (0, 2)]
    expected = (probabilities(network, images, each) + (shifted[0] + shifted[1]) / 2) / 2
    np.testing.assert_allclose(probabilities(network, images, whole), expected, atol=1e-6)


def test_more_images_than_a_batch_keep_their_order() -> None:
    images = bands(2 * BATCH_SIZE + 7).images
    network = model()
    np.testing.assert_allclose(
        probabilities(network, images)[BATCH_SIZE:], probabilities(network, images[BATCH_SIZE:]), atol=1e-6
    )


def test_stopping_early_keeps_the_finished_batches_and_at_least_one() -> None:
    images = bands(3 * BATCH_SIZE).images
    answers = iter([False, True])
    some = predict_probabilities(model(), images, InferenceConfig(HALF, HALF), CPU, stop=lambda: next(answers))
    assert len(some) == 2 * BATCH_SIZE
    least = predict_probabilities(model(), images, InferenceConfig(HALF, HALF), CPU, stop=lambda: True)
    assert len(least) == BATCH_SIZE


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_restored(training: bool) -> None:
    network = model().train(training)
    with pytest.raises(KeyError), evaluation_mode(network):
        assert not network.training
        assert not torch.is_grad_enabled()
        raise KeyError
    assert network.training is training
    assert torch.is_grad_enabled()


def test_accuracy() -> None:
    rows = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], np.float32)
    assert accuracy(rows, np.array([0, 1, 1])) == pytest.approx(2 / 3)
    assert accuracy(rows[:2], np.array([0, 1, 1])) == 1.0


def test_networks_are_built_from_recipes() -> None:
    nine = build_model(tiny_recipe(whitening=False, logit_scale=0.5), 1, 3)
    assert isinstance(nine, ResNet9)
    assert nine.logit_scale == 0.5
    eighteen = build_model(get_recipe("superconvergence").replace(width=4), 3, 5)
    assert isinstance(eighteen, ResNet18)
    for network in (nine, eighteen):
        convolution = next(m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3))
        assert convolution.weight.is_contiguous(memory_format=torch.channels_last)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    with pytest.raises(UsageError) as caught:
        resolve_device("cuda")
    assert str(caught.value) == (
        "device 'cuda' is not available: torch finds no CUDA GPU here; use device=\"cpu\" or auto"
    )
    with pytest.raises(UsageError) as caught:
        resolve_device("tpu")
    assert str(caught.value) == "device 'tpu' is unknown; use auto, cpu or cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda")
    assert resolve_device("cpu") == CPU


def test_async_scalars_are_returned_in_order() -> None:
    work: AsyncScalars[str] = AsyncScalars(CPU)
    work.push("a", torch.tensor(1.0))
    work.push("b", torch.tensor(2.0))
    assert work.num_pending == 2
    assert work.poll() == [("a", 1.0), ("b", 2.0)]
    assert (work.num_pending, work.poll(drain=True)) == (0, [])


def test_the_fastest_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = [0.0]
    durations = iter([9.0, 0.5, 0.2, 0.4])

    def work() -> None:
        moment[0] += next(durations)

    monkeypatch.setattr("timebox.runtime.timing.now", lambda: moment[0])
    assert fastest_seconds(work, CPU, limit_seconds=100, max_repeats=3) == pytest.approx(0.2)
    durations = iter([9.0, 0.5])
    assert fastest_seconds(work, CPU, limit_seconds=1) == pytest.approx(0.5), "one repeat, whatever the limit"
