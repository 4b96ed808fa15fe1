"""A benchmark's config: checks of its recipes, absolute paths, the configs of its trials, its command, its record."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct, structs

from timebox.configs.arguments import to_arguments
from timebox.configs.benchmark import BenchmarkConfig, RecipeVariant
from timebox.configs.data import DataConfig
from timebox.configs.options import Depth
from timebox.configs.train import SCRATCH, TrainConfig
from timebox.configs.verbs import EvaluateConfig
from timebox.custom import code_names, trust
from timebox.data.named_datasets import NAMES
from timebox.errors import RunError, UsageError
from timebox.paths import expand_user
from timebox.recipes import check_trial_code, code_of, parse_recipe, parse_settings
from timebox.run.json_values import Count, PositiveCount, Share


class BenchmarkArguments(Struct, frozen=True, kw_only=True):
    """The arguments of ``timebox.benchmark`` that decide its trials, under their names."""

    data: str
    recipes: tuple[str, ...]
    seeds: PositiveCount
    trial_budget: str
    settings: tuple[str, ...]
    train_limit: Count | None
    split_seed: Count
    val: str | float | None
    coarse: bool
    data_dir: str | None
    max_bad_share: Share
    device: str
    precision: str
    score: Literal["val", "test"]
    tta: str
    class_depth: Depth | None = None


def check_recipes(config: BenchmarkConfig) -> None:
    """Raise UsageError with all recipes and settings that cannot be used, and recipes given twice."""
    problems: list[str] = []
    names = set()
    for text in config.recipes:
        try:
            variant = RecipeVariant.parse(text)
            if variant.file_name in names:
                problems.append(f"recipe {variant.label!r} is given twice: two of one name cannot be told apart")
            names.add(variant.file_name)
            parse_recipe(variant.recipe, (*config.settings, *variant.settings))
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise UsageError("; ".join(dict.fromkeys(problems)))


def check_code(config: BenchmarkConfig, is_new: bool) -> None:
    """Raise UsageError for code of the user's in the recipes that trials cannot import, or may not.

    Args:
        is_new: whether the settings come from the user, and not from a file.
    """
    for text in config.recipes:
        variant = RecipeVariant.parse(text)
        settings = (*config.settings, *variant.settings)
        if is_new:
            trust(code_names(parse_settings(settings)).values())
        check_trial_code(variant.recipe, settings, config.trust_code)


def with_absolute_paths(config: BenchmarkConfig) -> BenchmarkConfig:
    """The config with paths that mean the same from any directory."""
    val, data, data_dir = config.val, config.data, config.data_dir
    return config.replace(
        recipes=tuple(absolute_recipe(text) for text in config.recipes),
        val=absolute(val) if isinstance(val, str) and val not in ("none", "rest") else val,
        data=None if data is None else absolute(data),
        data_dir=None if data_dir is None else absolute(data_dir),
    )


def absolute(place: str | Path) -> str:
    """An absolute path. Names of data sets and paths that do not exist stay as they are."""
    is_name = isinstance(place, str) and place in NAMES
    path = Path(expand_user(place))
    return str(place) if is_name or not path.exists() else str(path.absolute())


def absolute_recipe(text: str) -> str:
    """A recipe with settings; the path of a recipe file is made absolute."""
    variant = RecipeVariant.parse(text)
    recipe = absolute(variant.recipe) if variant.recipe.endswith(".toml") else variant.recipe
    return " ".join((recipe, *variant.settings))


def data_config(config: BenchmarkConfig) -> DataConfig:
    """The data and splits of every trial."""
    val = "rest" if config.val is None and config.train_limit is not None else config.val
    return DataConfig.of(config, val="none" if config.score == "test" else val, test="none")


def train_config(config: BenchmarkConfig, variant: RecipeVariant, seed: int) -> TrainConfig:
    """The training of one trial. A recipe's own settings come after the settings for all, and so override them."""
    settings = (*config.settings, *variant.settings)
    return TrainConfig.of(
        data_config(config),
        budget=config.trial_seconds,
        recipe=variant.recipe,
        settings=settings,
        trust_code=bool(code_of(variant.recipe, settings)),  # the names were checked, see check_code
        seed=seed,
        scoring=False,
        init=SCRATCH,
        **{name: getattr(config, name) for name in ("device", "precision", "data_dir", "max_bad_share")},
    )


def evaluate_config(config: BenchmarkConfig, run: Path) -> EvaluateConfig:
    """The evaluation of one trial."""
    shared = {name: getattr(config, name) for name in ("data", "tta", "device", "data_dir", "max_bad_share")}
    has_code = any(code_of(one.recipe, (*config.settings, *one.settings)) for one in config.variants)
    return EvaluateConfig(run=str(run), split=config.score, trust_code=has_code, **shared)


def command(config: BenchmarkConfig) -> str:
    """The command line of the benchmark, paths cut to their last part."""
    labelled = config.replace(recipes=tuple(variant.label for variant in config.variants))
    not_recorded = set(config.__struct_fields__) - set(BenchmarkArguments.__struct_fields__)
    arguments = to_arguments(labelled, leave_out=not_recorded, always=("recipes", "seeds", "score"))
    return shortened(["timebox", "benchmark", *arguments])


def shortened(words: Sequence[str]) -> str:
    """A command as one would type it, paths cut to their last part."""
    return " ".join(_quoted(Path(word).name if "/" in word else word) for word in words)


def arguments_of(config: BenchmarkConfig) -> BenchmarkArguments:
    """The entry ``asked`` of benchmark.json, read back by :func:`config_of`."""
    return BenchmarkArguments(**{name: getattr(config, name) for name in BenchmarkArguments.__struct_fields__})


def config_of(arguments: BenchmarkArguments, where: str) -> BenchmarkConfig:
    """The config that benchmark.json records. Raises RunError if it is damaged or names a recipe that is gone."""
    try:
        config = BenchmarkConfig(**structs.asdict(arguments))
        check_recipes(config)
    except UsageError as error:
        raise RunError(f"{where} is damaged, or what it names is gone: {error}") from error
    return config


def _quoted(word: str) -> str:
    return f'"{word}"' if " " in word or not word else word
