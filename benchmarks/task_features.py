"""Measure how hard tasks are, as the forecast of the accuracy does: a line of JSON for each.

    python benchmarks/task_features.py TASKS/*.npz > features.jsonl

A line has the number of images and classes, the shorter side in pixels, and the accuracies of the classifier on patches
with many and with few training images. The name of the data set that the task is made of (`data_set`) is added by hand.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from timebox.data import SplitConfig, load_data, split_dataset
from timebox.planning.forecast.patch_classifier import measure_patch_accuracy


def features_of(path: Path) -> dict[str, object]:
    train = split_dataset(load_data(path).splits, SplitConfig(val="none", test="none")).train
    patches = measure_patch_accuracy(train)
    return {
        "task": path.stem,
        "train_images": len(train),
        "num_classes": train.num_classes,
        "side": min(train.image_shape[:2]),
        "many": round(patches.many, 4),
        "few": round(patches.few, 4),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", type=Path, nargs="+")
    for path in parser.parse_args(argv).tasks:
        print(json.dumps(features_of(path)), flush=True)


if __name__ == "__main__":
    main()
