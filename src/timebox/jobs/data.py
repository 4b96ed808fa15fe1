"""Reading the data of a run and splitting them into train, val and test, as a DataConfig says."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timebox.clock import Deadline
from timebox.configs.data import DataConfig
from timebox.data import (
    IN_MEMORY,
    DataSplits,
    ImageDataset,
    LoadedData,
    SourceSplits,
    SplitConfig,
    image_hashes,
    load_data,
    load_images_in_memory,
    split_dataset,
)
from timebox.data.groups import count_shared_groups, frame_series_notes
from timebox.data.images.decode import CROP
from timebox.data.part import PartRead
from timebox.data.reading.threads import read_in_time
from timebox.data.reading.time_limit import READING_SHARE, ReadingTime, Stage

SplitSize = str | float | None


def split_data(
    source_splits: SourceSplits,
    source: DataConfig,
    read: Callable[[str, int | None], LoadedData] | None = None,
    image_fit: str = CROP,
    time: ReadingTime | None = None,
) -> DataSplits:
    """Split data as a config says.

    Args:
        read: reads ``(path, image_size)``, for a val or test split that is a path of its own. None leaves such a split
            out; the other splits do not depend on it.
        image_fit: as of :meth:`DatasetReader.read_splits`.
        time: in which all of it must be done; None for no limit.
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
        match_seconds=inf if time is None else time.left,
    )
    return split_dataset(source_splits, split_config)


@dataclass(eq=False)
class DatasetReader:
    """Reads and splits the data of a run, and reports notes on them.

    Args:
        data_dir, max_bad_share, notify, cache: as of :func:`timebox.data.load_data`.
        deadline: a clock that leaves downloads out; reading has a share of the time that is left.
        in_memory: the images that the path IN_MEMORY stands for, if any.
        allow_partial: whether a part of the images is read where there is no time for all.
        largest_side: maps a number of images to the limit of their side in pixels, which holds where no image size is
            set; None for that of load_data.
        part: the part of the images that an earlier run had time for; None for all.
        share: of the time left, for reading.
    Attributes:
        time: of the latest reading, hashing included.
    """

    data_dir: str | Path | None
    max_bad_share: float
    notify: Callable[[str], None]
    deadline: Deadline
    in_memory: ImageDataset | None = None
    cache: bool = True
    allow_partial: bool = False
    largest_side: Callable[[int], int] | None = None
    part: PartRead | None = None
    share: float = READING_SHARE
    time: ReadingTime = field(default_factory=ReadingTime)

    def read_splits(
        self, source: DataConfig, image_size: int | None, image_fit: str = CROP
    ) -> tuple[LoadedData, DataSplits]:
        """Read data, and split them as a config says.

        Args:
            image_size: side in pixels to bring images to; None to follow the data.
            image_fit: how images of another shape are brought to that of train.
        Raises:
            BudgetError: where the data cannot be read in their share of the budget; a read that does not return is
                abandoned then.
        """
        self.time = ReadingTime(self.deadline, self.share, self.allow_partial)
        download_seconds: list[float] = []

        def read(path: str, image_size: int | None, notify: Callable[[str], None], **options: Any) -> LoadedData:
            loaded = self._read(path, image_size, source, fit=image_fit, notify=notify, **options)
            download_seconds.append(loaded.download_seconds)
            return loaded

        def read_all(notify: Callable[[str], None]) -> tuple[LoadedData, DataSplits, list[str]]:
            wanted = {"train"} | {name for name in ("val", "test") if getattr(source, name) is None}
            loaded = read(source.data, image_size, notify, splits=wanted, part=self.part)

            def read_other(path: str, image_size: int | None) -> LoadedData:
                """Other data, scored as those of the source are."""
                class_names = loaded.splits.train.class_names
                return read(path, image_size, notify, class_names=class_names, white_16bit=loaded.white_16bit)

            data_splits = split_data(loaded.splits, source, read_other, image_fit, self.time)
            return loaded, data_splits, _group_notes(loaded.splits, source, self.time)

        with self.deadline.phase("reading"):
            loaded, data_splits, group_notes = read_in_time(read_all, self.time, self.notify)
            self.deadline.exclude(sum(download_seconds))
        self.notify(f"{source.data} is read as {loaded.format}: {loaded.why}")
        if loaded.part:
            loaded = replace(loaded, notes=(loaded.part.sentence, *loaded.notes))
        for note in loaded.notes:
            self.notify(note)
        if bad := loaded.bad_files:
            self.notify(f"{len(bad)} unreadable files left out, the first {bad[0].path!r}: {bad[0].reason}")
        for note in group_notes:
            self.notify(note)
        return loaded, replace(data_splits, white_16bit=loaded.white_16bit, part=loaded.part)

    def hashes(self, dataset: ImageDataset) -> NDArray[np.uint64]:
        """The hash of each image, see :func:`timebox.data.image_hashes`; the time counts as that of reading.

        Raises BudgetError where there is not time enough.
        """
        stage = Stage(self.time, lambda done: f"hashed {done:,} of {len(dataset):,} images", len(dataset))
        with self.deadline.phase("reading"):
            return image_hashes(dataset.images, stage.advance)

    def _read(self, path: str, image_size: int | None, source: DataConfig, **options: Any) -> LoadedData:
        """Read data with the options of the run, and further ones of load_data."""
        num_copies = 2  # the splits are the second
        if self.in_memory is not None and path == IN_MEMORY:
            return load_images_in_memory(self.in_memory, image_size, num_copies, options["fit"], self.time)
        return load_data(
            path,
            image_size=image_size,
            coarse=source.coarse,
            class_depth=source.class_depth,
            data_dir=Path(self.data_dir) if self.data_dir else None,
            max_bad_share=self.max_bad_share,
            num_copies=num_copies,
            cache=self.cache,
            max_side=self.largest_side,
            time=self.time,
            **options,
        )


def _group_notes(source_splits: SourceSplits, source: DataConfig, time: ReadingTime) -> list[str]:
    """Notes on groups that train shares with another split of the data; without ``group_by``, on series of images that
    file names suggest."""
    train = source_splits.train
    if source.group_by is None:
        return frame_series_notes(train.ids, train.labels)
    notes = []
    for name, split in source_splits.items():
        if split is train:
            continue
        if count := count_shared_groups(split.ids, train.ids, source.group_by, time.left):
            notes.append(f"{count:,} images of {name} belong to groups that train has too")
    return notes
