"""Groups of images that must stay in one split, such as the frames of a video (`--group-by`)."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from math import inf

import numpy as np
from numpy.typing import NDArray

from timebox.clock import format_duration
from timebox.data import match_script
from timebox.errors import UsageError
from timebox.processes import children

Indices = NDArray[np.int64]

# Time limits of a pattern, in seconds: processor time for one path, and for all, with the start of a process, where no
# budget sets a shorter one.
_SECONDS_FOR_ONE, _MAX_SECONDS, _SECONDS_PER_ID, _MIN_SECONDS = 2.0, 60.0, 1e-3, 2.0

# A file name with a frame number at its end; the group is the name before the number.
_FRAME = r"([^/]*[_-])\d+\.\w+$"
# Names count as frame series where there are more than two series a class, of so many frames each, and these series
# hold most of the images.
_MIN_FRAMES, _MAX_FRAMES, _MIN_FRACTION = 3, 1000, 0.8


def assign_groups(ids: Sequence[str], pattern: str, seconds: float = inf) -> Indices:
    """The group number of each image: int64 (N,).

    `pattern` is a regular expression, searched in each id. Images with equal text in the first capture group that took
    part in the match, or in the whole match if there is none, are in one group. An image whose id does not match is a
    group of its own. Raises UsageError where the pattern is not a regular expression, matches no id, or is not done
    with an id in 2 s, or with all in `seconds`.
    """
    # The integer position of an image without a match never equals the text of a match.
    matches = _match(ids, pattern, seconds)
    if not any(match is not None for match in matches):
        raise UsageError(f"group_by {pattern!r} matches no image; the first is {ids[0] if ids else None!r}")
    keys = [position if match is None else match for position, match in enumerate(matches)]
    numbers: dict[str | int, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _match(ids: Sequence[str], pattern: str, seconds: float) -> list[str | None]:
    """The text that each id matches; None for none. In a process of its own, which can be ended."""
    seconds = max(min(seconds, _MAX_SECONDS + _SECONDS_PER_ID * len(ids)), _MIN_SECONDS)
    arguments = {"pattern": pattern, "names": list(ids), "seconds": _SECONDS_FOR_ONE}
    try:
        result = json.loads(children.run_script(match_script.__file__, json.dumps(arguments).encode(), seconds))
    except children.TimeoutExpired:
        result = {"late": seconds}
    except (OSError, ValueError):  # no such interpreter, as in a program that embeds Python
        result = match_script.match_names(pattern, ids)
    match result:
        case {"keys": list(keys)}:
            return keys
        case {"error": reason}:
            raise UsageError(f"group_by {pattern!r} is no regular expression: {reason}")
        case {"slow": int(position)}:
            late = f"it is not done with {ids[position]!r} after {_SECONDS_FOR_ONE:g} s"
        case _:
            late = f"it is not done with {len(ids):,} paths after {format_duration(seconds)}"
    advice = "a repeat within a repeat, such as (a+)+, may take for ever: write it without"
    raise UsageError(f"group_by {pattern!r} takes too long: {late}; {advice}")


def count_shared_groups(ids: Sequence[str], others: Sequence[str], pattern: str, seconds: float = inf) -> int:
    """Number of images of `ids` whose group also occurs in `others`; see :func:`assign_groups`."""
    groups = assign_groups([*ids, *others], pattern, seconds)
    return int(np.isin(groups[: len(ids)], groups[len(ids) :]).sum())


def guess_group_pattern(ids: Sequence[str], labels: NDArray[np.int64]) -> tuple[str, int] | None:
    """A pattern for group_by where file names look like frame series, and the number of series; else None."""
    matches = [(name.rpartition("/")[0], re.search(_FRAME, name)) for name in ids]
    series = Counter((folder, match[1]) for folder, match in matches if match)
    lengths = [length for length in series.values() if _MIN_FRAMES <= length <= _MAX_FRAMES]
    if len(lengths) <= 2 * len(np.unique(labels)) or sum(lengths) < _MIN_FRACTION * len(ids):
        return None
    return r"(.*[_-])\d+\.\w+$", len(lengths)


def frame_series_notes(ids: Sequence[str], labels: NDArray[np.int64]) -> list[str]:
    """A note for the user where file names look like series of frames; else an empty list."""
    if (guess := guess_group_pattern(ids, labels)) is None:
        return []
    pattern, num_series = guess
    return [
        f"file names look like {num_series:,} series of frames; a split at random puts frames of one series into both "
        f"parts, --group-by '{pattern}' keeps each series together"
    ]


def split_by_group(labels: NDArray[np.int64], groups: Indices, num: int, seed: int) -> tuple[Indices, Indices]:
    """(rest, part): sorted indices; every group lies in one of them, and every class keeps an image in rest.

    Groups are visited in random order. A group moves to `part` if that brings the class counts of `part` closer to
    `num` images with the class proportions of the whole (squared distance).
    """
    num_classes = int(labels.max()) + 1
    _, groups = np.unique(groups, return_inverse=True)
    counts = np.zeros((int(groups.max()) + 1, num_classes), np.int64)
    np.add.at(counts, (groups, labels), 1)
    rest_counts = counts.sum(0)
    target = rest_counts * (num / len(labels))
    part_counts = np.zeros(num_classes)
    in_part = np.zeros(len(counts), bool)
    for group in np.random.default_rng(seed).permutation(len(counts)):
        enlarged = part_counts + counts[group]
        is_closer = ((enlarged - target) ** 2).sum() < ((part_counts - target) ** 2).sum()
        if is_closer and (rest_counts - counts[group])[counts[group] > 0].all():
            part_counts, rest_counts = enlarged, rest_counts - counts[group]
            in_part[group] = True
    is_part = in_part[groups]
    return np.flatnonzero(~is_part), np.flatnonzero(is_part)
