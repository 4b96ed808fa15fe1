"""Images that belong together, such as the frames of a video: in two splits, one would give the other away."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from timebox.errors import UsageError

Indices = NDArray[np.int64]

# Names that end in a number and are alike before it: the frames of a series.
_FRAME = r"([^/]*[_-])\d+\.\w+$"
# Series are worth a hint where there are several a class, of so many frames, and they hold most of the images.
_FEWEST_FRAMES, _MOST_FRAMES, _LEAST_SHARE = 3, 1000, 0.8


def groups_of(ids: Sequence[str], pattern: str) -> Indices:
    """The group of each image: int64 (N,), the same number for all whose id matches alike.

    Args:
        pattern: a regular expression, found anywhere in an id. The first group that took part tells images apart, or
            the whole match. An image that does not match is a group of its own.
    Raises:
        UsageError: where the pattern is none, or matches no id.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"group_by {pattern!r} is no regular expression: {error}") from error
    found = [compiled.search(name) for name in ids]
    if not any(found):
        raise UsageError(f"group_by {pattern!r} matches no image; the first is {ids[0] if ids else None!r}")
    # What does not match is told apart by its place, which no match can be.
    keys: list[object] = [position if match is None else _told_apart_by(match) for position, match in enumerate(found)]
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _told_apart_by(match: re.Match[str]) -> str:
    return next((group for group in match.groups() if group is not None), match[0])


def names_in_common(ids: Sequence[str], others: Sequence[str], pattern: str) -> int:
    """How many images of `ids` belong to a group that `others` has too."""
    groups = groups_of([*ids, *others], pattern)
    return int(np.isin(groups[: len(ids)], groups[len(ids) :]).sum())


def likely_pattern(ids: Sequence[str], labels: NDArray[np.int64]) -> tuple[str, int] | None:
    """A pattern for group_by that the names suggest, and how many series there are; None where they suggest none."""
    keys = [match[1] if (match := re.search(_FRAME, name)) else None for name in ids]
    prefixes = [name.rpartition("/")[0] for name in ids]
    series: dict[tuple[str, str], int] = {}
    for prefix, key in zip(prefixes, keys, strict=True):
        if key is not None:
            series[prefix, key] = series.get((prefix, key), 0) + 1
    frames = [number for number in series.values() if _FEWEST_FRAMES <= number <= _MOST_FRAMES]
    num_classes = len(np.unique(labels))
    if len(frames) <= 2 * num_classes or sum(frames) < _LEAST_SHARE * len(ids):
        return None
    return r"(.*[_-])\d+\.\w+$", len(frames)


def series_notes(ids: Sequence[str], labels: NDArray[np.int64]) -> list[str]:
    """What is to be told where names look like series of frames."""
    likely = likely_pattern(ids, labels)
    if likely is None:
        return []
    pattern, number = likely
    return [
        f"file names look like {number:,} series of frames, which lie on both sides where images are split; "
        f"--group-by '{pattern}' keeps each on one"
    ]


def split_by_group(labels: NDArray[np.int64], groups: Indices, num: int, seed: int) -> tuple[Indices, Indices]:
    """(rest, part): sorted indices; no group lies in both, and every class keeps an image in rest.

    Groups are taken in random order as long as they bring the part nearer to `num` images with the class proportions
    of the whole.
    """
    num_classes = int(labels.max()) + 1
    _, groups = np.unique(groups, return_inverse=True)
    counts = np.zeros((int(groups.max()) + 1, num_classes), np.int64)
    np.add.at(counts, (groups, labels), 1)
    left = counts.sum(0)
    wanted = left * (num / len(labels))
    have = np.zeros(num_classes)
    chosen = np.zeros(len(counts), bool)
    for group in np.random.default_rng(seed).permutation(len(counts)):
        with_it = have + counts[group]
        nearer = ((with_it - wanted) ** 2).sum() < ((have - wanted) ** 2).sum()
        if nearer and (left - counts[group])[counts[group] > 0].all():
            have, left = with_it, left - counts[group]
            chosen[group] = True
    inside = chosen[groups]
    return np.flatnonzero(~inside), np.flatnonzero(inside)
