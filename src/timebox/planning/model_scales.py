"""Model scales: ensemble sizes, widths and input resolutions that ``auto`` selects from, and the epochs of each."""

import math
from dataclasses import dataclass, replace

from timebox.planning.dataset_profile import DatasetProfile

# Epochs of 5,000 images that a wider network needs, and the exponent with which they fall with the number of images.
# Fitted by benchmarks/fit_auto.py to the measured cells in records/.
WIDTH_EPOCHS, WIDTH_EXPONENT = 7.74, 0.8
# The exponents beyond REFERENCE_IMAGES, where wide networks need images more often than narrow ones (measured: LOG.md).
MEDIUM_WIDTH, MEDIUM_EXPONENT = 24, 0.6
LARGE_WIDTH, LARGE_EXPONENT = 32, 0.28
# The two numbers for images enlarged inside the network, and for several or very wide networks (measured: LOG.md).
ENLARGED_EPOCHS, ENLARGED_EXPONENT = 18.0, 0.45
ENSEMBLE_EPOCHS, ENSEMBLE_EXPONENT = 28.0, 0.2
# Pixels: largest side at which a network works.
MAX_SIDE = 128
# Number of images that the epochs of a ModelScale refer to.
REFERENCE_IMAGES = 5000
# Bounds of required_epochs for other numbers of images.
MIN_EPOCHS, MAX_EPOCHS = 0.1, 80.0
# Images of this side in pixels or more need this fraction of the epochs, if there are few (measured: LOG.md).
DETAILED_SIDE, DETAILED_EPOCHS_FACTOR = 48, 0.5
# Accuracy in points by which the selected scale is below the best one measured, on tasks left out of the fit: mean and
# maximum (benchmarks/fit_auto.py). The tasks of the fit are within FITTED_RANGES.
LEFT_OUT_LOSS = (0.98, 5.13)
FITTED_RANGES = {"images": (500, 45_000), "px": (8, 96), "classes": (2, 100)}


@dataclass(frozen=True)
class ModelScale:
    """A candidate model size: ensemble size, width and input resolution.

    Attributes:
        width: channels of the first stage.
        epochs: epochs of 5,000 images from which this scale is more accurate than the next smaller one.
        exponent: 0...1; the epochs are proportional to the number of images to the power of minus this. Near 1 a scale
            needs a number of images seen, no matter whether they repeat; near 0 it needs repetitions.
        side: input resolution in pixels; larger images are shrunk to it.
        enlarged: whether images with a side below 40 pixels are enlarged.
        ensemble_size: number of networks.
    """

    width: int
    epochs: float
    exponent: float
    side: int = 64
    enlarged: bool = False
    ensemble_size: int = 1


def model_scales(width_epochs: float = WIDTH_EPOCHS, width_exponent: float = WIDTH_EXPONENT) -> tuple[ModelScale, ...]:
    """All model scales, in increasing order of operations per image.

    The order follows the measured gain in accuracy per operation. First comes the resolution, up to 64 pixels: on
    photos, half the width at twice the side costs as much and is far more accurate. Then come wider networks, with
    larger photos from width 32 on. Then small images are enlarged: 1.5 times the operations for more than twice the
    gain of 1.5 times the width. Last come ensembles and very wide networks.
    """

    def wide(width: int, epochs_factor: float, side: int = 64) -> ModelScale:
        return ModelScale(width, epochs_factor * width_epochs, width_exponent, side)

    def ensemble(width: int, ensemble_size: int) -> ModelScale:
        return ModelScale(
            width, ENSEMBLE_EPOCHS, ENSEMBLE_EXPONENT, MAX_SIDE, enlarged=True, ensemble_size=ensemble_size
        )

    return (
        *(wide(8, 1, side) for side in (32, 48)),
        *(wide(width, 1) for width in (8, 12, 16, 24, 32)),
        wide(32, 3 / 2, 96),
        wide(48, 4 / 3, 96),
        wide(64, 5 / 3, 96),
        wide(64, 2, MAX_SIDE),
        ModelScale(64, ENLARGED_EPOCHS, ENLARGED_EXPONENT, MAX_SIDE, enlarged=True),
        *(ensemble(64, size) for size in (2, 3, 4)),
        *(ensemble(width, 4) for width in (96, 128, 192)),
        *(ensemble(256, size) for size in (4, 6, 8)),
    )


MODEL_SCALES = model_scales()
# Above this number of images a budget of minutes buys few epochs, and wider networks gain more from it than larger
# images do (measured: LOG.md).
MANY_IMAGES = 10_000
_WIDTH_FIRST = (
    *(replace(scale, side=32) for scale in MODEL_SCALES if scale.width <= 32 and scale.side == 64),
    *(ModelScale(32, 3 / 2 * WIDTH_EPOCHS, WIDTH_EXPONENT, side) for side in (48, 64, 96)),
    *(scale for scale in MODEL_SCALES if scale.width > 32),
)


def scales_for(profile: DatasetProfile) -> tuple[ModelScale, ...]:
    """The model scales for a data set, in the order in which a budget reaches them.

    Of many images, width comes before resolution, unless they are easy: see
    :attr:`DatasetProfile.is_easy_when_small`.
    """
    if profile.num_images > MANY_IMAGES and not profile.is_easy_when_small:
        return _WIDTH_FIRST
    return MODEL_SCALES


def required_epochs(scale: ModelScale, profile: DatasetProfile) -> float:
    """Epochs of this data set from which ``scale`` is more accurate than the next smaller one, 0.1...80."""
    is_large = profile.num_images > REFERENCE_IMAGES
    exponent = min(scale.exponent, _largest_exponent(scale.width)) if is_large else scale.exponent
    epochs = scale.epochs * math.pow(REFERENCE_IMAGES / profile.num_images, exponent)
    if profile.side >= DETAILED_SIDE:
        # Of many images, all of it from four times as many on.
        epochs *= min(1.0, DETAILED_EPOCHS_FACTOR * max(1.0, math.sqrt(profile.num_images / REFERENCE_IMAGES)))
    return min(MAX_EPOCHS, max(MIN_EPOCHS, epochs))


def _largest_exponent(width: int) -> float:
    """Of a network of this width, for more than ``REFERENCE_IMAGES`` images."""
    if width >= LARGE_WIDTH:
        return LARGE_EXPONENT
    return MEDIUM_EXPONENT if width >= MEDIUM_WIDTH else 1.0
