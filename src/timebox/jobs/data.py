"""Reading the data of a run and splitting them into train, val and test, as a DataConfig says."""

from collections.abc import Callable
from pathlib import Path

from timebox.clock import Deadline
from timebox.configs.data import DataConfig
from timebox.data import (
    IN_MEMORY,
    DataSplits,
    ImageDataset,
    LoadedData,
    SourceSplits,
    SplitConfig,
    load_data,
    load_images_in_memory,
    split_dataset,
)
from timebox.data.groups import count_shared_groups, frame_series_notes
from timebox.data.images.decode import CROP

SplitSize = str | float | None


def split_data(
    source_splits: SourceSplits,
    config: DataConfig,
    read: Callable[[str, int | None], LoadedData] | None = None,
    image_fit: str = CROP,
) -> DataSplits:
    """Cut and split data as a config says.

    Args:
        read: reads ``(path, image_size)``, for a val or test split that is a path of its own. None leaves such a split
            out; the other splits do not depend on it.
        image_fit: how images of another shape are brought to that of train.
    """
    height, width, _ = source_splits.train.image_shape

    def size_or_dataset(name: str, value: SplitSize) -> SplitSize | ImageDataset:
        if not isinstance(value, str) or value in ("none", "rest"):
            return value
        if read is None:
            return "none"
        other = read(value, height if height == width else None).splits
        return dict(other.items()).get(name, other.train)

    split_config = SplitConfig(
        val=size_or_dataset("val", config.val),
        test=size_or_dataset("test", config.test),
        train_limit=config.train_limit,
        test_limit=config.test_limit,
        split_seed=config.split_seed,
        group_by=config.group_by,
        fit=image_fit,
    )
    return split_dataset(source_splits, split_config)


class DatasetReader:
    """Reads and splits the data of a run, and reports notes on them.

    Attributes:
        largest_side: maps a number of images to the limit of their side in pixels, which holds where no image size is
            set; None for that of :func:`timebox.data.load_data`.

    Args:
        data_dir: where named data sets are looked for and downloaded to.
        max_bad_share: share of unreadable files, 0...1, above which data are refused.
        notify: takes one line of text for the user.
        deadline: a clock that leaves downloads out.
        in_memory: the images that the path IN_MEMORY stands for, if any.
        cache: whether decoded images are kept on disk, see load_data.
    """

    def __init__(
        self,
        data_dir: Path | None,
        max_bad_share: float,
        notify: Callable[[str], None],
        deadline: Deadline,
        in_memory: ImageDataset | None = None,
        cache: bool = True,
    ) -> None:
        self.largest_side: Callable[[int], int] | None = None
        self._data_dir, self._max_bad_share = data_dir, max_bad_share
        self._notify, self._deadline, self._in_memory, self._cache = notify, deadline, in_memory, cache

    def read_splits(
        self, config: DataConfig, image_size: int | None, image_fit: str = CROP
    ) -> tuple[LoadedData, DataSplits]:
        """Read a config's data, and split them.

        Args:
            image_size: side in pixels to bring images to; None to follow the data.
            image_fit: how images of another shape are brought to that of train.
        """

        def read(path: str, image_size: int | None) -> LoadedData:
            return self._read(path, image_size, config.coarse, image_fit)

        loaded = read(config.data, image_size)
        data_splits = split_data(loaded.splits, config, read, image_fit)
        read_as = f"{config.data} is read as {loaded.format}: {loaded.why}"
        for note in (read_as, *loaded.notes, *_bad_file_note(loaded), *_group_notes(loaded.splits, config)):
            self._notify(note)
        return loaded, data_splits

    def _read(self, path: str, image_size: int | None, coarse: bool, image_fit: str) -> LoadedData:
        # The splits are a second copy of the images, which exists beside the first for a while.
        num_copies = 2
        if self._in_memory is not None and path == IN_MEMORY:
            return load_images_in_memory(self._in_memory, image_size, num_copies, image_fit)
        loaded = load_data(
            path,
            image_size=image_size,
            coarse=coarse,
            data_dir=self._data_dir,
            max_bad_share=self._max_bad_share,
            num_copies=num_copies,
            notify=self._notify,
            cache=self._cache,
            fit=image_fit,
            max_side=self.largest_side,
        )
        self._deadline.exclude(loaded.download_seconds)
        return loaded


def _group_notes(source_splits: SourceSplits, config: DataConfig) -> list[str]:
    """Notes on groups of which both train and another of the source's own splits have images; without ``group_by``, on
    series of images that file names suggest."""
    train = source_splits.train
    if config.group_by is None:
        return frame_series_notes(train.ids, train.labels)
    others = {name: split for name, split in source_splits.items() if name != "train"}
    shared = {name: count_shared_groups(split.ids, train.ids, config.group_by) for name, split in others.items()}
    return [
        f"{count:,} images of {name} belong to groups that train has too" for name, count in shared.items() if count
    ]


def _bad_file_note(loaded: LoadedData) -> list[str]:
    if not loaded.bad_files:
        return []
    first = loaded.bad_files[0]
    return [f"{len(loaded.bad_files)} unreadable files left out, the first {first.path!r}: {first.reason}"]
