"""The columns of predictions.npz."""

import numpy as np

from small_runs import CLASSES, coloured
from timebox.data import ImageDataset
from timebox.evaluation.scoring import SplitScore
from timebox.jobs.finishing.finisher import prediction_columns


def score(split: str, num_images: int) -> SplitScore:
    images, labels = coloured(num_images)
    dataset = ImageDataset(images, labels, CLASSES, tuple(map(str, range(num_images))))
    return SplitScore(split, dataset, np.eye(3, dtype=np.float32)[labels], num_images, "none")


def test_columns_of_predictions() -> None:
    columns = prediction_columns([score("val", 20), score("test", 30)])
    assert {name: (column.shape, column.dtype.kind) for name, column in columns.items()} == {
        "split": ((50,), "U"),
        "id": ((50,), "U"),
        "label": ((50,), "i"),
        "probabilities": ((50, 3), "f"),
    }
    assert columns["split"].tolist() == ["val"] * 20 + ["test"] * 30
