"""A run's model with resizing, normalisation, test-time augmentation and calibration, as one traceable module."""

from torch import Tensor, nn

from timebox.data.images.fit import batch_fit
from timebox.evaluation.calibration import SMALLEST_PROBABILITY
from timebox.evaluation.tta import average_views
from timebox.run import Run


class ModelWithPreprocessing(nn.Module):
    """Maps pixels of any size to calibrated probabilities.

    Args:
        run: a trained run.
        tta: the views that are averaged, see :func:`timebox.evaluation.tta.average_views`.
    """

    def __init__(self, run: Run, tta: str) -> None:
        super().__init__()
        self.model = run.predictor
        self.size, self.fit = run.preprocessing.size, run.recipe.image_fit
        self.tta, self.temperature = tta, run.temperature
        mean, std = run.preprocessing.tensors()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (N, H, W, C) with any H and W -> float32 (N, num_classes), rows that sum to 1."""
        resized = batch_fit(images.permute(0, 3, 1, 2).float(), *self.size, self.fit)
        normalized = (resized / 255 - self.mean[:, None, None]) / self.std[:, None, None]
        probabilities = average_views(self.model, normalized, self.tta)
        if self.temperature == 1.0:
            return probabilities
        return (probabilities.clamp_min(SMALLEST_PROBABILITY).log() / self.temperature).softmax(1)
