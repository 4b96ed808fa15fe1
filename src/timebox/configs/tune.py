"""``TuneConfig``: the options of ``timebox tune``."""

import shlex
from typing import Annotated, Any, ClassVar, Literal

from timebox.clock import format_duration, parse_budget
from timebox.configs import options
from timebox.configs.arguments import to_arguments
from timebox.configs.config import Config, Rule, changed_fields, option
from timebox.configs.data import DataConfig
from timebox.configs.storage_url import is_url, without_password
from timebox.errors import BudgetError, UsageError, option_text

Sampler = Literal["tpe", "random"]
# A shorter search has no time for its trials, its check and its final run.
MIN_BUDGET_SECONDS = 80.0
# Default trial budget: this share of the budget, within these bounds.
TRIAL_SHARE, MIN_TRIAL_SECONDS, MAX_DEFAULT_TRIAL_SECONDS = 1 / 60, 4.0, 60.0
# The budget over the largest trial budget: the top trials are trained several times.
MIN_TRIALS_PER_BUDGET = 15
# Options that may be given beside --resume; everything else is the search's own.
BESIDE_RESUME = ("resume", "budget", "storage", "trust_code")
# Options that change nothing of what is searched.
NOT_IN_COMMAND = (
    "storage", "study", "join", "out", "resume", "device", "data_dir", "max_bad_share", "cache", "trust_code",
)  # fmt: skip


def check_join(config: Any) -> None:
    """Raise UsageError for --join without the data and the storage, or beside --resume."""
    join, storage, resume = map(option_text, ("join", "storage", "resume"))
    if config.join is not None and (config.storage is None or config.data is None):
        raise UsageError(f"{join} needs the data, and the {storage} that the search is kept in")
    if config.join is not None and config.resume is not None:
        raise UsageError(f"{join} and {resume} exclude each other")


def check_storage(config: Any) -> None:
    """Raise UsageError for a storage that is no URL."""
    if config.storage is not None and not is_url(config.storage):
        raise UsageError(
            f"storage {without_password(config.storage)!r} must be a URL, such as postgresql://user@host/name"
        )


def check_resumed(config: Any) -> None:
    """Raise UsageError for options that a resumed search brings itself."""
    changed = set(changed_fields(TuneConfig, config))
    if config.resume is not None and (surplus := sorted(changed - set(BESIDE_RESUME))):
        raise UsageError(f"{', '.join(surplus)} cannot be given with resume: a search keeps its own")


def check_complete(config: Any) -> None:
    """Raise UsageError where a new search has no data, no budget or nothing to validate on."""
    if not _is_new(config):
        return
    if config.data is None:
        raise UsageError("say what to train on: a path, or a name such as digits")
    if config.budget is None:
        raise UsageError(f"give a budget for the whole search, for example {option_text('budget', '1h')}")
    if config.val == "none":
        raise UsageError("val 'none' leaves no images to compare trials by")


def check_budgets(config: Any) -> None:
    """Raise BudgetError for budgets too short, or a trial budget too long, for a new search."""
    if not _is_new(config) or config.budget is None:
        return
    if config.budget < MIN_BUDGET_SECONDS:
        raise BudgetError(
            f"budget {format_duration(config.budget)} is too short for a search; use at least "
            f"{MIN_BUDGET_SECONDS:.0f}s, or `timebox train`"
        )
    trial_seconds, max_seconds = _trial_seconds(config), config.budget / MIN_TRIALS_PER_BUDGET
    if not MIN_TRIAL_SECONDS <= trial_seconds <= max_seconds:
        raise BudgetError(
            f"trial_budget {format_duration(trial_seconds)} must be between {MIN_TRIAL_SECONDS:.0f}s and "
            f"{format_duration(max_seconds)}, a {MIN_TRIALS_PER_BUDGET}th of the budget: the top trials are "
            "trained several times"
        )


def _is_new(config: Any) -> bool:
    return config.resume is None and config.join is None


def _trial_seconds(config: Any) -> float:
    if config.trial_budget is not None:
        return parse_budget(config.trial_budget)
    share: float = TRIAL_SHARE * config.budget
    return min(MAX_DEFAULT_TRIAL_SECONDS, max(MIN_TRIAL_SECONDS, share))


class TuneConfig(Config, frozen=True, kw_only=True):
    """The arguments of :func:`timebox.tune`, documented there, and ``join``: the name of a search to help with.

    A search keeps its config with ``trial_budget`` and ``study`` filled in.
    """

    data: Annotated[
        options.Text | None,
        option(
            "a folder of class folders, a file, or a name: cifar10, digits, …; not needed with --resume",
            positional="DATA",
            is_path=True,
        ),
    ] = None
    budget: Annotated[
        options.Budget, option("deadline of the whole command, the final training included: 1h", group="search")
    ] = None
    trial_budget: Annotated[
        options.BudgetText | None,
        option(
            "budget of one training of the search (default: a sixtieth of the budget, 4s to 60s)",
            metavar="TIME",
            group="search",
        ),
    ] = None
    recipe: Annotated[options.Recipe, option("recipe that the search starts from", group="search")] = "auto"
    settings: Annotated[
        options.Settings,
        option(
            "change one field of the recipe that the search starts from, as in --set max_lr=0.4, or max_lr=x2 to "
            "double it; may be repeated",
            group="search",
        ),
    ] = ()
    space: Annotated[
        options.Text | None,
        option(
            "TOML file with the fields to search and their ranges (default: most fields)",
            metavar="FILE",
            is_path=True,
            group="search",
        ),
    ] = None
    sampler: Annotated[
        Sampler, option("method that suggests values: a tree-structured Parzen estimator, or random", group="search")
    ] = "tpe"
    seed: Annotated[
        options.Natural, option("seed of the search and of the final training", metavar="N", group="search")
    ] = 0
    storage: Annotated[
        options.Text | None,
        option(
            "database for the trials, which other machines may share (default: a file)",
            metavar="URL",
            group="search",
            is_path=True,
        ),
    ] = None
    study: Annotated[
        options.Text | None,
        option("name of the search in the storage (default: <data>-<date>-<time>)", metavar="NAME", group="search"),
    ] = None
    join: Annotated[
        options.Text | None,
        option("run trials for a search that another machine began in --storage", metavar="NAME", group="search"),
    ] = None
    val: Annotated[
        options.Val,
        option(
            "images held out to choose recipes by (default: as for `timebox train`, a fifth in place of a tenth)",
            metavar="FRACTION|PATH|rest",
        ),
    ] = None
    test: Annotated[
        options.Test, option("images held out to test the final run on (default: as for `timebox train`)")
    ] = None
    group_by: Annotated[options.GroupBy, option("keep images together when they are split, as for `timebox train`")] = (
        None
    )
    train_limit: options.TrainLimit = None
    split_seed: options.SplitSeed = 0
    coarse: options.Coarse = False
    class_depth: options.ClassDepth = None
    max_bad_share: options.MaxBadShare = options.DEFAULT_MAX_BAD_SHARE
    cache: options.Cache = True
    data_dir: options.DataDir = None
    workers: Annotated[options.Count, option("number of processes that run trials", metavar="N", group="machine")] = 1
    device: options.DeviceOption = "auto"
    precision: options.PrecisionOption = "auto"
    out: Annotated[
        options.Text | None,
        option(
            "the search's directory (default: runs/tune-<data>-<date>-<time>)",
            metavar="DIR",
            group="output",
            is_path=True,
        ),
    ] = None
    resume: Annotated[
        options.Text | None,
        option(
            "go on with a search that was stopped; all options but --budget are the search's own. --storage is given "
            "once more",
            metavar="DIR",
            group="output",
            is_path=True,
        ),
    ] = None
    trust_code: options.TrustCode = False

    rules: ClassVar[tuple[Rule, ...]] = (
        (("test",), options.check_test_split),
        (("data", "storage", "join", "resume"), check_join),
    )
    requirements: ClassVar[tuple[Rule, ...]] = (
        (("storage",), check_storage),
        (("resume",), check_resumed),
        (("data", "budget", "val", "join", "resume"), check_complete),
        (("budget", "trial_budget", "join", "resume"), check_budgets),
    )

    @property
    def budget_seconds(self) -> float:
        """The budget of a search."""
        assert self.budget is not None
        return self.budget

    @property
    def trial_seconds(self) -> float:
        """The largest budget of one trial."""
        return _trial_seconds(self)

    @property
    def source(self) -> DataConfig:
        """The data and their splits. Trials never see the test split, which is held out for the final run."""
        return DataConfig.of(self)

    @property
    def command(self) -> str:
        """The command line of the same search, without the options of its storage, its machine and its directory."""
        return shlex.join(["timebox", "tune", *to_arguments(self, leave_out=NOT_IN_COMMAND)])
