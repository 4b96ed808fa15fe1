"""The 1,797 handwritten digits of scikit-learn: 8x8 pixels, grey, no download."""

import numpy as np

from timebox.data.dataset import ImageDataset, LoadedData, SourceSplits
from timebox.data.reading.array_splits import loaded_from_arrays


def read_digits() -> LoadedData:
    """Read scikit-learn's load_digits as uint8 (1797, 8, 8, 1) in one split; grey levels 0..16 become 0..255."""
    from sklearn.datasets import load_digits  # takes half a second

    bunch = load_digits()
    images = np.rint(bunch.images[..., None] * (255 / 16)).astype(np.uint8)
    names, ids = tuple(map(str, range(10))), tuple(map(str, range(len(images))))
    splits = SourceSplits(ImageDataset(images, bunch.target.astype(np.int64), names, ids))
    return loaded_from_arrays("digits", "scikit-learn's digits", splits, "digits is the name of this data set")
