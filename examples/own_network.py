"""A network of your own, trained before a deadline.

    python examples/own_network.py photos/ 2m

timebox measures how fast your network trains on this machine, plans batch size, precision and number of steps for the
budget, and finds a learning rate by a short range test. The class could as well come from a library.
"""

import sys

from torch import Tensor, nn

import timebox


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden: Tensor = self.norm1(self.conv1(inputs)).relu()
        output: Tensor = (inputs + self.norm2(self.conv2(hidden))).relu()
        return output


def small_resnet(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Called by timebox with what it has found in the data; ``image_shape`` is (channels, height, width)."""
    return nn.Sequential(
        nn.Conv2d(image_shape[0], 32, 3, padding=1),
        Residual(32),
        nn.MaxPool2d(2),
        Residual(32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, num_classes),
    )


def main(data: str = "digits", budget: str = "15s") -> None:
    run = timebox.train(data, budget=budget, test=0.2, network=small_resnet)
    print(run)
    # In another program the function is given again: a run holds weights and names, never code.
    again = timebox.load(run.path, network=small_resnet)
    print(again.class_names, again.recipe.max_lr)


if __name__ == "__main__":
    main(*sys.argv[1:])
