"""Networks of a user's of very different speed, and some that misbehave, end within their budget."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import own_networks
from timebox.errors import BudgetError
from timebox.models import ResNet18
from timebox.pipelines import train

Shape = tuple[int, int, int]
BUDGETS = (15, 30, 60)


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width),
        )  # fmt: skip
        self.shortcut = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        hidden: Tensor = self.layers(images) + self.shortcut(images)
        return hidden.relu()


def resnet50(num_classes: int, image_shape: Shape) -> nn.Module:
    """Fifty layers and 24 million weights: a step of 64 images takes seconds on two cores."""
    layers: list[nn.Module] = [nn.Conv2d(image_shape[0], 64, 3, 1, 1, bias=False)]
    inputs = 64
    for stage, depth in enumerate((3, 4, 6, 3)):
        for number in range(depth):
            layers.append(Bottleneck(inputs, 64 * 2**stage, 2 if stage and not number else 1))
            inputs = 256 * 2**stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_classes))


class Misbehaving(nn.Module):
    """A small network that does something else in some of its training steps."""

    def __init__(self, num_classes: int, misbehave: Callable[[int], object]) -> None:
        super().__init__()
        self.network = own_networks.ConvNet(num_classes)
        self._misbehave, self._steps = misbehave, 0

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self._steps += 1
            self._misbehave(self._steps)
        logits: Tensor = self.network(images)
        return logits


def allocate(step: int) -> object:
    """Half a gigabyte more from the third step on."""
    return torch.zeros(2**27).sum() if step >= 3 else None


def sleep_at_random(step: int) -> None:
    generator = np.random.default_rng(step)
    time.sleep(generator.exponential(0.02) if generator.random() < 0.5 else 0.0)


def slower_and_slower(step: int) -> None:
    time.sleep(min(0.0005 * step, 1.0))


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "mlp": own_networks.Mlp,
    "vit": own_networks.TinyVit,
    "depthwise": own_networks.Depthwise,
    "resnet18": lambda num_classes, image_shape: ResNet18(image_shape[0], num_classes, width=32),
    "resnet50": resnet50,
    "allocates more from the third step on": lambda num_classes: Misbehaving(num_classes, allocate),
    "slow at random": lambda num_classes: Misbehaving(num_classes, sleep_at_random),
    "slower and slower": lambda num_classes: Misbehaving(num_classes, slower_and_slower),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "data.npz"
    labels = np.arange(2000) % 10
    images = rng.integers(0, 200, (2000, 32, 32, 3)) + 5 * labels[:, None, None, None]
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    yield path


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", NETWORKS)
def test_never_late(name: str, budget: int, data: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    try:
        run = train(data, budget=budget, network=NETWORKS[name], test=0.1, device="cpu", out=tmp_path / "run")
    except BudgetError:
        assert name == "resnet50"  # ten of its steps take longer than the shortest budget
        assert time.monotonic() - started < budget
        return
    assert time.monotonic() - started < budget
    assert run.summary["late"] is False
    assert run.test_accuracy is not None
