"""``TrainConfig``: the options of ``timebox train``."""

import shlex
from typing import Annotated, Any, ClassVar

from timebox.configs import options
from timebox.configs.arguments import to_arguments
from timebox.configs.config import Config, Rule, changed_fields, option
from timebox.configs.data import DataConfig
from timebox.errors import UsageError, option_text
from timebox.machine import is_torchrun

# Options that may be given beside --resume and --replay; everything else is the run's own.
CODE = ("network", "augment", "loss", "optimizer")
BESIDE_RESUME = ("data", "budget", "data_dir", "max_bad_share", "cache", "trust_code", "callbacks", "live", *CODE)
BESIDE_REPLAY = ("data", "out", "overwrite", "data_dir", "max_bad_share", "cache", "trust_code", "callbacks", *CODE)
# What a training begins with, apart from the weights of a run.
AUTO_INIT, SCRATCH, PRETRAINED = "auto", "scratch", "pretrained"
# Options that change nothing of what is trained.
NOT_IN_COMMAND = (
    *("out", "overwrite", "resume", "replay", "device", "data_dir", "max_bad_share", "cache", "trust_code"),
    *("callbacks", "live"),
)


def check_exclusive(config: Any) -> None:
    """Raise UsageError for two options of which only one may be given."""
    if config.budget is not None and config.steps is not None:
        budget, steps = option_text("budget"), option_text("steps")
        raise UsageError(
            f"{budget} and {steps} exclude each other: give {budget} for a deadline or {steps} for a count"
        )


def check_partial(config: Any) -> None:
    """Raise UsageError for a part that no clock can choose, or that every process would choose for itself."""
    if config.allow_partial and config.budget is None and config.steps is not None:
        raise UsageError(
            f"{option_text('allow_partial', True)} needs a budget: with {option_text('steps')} no clock is read, and "
            "all images are"
        )
    if config.allow_partial and is_torchrun():
        raise UsageError(
            f"{option_text('allow_partial', True)} works in one process: each rank of torchrun would read another part"
        )


def check_continued(config: Any) -> None:
    """Raise UsageError for options that a run which is resumed or replayed brings itself."""
    changed = set(changed_fields(TrainConfig, config))
    for verb, allowed in (("resume", BESIDE_RESUME), ("replay", BESIDE_REPLAY)):
        refused = sorted(changed.difference({verb}, allowed))
        if getattr(config, verb) is not None and refused:
            raise UsageError(
                f"{', '.join(refused)} cannot be given with {verb}: all of that is the run's own; "
                f"allowed are {', '.join(allowed)}"
            )


def check_complete(config: Any) -> None:
    """Raise UsageError where it is missing what to train on, or how long."""
    if config.resume is not None or config.replay is not None:
        return
    if config.budget is None and config.steps is None:
        budget, steps = option_text("budget", "10m"), option_text("steps", 1000)
        raise UsageError(f"say how long to train, for instance {budget} (or {steps} to count steps instead)")
    if config.data is None:
        raise UsageError("say what to train on: a path, or a name such as digits")


class TrainConfig(Config, frozen=True, kw_only=True):
    """The arguments of :func:`timebox.train`, documented there, as a value that is checked when it is made.

    >>> import timebox
    >>> config = timebox.TrainConfig(data="photos", budget="10m", test=0.2)
    >>> config.budget, config.replace(seed=1).changed_fields()
    (600.0, ['data', 'budget', 'seed', 'test'])
    """

    data: Annotated[
        options.Text | None,
        option(
            "a folder of class folders, a file, or a name: cifar10, digits, …; with --resume or --replay only where "
            "the run's data have moved",
            positional="DATA",
            is_path=True,
        ),
    ] = None
    budget: Annotated[
        options.Budget,
        option(
            "deadline of the whole command, from its start to its exit: 90s, 10m, 1h30m; a bare number is seconds",
            group="how long",
        ),
    ] = None
    steps: Annotated[
        options.Count | None,
        option(
            "train N optimizer steps in place of a budget, reading no clock: repeatable byte for byte on a CPU",
            metavar="N",
            group="how long",
        ),
    ] = None
    recipe: Annotated[
        options.Recipe,
        option(
            "auto, a name that `timebox recipes` lists, or a .toml file (default: auto, planned from the data, the "
            "hardware and the budget)"
        ),
    ] = "auto"
    settings: options.Settings = ()
    network: options.Network = None
    augment: options.Augment = None
    loss: options.Loss = None
    optimizer: options.Optimizer = None
    init: Annotated[
        options.Text,
        option(
            "what to begin with: scratch; pretrained, features learnt on other photos, beside a network of one's "
            "own; auto, whichever suits data and budget; or the weights of a run, or of its model.safetensors; classes "
            "it does not have get a new head (default: auto)",
            metavar="INIT|RUN|FILE",
            is_path=True,
            group="method",
        ),
    ] = AUTO_INIT
    seed: Annotated[options.Natural, option("seed of the training", metavar="N", group="method")] = 0
    val: options.Val = None
    test: options.Test = None
    test_limit: options.TestLimit = None
    scoring: Annotated[
        bool, option("leave val and test for `timebox evaluate`; all the time goes into training", group="data")
    ] = True
    group_by: options.GroupBy = None
    thumbnails: Annotated[
        bool, option("keep images of the data out of the report and the run directory", group="data")
    ] = True
    train_limit: options.TrainLimit = None
    split_seed: options.SplitSeed = 0
    coarse: options.Coarse = False
    class_depth: options.ClassDepth = None
    max_bad_share: options.MaxBadShare = options.DEFAULT_MAX_BAD_SHARE
    allow_partial: options.AllowPartial = False
    cache: options.Cache = True
    data_dir: options.DataDir = None
    device: options.DeviceOption = "auto"
    precision: options.PrecisionOption = "auto"
    out: Annotated[
        options.OutputDirectory, option("the run directory, new or empty (default: runs/<data>-<date>-<time>)")
    ] = None
    overwrite: Annotated[bool, option("replace the run that DIR holds, once the new one is whole", group="output")] = (
        False
    )
    resume: Annotated[
        options.OutputDirectory,
        option(
            "go on with a run that was stopped or killed, from its last checkpoint and with the time it had left, or "
            "with a new --budget",
            metavar="RUN",
        ),
    ] = None
    replay: Annotated[
        options.OutputDirectory,
        option(
            "take the steps of a finished run again, decisions of the clock included, and compare the weights",
            metavar="RUN",
        ),
    ] = None
    trust_code: options.TrustCode = False
    callbacks: Annotated[
        tuple[str, ...],
        option(
            "call your own code on each step, validation and checkpoint, in the background: a class or function that "
            "is called without arguments, or an object, as in --callback my_code:Progress; may be repeated",
            metavar="MODULE:NAME",
            group="your own code",
        ),
    ] = ()

    live: Annotated[
        bool,
        option(
            "show the training in the browser, at an address that is printed (takes the extra `serve`); `timebox "
            "watch` shows one that runs already",
            group="output",
        ),
    ] = False

    rules: ClassVar[tuple[Rule, ...]] = ((("budget", "steps"), check_exclusive), (("test",), options.check_test_split))
    requirements: ClassVar[tuple[Rule, ...]] = (
        (("resume", "replay"), check_continued),
        (("data", "budget", "steps", "resume", "replay"), check_complete),
        (("allow_partial", "budget", "steps"), check_partial),
    )

    @classmethod
    def of(cls, source: DataConfig, **changes: Any) -> "TrainConfig":
        """A training on the data of ``source``, with the other options as given."""
        return cls(**{**source.arguments(), **changes})

    @property
    def initial_run(self) -> str | None:
        """The run, or the file, whose weights the training begins with; None for another beginning."""
        return None if self.init in (AUTO_INIT, SCRATCH, PRETRAINED) else self.init

    @property
    def source(self) -> DataConfig:
        """Which images are used for what."""
        return DataConfig.of(self)

    def command(self, budget_seconds: float | None) -> str:
        """The command line that trains the same under a budget, without the place it is written to."""
        config = self.replace(budget=budget_seconds)
        return shlex.join(["timebox", "train", *to_arguments(config, leave_out=NOT_IN_COMMAND)])
