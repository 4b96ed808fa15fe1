"""``TuneConfig``: the options of ``timebox tune``."""

from typing import Annotated, Any, ClassVar, Literal

from timebox.configs import options
from timebox.configs.config import Config, Rule, option
from timebox.errors import UsageError

Sampler = Literal["tpe", "random"]


def check_join(config: Any) -> None:
    """Raise UsageError for --join without the data and the storage, or beside --resume."""
    if config.join is not None and (config.storage is None or config.data is None):
        raise UsageError("--join needs the data, and the --storage that the search is kept in")
    if config.join is not None and config.resume is not None:
        raise UsageError("--join and --resume exclude each other")


class TuneConfig(Config, frozen=True, kw_only=True):
    """The arguments of :func:`timebox.tune`, documented there, and ``join``: the name of a search to help with."""

    data: Annotated[
        options.Text | None,
        option(
            "a folder of class folders, a file, or a name: cifar10, digits, …; not needed with --resume",
            positional="DATA",
        ),
    ] = None
    budget: Annotated[
        options.Budget,
        option("deadline of the whole command, the final training included: 1h", group="search"),
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
            "database for the trials, which other machines may share (default: a file)", metavar="URL", group="search"
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
    max_bad_share: options.MaxBadShare = options.DEFAULT_MAX_BAD_SHARE
    cache: options.Cache = True
    data_dir: options.DataDir = None
    workers: Annotated[options.Count, option("number of processes that run trials", metavar="N", group="machine")] = 1
    device: options.DeviceOption = "auto"
    precision: options.PrecisionOption = "auto"
    out: Annotated[
        options.Text | None,
        option("the search's directory (default: runs/tune-<data>-<date>-<time>)", metavar="DIR", group="output"),
    ] = None
    resume: Annotated[
        options.Text | None,
        option(
            "go on with a search that was stopped; all options but --budget are the search's own",
            metavar="DIR",
            group="output",
        ),
    ] = None

    rules: ClassVar[tuple[Rule, ...]] = (
        (("test",), options.check_test_split),
        (("data", "storage", "join", "resume"), check_join),
    )
