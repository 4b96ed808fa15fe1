"""Train, val and test splits: stratified or by group, as pure functions of the labels and a seed.

No global random state is read or written. Every index array is int64 and sorted, except that of stratified_order.
"""

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from timebox.data.dataset import ImageDataset, SourceSplits, align_labels
from timebox.data.groups import assign_groups, split_by_group
from timebox.data.images.decode import CROP, WHITE_16BIT
from timebox.data.part import PartRead, ranks_within_class
from timebox.errors import UsageError

Indices = NDArray[np.int64]
SplitSize = str | float | ImageDataset | None  # the value of val or test: see SplitConfig

MAX_DEFAULT_VAL = 10_000  # images: enough to resolve 0.5 % of accuracy, few enough to score often


def stratified_split(
    labels: NDArray[np.int64], num_or_fraction: int | float, seed: int, *, name: str = "num_or_fraction"
) -> tuple[Indices, Indices]:
    """Split indices into (rest, part), `part` with a number (int) or fraction (float in (0, 1)) of the images.

    Each class contributes its proportional share, by largest remainder, and keeps at least one image in rest. Raises
    UsageError, naming the parameter `name`, where `part` would be empty or larger than the classes can contribute.
    """
    counts = np.bincount(labels)
    capacity = np.maximum(counts - 1, 0)
    num = _number_of(num_or_fraction, len(labels), name)
    if not 1 <= num <= capacity.sum():
        raise UsageError(
            f"{name} {num_or_fraction} of {len(labels):,} images is {num:,}: it must give at least 1 image and at most "
            f"{capacity.sum():,}, as every class keeps one"
        )
    return _draw(labels, _proportional_shares(counts, capacity, num), seed)


def balanced_cut(labels: NDArray[np.int64], num: int, seed: int) -> tuple[Indices, Indices]:
    """Split indices into (subset, rest), `subset` with `num` images spread over the classes as evenly as possible.

    A class that is too small contributes all its images, and the others make up for it. Raises UsageError where `num`
    is below 1 or above the number of images.
    """
    if not 1 <= num <= len(labels):
        raise UsageError(f"a cut to {num:,} images is not possible: there are {len(labels):,} to take 1 or more of")
    rest, subset = _draw(labels, _even_shares(np.bincount(labels), num, seed), seed)
    return subset, rest


def stratified_order(labels: NDArray[np.int64], seed: int) -> Indices:
    """A permutation whose every prefix has the class proportions of the whole, to within about one image per class.

    Of a class with n images in random order, the r-th is placed at (r + 1/2) / n of the way; ties are broken at random.
    """
    order = _generator(seed).permutation(len(labels))
    shuffled = labels[order]
    position = (ranks_within_class(shuffled) + 0.5) / np.bincount(labels)[shuffled]
    permutation: Indices = order[np.argsort(position, kind="stable")]
    return permutation


def parse_split_size(value: str | float | None, name: str) -> str | float | None:
    """Parse the value of the option `name`, "val" or "test": None, a fraction, "none", "rest" (val only), or a path.

    A fraction is a float in (0, 1), or one as text. Raises UsageError for any other number.
    """
    if value is None or value == "none" or (value == "rest" and name == "val"):
        return value
    if value == "rest":
        raise UsageError(f"{name} cannot be 'rest', as val can: give a fraction, a path or 'none'")
    if value == "":
        raise UsageError(f"{name} is empty: give a fraction, a path or 'none'")
    try:
        fraction = float(value)
    except ValueError:
        return value
    _check_fraction(fraction, name)
    return fraction


@dataclass(frozen=True, eq=False)
class SplitConfig:
    """The sizes of the splits of a run.

    Args:
        val: "none", "rest" (the images that train_limit leaves out), a fraction of train, or a data set. None: the
            source's own val split, else a stratified tenth of train, at most MAX_DEFAULT_VAL images (no val split where
            no class has two images).
        test: "none", a fraction of train, split off first, or a data set. None: the source's own test split, if any.
        train_limit: class-balanced limit on the number of images of train, 1 or more, before val is split off.
        test_limit: class-balanced limit on the number of images of test, 1 or more.
        split_seed: 0 or more, seed of every split and limit.
        group_by: a pattern for :func:`assign_groups`: every group stays in one split, with val "rest" in train.
        fit: how images of another data set get train's shape, ``crop`` or ``letterbox``.
        match_seconds: that matching group_by may take.
    """

    val: SplitSize = None
    test: SplitSize = None
    train_limit: int | None = None
    test_limit: int | None = None
    split_seed: int = 0
    group_by: str | None = None
    fit: str = CROP
    match_seconds: float = inf


@dataclass(frozen=True, eq=False)
class SplitOrigin:
    """The origin of the images of a split."""

    split: str  # of the source: "train", "val" or "test"; "external" for another data set
    indices: Indices | None = None  # of the images in that split, sorted; None for all of them


@dataclass(frozen=True, eq=False)
class DataSplits:
    """The train, val and test splits. All share train's classes and image shape; val and test may be None."""

    train: ImageDataset
    val: ImageDataset | None
    test: ImageDataset | None
    train_origin: SplitOrigin
    val_origin: SplitOrigin | None
    test_origin: SplitOrigin | None
    white_16bit: int = WHITE_16BIT  # the value of 16-bit grey images that became 255
    part: PartRead | None = None  # the part of the source that was read, where there was no time for all

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines of a plan about them."""
        return (self.part.sentence,) if self.part else ()


def split_dataset(splits: SourceSplits, config: SplitConfig) -> DataSplits:
    """Divide a source into the train, val and test splits of a run.

    Raises:
        UsageError: for a size that is not possible, with the sizes that are.
        DataError: for a val or test data set with classes that train does not have.
    """
    seed, train = config.split_seed, splits.train

    def align(value: SplitSize, name: str) -> SplitSize:
        if isinstance(value, ImageDataset):
            return align_labels(value, train.class_names, train.image_shape, name, config.fit)
        return value

    val_size, test_size = align(config.val, "val"), align(config.test, "test")
    groups = None if config.group_by is None else assign_groups(train.ids, config.group_by, config.match_seconds)
    pool = _Subset(train, SplitOrigin("train"), groups)
    test: _Subset | None
    if isinstance(test_size, float | int):
        pool, test = pool.split(float(test_size), seed, "test")
    else:
        test = _separate_subset(test_size, splits.test, "test")
    if config.test_limit is not None:
        if test is None:
            advice = "give test a fraction or a path"
            raise UsageError(f"test_limit {config.test_limit:,} has no test images to cut: {advice}")
        test, _ = test.limit(config.test_limit, seed, "test_limit", at_least=1)
    remainder = None
    if config.train_limit is not None:
        num_classes = len(np.unique(pool.labels))
        pool, remainder = pool.limit(config.train_limit, seed, "train_limit", at_least=num_classes)
    pool, val = _split_val(pool, remainder, val_size, splits.val, seed)
    _generator(seed)  # a seed out of range is refused even where nothing is drawn
    return DataSplits(
        train=pool.dataset(),
        val=val.dataset() if val else None,
        test=test.dataset() if test else None,
        train_origin=pool.origin,
        val_origin=val.origin if val else None,
        test_origin=test.origin if test else None,
    )


@dataclass(frozen=True, eq=False)
class _Subset:
    """Selected images of a data set. They are copied only by `dataset`, once, after all splits and limits."""

    source: ImageDataset
    origin: SplitOrigin
    groups: Indices | None = None

    @property
    def labels(self) -> NDArray[np.int64]:
        return self._of_subset(self.source.labels)

    def dataset(self) -> ImageDataset:
        return self.source if self.origin.indices is None else self.source.take(self.origin.indices)

    def split(self, size: int | float, seed: int, name: str) -> "tuple[_Subset, _Subset]":
        """(rest, part), `part` with a number (int) or fraction (float) of the images, roughly so with groups."""
        if self.groups is None:
            rest, part = stratified_split(self.labels, size, seed, name=name)
        else:
            num = _number_of(size, len(self.labels), name)
            rest, part = split_by_group(self.labels, self._of_subset(self.groups), num, seed)
            if not len(part):
                reason = "no group can be split off: every class keeps an image"
                raise UsageError(f"{name} {size} is not possible with group_by: {reason}")
        return self._select(rest), self._select(part)

    def limit(self, num: int, seed: int, name: str, *, at_least: int) -> "tuple[_Subset, _Subset | None]":
        """(subset, rest), `subset` with `num` images, balanced over the classes; rest is None where all are kept."""
        if not at_least <= num <= len(self.labels):
            one_per_class = ", an image a class," if at_least > 1 else ""
            raise UsageError(
                f"{name} {num:,} is not possible: it must be at least {at_least:,}{one_per_class} and at most "
                f"{len(self.labels):,}, the images there are"
            )
        if num == len(self.labels):
            return self, None
        subset, rest = balanced_cut(self.labels, num, seed)
        return self._select(subset), self._select(rest)

    def without_groups_of(self, other: "_Subset") -> "_Subset":
        """The images whose groups do not occur in another subset of the same source."""
        if self.groups is None:
            return self
        is_shared = np.isin(self._of_subset(self.groups), other._of_subset(self.groups))
        return self._select(np.flatnonzero(~is_shared))

    def _of_subset(self, values: Indices) -> Indices:
        """The values of this subset's images, from values for all images of the source."""
        return values if self.origin.indices is None else values[self.origin.indices]

    def _select(self, positions: Indices) -> "_Subset":
        indices = positions if self.origin.indices is None else self.origin.indices[positions]
        return _Subset(self.source, SplitOrigin(self.origin.split, indices), self.groups)


def _separate_subset(value: str | ImageDataset | None, own: ImageDataset | None, name: str) -> _Subset | None:
    """A val or test split that is not split off train: the source's own, another data set, or None."""
    if value is None:
        return _Subset(own, SplitOrigin(name)) if own is not None else None
    if isinstance(value, ImageDataset):
        return _Subset(value, SplitOrigin("external"))
    if value == "none":
        return None
    allowed = "a fraction, 'none' or 'rest'" if name == "val" else "a fraction or 'none'"
    raise UsageError(f"{name} {value!r} must be {allowed}, or the images of a path, already loaded")


def _split_val(
    pool: _Subset, remainder: _Subset | None, val: SplitSize, own_val: ImageDataset | None, seed: int
) -> tuple[_Subset, _Subset | None]:
    """(train, val) from the images left after test and train_limit; `remainder` are those above train_limit."""
    if val == "rest":
        if remainder is None:
            raise UsageError("val 'rest' needs a train_limit below the number of images: nothing is left out otherwise")
        rest = remainder.without_groups_of(pool)
        if not len(rest.labels):
            raise UsageError("val 'rest' is not possible with group_by: all groups left out are trained on too")
        return pool, rest
    if isinstance(val, float | int):
        return pool.split(float(val), seed, "val")
    if val is not None or own_val is not None:
        return pool, _separate_subset(val, own_val, "val")
    labels = pool.labels
    capacity = int(np.maximum(np.bincount(labels) - 1, 0).sum())
    num = min(max(1, round(len(labels) / 10)), MAX_DEFAULT_VAL, capacity)
    if num == 0:
        return pool, None
    return pool.split(num, seed, "val")


def _check_fraction(fraction: float, name: str) -> None:
    if not 0 < fraction < 1:  # nan included
        raise UsageError(f"{name} {fraction:g} must be a fraction between 0 and 1, both excluded")


def _number_of(num_or_fraction: int | float, total: int, name: str) -> int:
    if not isinstance(num_or_fraction, float):
        return num_or_fraction
    _check_fraction(num_or_fraction, name)
    return round(num_or_fraction * total)


def _generator(seed: int) -> np.random.Generator:
    if seed < 0:
        raise UsageError(f"split seed {seed} must be 0 or more")
    return np.random.default_rng(seed)


def _draw(labels: NDArray[np.int64], shares: Indices, seed: int) -> tuple[Indices, Indices]:
    """Split indices into (rest, part), with shares[c] images of each class c drawn at random."""
    order = _generator(seed).permutation(len(labels))
    shuffled = labels[order]
    is_part = ranks_within_class(shuffled) < shares[shuffled]
    return np.sort(order[~is_part]), np.sort(order[is_part])


def _proportional_shares(counts: Indices, capacity: Indices, num: int) -> Indices:
    """Divide `num` in proportion to `counts`, each at most its capacity: largest remainder method, in integers."""
    total = counts.sum()
    shares: Indices = np.minimum(num * counts // total, capacity)
    while (missing := num - int(shares.sum())) > 0:
        open_classes = np.flatnonzero(shares < capacity)
        lacking = num * counts[open_classes] - shares[open_classes] * total
        shares[open_classes[np.argsort(-lacking, kind="stable")[:missing]]] += 1
    return shares


def _even_shares(counts: Indices, num: int, seed: int) -> Indices:
    """Divide `num` evenly, each at most its count: all classes get the same number, and random ones one more."""
    low, high = 0, int(counts.max())
    while low < high:  # bisection for the highest level with a sum of at most `num`
        level = (low + high + 1) // 2
        low, high = (level, high) if np.minimum(counts, level).sum() <= num else (low, level - 1)
    shares: Indices = np.minimum(counts, low)
    larger = np.flatnonzero(counts > low)
    shares[_generator(seed).permutation(larger)[: num - int(shares.sum())]] += 1
    return shares
