"""Which images are trained on, which choose, which prove: pure functions of the labels and a seed.

No global random state is read or written. Every index array is int64 and sorted, but for stratified_order.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timebox.data.align_labels import align_labels
from timebox.data.dataset import ImageDataset, SourceSplits
from timebox.data.groups import groups_of, split_by_group
from timebox.data.images.decode import CROP
from timebox.errors import UsageError

Indices = NDArray[np.int64]

MAX_DEFAULT_VAL = 10_000  # images: enough to tell 0.5 % apart, few enough to score often


def stratified_split(
    labels: NDArray[np.int64], num_or_fraction: int | float, seed: int, *, name: str = "num_or_fraction"
) -> tuple[Indices, Indices]:
    """(rest, part): indices, `part` holding a number (int) or fraction (float in (0, 1)) of the images.

    Each class gives its proportional share, by largest remainder, and keeps at least one image in rest; a class with
    one image therefore gives none. `name` is the parameter errors speak of. Raises UsageError where `part` would be
    empty or larger than the classes can give.
    """
    counts = np.bincount(labels)
    capacity = np.maximum(counts - 1, 0)
    if isinstance(num_or_fraction, float):
        _check_fraction(num_or_fraction, name)
        num = round(num_or_fraction * len(labels))
    else:
        num = num_or_fraction
    if not 1 <= num <= capacity.sum():
        raise UsageError(
            f"{name} {num_or_fraction} of {len(labels):,} images is {num:,}: it must give at least 1 image and at most "
            f"{capacity.sum():,}, as every class keeps one"
        )
    return _draw(labels, _proportional_shares(counts, capacity, num), seed)


def balanced_cut(labels: NDArray[np.int64], num: int, seed: int) -> tuple[Indices, Indices]:
    """(kept, rest): indices, `kept` holding `num` images spread over the classes as evenly as their sizes permit.

    5,000 of CIFAR-10 are 500 of each class. A class too small gives all it has, and the others make up for it. Raises
    UsageError for a number below 1 or above that of the images.
    """
    if not 1 <= num <= len(labels):
        raise UsageError(f"a cut to {num:,} images is not possible: there are {len(labels):,} to take 1 or more of")
    rest, kept = _draw(labels, _even_shares(np.bincount(labels), num, seed), seed)
    return kept, rest


def stratified_order(labels: NDArray[np.int64], seed: int) -> Indices:
    """A permutation every prefix of which has the class proportions of the whole, to within about one image a class.

    The r-th of a class's n images, in random order, stands at (r + 1/2) / n of the way; ties fall at random.
    """
    order = _generator(seed).permutation(len(labels))
    shuffled = labels[order]
    position = (_ranks(shuffled) + 0.5) / np.bincount(labels)[shuffled]
    arranged: Indices = order[np.argsort(position, kind="stable")]
    return arranged


def parse_split_size(value: str | float | None, name: str) -> str | float | None:
    """What `val` or `test` was given, checked: a float in (0, 1), "none", "rest" (val only), or else a path as it is.

    A number may come as text, as on the command line; None, the default, stays None. Raises UsageError, naming the
    option `name`, for a number that is no fraction.
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
class Origin:
    """Where a part of a Division comes from.

    Args:
        split: the source's split: "train", "val" or "test"; "given" for a data set of its own.
        indices: int64, the images taken of it, sorted; None for all of them.
    """

    split: str
    indices: Indices | None = None


@dataclass(frozen=True, eq=False)
class DataSplits:
    """The images trained on, chosen by and proved with, all with train's classes and image shape; absent parts None."""

    train: ImageDataset
    val: ImageDataset | None
    test: ImageDataset | None
    train_origin: Origin
    val_origin: Origin | None
    test_origin: Origin | None


def split_dataset(
    splits: SourceSplits,
    *,
    val: str | float | ImageDataset | None = None,
    test: str | float | ImageDataset | None = None,
    train_limit: int | None = None,
    test_limit: int | None = None,
    split_seed: int = 0,
    group_by: str | None = None,
    fit: str = CROP,
) -> DataSplits:
    """Cut a source's splits to what a run uses.

    Args:
        val: "none", "rest" (what train_limit leaves out), a fraction of train, or a data set. None is the source's own
            split, else a stratified tenth of train, at most MAX_DEFAULT_VAL images (none where no class has two).
        test: "none", a fraction of train, cut off before all else, or a data set. None is the source's own, if any.
        train_limit: class-balanced number of images: those trained on, unless val is cut from them.
        test_limit: class-balanced number of images.
        split_seed: 0 or more, decides every cut.
        group_by: a pattern for :func:`groups_of`: what is split off keeps to whole groups, and what `train_limit`
            leaves out is validated on without the groups that are trained on.
        fit: how images of a given data set are brought to train's shape, ``crop`` or ``letterbox``.
    Raises:
        UsageError: for what cannot be met, stating what could.
        DataError: for a data set with classes unknown to train.
    """

    if isinstance(val, ImageDataset):
        val = align_labels(val, splits.train.class_names, splits.train.image_shape, "val", fit)
    if isinstance(test, ImageDataset):
        test = align_labels(test, splits.train.class_names, splits.train.image_shape, "test", fit)
    pool = _Part(splits.train, Origin("train"), None if group_by is None else groups_of(splits.train.ids, group_by))
    test_part: _Part | None
    if isinstance(test, float | int):
        pool, test_part = pool.split(test, split_seed, "test")
    else:
        test_part = _given(test, splits.test, "test")
    if test_limit is not None:
        if test_part is None:
            raise UsageError(f"test_limit {test_limit:,} has no test images to cut: give test a fraction or a path")
        test_part, _ = test_part.cut(test_limit, split_seed, "test_limit", at_least=1)
    left_out = None
    if train_limit is not None:
        pool, left_out = pool.cut(train_limit, split_seed, "train_limit", at_least=len(np.unique(pool.labels)))
    train_part, val_part = _divide_val(pool, left_out, val, splits, split_seed)
    _generator(split_seed)  # a seed out of range is refused even where nothing is cut
    return DataSplits(
        train=train_part.dataset(),
        val=val_part.dataset() if val_part else None,
        test=test_part.dataset() if test_part else None,
        train_origin=train_part.origin,
        val_origin=val_part.origin if val_part else None,
        test_origin=test_part.origin if test_part else None,
    )


@dataclass(frozen=True, eq=False)
class _Part:
    """Some images of a data set; none is copied before all cuts are made and `dataset` is asked for."""

    source: ImageDataset
    origin: Origin
    groups: Indices | None = None

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.source.labels if self.origin.indices is None else self.source.labels[self.origin.indices]

    def dataset(self) -> ImageDataset:
        return self.source if self.origin.indices is None else self.source.take(self.origin.indices)

    def split(self, fraction: float, seed: int, name: str) -> "tuple[_Part, _Part]":
        """(rest, part)."""
        _check_fraction(fraction, name)
        return self.split_off(round(fraction * len(self.labels)), seed, name, fraction)

    def split_off(self, num: int, seed: int, name: str, asked: int | float) -> "tuple[_Part, _Part]":
        """(rest, part), part with about `num` images, exactly as many where there are no groups."""
        if self.groups is None:
            rest, part = stratified_split(self.labels, asked, seed, name=name)
        else:
            rest, part = split_by_group(self.labels, self._own(self.groups), num, seed)
            if not len(part):
                raise UsageError(f"{name} {asked} is not possible with group_by: no group can be spared by its classes")
        return self._only(rest), self._only(part)

    def without_groups_of(self, other: "_Part") -> "_Part":
        """Its images but for those of groups that another part of the same source has."""
        if self.groups is None:
            return self
        apart = ~np.isin(self._own(self.groups), other._own(self.groups))
        return self._only(np.flatnonzero(apart))

    def _own(self, values: Indices) -> Indices:
        """Of values for all images of the source, those of this part."""
        return values if self.origin.indices is None else values[self.origin.indices]

    def cut(self, num: int, seed: int, name: str, *, at_least: int) -> "tuple[_Part, _Part | None]":
        """(kept, rest), rest None if nothing is left."""
        if not at_least <= num <= len(self.labels):
            an_image_a_class = ", an image a class," if at_least > 1 else ""
            raise UsageError(
                f"{name} {num:,} is not possible: it must be at least {at_least:,}{an_image_a_class} and at most "
                f"{len(self.labels):,}, the images there are"
            )
        if num == len(self.labels):
            return self, None
        kept, rest = balanced_cut(self.labels, num, seed)
        return self._only(kept), self._only(rest)

    def _only(self, chosen: Indices) -> "_Part":
        indices = chosen if self.origin.indices is None else self.origin.indices[chosen]
        return _Part(self.source, Origin(self.origin.split, indices), self.groups)


def _given(value: str | ImageDataset | None, own: ImageDataset | None, name: str) -> _Part | None:
    """The part that is not cut from train: the source's own, one given, or none."""
    if value is None:
        return _Part(own, Origin(name)) if own is not None else None
    if isinstance(value, ImageDataset):
        return _Part(value, Origin("given"))
    if value == "none":
        return None
    allowed = "a fraction, 'none' or 'rest'" if name == "val" else "a fraction or 'none'"
    raise UsageError(f"{name} {value!r} must be {allowed}, or the images of a path, already loaded")


def _divide_val(
    pool: _Part, left_out: _Part | None, val: str | float | ImageDataset | None, splits: SourceSplits, seed: int
) -> tuple[_Part, _Part | None]:
    """What is trained on and what chooses, of the images left after test and train_limit."""
    if val == "rest":
        if left_out is None:
            raise UsageError("val 'rest' needs a train_limit below the number of images: nothing is left out otherwise")
        kept = left_out.without_groups_of(pool)
        if not len(kept.labels):
            raise UsageError("val 'rest' is not possible with group_by: all groups left out are trained on too")
        return pool, kept
    if isinstance(val, float | int):
        return pool.split(val, seed, "val")
    if val is not None or splits.val is not None:
        return pool, _given(val, splits.val, "val")
    labels = pool.labels
    spare = int(np.maximum(np.bincount(labels) - 1, 0).sum())
    num = min(max(1, round(len(labels) / 10)), MAX_DEFAULT_VAL, spare)
    if num == 0:
        return pool, None
    return pool.split_off(num, seed, "val", num)


def _check_fraction(fraction: float, name: str) -> None:
    if not 0 < fraction < 1:  # nan included
        raise UsageError(f"{name} {fraction:g} must be a fraction between 0 and 1, both excluded")


def _generator(seed: int) -> np.random.Generator:
    if seed < 0:
        raise UsageError(f"split seed {seed} must be 0 or more")
    return np.random.default_rng(seed)


def _draw(labels: NDArray[np.int64], shares: Indices, seed: int) -> tuple[Indices, Indices]:
    """(others, drawn), with shares[c] images of each class c drawn at random."""
    order = _generator(seed).permutation(len(labels))
    shuffled = labels[order]
    drawn = _ranks(shuffled) < shares[shuffled]
    return np.sort(order[~drawn]), np.sort(order[drawn])


def _ranks(labels: NDArray[np.int64]) -> Indices:
    """For each label, how many before it are the same."""
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    ranks = np.empty(len(labels), dtype=np.int64)
    ranks[by_class] = np.arange(len(labels)) - starts[labels[by_class]]
    return ranks


def _proportional_shares(counts: Indices, capacity: Indices, num: int) -> Indices:
    """`num` in proportion to `counts`, none above its capacity: by largest remainder, in integers."""
    total = counts.sum()
    shares: Indices = np.minimum(num * counts // total, capacity)
    while (missing := num - int(shares.sum())) > 0:
        open_classes = np.flatnonzero(shares < capacity)
        lacking = num * counts[open_classes] - shares[open_classes] * total
        shares[open_classes[np.argsort(-lacking, kind="stable")[:missing]]] += 1
    return shares


def _even_shares(counts: Indices, num: int, seed: int) -> Indices:
    """`num` spread evenly, none above its count: all classes filled to one level, and one more here and there."""
    low, high = 0, int(counts.max())
    while low < high:  # the highest level that `num` pays for
        level = (low + high + 1) // 2
        low, high = (level, high) if np.minimum(counts, level).sum() <= num else (low, level - 1)
    shares: Indices = np.minimum(counts, low)
    larger = np.flatnonzero(counts > low)
    shares[_generator(seed).permutation(larger)[: num - int(shares.sum())]] += 1
    return shares
