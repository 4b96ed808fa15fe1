"""An augmentation of your own, after those of the recipe.

    python examples/own_augmentation.py photos/ 2m

The function gets a whole batch, float32 (N, C, H, W) in 0...1 on the device. Transforms of torchvision.transforms.v2
and kornia can be given as they are: they draw from torch's random numbers, which timebox seeds for each batch.
"""

import math
import sys

import torch
from torch import Tensor
from torch.nn import functional as F

import timebox


def rotate(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image turned by up to 15 degrees, with random numbers from the generator: runs with one seed are equal."""
    angles = (torch.rand(len(images), generator=generator, device=images.device) - 0.5) * math.radians(30)
    zeros, cos, sin = torch.zeros_like(angles), angles.cos(), angles.sin()
    turned = torch.stack([torch.stack([cos, -sin, zeros], 1), torch.stack([sin, cos, zeros], 1)], 1)
    grid = F.affine_grid(turned, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


class ColorJitter(torch.nn.Module):
    """In the manner of torchvision.transforms.v2: takes images alone, and draws from torch's own random numbers."""

    def __init__(self, brightness: float) -> None:
        super().__init__()
        self.brightness = brightness

    def forward(self, images: Tensor) -> Tensor:
        return images * (1 + self.brightness * (2 * torch.rand(len(images), 1, 1, 1, device=images.device) - 1))


def main(data: str = "digits", budget: str = "12s") -> None:
    jitter = ColorJitter(0.2)

    def both(images: Tensor, generator: torch.Generator) -> Tensor:
        return jitter(rotate(images, generator))

    for name, augment in (("rotated", rotate), ("jittered", jitter), ("both", both)):
        run = timebox.train(data, budget=budget, test=0.2, augment=augment)
        print(f"{name}: {run}")


if __name__ == "__main__":
    main(*sys.argv[1:])
