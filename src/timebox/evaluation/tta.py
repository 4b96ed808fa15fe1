"""Test-time augmentation: class probabilities averaged over views of an image."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timebox.errors import UsageError
from timebox.models.pretrained import Blend

# Number of views that are averaged, by the name of the test-time augmentation.
NUM_VIEWS = {"none": 1, "mirror": 2, "shift": 3, "mirror_shift": 6}


def check_tta(tta: str) -> None:
    """Raise UsageError for an unknown name of a test-time augmentation."""
    if tta not in NUM_VIEWS:
        raise UsageError(f"tta {tta!r} is unknown; use recipe, {', '.join(NUM_VIEWS)}")


def average_views(model: nn.Module, inputs: Tensor, tta: str) -> Tensor:
    """Mean probabilities (N, num_classes) over the views of normalised images (N, C, H, W).

    The pretrained classifier of a :class:`Blend` sees the images as they are: more views take it long and gain little.
    """
    if isinstance(model, Blend):
        pretrained: Tensor = model.pretrained(inputs).softmax(1)
        if model.weights.share == 1:
            return pretrained
        return model.weights.average(average_views(model.network, inputs, tta), pretrained)
    total = torch.zeros((), device=inputs.device)
    for view, weight in _shifted(inputs) if tta in ("shift", "mirror_shift") else [(inputs, 1.0)]:
        if tta in ("mirror", "mirror_shift"):
            total = total + weight / 2 * (model(view).softmax(1) + model(view.flip(3)).softmax(1))
        else:
            total = total + weight * model(view).softmax(1)
    return total


def _shifted(inputs: Tensor) -> list[tuple[Tensor, float]]:
    """(view, weight): images as they are, shifted by a pixel up and left, and down and right."""
    height, width = inputs.shape[2:]
    padded = F.pad(inputs, (1, 1, 1, 1), "reflect")
    return [(inputs, 0.5), *((padded[:, :, at : at + height, at : at + width], 0.25) for at in (0, 2))]
