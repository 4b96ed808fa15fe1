"""The small data sets that `auto` is fitted on and checked on, made from the public ones.

    python benchmarks/tasks.py DATA OUT [TASK...] [--held-out 2000]

DATA holds CIFAR-10 (`cifar-10-batches-py`), CIFAR-100 (`cifar-100-python`) and the sign-language digits (`sign-digits`,
class folders). Each task becomes `OUT/<task>.npz` with a training and a validation split, the same ones always. None
of their images is a published test image, or of the fifth of the sign-language digits that is kept for final figures.
`--held-out` keeps fewer of the validation images, and all of the training images: scoring slow recipes takes less long.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np

from timebox.data import (
    ImageDataset,
    SourceSplits,
    SplitConfig,
    balanced_cut,
    load_data,
    split_dataset,
    stratified_split,
)

# Images chosen by, where there are so many; a quarter of them where there are few.
NUM_VAL, VAL_SHARE = 5000, 0.25
# The last class of an imbalanced task has a sixteenth of the first one's images.
MOST, FEWEST = 1600, 100
CAT, DOG = 3, 5

Pair = tuple[ImageDataset, ImageDataset]


@cache
def read(path: Path, image_size: int | None = None, coarse: bool = False) -> SourceSplits:
    return load_data(path, image_size=image_size, coarse=coarse).splits


def cifar10(data: Path) -> ImageDataset:
    return read(data / "cifar-10-batches-py").train


def cifar100(data: Path, coarse: bool = False) -> ImageDataset:
    return read(data / "cifar-100-python", coarse=coarse).train


def cut(train: ImageDataset, num: int | None) -> Pair:
    """Validation images first, then as many of the rest as are wanted, or all; the classes evenly."""
    val, rest = balanced_cut(train.labels, NUM_VAL, seed=0)
    kept = rest if num is None else rest[balanced_cut(train.labels[rest], num, seed=0)[0]]
    return train.take(kept), train.take(val)


def only(train: ImageDataset, classes: Sequence[int]) -> ImageDataset:
    """The images of some classes, which are numbered anew."""
    kept = np.flatnonzero(np.isin(train.labels, classes))
    names = tuple(train.class_names[label] for label in classes)
    labels = np.searchsorted(np.array(classes), train.labels[kept])
    return ImageDataset(train.images[kept], labels.astype(np.int64), names, tuple(train.ids[i] for i in kept))


def two_classes(data: Path) -> Pair:
    pets = only(cifar10(data), (CAT, DOG))
    rest, val = stratified_split(pets.labels, 2000, seed=0)
    kept = rest[balanced_cut(pets.labels[rest], 2000, seed=0)[0]]
    return pets.take(kept), pets.take(val)


def imbalanced(data: Path) -> Pair:
    """Class sizes fall evenly, by a constant factor, from 1,600 to 100; validation images are balanced."""
    train, val = cut(cifar10(data), None)
    sizes = np.geomspace(MOST, FEWEST, train.num_classes).round().astype(int)
    kept = [np.flatnonzero(train.labels == label)[:size] for label, size in enumerate(sizes)]
    return train.take(np.concatenate(kept)), val


def grey(data: Path) -> Pair:
    def greyed(part: ImageDataset) -> ImageDataset:
        images = part.images.mean(3, keepdims=True).round().astype(np.uint8)
        return ImageDataset(images, part.labels, part.class_names, part.ids)

    train, val = cut(cifar10(data), 5000)
    return greyed(train), greyed(val)


def signs(data: Path, side: int) -> Pair:
    data_splits = split_dataset(read(data / "sign-digits", image_size=side), SplitConfig(test=0.2, val=VAL_SHARE))
    assert data_splits.val is not None
    return data_splits.train, data_splits.val


def digits(data: Path) -> Pair:
    data_splits = split_dataset(load_data("digits").splits, SplitConfig(val=VAL_SHARE))
    assert data_splits.val is not None
    return data_splits.train, data_splits.val


TASKS: dict[str, Callable[[Path], Pair]] = {
    "cifar10-50": lambda data: cut(cifar10(data), 500),
    "cifar10-250": lambda data: cut(cifar10(data), 2500),
    "cifar10-500": lambda data: cut(cifar10(data), 5000),
    "cifar10-1000": lambda data: cut(cifar10(data), 10_000),
    "cifar10-4500": lambda data: cut(cifar10(data), None),
    "cifar100-50": lambda data: cut(cifar100(data), 5000),
    "cifar100-450": lambda data: cut(cifar100(data), None),
    "cifar20-250": lambda data: cut(cifar100(data, coarse=True), 5000),
    "cats-dogs-1000": two_classes,
    "cifar10-imbalanced": imbalanced,
    "cifar10-grey": grey,
    "signs-32": partial(signs, side=32),
    "signs-64": partial(signs, side=64),
    "signs-96": partial(signs, side=96),
    "digits": digits,
}


def write(name: str, data: Path, out: Path, most_val: int = NUM_VAL) -> Path:
    """Make one task, with so many validation images at most; where it lies."""
    train, val = TASKS[name](data)
    if most_val < len(val):
        val = val.take(balanced_cut(val.labels, most_val, seed=0)[0])
    path = out / f"{name}.npz"
    out.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        train_images=train.images,
        train_labels=train.labels,
        val_images=val.images,
        val_labels=val.labels,
        class_names=np.array(train.class_names),
    )
    return path


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"default: all of {', '.join(TASKS)}")
    help = f"validation images of a task, at most; default: {NUM_VAL:,}"
    parser.add_argument("--held-out", type=int, default=NUM_VAL, metavar="N", help=help)
    given = parser.parse_args(argv)
    if unknown := [name for name in given.tasks if name not in TASKS]:
        parser.error(f"unknown: {', '.join(unknown)}; the tasks are {', '.join(TASKS)}")
    for name in given.tasks or TASKS:
        print(write(name, given.data, given.out, given.held_out), flush=True)


if __name__ == "__main__":
    main()
