"""``BenchmarkConfig``: the options of ``timebox benchmark``, and the recipes that it compares."""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from timebox.clock import parse_budget
from timebox.configs import options
from timebox.configs.config import Config, Rule, option
from timebox.errors import UsageError, option_text

Score = Literal["val", "test"]


class RecipeVariant(NamedTuple):
    """A recipe with settings of its own, to be compared with others.

    Attributes:
        label: its name in results: the text it was parsed from, without the folder of a recipe file.
    """

    label: str
    recipe: str
    settings: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "RecipeVariant":
        """From a text such as ``"haet2021 width=32 max_lr=0.4"``: a recipe, then settings. Raises UsageError."""
        words = text.split()
        num_named = next((place for place, word in enumerate(words) if "=" in word), len(words))
        recipe, settings = " ".join(words[:num_named]), tuple(words[num_named:])
        if not recipe:
            raise UsageError(f"recipe {text!r} must begin with auto, a name or a .toml file, before any FIELD=VALUE")
        name = Path(recipe).name if recipe.endswith(".toml") else recipe
        return cls(" ".join((name, *settings)), recipe, settings)

    @property
    def file_name(self) -> str:
        """The label with the characters that a file name may have."""
        return re.sub(r"[^\w.=+,-]+", "-", self.label.removesuffix(".toml"))


def check_recipes_given(config: Any) -> None:
    """Raise UsageError where no recipe is given."""
    if not config.recipes:
        raise UsageError(f"give at least one recipe, for instance {option_text('recipes', 'auto')}")


def check_scored_split(config: Any) -> None:
    """Raise UsageError where ``val`` contradicts ``score``."""
    if config.score == "test" and config.val not in (None, "none"):
        raise UsageError("val cannot be given with score test: all training images are trained on then")
    if config.score == "val" and config.val == "none":
        raise UsageError(
            f"val 'none' leaves nothing to score: hold images out, or use {option_text('score', 'test')} for a record"
        )


def check_complete(config: Any) -> None:
    """Raise UsageError where the data are missing, or the budget of a trial."""
    if config.resume is None and config.data is None:
        raise UsageError("say what to measure on: a path, or a name such as digits")
    if config.resume is None and config.trial_budget is None:
        raise UsageError(f"say how long one trial may take, for instance {option_text('trial_budget', '60s')}")


class BenchmarkConfig(Config, frozen=True, kw_only=True):
    """The arguments of :func:`timebox.benchmark`; documented there."""

    data: options.OptionalData = None
    recipes: Annotated[
        tuple[str, ...],
        option(
            "auto, a name or a .toml file, followed by settings of its own if need be, as in "
            '--recipe "haet2021 max_lr=0.4"; may be repeated, the others are compared with the first (default: auto)',
            metavar="RECIPE",
            group="trials",
            is_path=True,
        ),
    ] = ("auto",)
    settings: Annotated[
        options.Settings,
        option(
            "change one field of every recipe, as in --set max_lr=0.4, or max_lr=x2 to double it; may be repeated",
            group="trials",
        ),
    ] = ()
    seeds: Annotated[options.Count, option("number of seeds for every recipe", metavar="N", group="trials")] = 5
    trial_budget: Annotated[
        options.BudgetText | None,
        option("deadline of one training, from start to exit of its process: 60s, 10m", metavar="TIME", group="trials"),
    ] = None
    budget: Annotated[
        options.Budget, option("deadline of the whole benchmark (default: none, all trials are run)", group="trials")
    ] = None
    score: Annotated[
        Score,
        option(
            "val: the images held out, to choose by; test: the data's own test split, for a record, trained on all "
            "the others (default: val)",
            group="data",
        ),
    ] = "val"
    tta: Annotated[options.TtaOption, option("", group="data")] = "recipe"
    val: Annotated[
        options.Val,
        option(
            "images to hold out and score, as for `timebox train` (default: rest with --train-limit, else the data's "
            "own val split, else a tenth of train)"
        ),
    ] = None
    train_limit: options.TrainLimit = None
    split_seed: options.SplitSeed = 0
    coarse: options.Coarse = False
    class_depth: options.ClassDepth = None
    max_bad_share: options.MaxBadShare = options.DEFAULT_MAX_BAD_SHARE
    data_dir: options.DataDir = None
    device: options.DeviceOption = "auto"
    precision: options.PrecisionOption = "auto"
    out: Annotated[
        options.OutputDirectory,
        option("the benchmark's directory, new or empty (default: runs/benchmark-<data>-<date>-<time>)"),
    ] = None
    resume: Annotated[
        options.OutputDirectory,
        option("do the trials that are missing or failed; all other options are the benchmark's own"),
    ] = None
    keep_runs: Annotated[bool, option("keep the model of every trial", group="output")] = False
    trust_code: options.TrustCode = False

    rules: ClassVar[tuple[Rule, ...]] = (
        (("recipes",), check_recipes_given),
        (("score", "val"), check_scored_split),
    )
    requirements: ClassVar[tuple[Rule, ...]] = ((("data", "trial_budget", "resume"), check_complete),)

    @property
    def trial_seconds(self) -> float:
        """The budget of one trial."""
        return parse_budget(self.trial_budget or "")

    @property
    def variants(self) -> tuple[RecipeVariant, ...]:
        """The recipes that are compared, the first being the baseline."""
        return tuple(RecipeVariant.parse(text) for text in self.recipes)
