"""A part of the images of a source, with the same share of each class, for a budget without time to read all."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

# The order does not follow the split seed: which images are read must not depend on how they are split later.
_SEED = 0


@dataclass(frozen=True)
class PartRead:
    """The part of a source that was read.

    Attributes:
        images: number of images read, the first in :func:`part_order`.
        of: number of images of the source.
        unpacked: number of image files that were unpacked from the archive; None for all, and without an archive.
    """

    images: int
    of: int
    unpacked: int | None = None

    @property
    def sentence(self) -> str:
        """The note for the user."""
        return (
            f"allow_partial: {self.images:,} of {self.of:,} images are read, the same share of each class; there was "
            "no time to read the others"
        )


def part_order(groups: Sequence[Hashable]) -> Indices:
    """A fixed random permutation of images, int64 (N,), in which one image of each group comes first, and every longer
    prefix has the groups in their proportions."""
    numbers: dict[Hashable, int] = {}
    labels = np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)
    order = np.random.default_rng(_SEED).permutation(len(labels))
    shuffled = labels[order]
    ranks = ranks_within_class(shuffled)
    position = np.where(ranks == 0, -1, (ranks + 0.5) / np.bincount(labels, minlength=1)[shuffled])
    permutation: Indices = order[np.argsort(position, kind="stable")]
    return permutation


def ranks_within_class(labels: Indices) -> Indices:
    """For each label, the number of equal labels before it."""
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    ranks = np.empty(len(labels), dtype=np.int64)
    ranks[by_class] = np.arange(len(labels)) - starts[labels[by_class]]
    return ranks
