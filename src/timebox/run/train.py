"""``timebox train``: from images and a deadline to a run directory."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from timebox.clock import Deadline, now, parse_budget
from timebox.data import (
    Division,
    LoadedData,
    channel_statistics,
    image_hashes,
    load_data,
    parse_portion,
)
from timebox.engine.build import resolve_device
from timebox.engine.plan import Scoring, make_plan
from timebox.engine.reporting import Reporter, SilentReporter
from timebox.recipe import AUTO
from timebox.run.directory import RunWriter, check_free
from timebox.run.request import Request, check_request, image_side
from timebox.run.run import Run
from timebox.run.sources import Source, division_from
from timebox.run.task import Task, prediction_columns


def train(
    data: str | Path,
    *,
    budget: str | float | None = None,
    steps: int | None = None,
    recipe: str = AUTO,
    settings: Sequence[str] = (),
    val: str | Path | float | None = None,
    test: str | Path | float | None = None,
    train_limit: int | None = None,
    test_limit: int | None = None,
    split_seed: int = 0,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    out: str | Path | None = None,
    overwrite: bool = False,
    data_dir: str | Path | None = None,
    coarse: bool = False,
    max_bad_share: float = 0.1,
    reporter: Reporter | None = None,
    deadline: Deadline | None = None,
) -> Run:
    """Train a classifier on labelled images before a deadline, and write a run directory.

    Args:
        data: a path, or a name (``cifar10``, ``cifar100``, ``mnist``, ``digits``).
        budget: the deadline, seconds or text such as ``"10m"``: from this call to its return, everything included but a
            first-time download. Either ``budget`` or ``steps`` is given.
        steps: train for this many steps and read no clock: the same seed, data, thread count and machine give the same
            weights, byte for byte on a CPU.
        recipe: ``auto``, a built-in recipe or a TOML file.
        settings: ``"FIELD=VALUE"`` texts that override the recipe.
        val: share of the training images to validate on (0...1), a path, ``"rest"`` (what ``train_limit`` left out) or
            ``"none"``. Default: the data's own validation split, else a tenth.
        test: share, path or ``"none"``. Default: the data's own test split, else none.
        train_limit, test_limit: seeded, class-balanced cuts to so many images.
        split_seed: decides cuts and splits; ``seed`` decides the training.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto`` (the measured fastest), ``fp32``, ``bf16`` or ``fp16``.
        out: run directory, default ``runs/<data>-<date>-<time>``. One that holds anything is refused; ``overwrite``
            replaces a run once the new one is whole.
        data_dir: where named data sets are looked for and downloaded to.
        coarse: the 20 superclasses of CIFAR-100.
        max_bad_share: share of unreadable files, 0...1, above which the data are refused.
        reporter: is told the course of things.
        deadline: a clock already running, in place of ``budget``.
    Returns:
        The finished run.
    Raises:
        UsageError, BudgetError: for arguments that cannot work, before anything is written.
        DataError: for data that cannot be read. OutputError: for a directory that cannot be written to.
    """
    if deadline is None:
        deadline = Deadline(None if budget is None else parse_budget(budget))
    source = Source(
        data=str(data),
        val=parse_portion(str(val) if isinstance(val, Path) else val, "val"),
        test=parse_portion(str(test) if isinstance(test, Path) else test, "test"),
        train_limit=train_limit,
        test_limit=test_limit,
        split_seed=split_seed,
        coarse=coarse,
    )
    request = Request(source, recipe, tuple(settings), seed, precision, steps)
    check_request(request, deadline)
    training_device = resolve_device(device)
    reporter = reporter or SilentReporter()
    side = image_side(request)
    if out:
        check_free(Path(out), overwrite)

    def read(path: str | Path, image_size: int | None) -> LoadedData:
        loaded = load_data(
            path,
            image_size=image_size,
            coarse=coarse,
            data_dir=Path(data_dir) if data_dir else None,
            max_bad_share=max_bad_share,
            progress=reporter.note,
        )
        deadline.leave_out(loaded.download_seconds)
        return loaded

    reporter.phase("reading")
    with deadline.phase("reading"):
        loaded = read(data, side)
        division = division_from(loaded.splits, source, read)
        hashes = image_hashes(division.train.images)
    for note in (*loaded.notes, *_bad_file_note(loaded)):
        reporter.note(note)

    writer = RunWriter(Path(out) if out else _default_out(loaded.name), overwrite)
    try:
        with _restored_state():
            _fill(writer, request, loaded, division, hashes, training_device, deadline, reporter)
    except BaseException:
        if writer.give_up():
            reporter.note(f"the trained model is kept in {writer.path}")
        raise
    return Run(writer.path, device)


def _fill(
    writer: RunWriter,
    request: Request,
    loaded: LoadedData,
    division: Division,
    hashes: NDArray[np.uint64],
    device: torch.device,
    deadline: Deadline,
    reporter: Reporter,
) -> None:
    """Plan, train, save, score: everything that happens inside a run directory."""
    reporter.phase("planning")
    with deadline.phase("planning"):
        before = now()
        writer.save_seen(hashes)
        saving_seconds = now() - before
        plan = make_plan(
            request.recipe,
            request.settings,
            division.train,
            _scoring_of(division),
            device,
            request.precision,
            deadline,
            request.num_steps,
            saving_seconds,
            request.source.data,
        )
        for line in plan.lines:
            reporter.note(line)
    with deadline.phase("preparing"):
        mean, std = channel_statistics(division.train.images)
        # A channel that never changes has no spread to divide by.
        task = Task(request, plan, division, torch.tensor(mean), torch.tensor(std).clamp_min(1 / 255))
    reporter.phase("training")
    with deadline.phase("training"):
        trained = task.train(writer, deadline, reporter)
    reporter.phase("saving")
    with deadline.phase("saving"):
        writer.save_model(trained.model, task.config())
    reporter.phase("scoring")
    with deadline.phase("scoring"):
        scores = task.score(trained, deadline)
    reporter.phase("saving")
    with deadline.phase("saving"):
        if scores:
            writer.save_predictions(prediction_columns(scores))
        writer.save_summary(task.summary(loaded, trained, scores, deadline))
        writer.finish()


def _scoring_of(division: Division) -> Scoring:
    return Scoring(*(0 if part is None else len(part) for part in (division.val, division.test)))


def _bad_file_note(loaded: LoadedData) -> list[str]:
    if not loaded.bad_files:
        return []
    first = loaded.bad_files[0]
    return [f"{len(loaded.bad_files)} unreadable files left out, the first {first.path!r}: {first.reason}"]


def _default_out(name: str) -> Path:
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


@contextmanager
def _restored_state() -> Iterator[None]:
    """A guest leaves the host's random state and backend flags as they were."""
    benchmark = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
