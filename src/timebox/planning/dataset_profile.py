"""What planning knows of the training data."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetProfile:
    """The properties of the training data that ``auto`` plans with.

    Attributes:
        num_images: images trained on.
        side: the shorter side of the working size in pixels.
        num_classes: 2 or more.
        mirror_allowed: whether mirrored images keep their label, see :mod:`timebox.data.flip_invariance`.
        imbalance: how many times as many images the largest class has as the smallest, 1 or more.
    """

    num_images: int
    side: int
    num_classes: int
    mirror_allowed: bool
    imbalance: float = 1.0
