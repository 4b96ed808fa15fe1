"""Reading the data of a run and splitting them into train, val and test, as a DataConfig says."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
    source: DataConfig,
    read: Callable[[str, int | None], LoadedData] | None = None,
    image_fit: str = CROP,
) -> DataSplits:
    """Split data as a config says.

    Args:
        read: reads ``(path, image_size)``, for a val or test split that is a path of its own. None leaves such a split
            out; the other splits do not depend on it.
        image_fit: as of :meth:`DatasetReader.read_splits`.
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
        val=size_or_dataset("val", source.val),
        test=size_or_dataset("test", source.test),
        train_limit=source.train_limit,
        test_limit=source.test_limit,
        split_seed=source.split_seed,
        group_by=source.group_by,
        fit=image_fit,
    )
    return split_dataset(source_splits, split_config)


@dataclass(eq=False)
class DatasetReader:
    """Reads and splits the data of a run, and reports notes on them.

    Args:
        data_dir, max_bad_share, notify, cache: as of :func:`timebox.data.load_data`.
        deadline: a clock that leaves downloads out.
        in_memory: the images that the path IN_MEMORY stands for, if any.
        largest_side: maps a number of images to the limit of their side in pixels, which holds where no image size is
            set; None for that of load_data.
    """

    data_dir: str | Path | None
    max_bad_share: float
    notify: Callable[[str], None]
    deadline: Deadline
    in_memory: ImageDataset | None = None
    cache: bool = True
    largest_side: Callable[[int], int] | None = None

    def read_splits(
        self, source: DataConfig, image_size: int | None, image_fit: str = CROP
    ) -> tuple[LoadedData, DataSplits]:
        """Read data, and split them as a config says.

        Args:
            image_size: side in pixels to bring images to; None to follow the data.
            image_fit: how images of another shape are brought to that of train.
        """

        wanted = {"train"} | {name for name in ("val", "test") if getattr(source, name) is None}
        loaded = self._read(source.data, image_size, source, image_fit, splits=wanted)

        def read(path: str, image_size: int | None) -> LoadedData:
            """Other data, scored as those of the source are."""
            train = loaded.splits.train
            return self._read(
                path, image_size, source, image_fit, class_names=train.class_names, white_16bit=loaded.white_16bit
            )

        data_splits = split_data(loaded.splits, source, read, image_fit)
        self.notify(f"{source.data} is read as {loaded.format}: {loaded.why}")
        for note in loaded.notes:
            self.notify(note)
        if bad := loaded.bad_files:
            self.notify(f"{len(bad)} unreadable files left out, the first {bad[0].path!r}: {bad[0].reason}")
        for note in _group_notes(loaded.splits, source):
            self.notify(note)
        return loaded, replace(data_splits, white_16bit=loaded.white_16bit)

    def _read(
        self, path: str, image_size: int | None, source: DataConfig, image_fit: str, **options: Any
    ) -> LoadedData:
        """Read data with the options of the run, and further ones of load_data."""
        num_copies = 2  # the splits are the second
        if self.in_memory is not None and path == IN_MEMORY:
            return load_images_in_memory(self.in_memory, image_size, num_copies, image_fit)
        loaded = load_data(
            path,
            image_size=image_size,
            coarse=source.coarse,
            class_depth=source.class_depth,
            data_dir=Path(self.data_dir) if self.data_dir else None,
            max_bad_share=self.max_bad_share,
            num_copies=num_copies,
            notify=self.notify,
            cache=self.cache,
            fit=image_fit,
            max_side=self.largest_side,
            **options,
        )
        self.deadline.exclude(loaded.download_seconds)
        return loaded


def _group_notes(source_splits: SourceSplits, source: DataConfig) -> list[str]:
    """Notes on groups that train shares with another split of the data; without ``group_by``, on series of images that
    file names suggest."""
    train = source_splits.train
    if source.group_by is None:
        return frame_series_notes(train.ids, train.labels)
    notes = []
    for name, split in source_splits.items():
        if split is not train and (count := count_shared_groups(split.ids, train.ids, source.group_by)):
            notes.append(f"{count:,} images of {name} belong to groups that train has too")
    return notes
