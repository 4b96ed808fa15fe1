import numpy as np

from timebox.data import load_data


def test_digits_are_scaled_to_bytes():
    loaded = load_data("digits")
    train = loaded.splits.train
    assert (loaded.name, loaded.splits.val, loaded.splits.test) == ("digits", None, None)
    assert train.images.shape == (1797, 8, 8, 1)
    assert (train.images.min(), train.images.max(), len(np.unique(train.images))) == (0, 255, 17)
    assert train.class_names == tuple("0123456789")
    assert train.class_counts().min() > 170
