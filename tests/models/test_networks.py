"""The networks: image sizes, channels, numbers of classes, parameters and operations."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from timebox.models import (
    Airbench,
    AirbenchConfig,
    GhostBatchNorm,
    ResNet9,
    ResNet9Config,
    ResNet18,
    Whitening,
    count_flops,
    fit_whitening,
)

SIZES = [(8, 8), (9, 9), (28, 28), (32, 32), (33, 33), (64, 64), (8, 20)]


def images(num: int, channels: int, size: tuple[int, int]) -> Tensor:
    return torch.randn(num, channels, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("whitening", [True, False])
def test_resnet9_takes_any_size(size: tuple[int, int], channels: int, whitening: bool) -> None:
    model = ResNet9(channels, 10, ResNet9Config(width=4, whitening=whitening))
    logits = model(images(3, channels, size))
    assert logits.shape == (3, 10)
    assert logits.isfinite().all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_resnet18_takes_any_size(size: tuple[int, int], channels: int) -> None:
    logits = ResNet18(channels, 10, width=4)(images(3, channels, size))
    assert logits.shape == (3, 10)
    assert logits.isfinite().all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("blur_pool", [False, True])
def test_airbench_takes_any_size(size: tuple[int, int], channels: int, blur_pool: bool) -> None:
    logits = Airbench(channels, 10, AirbenchConfig(width=4, blur_pool=blur_pool))(images(3, channels, size))
    assert logits.shape == (3, 10)
    assert logits.isfinite().all()


@pytest.mark.integration
def test_building_on_the_meta_device_does_not_import_torchs_compiler() -> None:
    """The import takes a second, each time a run is loaded."""
    code = """if True:
        import sys, torch
        from timebox.models import Airbench, ResNet9, ResNet18, Ensemble
        with torch.device("meta"):
            Ensemble([Airbench(3, 10), Airbench(3, 10)]), ResNet9(3, 10), ResNet18(3, 10)
        assert "torch._dynamo" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("scale", [0.1, 0.5, 1.25, 2.0])
def test_airbench_resizes_its_input(scale: float) -> None:
    torch.manual_seed(0)
    model = Airbench(3, 10, AirbenchConfig(width=4, input_scale=scale)).eval()
    for size in SIZES:
        assert model(images(3, 3, size)).isfinite().all()
    entered = model.resize_inputs(images(3, 3, (32, 64)))
    assert entered.shape[2:] == (max(9, round(32 * scale)), max(9, round(64 * scale)))
    alone = Airbench(3, 10, AirbenchConfig(width=4)).eval()
    alone.load_state_dict(model.state_dict())
    assert torch.equal(model(images(3, 3, (32, 64))), alone(entered))
    assert torch.equal(model.train()(entered), alone.train()(entered)), "in training the loader resizes"
    assert count_flops(model, (3, 32, 32)) / count_flops(alone, (3, 32, 32)) == pytest.approx(
        scale**2, rel=0.35, abs=0.1
    )


def test_whitening_is_fitted_to_resized_images() -> None:
    """Enlarged images are smoother: their finest pattern has less variance, and is amplified more."""
    noise = images(50, 3, (16, 16))
    model, alone = Airbench(3, 10, AirbenchConfig(width=4, input_scale=2.0)), Airbench(3, 10, AirbenchConfig(width=4))
    fit_whitening(model, noise)
    alone.whitening.fit(model.resize_inputs(noise))
    assert torch.equal(model.whitening.weight, alone.whitening.weight)
    fit_whitening(alone, noise)
    assert not torch.allclose(model.whitening.weight, alone.whitening.weight, atol=0.1)


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_any_number_of_classes(num_classes: int) -> None:
    for model in (
        ResNet9(3, num_classes, ResNet9Config(width=4)),
        ResNet18(3, num_classes, width=4),
        Airbench(3, num_classes, AirbenchConfig(width=4)),
    ):
        assert model(images(2, 3, (8, 8))).shape == (2, num_classes)


def num_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_gradients_of_a_narrow_resnet18_are_those_in_double_precision() -> None:
    """Strided 1×1 convolutions of few channels crash the process with AVX-512."""
    torch.manual_seed(0)
    network, inputs = ResNet18(3, 10, width=8), images(16, 3, (96, 64))
    exact = copy.deepcopy(network).double()
    for model, dtype in ((network.to(memory_format=torch.channels_last), torch.float32), (exact, torch.float64)):
        model(inputs.to(dtype)).logsumexp(1).sum().backward()
    for got, expected in zip(network.parameters(), exact.parameters(), strict=True):
        assert (got.grad - expected.grad).norm() <= 0.05 * expected.grad.norm(), "ReLU may fall on either side of 0"


def test_resnet18_is_the_published_one() -> None:
    with torch.device("meta"):
        assert num_parameters(ResNet18(3, 10)) == 11_173_962


def test_resnet9_is_cifar10_fasts() -> None:
    with torch.device("meta"):
        plain, whitened = ResNet9(3, 10, ResNet9Config(whitening=False)), ResNet9(3, 10)
    convolutions = 9 * (3 * 64 + 64 * 128 + 2 * 128 * 128 + 128 * 256 + 256 * 512 + 2 * 512 * 512) + 512 * 10
    channels = 64 + 3 * 128 + 256 + 3 * 512
    assert num_parameters(plain) == convolutions + 2 * channels
    assert num_parameters(whitened) == num_parameters(plain) + (27 - 9 * 3) * 64
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in plain.modules()) == 9


def test_airbench_is_the_published_one() -> None:
    model = Airbench(3, 10)
    convolutions = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256)
    trained = convolutions + 10 * 256 + 2 * (64 + 256 + 256) + 24
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trained
    # 708 MFLOP per image, forward and backward.
    assert count_flops(model, (3, 32, 32)) == pytest.approx(708e6, rel=0.01)
    assert model.head.weight.std().item() == pytest.approx(1.0)
    norms = [m for m in model.modules() if isinstance(m, GhostBatchNorm)]
    assert {(norm.momentum, norm.eps, norm.weight.requires_grad) for norm in norms} == {(0.4, 1e-12, False)}


def test_every_normalisation_of_resnet9_is_ghost_with_frozen_scale() -> None:
    norms = [m for m in ResNet9(3, 10, ResNet9Config(width=4, ghost_size=7)).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 8
    assert all(isinstance(norm, GhostBatchNorm) and norm.ghost_size == 7 for norm in norms)
    assert not any(norm.weight.requires_grad for norm in norms)


def test_logits_are_scaled() -> None:
    torch.manual_seed(0)
    model = ResNet9(3, 10, ResNet9Config(width=4, logit_scale=1.0)).eval()
    x = images(3, 3, (8, 8))
    full = model(x)
    model.logit_scale = 0.125
    assert torch.equal(model(x), full * 0.125)


def test_the_head_takes_the_maximum_over_all_positions() -> None:
    # Shifting by the network's full stride moves the features, not their maximum (borders kept dark).
    torch.manual_seed(0)
    model = ResNet9(1, 4, ResNet9Config(width=4, whitening=False)).eval()
    x = torch.zeros(1, 1, 96, 96)
    x[:, :, 40:48, 40:48] = images(1, 1, (8, 8))
    assert torch.allclose(model(x), model(x.roll((8, -8), (2, 3))), atol=1e-6)


def test_whitening_is_fitted_in_place_and_never_trained() -> None:
    model = ResNet9(3, 10, ResNet9Config(width=4))
    layers = [m for m in model.modules() if isinstance(m, Whitening)]
    assert len(layers) == 1
    before = layers[0].weight.clone()
    fit_whitening(model, images(40, 3, (8, 8)))
    fitted = layers[0].weight.clone()
    assert not torch.equal(fitted, before)
    assert "first.0.weight" in model.state_dict()
    assert "first.0.weight" not in dict(model.named_parameters())
    model(images(4, 3, (8, 8))).square().sum().backward()
    assert layers[0].weight.grad is None
    assert torch.equal(layers[0].weight, fitted)


def test_fitting_a_network_without_whitening_changes_nothing() -> None:
    model = ResNet9(3, 10, ResNet9Config(width=4, whitening=False))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fit_whitening(model, images(40, 3, (8, 8)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_flops_counted_by_hand() -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
            self.strided = nn.Conv2d(8, 4, 3, stride=2, padding=1, bias=False)
            self.head = nn.Linear(4, 10, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            features: Tensor = self.head(self.strided(self.conv(x)).amax((2, 3)))
            return features

    multiplications = (3 * 8 * 9) * (10 * 6) + (8 * 4 * 9) * (5 * 3) + 4 * 10
    assert count_flops(Small(), (3, 10, 6)) == 2 * 3 * multiplications


def test_flops_of_resnet9_by_hand() -> None:
    w, side = 8, 16
    pixels = [side**2, (side // 2) ** 2, (side // 4) ** 2, (side // 8) ** 2]
    multiplications = (
        27 * 3 * 9 * pixels[0]  # whitening
        + 27 * w * pixels[0]
        + 9 * (w * 2 * w) * pixels[0]  # pooling comes after the convolution
        + 2 * 9 * (2 * w) ** 2 * pixels[1]
        + 9 * (2 * w * 4 * w) * pixels[1]
        + 9 * (4 * w * 8 * w) * pixels[2]
        + 2 * 9 * (8 * w) ** 2 * pixels[3]
        + 8 * w * 10
    )
    assert count_flops(ResNet9(3, 10, ResNet9Config(width=w)), (3, side, side)) == 6 * multiplications


def test_counting_flops_does_not_change_the_model() -> None:
    model = ResNet9(3, 10, ResNet9Config(width=4)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert count_flops(model, (3, 8, 8)) == count_flops(model, (3, 8, 8))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
