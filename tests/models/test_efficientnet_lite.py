from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timebox.models.efficientnet_lite import (
    BATCH_NORM_EPSILON,
    NUM_FEATURES,
    STAGES,
    EfficientNetLite0,
    SameConv,
    SmallMapDepthwise,
    fold_batch_norms,
)
from timebox.models.pretrained import Blend, BlendWeights, PretrainedClassifier


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 7), (1, 4)])
def test_padding_is_tensorflows(kernel: int, stride: int, size: tuple[int, int]) -> None:
    convolution, images = SameConv(2, 3, kernel, stride), torch.randn(1, 2, *size)
    outputs = [-(-side // stride) for side in size]
    pads = [max((out - 1) * stride + kernel - side, 0) for out, side in zip(outputs, size, strict=True)]
    top, left = (pad // 2 for pad in pads)
    padded = F.pad(images, (left, pads[1] - left, top, pads[0] - top))
    expected = F.conv2d(padded, convolution.weight, convolution.bias, stride)
    assert torch.allclose(convolution(images), expected, atol=1e-6)
    assert list(convolution(images).shape[2:]) == outputs


def published() -> dict[str, torch.Tensor]:
    """Random tensors under the published names."""
    generator, state = torch.Generator().manual_seed(0), {}

    def add(conv: str, norm: str, outputs: int, inputs: int, kernel: int = 1) -> None:
        shape = (outputs, inputs, kernel, kernel)
        state[f"{conv}.weight"] = torch.randn(shape, generator=generator) / (inputs * kernel**2) ** 0.5
        for name in ("weight", "running_var"):
            state[f"{norm}.{name}"] = 0.5 + torch.rand(outputs, generator=generator)
        for name in ("bias", "running_mean"):
            state[f"{norm}.{name}"] = torch.randn(outputs, generator=generator)

    add("_conv_stem", "_bn0", 32, 3, 3)
    inputs, number = 32, 0
    for kernel, _, expansion, outputs, repeats in STAGES:
        for _ in range(repeats):
            block, inner = f"_blocks.{number}", inputs * expansion
            if expansion > 1:
                add(f"{block}._expand_conv", f"{block}._bn0", inner, inputs)
            add(f"{block}._depthwise_conv", f"{block}._bn1", inner, 1, kernel)
            add(f"{block}._project_conv", f"{block}._bn2", outputs, inner)
            inputs, number = outputs, number + 1
    add("_conv_head", "_bn1", NUM_FEATURES, inputs)
    return state


def test_folded_batch_norms_compute_the_same() -> None:
    state = published()
    folded = fold_batch_norms(state)
    assert folded.keys() == EfficientNetLite0().state_dict().keys()
    norm = nn.BatchNorm2d(32, eps=BATCH_NORM_EPSILON).eval()
    norm.load_state_dict({name: state[f"_bn0.{name}"] for name in norm.state_dict() if f"_bn0.{name}" in state}, False)
    images = torch.randn(2, 3, 9, 9)
    expected = norm(F.conv2d(images, state["_conv_stem.weight"], padding=1))
    assert torch.allclose(F.conv2d(images, folded["stem.weight"], folded["stem.bias"], padding=1), expected, atol=1e-5)
    del state["_conv_head.weight"]
    with pytest.raises(KeyError, match="_conv_head"):
        fold_batch_norms(state)


@pytest.mark.parametrize(("channels", "size"), [(3, (32, 32)), (1, (40, 32)), (4, (32, 56))])
def test_a_classifier_takes_grey_alpha_and_oblong_images(channels: int, size: tuple[int, int]) -> None:
    classifier = PretrainedClassifier(5, 64).eval()
    images = torch.randn(2, channels, *size)
    assert classifier(images).shape == (2, 5)
    inputs = classifier.backbone_inputs(images)
    assert inputs.shape[1] == 3
    assert min(inputs.shape[2:]) == 64
    assert inputs.shape[2] / inputs.shape[3] == pytest.approx(size[0] / size[1], rel=0.02)


def test_normalised_images_become_pixels_of_the_backbone() -> None:
    mean, std = torch.tensor([0.2, 0.5, 0.7]), torch.tensor([0.1, 0.2, 0.3])
    classifier, pixels = PretrainedClassifier(2, 32), torch.randint(256, (1, 3, 32, 32)).float()
    classifier.accept_normalized(mean, std)
    normalized = (pixels / 255 - mean[:, None, None]) / std[:, None, None]
    assert torch.allclose(classifier.backbone_inputs(normalized), (pixels - 127) / 128, atol=1e-5)
    grey = PretrainedClassifier(2, 32)
    grey.accept_normalized(mean[:1], std[:1])
    expected = ((pixels[:, :1] - 127) / 128).expand(-1, 3, -1, -1)
    assert torch.allclose(grey.backbone_inputs(normalized[:, :1]), expected, atol=1e-5)


def test_a_blend_averages_logarithms() -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    classifier, images = PretrainedClassifier(4, 32).eval(), torch.randn(3, 3, 32, 32)
    own, other = network(images).log_softmax(1), classifier(images).log_softmax(1)
    expected = (0.7 * own / 0.5 + 0.3 * other).softmax(1)
    assert torch.allclose(Blend(network, classifier, BlendWeights(0.3, 0.5))(images).softmax(1), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(4, 4), (3, 4), (1, 2)])
def test_gradients_on_maps_smaller_than_the_kernel_are_those_of_torch(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(6, 8, *size, generator=generator, dtype=torch.float64)
    weight, bias = (
        torch.randn(8, 1, 5, 5, generator=generator, dtype=torch.float64),
        torch.zeros(8, dtype=torch.float64),
    )
    own = _gradients(SmallMapDepthwise.apply, inputs, weight, bias)
    usual = _gradients(lambda x, w, b: F.conv2d(x, w, b, padding=2, groups=8), inputs, weight, bias)
    for ours, theirs in zip(own, usual, strict=True):
        assert torch.allclose(ours, theirs)


def _gradients(convolve: Callable[..., Tensor], *given: Tensor) -> list[Tensor]:
    """The output, and the gradient of its weighted sum for each of the inputs."""
    leaves = [tensor.clone().requires_grad_() for tensor in given]
    output = convolve(*leaves)
    (output * torch.arange(output.numel()).view_as(output)).sum().backward()
    return [output.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize(("side", "calls"), [(128, 3), (192, 0)])
def test_the_last_blocks_use_it_while_they_learn(side: int, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[torch.Size] = []
    apply = SmallMapDepthwise.apply
    monkeypatch.setattr(SmallMapDepthwise, "apply", lambda x, w, b: taken.append(x.shape) or apply(x, w, b))
    backbone = EfficientNetLite0()
    activations = torch.randn(1, 112, side // 16, side // 16)
    backbone.tuned_part(activations, 11).sum().backward()
    assert len(taken) == calls
    with torch.no_grad():
        backbone.tuned_part(activations, 11)
    assert len(taken) == calls
