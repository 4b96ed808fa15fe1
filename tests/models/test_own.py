"""build_own: networks of a user's of many kinds, and those that cannot be used."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from own_networks import NETWORKS, ConvNet, Mlp
from timebox.errors import UsageError
from timebox.models.own import build_own

SHAPE, CLASSES = (3, 16, 12), 5


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_built_and_computes_logits(name: str) -> None:
    network = build_own(NETWORKS[name], SHAPE, CLASSES)
    images = torch.rand(4, *SHAPE).to(memory_format=torch.channels_last)
    assert network(images).shape == (4, CLASSES)
    assert network.training
    assert copy.deepcopy(network)(images).shape == (4, CLASSES)


def test_a_module_is_copied() -> None:
    mine = ConvNet(CLASSES)
    before = mine.head.weight.clone()
    network = build_own(mine, SHAPE, CLASSES)
    assert network is not mine
    assert torch.equal(network.head.weight, before)  # type: ignore[union-attr,arg-type]
    with torch.no_grad():
        network.head.weight.zero_()  # type: ignore[union-attr,operator]
    assert torch.equal(mine.head.weight, before)


@pytest.mark.parametrize(
    "code",
    [
        lambda num_classes: ConvNet(num_classes),
        lambda n, shape: Mlp(n, shape),
        lambda n, image_shape=None: Mlp(n, image_shape),
        lambda *, num_classes: ConvNet(num_classes),
        lambda *, num_classes=1000, **options: ConvNet(num_classes, **options),
        partial(ConvNet, width=4),
        partial(Mlp, image_shape=SHAPE),
    ],
    ids=["classes", "two", "named second", "keyword", "as of torchvision", "partial", "partial shape"],
)
def test_a_function_gets_what_it_takes(code: Callable[..., nn.Module]) -> None:
    assert build_own(code, SHAPE, CLASSES)(torch.rand(2, *SHAPE)).shape == (2, CLASSES)


def test_convolutions_are_in_channels_last_and_views_of_the_input_work() -> None:
    conv = build_own(ConvNet, SHAPE, CLASSES).conv
    assert isinstance(conv, nn.Conv2d)
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    images = torch.rand(2, *SHAPE)
    mlp = build_own(Mlp, SHAPE, CLASSES).eval()
    assert torch.equal(mlp(images), mlp(images.to(memory_format=torch.channels_last)))


class Flat(nn.Module):
    """Returns something else than logits."""

    def __init__(self, make: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer, self._make = nn.Linear(1, 1), make

    def forward(self, images: Tensor) -> Any:
        return self._make(images)


def double(num_classes: int) -> nn.Module:
    return ConvNet(num_classes).double()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (ConvNet(CLASSES + 1), r"logits of shape \(N, 5\) for N images in 5 classes; for 2 images it returns \(2, 6\)"),
        (Flat(lambda images: {"logits": images}), "a tensor .* it returns a dict"),
        (Flat(lambda images: images), r"it returns \(2, 3, 16, 12\)"),
        (lambda n: nn.Identity(), "has no parameters to train"),
        (lambda n: n, "must make a torch.nn.Module, and made a int"),
        (double, "parameters in float32"),
    ],
    ids=["classes", "dict", "shape", "no parameters", "no module", "float64"],
)
def test_what_is_no_classifier_is_refused(code: Callable[..., Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        build_own(code, SHAPE, CLASSES)
