"""Properties of the training data that planning depends on, and the checks that a recipe fits them."""

from dataclasses import dataclass, replace

from timebox.data.dataset import ImageDataset
from timebox.data.flip_invariance import measure_flip_invariance
from timebox.errors import UsageError, option_text
from timebox.recipes import Recipe, RecipeSpec, Setting

# Pixels. Three halvings leave nothing of a smaller side; a larger one is no sensible input for these networks.
MIN_SIDE, MAX_SIDE = 8, 4096
EASY_SHARE = 0.5
# Sides of an image for each pixel of the largest shift, in augmentation for networks of the user's.
SIDE_PER_SHIFT = 8


@dataclass(frozen=True)
class DatasetProfile:
    """The properties of the training data that ``auto`` plans with.

    Attributes:
        side: shorter side of the images in pixels.
        mirror_allowed: whether flipped images keep their label, see :mod:`timebox.data.flip_invariance`.
        imbalance: images of the largest class divided by images of the smallest, 1 or more.
        mirror_accuracies: accuracy of a nearest-neighbour classifier on images as they are and flipped, 0...1; None
            where it was not measured.
    """

    num_images: int
    side: int
    num_classes: int
    mirror_allowed: bool
    imbalance: float = 1.0
    mirror_accuracies: tuple[float, float] | None = None

    @property
    def is_easy_when_small(self) -> bool:
        """Whether the nearest neighbour among images of 8x8 pixels is right in at least half of the cases in which
        chance is wrong: few epochs are enough then, and larger images tell the rest apart."""
        chance = 1 / self.num_classes
        accuracy = self.mirror_accuracies[0] if self.mirror_accuracies else 0.0
        return accuracy - chance >= EASY_SHARE * (1 - chance)


def profile_dataset(train: ImageDataset) -> DatasetProfile:
    """Profile training images; runs the nearest-neighbour test for horizontal flips (well below a second)."""
    flips, counts = measure_flip_invariance(train), train.class_counts()
    return DatasetProfile(
        num_images=len(train),
        side=min(train.image_shape[:2]),
        num_classes=train.num_classes,
        mirror_allowed=flips.keeps_labels,
        imbalance=float(counts.max() / counts[counts > 0].min()),
        mirror_accuracies=(flips.accuracy, flips.flipped_accuracy),
    )


def fit_to_data(spec: RecipeSpec, train: ImageDataset) -> RecipeSpec:
    """A specification whose fixed recipe shifts and flips images as the data allow, where it was chosen for a network
    of the user's; any other one as it is."""
    if spec.fixed is None or not spec.fits_data:
        return spec
    planned: dict[str, Setting] = {"crop_padding": max(1, min(train.image_shape[:2]) // SIDE_PER_SHIFT)}
    if not measure_flip_invariance(train).keeps_labels:
        planned |= {"flip": "none", "tta": "none"}
    changes = {name: value for name, value in planned.items() if name not in spec.overrides}
    return replace(spec, fixed=spec.fixed.replace(**changes))


def check_image_sides(train: ImageDataset) -> None:
    """Raise UsageError if a side of the images is outside 8...4096 pixels."""
    height, width, _ = train.image_shape
    if min(height, width) >= MIN_SIDE and max(height, width) <= MAX_SIDE:
        return
    problem, side = ("small", MIN_SIDE) if min(height, width) < MIN_SIDE else ("large", 64)
    raise UsageError(
        f"images of {width}x{height} pixels are too {problem}: both sides must be {MIN_SIDE} to {MAX_SIDE}; "
        f"use {option_text('settings', f'image_size={side}')} to have them scaled"
    )


def check_crop_padding(recipe: Recipe, train: ImageDataset) -> None:
    """Raise UsageError if random crops would shift images by their whole side or more."""
    side = min(train.image_shape[:2])
    if recipe.crop_padding >= side:
        raise UsageError(
            f"crop_padding {recipe.crop_padding} must be smaller than the images' side of {side} pixels; "
            f"use {option_text('settings', f'crop_padding={max(1, side // 8)}')}"
        )
