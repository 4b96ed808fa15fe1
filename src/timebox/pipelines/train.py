"""``timebox train``: from images and a deadline to a run directory."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from timebox.clock import Deadline, parse_budget
from timebox.data import IN_MEMORY, DataSplits, ImageDataset, image_hashes, parse_split_size
from timebox.distributed.process_group import ProcessGroup
from timebox.errors import UsageError
from timebox.jobs.config import TrainConfig, arguments_given, check_train_config, image_form, is_planned
from timebox.jobs.data import DataConfig, DatasetReader
from timebox.jobs.fit import keep_partial_run, run_job
from timebox.jobs.initial_weights import InitialWeights
from timebox.jobs.job import TrainingJob
from timebox.jobs.main_rank import find_started_run, joined_as_main_rank, save_ranks_record
from timebox.jobs.messages import broadcast_read_data
from timebox.jobs.worker import run_worker
from timebox.machine import is_torchrun, is_worker_rank
from timebox.pipelines.resume import ExistingRun
from timebox.planning.image_size import largest_side_for
from timebox.planning.planner import ScoringLoad, make_plan
from timebox.recipe import AUTO
from timebox.reporter import Reporter, SilentReporter
from timebox.run.directories import check_output_directory
from timebox.run.run import Run
from timebox.run.writer import RunWriter
from timebox.runtime.device import resolve_device
from timebox.runtime.torch_state import preserve_torch_state

# What may be given beside a run that is resumed or replayed; everything else is the run's own.
BESIDE_RESUME = ("data", "budget", "data_dir", "max_bad_share", "cache", "reporter", "deadline", "resume")
BESIDE_REPLAY = ("data", "out", "overwrite", "data_dir", "max_bad_share", "cache", "reporter", "deadline", "replay")


def train(
    data: str | Path | ImageDataset | None = None,
    *,
    budget: str | float | None = None,
    steps: int | None = None,
    recipe: str = AUTO,
    settings: Sequence[str] = (),
    val: str | Path | float | None = None,
    test: str | Path | float | None = None,
    train_limit: int | None = None,
    test_limit: int | None = None,
    scoring: bool = True,
    thumbnails: bool = True,
    split_seed: int = 0,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    init: str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: str | Path | None = None,
    replay: str | Path | None = None,
    data_dir: str | Path | None = None,
    coarse: bool = False,
    group_by: str | None = None,
    max_bad_share: float = 0.1,
    cache: bool = True,
    reporter: Reporter | None = None,
    deadline: Deadline | None = None,
) -> Run:
    """Train a classifier on labelled images before a deadline, and write a run directory.

    Several processes that ``torchrun`` started with the same arguments train together; the run lies on the host of
    rank 0. On another host there is none to return afterwards, and RunError is raised.

    Args:
        data: a path, a name (``cifar10``, ``cifar100``, ``mnist``, ``digits``), or images in memory. With ``resume`` or
            ``replay``: where the run's data lie now, if they were moved or in memory.
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
        scoring: False leaves val and test for :func:`timebox.evaluate`: they are held out, none of the budget goes into
            scoring them, and no report is written.
        thumbnails: whether the report shows images of the data; they are kept in the run directory too.
        split_seed: decides cuts and splits; ``seed`` decides the training.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto`` (the measured fastest), ``fp32``, ``bf16`` or ``fp16``.
        init: a run, or its model.safetensors, whose weights to begin with. The network is its, with a new head where
            classes are not among its own.
        out: run directory, default ``runs/<data>-<date>-<time>``. One that holds anything is refused; ``overwrite``
            replaces a run once the new one is whole.
        resume: a run that was stopped or killed: goes on from its last checkpoint, with the budget less what was used
            up to it, or with a new ``budget``. Everything else is the run's own.
        replay: a finished run: takes the same steps again and compares the weights.
        data_dir: where named data sets are looked for and downloaded to.
        coarse: the 20 superclasses of CIFAR-100.
        group_by: a regular expression for the images' paths; those for which it finds the same (its first group, or the
            whole) stay together when images are split, such as the frames of a video.
        max_bad_share: share of unreadable files, 0...1, above which the data are refused.
        cache: whether decoded images are kept on disk for the next run, see :func:`timebox.data.load_data`.
        reporter: is told the course of things.
        deadline: a clock already running, in place of ``budget``.
    Returns:
        The finished run. Where Ctrl-C came after the first checkpoint, the run as far as it came: its summary says
        ``stopped``.
    Raises:
        UsageError, BudgetError: for arguments that cannot work, before anything is written.
        DataError: for data that cannot be read. OutputError: for a directory that cannot be written to.
        RunError: for a run that cannot be resumed or replayed. LostMembersError: where a process is gone.

    >>> import timebox
    >>> run = timebox.train("photos", steps=20, test=0.2, out="runs/first")
    >>> run.class_names, run.summary["steps"]
    (('blue', 'red'), 20)
    """
    given = arguments_given(train, locals())
    if deadline is None:
        deadline = Deadline(None if budget is None else parse_budget(budget))
    reporter = reporter or SilentReporter()
    in_memory = data if isinstance(data, ImageDataset) else None
    data = IN_MEMORY if in_memory is not None else data
    reader = DatasetReader(
        Path(data_dir) if data_dir else None, max_bad_share, reporter.note, deadline, in_memory, cache
    )
    if is_worker_rank():
        return Run(run_worker(resolve_device(device), deadline, reader), device)
    if resume is not None or replay is not None:
        _refuse_beside(given, BESIDE_REPLAY if resume is None else BESIDE_RESUME)
        path = Path(str(resume if replay is None else replay))
        continuation = ExistingRun(path, None if data is None else str(data), reader, deadline, reporter)
        with preserve_torch_state(), joined_as_main_rank(continuation.device, deadline) as group:
            if deadline.budget_seconds is not None and (started := find_started_run(group, path, deadline)):
                return continuation.go_on(group, started)
            if resume is not None:
                return continuation.resume(group, "budget" in given or deadline.budget_seconds is not None)
            return continuation.replay(group, Path(out) if out else _default_out(f"{path.name}-replay"), overwrite)
    if data is None:
        raise UsageError("say what to train on: a path, or a name such as digits")
    source = DataConfig(
        data=str(data),
        val=parse_split_size(str(val) if isinstance(val, Path) else val, "val"),
        test=parse_split_size(str(test) if isinstance(test, Path) else test, "test"),
        train_limit=train_limit,
        test_limit=test_limit,
        split_seed=split_seed,
        coarse=coarse,
        group_by=group_by,
    )
    request = TrainConfig(
        source,
        recipe,
        tuple(settings),
        seed,
        precision,
        steps,
        scoring,
        thumbnails,
        None if init is None else str(init),
    )
    check_train_config(request, deadline)
    initial = None if init is None else InitialWeights.read(Path(init))
    training_device = resolve_device(device)
    side, fit = image_form(request.recipe, request.settings)
    if is_planned(recipe):
        reader.largest_side = largest_side_for(deadline.budget_seconds, training_device)
    asked_out = Path(out) if out else None
    if asked_out and not is_torchrun():
        check_output_directory(asked_out, overwrite)
    with preserve_torch_state(), joined_as_main_rank(training_device, deadline) as group:
        started = find_started_run(group, asked_out, deadline)
        if started and started.can_be_continued:
            return ExistingRun(started.path, None, reader, deadline, reporter).go_on(group, started)
        reporter.phase("reading")
        with deadline.phase("reading"):
            loaded, data_splits = reader.divided(source, side, fit)
            broadcast_read_data(group, source, side, fit, data_splits)
        started_anew = started.path if started else None
        writer = RunWriter.new(asked_out or started_anew or _default_out(loaded.name), overwrite or started is not None)
        with keep_partial_run(writer, deadline, reporter, group):
            save_ranks_record(
                group, writer.path, deadline, started.record.failures if started else group.failures_before_restart()
            )
            job = _planned(writer, request, data_splits, training_device, deadline, reporter, initial, group)
            run_job(job, loaded, writer, deadline, reporter, group)
    return Run(writer.path, device)


def _planned(
    writer: RunWriter,
    request: TrainConfig,
    data_splits: DataSplits,
    device: torch.device,
    deadline: Deadline,
    reporter: Reporter,
    initial: InitialWeights | None,
    group: ProcessGroup,
) -> TrainingJob:
    reporter.phase("planning")
    with deadline.phase("planning"):
        hashes = image_hashes(data_splits.train.images)
        writer.save_training_hashes(hashes)
        scored = (data_splits.val, data_splits.test) if request.scoring else (None, None)
        plan = make_plan(
            request.recipe,
            initial.settled(request.recipe, request.settings) if initial else request.settings,
            data_splits.train,
            ScoringLoad(_num_images(scored[0]), _num_images(scored[1]), request.scoring),
            device,
            request.precision,
            deadline,
            request.num_steps,
            writer.write_speed,
            request.source.data,
            group,
        )
        for name, part in (("val", scored[0]), ("test", scored[1])):
            if part is not None and (seen := int(np.isin(image_hashes(part.images), hashes).sum())):
                reporter.note(f"{seen:,} of {len(part):,} images of {name} are trained on too, pixel for pixel")
        for line in plan.lines:
            reporter.note(line)
        return TrainingJob.of(request, plan, data_splits, deadline.budget_seconds, initial)


def _num_images(part: ImageDataset | None) -> int:
    return 0 if part is None else len(part)


def _refuse_beside(given: set[str], allowed: Sequence[str]) -> None:
    if surplus := sorted(given - set(allowed)):
        raise UsageError(
            f"{', '.join(surplus)} cannot be given with {allowed[-1]}: all of that is the run's own; "
            f"allowed are {', '.join(allowed[:-3])}"
        )


def _default_out(name: str) -> Path:
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
