"""``timebox inspect``: describe a data set as it is read, without training."""

from pathlib import Path

from timebox.data import Inspection, inspect_data, load_data


def inspect(
    data: str | Path,
    *,
    image_size: int | None = None,
    coarse: bool = False,
    data_dir: str | Path | None = None,
    max_bad_share: float = 0.1,
    cache: bool = True,
) -> Inspection:
    """Classes, counts, sizes, modes, statistics, unreadable files and duplicates of a data set.

    Args:
        data: a path or a name.
        image_size: side in pixels to bring the images to; None to follow the data.
        coarse, data_dir, max_bad_share, cache: as of :func:`timebox.train`.
    Raises:
        DataError: for data that cannot be read.

    >>> import timebox
    >>> timebox.inspect("photos").class_counts
    {'train': {'blue': 30, 'red': 30}}
    """
    folder = Path(data_dir) if data_dir else None
    loaded = load_data(
        data, image_size=image_size, coarse=coarse, data_dir=folder, max_bad_share=max_bad_share, cache=cache
    )
    return inspect_data(loaded)
