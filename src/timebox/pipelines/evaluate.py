"""``timebox evaluate``: score a run on a data set, without a time limit."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timebox.clock import now
from timebox.configs.call import refuse_unknown_arguments
from timebox.configs.data import DataConfig
from timebox.configs.verbs import EvaluateConfig
from timebox.data import (
    BadFile,
    ImageDataset,
    LoadedData,
    SourceSplits,
    align_labels,
    balanced_cut,
    image_hashes,
    load_data,
)
from timebox.errors import TimeboxError, UsageError, option_text
from timebox.evaluation.metrics import (
    MAX_MATRIX_CLASSES,
    ClassMetrics,
    confusion_matrix,
    confusion_pairs,
    macro_averages,
    per_class_metrics,
)
from timebox.jobs.data import split_data
from timebox.progress import Reporter, show_progress
from timebox.run.files import read_training_hashes
from timebox.run.run import Run


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The metrics of a run on a split of a data set.

    Attributes:
        num_correct, num_images, num_images_total: images predicted right, images scored, and images of the split.
        num_seen_in_training: scored images that are, pixel for pixel, training images of the run.
        accuracy_unseen: accuracy on the other images; None where there are none.
        bad_files: image files of the data that could not be read.
        seconds: duration of the evaluation, reading included.
        balanced_accuracy, macro_precision, macro_f1: means over the classes; balanced accuracy is the mean recall.
        confusion: int64 (num_classes, num_classes); rows are true classes, columns predicted ones. None for more than
            2,000 classes, as its size grows with their square.
        confusion_pairs: int64 (K, 3), the entries of the confusion matrix that are not 0: true class, predicted class
            and number of images.
    """

    run: str
    data: str
    split: str
    accuracy: float
    num_correct: int
    num_images: int
    num_images_total: int
    num_seen_in_training: int
    accuracy_unseen: float | None
    tta: str
    seconds: float
    balanced_accuracy: float
    macro_precision: float
    macro_f1: float
    classes: tuple[ClassMetrics, ...]
    confusion: NDArray[np.int64] | None
    confusion_pairs: NDArray[np.int64]
    notes: tuple[str, ...]
    bad_files: tuple[BadFile, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        classes = [asdict(metrics) for metrics in self.classes]
        bad_files = [asdict(file) for file in self.bad_files]
        return {
            **vars(self),
            "classes": classes,
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            "confusion_pairs": self.confusion_pairs.tolist(),
            "notes": list(self.notes),
            "bad_files": bad_files,
        }


@refuse_unknown_arguments
def evaluate(
    run: str | Path | Run,
    data: str | Path,
    *,
    split: str | None = None,
    test_limit: int | None = None,
    tta: str = "recipe",
    device: str = "auto",
    class_depth: int | None = None,
    data_dir: str | Path | None = None,
    max_bad_share: float = 0.1,
    cache: bool = True,
    trust_code: bool = False,
    progress: bool = True,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Score a run on a data set.

    Args:
        run: a run, or its directory.
        data: a path or a name; its classes must be among the run's.
        split: ``test``, ``val``, ``train`` or ``all``. On the data that the run was trained on, these are the run's
            own splits; a val or test split that it took from another path is read from there. The data's own test
            split takes precedence. Default: the data's own test split, else the run's test or val split, else all.
        test_limit: number of images to score, a class-balanced cut.
        tta: as of :meth:`Run.predict_proba`.
        device: ``auto``, ``cpu`` or ``cuda``, where ``run`` is a directory.
        class_depth, data_dir, max_bad_share, cache: as of :func:`timebox.train`; folders named as the run's classes
            tell the depth too.
        trust_code: whether to import the code that the run names, see :func:`timebox.load`.
        progress, reporter: as of :func:`timebox.train`.
    Raises:
        RunError, DataError, UsageError: for a run, data or a split that are not there or do not fit.

    >>> import timebox
    >>> evaluation = timebox.evaluate("runs/demo", "photos", split="test")
    >>> evaluation.num_images, evaluation.confusion.shape
    (12, (2, 2))
    """
    started = now()
    config = EvaluateConfig.from_call({**locals(), "run": run.path if isinstance(run, Run) else run})
    run = Run.of(run, device).with_code({}, trust_code)
    with show_progress(reporter, progress) as reporter:
        reporter.phase("reading")
        loaded, name, dataset = read_split(run, config, reporter.note)
        num_total = len(dataset)
        if test_limit is not None:
            if test_limit > num_total:
                raise UsageError(f"test_limit {test_limit} must be between 1 and the {num_total} images of {name!r}")
            split_seed = DataConfig.of_run(run.config, run.path).split_seed
            dataset = dataset.take(balanced_cut(dataset.labels, test_limit, split_seed)[0])
        reporter.phase("scoring")
        predicted = run.predict_indices(dataset.images, tta)
        is_seen = np.isin(image_hashes(dataset.images), read_training_hashes(run.path))
        pairs, num_classes = confusion_pairs(dataset.labels, predicted), len(run.class_names)
        classes = per_class_metrics(run.class_names, pairs)
        return Evaluation(
            run=str(run.path),
            data=str(data),
            split=name,
            accuracy=float((predicted == dataset.labels).mean()),
            num_correct=int((predicted == dataset.labels).sum()),
            num_images=len(dataset),
            num_images_total=num_total,
            num_seen_in_training=int(is_seen.sum()),
            accuracy_unseen=None if is_seen.all() else float((predicted == dataset.labels)[~is_seen].mean()),
            tta=run.views(tta),
            seconds=round(now() - started, 3),
            **macro_averages(classes),
            classes=classes,
            confusion=confusion_matrix(pairs, num_classes) if num_classes <= MAX_MATRIX_CLASSES else None,
            confusion_pairs=pairs,
            notes=loaded.notes,
            bad_files=loaded.bad_files,
        )


def read_split(run: Run, config: EvaluateConfig, notify: Callable[[str], None]) -> tuple[LoadedData, str, ImageDataset]:
    """Read the data that a run is to be scored on: all of them, and the name and the images of the split.

    Raises as :func:`evaluate` does.
    """
    source = DataConfig.of_run(run.config, run.path)

    def read(path: str | Path, image_size: int | None, notify: Callable[[str], None] | None = None) -> LoadedData:
        return load_data(
            path,
            image_size=image_size,
            coarse=source.coarse,
            class_depth=config.class_depth,
            class_names=run.class_names,
            white_16bit=run.preprocessing.white_16bit,
            data_dir=Path(config.data_dir) if config.data_dir else None,
            max_bad_share=config.max_bad_share,
            notify=notify,
            cache=config.cache,
            fit=run.recipe.image_fit,
        )

    loaded = read(config.data, run.preprocessing.square_side, notify)
    name, dataset = _select_split(config.split, loaded.splits, source, run, read)
    image_shape, image_fit = run.preprocessing.image_shape, run.recipe.image_fit
    return loaded, name, align_labels(dataset, run.class_names, image_shape, config.data, image_fit)


def _select_split(
    split: str | None,
    source_splits: SourceSplits,
    source: DataConfig,
    run: Run,
    read: Callable[[str, int | None], LoadedData],
) -> tuple[str, ImageDataset]:
    """The name and images of a split. For None: the data's own test split; without one the run's test split, then its
    val split; else all images. ``read`` is that of :func:`timebox.jobs.data.split_data`."""
    splits = dict(source_splits.items())
    if split != "all" and (split is not None or "test" not in splits):
        # A val or test split that the run took from another path is read only if ``split`` names it.
        has_own_path = isinstance({"val": source.val, "test": source.test}.get(str(split)), str)
        of_run = _splits_of_run(source_splits, source, run, read if has_own_path else None)
        splits |= of_run if "test" not in splits else {**of_run, "test": splits["test"]}
    if split is None:
        split = next((name for name in ("test", "val") if name in splits), "all")
    if split == "all":
        return split, _merge(source_splits)
    if split not in splits:
        everything = option_text("split", "all")
        raise UsageError(f"split {split!r}: these data have none, and the run held none out of them; use {everything}")
    return split, splits[split]


def _splits_of_run(
    source_splits: SourceSplits, source: DataConfig, run: Run, read: Callable[[str, int | None], LoadedData] | None
) -> dict[str, ImageDataset]:
    """The train, val and test splits that the run made of these data; empty where it was trained on other images."""
    try:
        data_splits = split_data(source_splits, source, read)
    except TimeboxError:
        return {}
    if not np.array_equal(np.sort(image_hashes(data_splits.train.images)), read_training_hashes(run.path)):
        return {}
    splits = (("train", data_splits.train), ("val", data_splits.val), ("test", data_splits.test))
    return {name: dataset for name, dataset in splits if dataset is not None}


def _merge(source_splits: SourceSplits) -> ImageDataset:
    """All images as one dataset."""
    datasets = dict(source_splits.items())
    if len(datasets) == 1:
        return source_splits.train
    return ImageDataset(
        np.concatenate([dataset.images for dataset in datasets.values()]),
        np.concatenate([dataset.labels for dataset in datasets.values()]),
        source_splits.train.class_names,
        tuple(f"{name}/{id}" for name, dataset in datasets.items() for id in dataset.ids),
    )
