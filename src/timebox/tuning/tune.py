"""``timebox tune``: the best recipe that can be found under one deadline, and the run trained by it."""

import math
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import optuna

from timebox.clock import Deadline, format_duration, parse_budget
from timebox.configs.data import DataConfig
from timebox.configs.options import check_budget_length
from timebox.configs.train import TrainConfig
from timebox.data import ImageDataset, parse_split_size
from timebox.errors import BudgetError, RunError, UsageError
from timebox.files import check_free
from timebox.jobs.config import arguments_given, image_form, is_planned
from timebox.jobs.data import DatasetReader, split_data
from timebox.jobs.job import sha256_of
from timebox.planning.auto import scales_for
from timebox.planning.dataset_profile import DatasetProfile
from timebox.planning.image_size import largest_side_for
from timebox.recipe import AUTO, Draft, Recipe, draft_of
from timebox.run.run import Run
from timebox.runtime.device import resolve_device
from timebox.tuning import study as studies
from timebox.tuning.directory import JOURNAL, Asked, TuneDirectory
from timebox.tuning.search_runner import CHECK_ENDS, Conductor, Tell
from timebox.tuning.space import default_space, read_space
from timebox.tuning.storage import HIDDEN, is_url, open_storage, without_password
from timebox.tuning.study import REDUCTION, SAMPLERS, Search
from timebox.tuning.trial import MOST_VAL_IMAGES
from timebox.tuning.worker import work
from timebox.version import VERSION

# What may be given beside a search that is resumed.
BESIDE_RESUME = ("resume", "budget", "storage", "tell", "deadline")
# A search without a budget for its trials gives one this share of its own, within these bounds in seconds.
TRIAL_SHARE, SHORTEST_TRIAL, LONGEST_TRIAL = 1 / 60, 4.0, 60.0
# A budget holds so many trials of the longest that there may be.
LONGEST_TRIALS = 15
# Shorter trainings than this are mostly planning.
SHORTEST_RUNG = 5.0
# A search that is shorter has no time for its parts.
SHORTEST_BUDGET = 80.0
# Where the data have no validation split of their own, this share is held out. It is trained on in the end.
VAL_SHARE = 0.2
# Workers of a search that was killed have ended after so long.
ORPHANS_SECONDS = 1.0
# A cut has at least so many images for each class, on average.
FEWEST_OF_A_CLASS = 20


@dataclass(frozen=True, eq=False)
class Tuned:
    """What a search came to.

    Attributes:
        path: its directory, with best.toml, trials.jsonl, tune.html and the final run.
        run: the final run. summary: what is in summary.json.
    """

    path: Path
    run: Run
    summary: Mapping[str, object]


def tune(
    data: str | Path | None = None,
    *,
    budget: str | float | None = None,
    trial_budget: str | float | None = None,
    recipe: str = AUTO,
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
    group_by: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    data_dir: str | Path | None = None,
    max_bad_share: float = 0.1,
    cache: bool = True,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    notify: Tell | None = None,
    deadline: Deadline | None = None,
) -> Tuned:
    """Search for a better recipe, and train by the best one found, all before one deadline.

    Half the budget goes into trials on a cut of the data. A trial is a whole training under a third of
    ``trial_budget``; the better third of them is trained again under all of it. Then the leaders are trained with other
    seeds, so that the winner is not the luckiest, and once on all the data beside what was started from. The winner is
    trained on all images in the rest of the time; where it is not ahead of what was started from, that is. Everything
    is chosen by images held out; the test split is read by the final run alone.

    Args:
        data: a path, or a name (``cifar10``, ``cifar100``, ``mnist``, ``digits``).
        budget: the deadline of all of it, seconds or text such as ``"1h"``, 80 seconds or more.
        trial_budget: of one training; default a sixtieth of the budget, from 4 to 60 s.
        recipe, settings: what to start from; as of :func:`timebox.train`.
        space: a TOML file with the fields to search, see :func:`timebox.tuning.space.read_space`. Default: all whose
            declaration says where to look.
        sampler: ``tpe`` (a tree-structured Parzen estimator, Bergstra et al. 2011) or ``random``.
        storage: URL of a database that Optuna takes, so that other machines can help. Default: a file in ``out``.
        study: what the search is called there; default ``<data>-<date>-<time>``.
        workers: processes that carry out trials on this machine. They share its cores.
        val: as of :func:`timebox.train`; default the data's own validation split, else ``"rest"`` with ``train_limit``,
            else a fifth.
        test, train_limit, split_seed, coarse, group_by, device, precision, data_dir, max_bad_share, cache: as of
            :func:`timebox.train`.
        seed: of the search and of the final run.
        out: the directory, new or empty. Default ``runs/tune-<data>-<date>-<time>``.
        resume: a search that was stopped or killed: goes on with the trials done, and with the budget less what was
            used, or with a new ``budget`` for all of it. Of a ``storage`` with a password, give that too.
        tell: takes lines of progress.
        deadline: a clock already running, in place of ``budget``.
    Returns:
        The final run, and what led to it.
    Raises:
        UsageError, BudgetError: for arguments that cannot work, a storage that cannot be reached, a study of other data
        or of another version. DataError: for data that cannot be read. OutputError: for a directory that cannot be
        written to. RunError: for a search that cannot be resumed.

    >>> import timebox
    >>> tuned = timebox.tune("photos", budget="80s", out="runs/tune")
    >>> tuned.path.name, tuned.summary["late"]
    ('tune', False)
    """
    surplus = sorted(arguments_given(tune, locals()) - set(BESIDE_RESUME))
    if resume is not None and surplus:
        raise UsageError(f"{', '.join(surplus)} cannot be given with resume: all of that is the search's own")
    notify = notify or (lambda line: None)
    deadline = deadline or Deadline(None if budget is None else parse_budget(budget))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if resume is not None:
        return _resumed(Path(resume), storage, deadline, notify)
    asked = Asked(
        data=_needed(data),
        budget_seconds=_checked_budget(deadline.budget_seconds),
        trial_seconds=_trial_seconds(trial_budget, deadline.budget_seconds or 0.0),
        recipe=recipe,
        settings=tuple(settings),
        space=None if space is None else str(space),
        sampler=sampler,
        storage=storage,
        study=study or f"{Path(_needed(data)).stem}-{time.strftime('%Y%m%d-%H%M%S')}",
        workers=workers,
        val=parse_split_size(str(val) if isinstance(val, Path) else val, "val"),
        test=parse_split_size(str(test) if isinstance(test, Path) else test, "test"),
        train_limit=train_limit,
        split_seed=split_seed,
        seed=seed,
        coarse=coarse,
        group_by=group_by,
        data_dir=None if data_dir is None else str(data_dir),
        max_bad_share=max_bad_share,
        cache=cache,
        device=device,
        precision=precision,
    )
    with closing(_set_up(asked, out, deadline, notify)) as directory:  # what was read for it is let go
        return _conducted(directory, storage or str(directory.path / JOURNAL), deadline, notify)


def join(
    data: str | Path,
    *,
    storage: str,
    study: str,
    device: str = "auto",
    data_dir: str | Path | None = None,
    max_bad_share: float = 0.1,
    cache: bool = True,
) -> int:
    """Carry out trials for a search that another machine began, until it ends; how many.

    Args:
        data: where the same data are on this machine. storage: the database of the search. study: its name there.
    Raises:
        UsageError: as :func:`tune`.
    """
    if not is_url(storage):
        raise UsageError(f"storage {storage!r} must be a URL, such as postgresql://user@host/name")
    name = f"join-{time.time_ns():x}"
    number = time.time_ns() % 1_000_000
    return work(
        storage,
        study,
        number,
        name,
        str(data),
        None if data_dir is None else str(data_dir),
        max_bad_share,
        cache,
        device,
    )


def _set_up(asked: Asked, out: str | Path | None, deadline: Deadline, notify: Tell) -> TuneDirectory:
    """Check all that can be checked, read the data, and put on record what is to be searched."""
    draft = draft_of(asked.recipe, asked.settings)
    searched = default_space(draft) if asked.space is None else read_space(asked.space)
    _check(asked, deadline)
    training_device = resolve_device(asked.device)
    if out:
        check_free(Path(out), "search")
    opened = open_storage(asked.storage) if asked.storage else None
    final_seconds = (1 - CHECK_ENDS) * asked.budget_seconds
    reader = DatasetReader(
        Path(asked.data_dir) if asked.data_dir else None, asked.max_bad_share, notify, deadline, None, asked.cache
    )
    side, fit = image_form(asked.recipe, asked.settings)
    if is_planned(asked.recipe):
        reader.largest_side = largest_side_for(final_seconds, training_device)
    source = _source(asked)
    loaded, data_splits = reader.divided(source, side, fit)
    has_own = asked.val is None and loaded.splits.val is not None
    val_is_apart = has_own or (isinstance(asked.val, str) and asked.val != "rest")
    if asked.val is None and not has_own:
        source = source.replace(val=VAL_SHARE if asked.train_limit is None else "rest")
        data_splits = split_data(loaded.splits, source, None, fit)
    if data_splits.val is None:
        raise UsageError(f"{asked.data!r} leaves no images to choose by: hold some out with --val")
    height, width, _ = data_splits.train.image_shape
    num_images = _cut(len(data_splits.train), data_splits.train.num_classes, asked.trial_seconds, final_seconds)
    neutral = searched.neutral(_planned_for(draft, data_splits.train))
    search = Search(
        source=source.as_dict(),
        data_sha256=sha256_of(data_splits.train),
        recipe=asked.recipe,
        settings=asked.settings,
        space=searched.to_json(),
        sampler=asked.sampler,
        seed=asked.seed,
        precision=asked.precision,
        image_size=height if height == width else None,
        image_fit=fit,
        val_is_apart=val_is_apart,
        num_images=num_images,
        rungs=_rungs(asked.trial_seconds),
        ends_at=0.0,
    )
    directory = TuneDirectory.new(Path(out) if out else _default_out(loaded.name), asked)
    try:
        storage = asked.storage or str(directory.path / JOURNAL)
        started = studies.create(opened or open_storage(storage), asked.study, search)
        studies.enqueue(started, neutral, (), ())
        if asked.sampler != "random":
            for name, params in searched.probes(neutral):
                studies.enqueue(started, params, searched.settings(params, (name,)), (name,))
        budgets = " and ".join(f"{seconds:.0f}s" for seconds in search.rungs)
        notify(
            f"{len(searched.dimensions)} fields are searched, by trainings of {budgets} on {num_images:,} of "
            f"{len(data_splits.train):,} images, chosen by {min(len(data_splits.val), MOST_VAL_IMAGES):,} others"
        )
    except BaseException:
        directory.close()
        raise
    return directory


def _resumed(path: Path, given: str | None, deadline: Deadline, notify: Tell) -> Tuned:
    """Go on with a search. ``given``: its storage, whose password is not kept."""
    with closing(TuneDirectory.existing(path)) as directory:
        asked = directory.asked
        if given is not None and without_password(given) != asked.storage:
            raise UsageError(f"storage {without_password(given)!r} cannot be given: the search's is {asked.storage!r}")
        if given is None and asked.storage and HIDDEN in asked.storage:
            raise UsageError(f"give --storage once more: the password of {asked.storage!r} is not kept")
        storage = given or asked.storage or str(path / JOURNAL)
        if deadline.budget_seconds is None and directory.is_finished:
            raise RunError(f"search {str(path)!r} is finished: to go on with it, give a longer --budget for all of it")
        if deadline.budget_seconds is not None:
            directory.save_asked(asked := replace(asked, budget_seconds=deadline.budget_seconds))
        deadline = Deadline(asked.budget_seconds, deadline.started_at)
        deadline.add_earlier_phases({"before": directory.seconds_before})
        if deadline.remaining() < SHORTEST_BUDGET * (1 - CHECK_ENDS):
            raise BudgetError(
                f"of {format_duration(asked.budget_seconds)} {format_duration(max(0.0, deadline.remaining()))} are "
                "left, too little to train in: give a longer --budget for all of it"
            )
        if (version := studies.take_over(open_storage(storage), asked.study)) != VERSION:
            notify(f"the search was begun by timebox {version}; it goes on with {VERSION}")
        if not is_url(storage):
            time.sleep(ORPHANS_SECONDS)
            study, _ = studies.load(open_storage(storage), asked.study)
            for trial in studies.running(study):
                studies.give_up(study, trial, again=True)
        return _conducted(directory, storage, deadline, notify)


def _conducted(directory: TuneDirectory, storage: str, deadline: Deadline, notify: Tell) -> Tuned:
    study, search = studies.load(open_storage(storage), directory.asked.study)
    try:
        run, summary = Conductor(directory, study, search, storage, deadline, notify).run()
    except KeyboardInterrupt:
        notify(f"stopped; to go on: timebox tune --resume {shlex.quote(str(directory.path))}")
        raise
    return Tuned(directory.path, run, summary)


def _needed(data: str | Path | None) -> str:
    if data is None:
        raise UsageError("say what to train on: a path, or a name such as digits")
    return str(data)


def _checked_budget(seconds: float | None) -> float:
    if seconds is None:
        raise UsageError("give a budget for all of it, for example --budget 1h")
    if seconds < SHORTEST_BUDGET:
        raise BudgetError(
            f"budget {format_duration(seconds)} is too short for a search; use at least {SHORTEST_BUDGET:.0f}s, or "
            "`timebox train`"
        )
    return seconds


def _trial_seconds(trial_budget: str | float | None, budget_seconds: float) -> float:
    if trial_budget is None:
        return min(LONGEST_TRIAL, max(SHORTEST_TRIAL, TRIAL_SHARE * budget_seconds))
    seconds = parse_budget(trial_budget)
    longest = budget_seconds / LONGEST_TRIALS
    if not SHORTEST_TRIAL <= seconds <= longest:
        raise BudgetError(
            f"trial_budget {format_duration(seconds)} must be between {SHORTEST_TRIAL:.0f}s and "
            f"{format_duration(longest)}, a {LONGEST_TRIALS}th of the budget: leaders are trained more than once"
        )
    return seconds


def _check(asked: Asked, deadline: Deadline) -> None:
    """Refuse what needs no data to be refused."""
    source, settings = _source(asked), asked.settings
    TrainConfig.of(source, recipe=asked.recipe, settings=settings, seed=asked.seed, precision=asked.precision)
    check_budget_length(deadline.budget_seconds)
    if asked.sampler not in SAMPLERS:
        raise UsageError(f"sampler {asked.sampler!r} is unknown; use {', '.join(SAMPLERS)}")
    if asked.workers < 1:
        raise UsageError(f"workers {asked.workers} must be at least 1")
    if asked.storage is not None and not is_url(asked.storage):
        raise UsageError(f"storage {asked.storage!r} must be a URL, such as postgresql://user@host/name")
    if asked.val == "none":
        raise UsageError("val 'none' leaves nothing to choose by")


def _source(asked: Asked) -> DataConfig:
    """The data as they are divided. No trial sees the test split: it is held out for the final run."""
    return DataConfig(
        asked.data, asked.val, asked.test, asked.train_limit, None, asked.split_seed, asked.coarse, asked.group_by
    )


def _cut(num_images: int, num_classes: int, trial_seconds: float, final_seconds: float) -> int:
    """How many images a trial trains on.

    As many as would be seen as often as in the final run are few, and what is best for few images is not what is best
    for many; all of them would hardly be seen. So half of the difference is made by each, in the logarithm.
    """
    wanted = round(num_images * math.sqrt(min(1.0, trial_seconds / final_seconds)))
    return min(num_images, max(wanted, FEWEST_OF_A_CLASS * num_classes))


def _planned_for(draft: Draft, train: ImageDataset) -> Recipe:
    """What is started from, as far as it is known before any speed is measured."""
    if draft.fixed:
        return draft.fixed
    task = DatasetProfile(len(train), min(train.image_shape[:2]), train.num_classes, mirror_allowed=True)
    return scales_for(task, draft.changes)[0][1]


def _rungs(trial_seconds: float) -> tuple[float, ...]:
    shorter = trial_seconds / REDUCTION
    return (shorter, trial_seconds) if shorter >= SHORTEST_RUNG else (trial_seconds,)


def _default_out(name: str) -> Path:
    return Path("runs") / f"tune-{name}-{time.strftime('%Y%m%d-%H%M%S')}"
