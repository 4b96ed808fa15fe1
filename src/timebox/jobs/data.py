"""Reading a run's data, and splitting them as its config says."""

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
    as_loaded,
    load_data,
    split_dataset,
)
from timebox.data.groups import names_in_common, series_notes
from timebox.data.images.decode import CROP

SplitSize = str | float | None


def split_data(
    splits: SourceSplits,
    source: DataConfig,
    read: Callable[[str, int | None], LoadedData] | None = None,
    fit: str = CROP,
) -> DataSplits:
    """Cut and split data as a source asks.

    Args:
        read: reads a path's images at a side in pixels, None to follow the data. Without it parts that lie elsewhere
            are left out, which changes nothing for the others.
        fit: how images of another shape are brought to that of train.
    """
    height, width, _ = splits.train.image_shape

    def portion(name: str, value: SplitSize) -> SplitSize | ImageDataset:
        if not isinstance(value, str) or value in ("none", "rest"):
            return value
        if read is None:
            return "none"
        elsewhere = read(value, height if height == width else None).splits
        return dict(elsewhere.items()).get(name, elsewhere.train)

    return split_dataset(
        splits,
        val=portion("val", source.val),
        test=portion("test", source.test),
        train_limit=source.train_limit,
        test_limit=source.test_limit,
        split_seed=source.split_seed,
        group_by=source.group_by,
        fit=fit,
    )


class DatasetReader:
    """Reads the data of a run, and tells what there is to tell about them.

    Attributes:
        largest_side: for so many images, the largest side in pixels where none is asked for, see load_data.

    Args:
        data_dir: where named data sets are looked for and downloaded to.
        max_bad_share: share of unreadable files, 0...1, above which data are refused.
        tell: takes a line to tell the user.
        deadline: from which downloads are left out.
        given: the images that IN_MEMORY stands for, if any were given.
        cache: whether decoded images are kept for the next run, see load_data.
    """

    def __init__(
        self,
        data_dir: Path | None,
        max_bad_share: float,
        notify: Callable[[str], None],
        deadline: Deadline,
        given: ImageDataset | None = None,
        cache: bool = True,
    ) -> None:
        self.largest_side: Callable[[int], int] | None = None
        self._data_dir, self._max_bad_share = data_dir, max_bad_share
        self._notify, self._deadline, self._given, self._cache = notify, deadline, given, cache

    def divided(self, source: DataConfig, side: int | None, fit: str = CROP) -> tuple[LoadedData, DataSplits]:
        """The data of a source and their parts; images brought to ``side`` pixels, None to follow the data,
        those of another shape as ``fit`` says."""

        def read(path: str, image_size: int | None) -> LoadedData:
            return self._read(path, image_size, source.coarse, fit)

        loaded = read(source.data, side)
        data_splits = split_data(loaded.splits, source, read, fit)
        taken_for = f"{source.data} is read as {loaded.format}: {loaded.why}"
        grouping = _group_notes(loaded.splits, source)
        for note in (taken_for, *loaded.notes, *_bad_file_note(loaded), *grouping):
            self._notify(note)
        return loaded, data_splits

    def _read(self, path: str, image_size: int | None, coarse: bool, fit: str) -> LoadedData:
        # What is cut out to validate on is a second copy, for a while beside the first.
        copies = 2
        if self._given is not None and path == IN_MEMORY:
            return as_loaded(self._given, image_size, copies, fit)
        loaded = load_data(
            path,
            image_size=image_size,
            coarse=coarse,
            data_dir=self._data_dir,
            max_bad_share=self._max_bad_share,
            copies=copies,
            progress=self._notify,
            cache=self._cache,
            fit=fit,
            largest_side=self.largest_side,
        )
        self._deadline.exclude(loaded.download_seconds)
        return loaded


def _group_notes(splits: SourceSplits, source: DataConfig) -> list[str]:
    """Groups that lie in two of the data's own splits; or, where none are asked for, those that names suggest."""
    train = splits.train
    if source.group_by is None:
        return series_notes(train.ids, train.labels)
    others = {name: split for name, split in splits.items() if name != "train"}
    shared = {name: names_in_common(split.ids, train.ids, source.group_by) for name, split in others.items()}
    return [
        f"{count:,} images of {name} belong to groups that train has too" for name, count in shared.items() if count
    ]


def _bad_file_note(loaded: LoadedData) -> list[str]:
    if not loaded.bad_files:
        return []
    first = loaded.bad_files[0]
    return [f"{len(loaded.bad_files)} unreadable files left out, the first {first.path!r}: {first.reason}"]
