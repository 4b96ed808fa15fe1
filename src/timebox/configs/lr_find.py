"""``LrFindConfig``: the options of ``timebox lr-find``."""

from typing import Annotated

from timebox.configs import options
from timebox.configs.config import Config, option


class LrFindConfig(Config, frozen=True, kw_only=True):
    """The arguments of :func:`timebox.lr_find`; documented there."""

    data: options.Data
    budget: Annotated[
        options.Positive,
        option(
            "deadline of the test, from the start of the command to its exit (default: 55s)",
            metavar="TIME",
            read=options.read_seconds,
            write=options.budget_text,
        ),
    ] = 55.0
    train_budget: Annotated[
        options.BudgetText, option("budget of the training that the rate is for: auto and the batch follow from it")
    ] = "10m"
    recipe: Annotated[options.Recipe, option("as for `timebox train`")] = "auto"
    settings: options.Settings = ()
    low: Annotated[
        options.Positive | None, option("the first rate (default: the recipe's max_lr / 1000)", metavar="LR")
    ] = None
    high: Annotated[
        options.Positive | None, option("the last rate (default: 100 times the recipe's max_lr)", metavar="LR")
    ] = None
    seed: Annotated[options.Natural, option("seed of the test", metavar="N")] = 0
    train_limit: options.TrainLimit = None
    split_seed: options.SplitSeed = 0
    coarse: options.Coarse = False
    class_depth: options.ClassDepth = None
    max_bad_share: options.MaxBadShare = options.DEFAULT_MAX_BAD_SHARE
    cache: options.Cache = True
    data_dir: options.DataDir = None
    device: options.DeviceOption = "auto"
    precision: options.PrecisionOption = "auto"
    trust_code: options.TrustCode = False
    out: Annotated[
        options.Text | None,
        option("directory of the two files (default: runs/<data>-lr-<date>-<time>)", metavar="DIR", is_path=True),
    ] = None
