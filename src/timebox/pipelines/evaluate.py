"""``timebox evaluate``: scores a run on a data set, in full and untimed."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timebox.clock import now
from timebox.configs.data import DataConfig
from timebox.configs.verbs import EvaluateConfig
from timebox.data import ImageDataset, LoadedData, SourceSplits, align_labels, balanced_cut, image_hashes, load_data
from timebox.errors import TimeboxError, UsageError
from timebox.evaluation.metrics import ClassMetrics, confusion_matrix, macro_averages, per_class_metrics
from timebox.jobs.data import split_data
from timebox.reporter import Reporter, SilentReporter
from timebox.run.files import read_training_hashes
from timebox.run.run import Run


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The metrics of a run on a split.

    Attributes:
        num_images, num_images_total: images scored, of how many the split has.
        num_seen_in_training: how many of the scored images, pixel for pixel, the run was trained on.
        balanced_accuracy, macro_precision, macro_f1: means over the classes; balanced accuracy is that of the recall.
        confusion: int64 (num_classes, num_classes), rows the true class, columns the predicted one.
    """

    run: str
    data: str
    split: str
    accuracy: float
    num_images: int
    num_images_total: int
    num_seen_in_training: int
    tta: str
    seconds: float
    balanced_accuracy: float
    macro_precision: float
    macro_f1: float
    classes: tuple[ClassMetrics, ...]
    confusion: NDArray[np.int64]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        return {
            **{name: value for name, value in vars(self).items() if name not in ("classes", "confusion", "notes")},
            "classes": [asdict(one) for one in self.classes],
            "confusion": self.confusion.tolist(),
            "notes": list(self.notes),
        }


def evaluate(
    run: str | Path | Run,
    data: str | Path,
    *,
    split: str | None = None,
    test_limit: int | None = None,
    tta: str = "recipe",
    device: str = "auto",
    data_dir: str | Path | None = None,
    max_bad_share: float = 0.1,
    cache: bool = True,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Score a run on a data set.

    Args:
        run: a run, or its directory.
        data: a path or a name; its classes must be among the run's.
        split: ``test``, ``val``, ``train`` or ``all``. Parts the run itself cut from these data are cut again in the
            same way, those it held out in another place read there. Default: the data's own test split, else the part
            the run held out, else everything.
        test_limit: score a class-balanced cut of so many images.
        tta: ``recipe`` (as the run was scored), ``none``, ``mirror``, ``shift`` or ``mirror_shift``.
        device: ``auto``, ``cpu`` or ``cuda``, where ``run`` is a directory.
        data_dir: where named data sets are looked for.
        max_bad_share: share of unreadable files, 0...1, above which the data are refused.
        cache: whether decoded images are kept on disk for the next run, see :func:`timebox.data.load_data`.
    Raises:
        RunError, DataError, UsageError: for a run, data or a split that are not there or do not fit.

    >>> import timebox
    >>> evaluation = timebox.evaluate("runs/demo", "photos", split="test")
    >>> evaluation.num_images, evaluation.confusion.shape
    (12, (2, 2))
    """
    started = now()
    reporter = reporter or SilentReporter()
    config = EvaluateConfig.from_call({**locals(), "run": run.path if isinstance(run, Run) else run})
    run = run if isinstance(run, Run) else Run(run, device)
    source = DataConfig.of_run(run.config, run.path)
    reporter.phase("reading")

    def read(path: str, side: int | None, progress: Callable[[str], None] | None = None) -> LoadedData:
        return load_data(
            path,
            image_size=side,
            coarse=source.coarse,
            data_dir=Path(config.data_dir) if config.data_dir else None,
            max_bad_share=config.max_bad_share,
            cache=config.cache,
            fit=run.recipe.image_fit,
            progress=progress,
        )

    loaded = read(config.data, run.preprocessing.square_side, reporter.note)
    name, dataset = _choose(split, loaded.splits, source, run, read)
    dataset = align_labels(dataset, run.class_names, run.preprocessing.image_shape, str(data), run.recipe.image_fit)
    num_total = len(dataset)
    if test_limit is not None:
        if test_limit > num_total:
            raise UsageError(f"test_limit {test_limit} must be between 1 and the {num_total} images of {name!r}")
        dataset = dataset.take(balanced_cut(dataset.labels, test_limit, source.split_seed)[0])
    reporter.phase("scoring")
    predicted = run.predict_proba(dataset.images, tta).argmax(1)
    confusion = confusion_matrix(dataset.labels, predicted, len(run.class_names))
    classes = per_class_metrics(run.class_names, confusion)
    return Evaluation(
        run=str(run.path),
        data=str(data),
        split=name,
        accuracy=float((predicted == dataset.labels).mean()),
        num_images=len(dataset),
        num_images_total=num_total,
        num_seen_in_training=int(np.isin(image_hashes(dataset.images), read_training_hashes(run.path)).sum()),
        tta=run.views(tta),
        seconds=round(now() - started, 3),
        **macro_averages(classes),
        classes=classes,
        confusion=confusion,
        notes=loaded.notes,
    )


def _choose(
    split: str | None,
    splits: SourceSplits,
    source: DataConfig,
    run: Run,
    read_other: Callable[[str, int | None], LoadedData],
) -> tuple[str, ImageDataset]:
    """The requested split; by default the data's own test split, else the images that the run held out, else all."""
    parts = dict(splits.items())
    if split == "all":
        return split, _all_images(splits)
    if split is None and "test" in parts:
        return "test", parts["test"]
    own_test = {name: part for name, part in parts.items() if name == "test"}
    # Validation or test images that lie in another place are read only if their split is requested.
    place = {"val": source.val, "test": source.test}.get(str(split))
    read = read_other if isinstance(place, str) else None
    parts |= _splits_of_the_run(splits, source, run, read) | own_test
    if split is None:
        split = next((name for name in ("test", "val") if name in parts), "all")
    if split == "all":
        return split, _all_images(splits)
    if split not in parts:
        raise UsageError(f"split {split!r}: these data have none, and the run held none out of them; use --split all")
    return split, parts[split]


def _splits_of_the_run(
    splits: SourceSplits, source: DataConfig, run: Run, read: Callable[[str, int | None], LoadedData] | None
) -> dict[str, ImageDataset]:
    """The data split as for the run's training, if they are the data it was trained on; else nothing."""
    try:
        data_splits = split_data(splits, source, read)
    except TimeboxError:
        return {}
    trained_on = np.sort(image_hashes(data_splits.train.images))
    if not np.array_equal(trained_on, read_training_hashes(run.path)):
        return {}
    parts = {"train": data_splits.train, "val": data_splits.val, "test": data_splits.test}
    return {name: part for name, part in parts.items() if part is not None}


def _all_images(splits: SourceSplits) -> ImageDataset:
    parts = [dataset for _, dataset in splits.items()]
    if len(parts) == 1:
        return parts[0]
    return ImageDataset(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        parts[0].class_names,
        tuple(f"{name}/{id}" for name, part in splits.items() for id in part.ids),
    )
