"""The speed of whole networks on the data at hand, before any of them is trained."""

import torch
from torch import nn

from timebox.data.dataset import ImageDataset
from timebox.engine.build import build_model
from timebox.engine.precision import Precision
from timebox.engine.speed import fastest_of, training_seconds_per_image
from timebox.models import count_flops
from timebox.recipe import Recipe, get_recipe

# A network of this width stands for all widths when speed is measured before one is chosen.
PROBE_RECIPE = get_recipe("haet2021").replace(width=32)
# Small batches measure slower than large ones train, but real steps also augment, update and average.
STEP_OVERHEAD = 1.1


class Bench:
    """Measures networks on the data's image shape, on one device, in one precision."""

    def __init__(self, train: ImageDataset, device: torch.device, precision: Precision) -> None:
        height, width, channels = train.image_shape
        self.image_shape = (channels, height, width)
        self.num_classes = train.num_classes
        self.device, self.precision = device, precision

    def flops_per_second(self) -> float:
        """What a ResNet-9 of medium width reaches here, in training."""
        model = self.build(PROBE_RECIPE)
        seconds = self._training_seconds(model, limit_seconds=0.6)
        return count_flops(model, self.image_shape) / seconds

    def flops_per_image(self, width: int) -> float:
        """Operations of a ResNet-9 of this width per training image."""
        return count_flops(self.build(PROBE_RECIPE.replace(width=width)), self.image_shape)

    def seconds_per_image(self, recipe: Recipe) -> tuple[float, float]:
        """Seconds per image of the recipe's own network: in training, and in scoring, one view."""
        model = self.build(recipe)
        training = self._training_seconds(model, limit_seconds=0.8)
        images = torch.rand(16, *self.image_shape, device=self.device).to(memory_format=torch.channels_last)
        model.eval()
        with torch.inference_mode():
            scoring = fastest_of(lambda: model(images), self.device, limit_seconds=0.2, max_repeats=3) / len(images)
        return training * STEP_OVERHEAD, scoring

    def build(self, recipe: Recipe) -> nn.Module:
        """The recipe's network for this data, with weights that do not touch the run's random state."""
        with torch.random.fork_rng(devices=[]):
            return build_model(recipe, self.image_shape[0], self.num_classes).to(self.device)

    def _training_seconds(self, model: nn.Module, limit_seconds: float) -> float:
        return training_seconds_per_image(
            model, self.image_shape, self.num_classes, self.precision.autocast, self.device, limit_seconds
        )
