"""``timebox inspect``: describe a data set as it is read, without training."""

from pathlib import Path

from timebox.configs.call import refuse_unknown_arguments
from timebox.configs.verbs import InspectConfig
from timebox.data import Inspection, inspect_data, load_data
from timebox.progress import Reporter, show_progress


@refuse_unknown_arguments
def inspect(
    data: str | Path,
    *,
    image_size: int | None = None,
    coarse: bool = False,
    class_depth: int | None = None,
    data_dir: str | Path | None = None,
    max_bad_share: float = 0.1,
    cache: bool = True,
    progress: bool = True,
    reporter: Reporter | None = None,
) -> Inspection:
    """Classes, counts, sizes, modes, statistics, unreadable files and duplicates of a data set.

    Args:
        data: a path or a name.
        image_size: side in pixels to bring the images to; None to follow the data.
        coarse, class_depth, data_dir, max_bad_share, cache: as of :func:`timebox.train`.
        progress, reporter: as of :func:`timebox.train`.
    Raises:
        UsageError: for an argument that cannot work. DataError: for data that cannot be read.

    >>> import timebox
    >>> timebox.inspect("photos").class_counts
    {'train': {'blue': 30, 'red': 30}}
    """
    config = InspectConfig.from_call(locals())
    with show_progress(reporter, progress) as reporter:
        reporter.phase("reading")
        loaded = load_data(
            config.data,
            image_size=config.image_size,
            coarse=coarse,
            class_depth=class_depth,
            data_dir=Path(data_dir) if data_dir else None,
            max_bad_share=max_bad_share,
            cache=cache,
            notify=reporter.note,
        )
        reporter.phase("comparing")
        return inspect_data(loaded)
