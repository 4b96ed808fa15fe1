"""A run as one function: from the pixels of an image, as any decoder gives them, to calibrated probabilities."""

from torch import Tensor, nn

from timebox.data.images.fit import batch_fit
from timebox.evaluation.calibration import SMALLEST_PROBABILITY
from timebox.evaluation.tta import average_views
from timebox.run import Run


class Graph(nn.Module):
    """All that happens to an image: resized, cropped, normalised, classified in each view, average_views, calibrated.

    Args:
        run: a trained run.
        tta: the views, as of :class:`timebox.evaluation.inference.InferenceConfig`.
    """

    def __init__(self, run: Run, tta: str) -> None:
        super().__init__()
        self.model = run.model
        self.size, self.fit = run.preprocessing.size, run.recipe.image_fit
        self.tta, self.temperature = tta, run.temperature
        mean, std = run.preprocessing.tensors()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (N, H, W, C), of any size -> float32 (N, num_classes); rows sum to one."""
        fitted = batch_fit(images.permute(0, 3, 1, 2).float(), *self.size, self.fit)
        normalized = (fitted / 255 - self.mean[:, None, None]) / self.std[:, None, None]
        probabilities = average_views(self.model, normalized, self.tta)
        if self.temperature == 1.0:
            return probabilities
        return (probabilities.clamp_min(SMALLEST_PROBABILITY).log() / self.temperature).softmax(1)
