"""``timebox tune``: search for the best recipe, and train with it, under one deadline."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from timebox.clock import Deadline, format_duration
from timebox.configs.call import refuse_unknown_arguments
from timebox.configs.options import budget_text
from timebox.configs.storage_url import is_same_storage, is_url, without_password
from timebox.configs.tune import MIN_BUDGET_SECONDS, TuneConfig
from timebox.data import ImageDataset
from timebox.errors import BudgetError, RunError, UsageError, option_text
from timebox.files import check_free
from timebox.jobs.data import DatasetReader, split_data
from timebox.jobs.job import sha256_of
from timebox.paths import shell_quote
from timebox.planning.auto import candidate_scales
from timebox.planning.dataset_profile import DatasetProfile
from timebox.planning.image_size import largest_side_for
from timebox.progress import progress_lines
from timebox.recipes import AUTO, Recipe, RecipeLike, RecipeSpec, check_trial_code, parse_recipe, recipe_request
from timebox.run.directories.output import make_default_directory, resolve_link
from timebox.run.run import Run
from timebox.runtime.device import resolve_device
from timebox.tuning import study as studies
from timebox.tuning.directory import JOURNAL, TuneDirectory
from timebox.tuning.search_runner import CHECK_END, SearchRunner
from timebox.tuning.space import default_space, read_space
from timebox.tuning.storage import check_journal, open_storage
from timebox.tuning.study import REDUCTION_FACTOR, SearchSpec
from timebox.tuning.trial import MAX_VAL_IMAGES
from timebox.tuning.worker import WorkerConfig, run_worker
from timebox.version import VERSION

# Planning takes most of a shorter training.
MIN_RUNG_SECONDS = 5.0
# Held out where the data have no validation split; the final run trains on it too.
VAL_SHARE = 0.2
# The workers of a killed search have ended after this time.
ORPHANS_SECONDS = 1.0
MIN_MEAN_IMAGES_PER_CLASS = 20

Notify = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Tuned:
    """The result of a search.

    Attributes:
        path: its directory, with best.toml, trials.jsonl, tune.html and the final run.
        run: the final run.
        summary: the content of summary.json.
    """

    path: Path
    run: Run
    summary: Mapping[str, Any]


@refuse_unknown_arguments
def tune(
    data: str | Path | None = None,
    *,
    budget: str | float | None = None,
    trial_budget: str | float | None = None,
    recipe: RecipeLike = AUTO,
    settings: Sequence[str] = (),
    space: str | Path | None = None,
    sampler: str = "tpe",
    storage: str | None = None,
    study: str | None = None,
    workers: int = 1,
    val: str | Path | float | None = None,
    test: str | Path | float | None = None,
    train_limit: int | None = None,
    split_seed: int = 0,
    seed: int = 0,
    coarse: bool = False,
    class_depth: int | None = None,
    group_by: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    data_dir: str | Path | None = None,
    max_bad_share: float = 0.1,
    cache: bool = True,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    trust_code: bool = False,
    progress: bool = True,
    notify: Notify | None = None,
    deadline: Deadline | None = None,
) -> Tuned:
    """Search for a better recipe, and train with the best one, before one deadline.

    Half the budget goes into trials on a subset of the training images. A trial is a whole training under a third of
    ``trial_budget``; the best third of the trials is trained again under all of it. Then the top trials are trained
    with other seeds, and the best one on average is compared with the starting recipe on all images. The final run
    trains with the winner on all images until the deadline; the starting recipe wins where no trial is better.
    Recipes are compared by validation accuracy alone; the test split is read once, by the final run.

    Args:
        data: a path, or a name (``cifar10``, ``cifar100``, ``mnist``, ``digits``).
        budget: the deadline of the whole search, in seconds or as text such as ``"1h"``; 80 seconds or more.
        trial_budget: of one training; default a sixtieth of the budget, from 4 to 60 s.
        recipe, settings: the starting recipe; as of :func:`timebox.train`.
        space: a TOML file with the fields to search, see :func:`timebox.tuning.space.read_space`. Default: all fields
            whose declaration has a search range.
        sampler: ``tpe`` (a pattern search with a tree-structured Parzen estimator, Bergstra et al. 2011) or ``random``.
        storage: URL of a database that Optuna supports, so that other machines can help. Default: a file in ``out``.
        study: name of the search in the storage; default ``<data>-<date>-<time>``.
        workers: processes that run trials on this machine. They share its cores.
        val: as of :func:`timebox.train`; default the data's own validation split, else ``"rest"`` with ``train_limit``,
            else a fifth.
        test, train_limit, split_seed, coarse, class_depth, group_by, device, precision, data_dir, max_bad_share,
            cache: as of :func:`timebox.train`.
        seed: of the search and of the final run.
        out: the directory, new or empty. Default ``runs/tune-<data>-<date>-<time>``.
        resume: directory of a search that was stopped or killed. Its trials are kept; it continues with the rest of its
            budget, or with a new ``budget`` for the whole search. Its ``storage`` must be given again, if it has one.
        trust_code: with ``resume``: whether to import the code that the recipe names, see :func:`timebox.load`.
        progress: whether lines of progress are printed, where stderr is a terminal or the call comes from a notebook.
        notify: called with each line in place of that.
        deadline: a running clock, in place of ``budget``.
    Returns:
        The final run and the results of the search.
    Raises:
        UsageError, BudgetError: for invalid arguments, a storage that cannot be reached, a study of other data or of
        another version. DataError: for data that cannot be read. OutputError: for a directory that cannot be written.
        RunError: for a search that cannot be resumed.

    >>> import timebox
    >>> tuned = timebox.tune("photos", budget="80s", out="runs/tune")
    >>> tuned.path.name, tuned.summary["late"]
    ('tune', False)
    """
    config = TuneConfig.from_call({**locals(), **recipe_request(recipe, settings, {}, trust_code)})
    deadline = deadline or Deadline.since_call(config.budget)
    notify = progress_lines(notify, progress)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if config.resume is not None:
        return _resume(config, deadline, notify)
    with closing(_set_up(config, deadline, notify)) as directory:  # frees the images that it read
        return _run(directory, config.storage or str(directory.path / JOURNAL), deadline, notify)


def join(config: TuneConfig) -> int:
    """Run trials for ``config.join``, a search of another machine, until it ends; returns their number.

    Of the other options, only ``storage``, the data and the device have an effect. Raises UsageError for a storage or a
    study that cannot be used.
    """
    number, name = time.time_ns() % 1_000_000, f"join-{time.time_ns():x}"
    return run_worker(
        WorkerConfig.of(
            config,
            storage=config.storage,
            study=config.join,
            number=number,
            name=name,
            trust_code=config.trust_code,
        )
    )


def _set_up(config: TuneConfig, deadline: Deadline, notify: Notify) -> TuneDirectory:
    """Read the data, and create the directory and the study with its first trials."""
    draft = parse_recipe(config.recipe, config.settings)
    check_trial_code(config.recipe, config.settings, config.trust_code)
    space = default_space(draft) if config.space is None else read_space(config.space)
    device = resolve_device(config.device)
    if config.out:
        check_free(Path(config.out), "search")
    storage = open_storage(config.storage) if config.storage else None
    final_seconds = (1 - CHECK_END) * config.budget_seconds
    reader = DatasetReader(config.data_dir, config.max_bad_share, notify, deadline, cache=config.cache)
    side, fit = draft.image_form
    if draft.extends_auto:
        reader.largest_side = largest_side_for(final_seconds, device)
    source = config.source
    loaded, data_splits = reader.read_splits(source, side, fit)
    has_own_val = config.val is None and loaded.splits.val is not None
    if config.val is None and not has_own_val:
        source = source.replace(val=VAL_SHARE if config.train_limit is None else "rest")
        data_splits = split_data(loaded.splits, source, None, fit)
    if data_splits.val is None:
        raise UsageError(f"{source.data!r} leaves no validation images: hold some out with {option_text('val')}")
    height, width, _ = data_splits.train.image_shape
    spec = SearchSpec(
        source=source,
        data_sha256=sha256_of(data_splits.train),
        recipe=config.recipe,
        settings=config.settings,
        space=space.to_json(),
        sampler=config.sampler,
        seed=config.seed,
        precision=config.precision,
        image_size=height if height == width else None,
        image_fit=fit,
        val_is_apart=has_own_val or (isinstance(config.val, str) and config.val != "rest"),
        num_images=_num_trial_images(data_splits.train, config.trial_seconds, final_seconds),
        rungs=_rungs(config.trial_seconds),
        ends_at=0.0,
    )
    date = time.strftime("%Y%m%d-%H%M%S")
    study_name = config.study or f"{Path(source.data).stem}-{date}"
    path = resolve_link(Path(config.out)) if config.out else make_default_directory(f"tune-{loaded.name}")
    config = config.replace(study=study_name, trial_budget=budget_text(config.trial_seconds))
    directory = TuneDirectory.new(path, config)
    try:
        study = studies.create(storage or open_storage(str(directory.path / JOURNAL)), study_name, spec)
        start = space.start_values(_starting_recipe(draft, data_splits.train))
        studies.enqueue(study, start, (), ())
        if config.sampler != "random":
            for name, params in space.screening_trials(start):
                studies.enqueue(study, params, space.settings(params, (name,)), (name,))
        budgets = " and ".join(f"{seconds:.0f}s" for seconds in spec.rungs)
        notify(
            f"{len(space.distributions)} fields are searched, by trainings of {budgets} on {spec.num_images:,} of "
            f"{len(data_splits.train):,} images; validation on {min(len(data_splits.val), MAX_VAL_IMAGES):,} others"
        )
    except BaseException:
        directory.close()
        raise
    return directory


def _resume(request: TuneConfig, deadline: Deadline, notify: Notify) -> Tuned:
    """Continue a search; its ``storage`` is given once more."""
    path, storage = resolve_link(Path(str(request.resume))), request.storage
    with closing(TuneDirectory.existing(path)) as directory:
        config = directory.config
        check_trial_code(config.recipe, config.settings, request.trust_code)
        _check_storage(storage, config.storage)
        storage = storage or str(path / JOURNAL)
        if deadline.budget_seconds is None and directory.is_finished:
            longer = f"give a longer {option_text('budget')} for all of it"
            raise RunError(f"search {str(path)!r} is finished: to go on with it, {longer}")
        if deadline.budget_seconds is not None:
            directory.save_config(config := config.replace(budget=deadline.budget_seconds))
        deadline = Deadline(config.budget_seconds, deadline.started_at)
        deadline.add_earlier_phases({"before": directory.seconds_before})
        if deadline.remaining() < MIN_BUDGET_SECONDS * (1 - CHECK_END):
            raise BudgetError(
                f"of {format_duration(config.budget_seconds)} {format_duration(max(0.0, deadline.remaining()))} are "
                f"left, too little to train in: give a longer {option_text('budget')} for all of it"
            )
        if not is_url(storage):
            check_journal(Path(storage))
        if (version := studies.adopt_version(open_storage(storage), directory.study_name)) != VERSION:
            notify(f"the search was begun by timebox {version}; it goes on with {VERSION}")
        if not is_url(storage):
            time.sleep(ORPHANS_SECONDS)
            study, _ = studies.load(open_storage(storage), directory.study_name)
            for trial in studies.running_trials(study):
                studies.fail_trial(study, trial, retry=True)
        return _run(directory, storage, deadline, notify)


def _check_storage(storage: str | None, recorded: str | None) -> None:
    """Raise UsageError unless the URL given is that of the search, or neither has one.

    A file may be somebody else's: the URL in it is compared, never opened.
    """
    own = recorded and without_password(recorded)
    if storage is None and own:
        raise UsageError(
            f"give {option_text('storage')} once more: the search keeps its trials in {own!r}, and a URL that only a "
            "file names is not opened"
        )
    if storage is not None and (recorded is None or not is_same_storage(storage, recorded)):
        where = f"the search's is {own!r}" if own else f"the search keeps its trials in its own {JOURNAL}"
        raise UsageError(f"storage {without_password(storage)!r} cannot be given: {where}")


def _run(directory: TuneDirectory, storage: str, deadline: Deadline, notify: Notify) -> Tuned:
    study, spec = studies.load(open_storage(storage), directory.study_name)
    # The study may be somebody else's: it may name only what the user has named, or trusts.
    check_trial_code(spec.recipe, spec.settings)
    try:
        run, summary = SearchRunner(directory, study, spec, storage, deadline, notify).run()
    except KeyboardInterrupt:
        again = f" --storage {shell_quote(without_password(storage))}" if is_url(storage) else ""
        notify(f"stopped; to go on: timebox tune --resume {shell_quote(directory.path)}{again}")
        raise
    return Tuned(directory.path, run, summary)


def _num_trial_images(train: ImageDataset, trial_seconds: float, final_seconds: float) -> int:
    """Number of training images of a trial: all of them times the square root of (trial budget / final budget).

    The ratio itself would give a trial as many epochs as the final run, but so few images that other recipes win. With
    all images a trial would have hardly an epoch.
    """
    wanted = round(len(train) * math.sqrt(min(1.0, trial_seconds / final_seconds)))
    return min(len(train), max(wanted, MIN_MEAN_IMAGES_PER_CLASS * train.num_classes))


def _starting_recipe(draft: RecipeSpec, train: ImageDataset) -> Recipe:
    """The starting recipe, planned for the data without a measurement of this machine's speed."""
    if draft.fixed:
        return draft.fixed
    profile = DatasetProfile(len(train), min(train.image_shape[:2]), train.num_classes, mirror_allowed=True)
    return candidate_scales(profile, draft.overrides)[0][1]


def _rungs(trial_seconds: float) -> tuple[float, ...]:
    lowest = trial_seconds / REDUCTION_FACTOR
    return (lowest, trial_seconds) if lowest >= MIN_RUNG_SECONDS else (trial_seconds,)
