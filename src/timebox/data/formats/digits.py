"""The 1,797 handwritten digits that come with scikit-learn: 8x8, grey, no download."""

import numpy as np

from timebox.data.dataset import ImageDataset, LoadedData, SourceSplits
from timebox.data.formats.base import loaded_from_arrays


def read_digits() -> LoadedData:
    """scikit-learn's load_digits; its grey levels 0..16 become 0..255. uint8 (1797, 8, 8, 1), one split."""
    from sklearn.datasets import load_digits  # half a second, for this data set alone

    bunch = load_digits()
    images = np.rint(bunch.images[..., None] * (255 / 16)).astype(np.uint8)
    names, ids = tuple(map(str, range(10))), tuple(map(str, range(len(images))))
    splits = SourceSplits(ImageDataset(images, bunch.target.astype(np.int64), names, ids), None, None)
    return loaded_from_arrays("digits", "scikit-learn's digits", splits, "that is their name")
