"""The config of a benchmark: recipes, refusals, its record, and the configs of its trials."""

from collections.abc import Callable
from pathlib import Path

import pytest

from timebox.benchmarking.config import (
    BenchmarkArguments,
    absolute,
    absolute_recipe,
    arguments_of,
    check_recipes,
    command,
    config_of,
    data_config,
    shortened,
    train_config,
)
from timebox.configs.benchmark import BenchmarkConfig, RecipeVariant
from timebox.errors import BudgetError, RunError, UsageError
from timebox.run.json_values import from_values, to_values

CONFIG = BenchmarkConfig(
    data="digits",
    recipes=("auto", "haet2021 width=32 max_lr=0.4"),
    seeds=3,
    trial_budget="60s",
    settings=("width=16", "tta=none"),
    train_limit=None,
    split_seed=0,
    val=None,
    coarse=False,
    data_dir=None,
    max_bad_share=0.1,
    device="auto",
    precision="auto",
    score="val",
    tta="recipe",
)


def refusal(call: Callable[[], object], error: type[Exception] = UsageError) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "label", "recipe", "settings"),
    [
        ("auto", "auto", "auto", ()),
        (" haet2021  width=32 max_lr=0.4 ", "haet2021 width=32 max_lr=0.4", "haet2021", ("width=32", "max_lr=0.4")),
        ("/home/me/my recipe.toml width=8", "my recipe.toml width=8", "/home/me/my recipe.toml", ("width=8",)),
    ],
)
def test_a_contender(text: str, label: str, recipe: str, settings: tuple[str, ...]) -> None:
    assert RecipeVariant.parse(text) == RecipeVariant(label, recipe, settings)


def test_a_label_makes_a_file_name() -> None:
    assert RecipeVariant.parse("haet2021 width=32 max_lr=1e-3").file_name == "haet2021-width=32-max_lr=1e-3"
    assert RecipeVariant.parse("/a/my own.toml").file_name == "my-own"
    assert "/" not in RecipeVariant.parse("auto name=../../x").file_name


def test_a_contender_has_a_name() -> None:
    assert refusal(lambda: RecipeVariant.parse("width=32")) == (
        "recipe 'width=32' must begin with auto, a name or a .toml file, before any FIELD=VALUE"
    )


def test_a_contenders_own_settings_go_before_those_of_all() -> None:
    training = train_config(CONFIG, CONFIG.variants[1], 7)
    assert training.settings == ("width=16", "tta=none", "width=32", "max_lr=0.4")
    assert (training.recipe, training.seed, training.scoring, training.steps) == ("haet2021", 7, False, None)


def test_what_is_held_out() -> None:
    assert (data_config(CONFIG).val, data_config(CONFIG).test) == (None, "none")
    assert data_config(CONFIG.replace(train_limit=100)).val == "rest"
    assert data_config(CONFIG.replace(train_limit=100, val=0.2)).val == 0.2
    assert data_config(CONFIG.replace(train_limit=100, score="test")).val == "none"
    assert data_config(CONFIG.replace(score="test")).test == "none"


def test_all_wrong_recipes_and_fields_are_told_together() -> None:
    config = CONFIG.replace(recipes=("haet", "auto widht=8", "dawnbench width=9999", "auto", "auto"), settings=())
    message = refusal(lambda: check_recipes(config))
    for words in (
        "recipe 'haet' is unknown; did you mean 'haet2021'?",
        "unknown field 'widht', did you mean 'width'?",
        "width 9999 must be between 4 and 512",
        "recipe 'auto' is given twice",
    ):
        assert words in message


def test_a_wrong_setting_for_all_is_told_once() -> None:
    assert refusal(lambda: check_recipes(CONFIG.replace(settings=("widht=8",)))).count("widht") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 0}, "seeds 0 must be a whole number of at least 1"),
        ({"recipes": ()}, 'give at least one recipe, for instance recipes=["auto"]'),
        ({"score": "train"}, "score 'train' must be one of val, test"),
        ({"tta": "ten"}, "tta 'ten' must be one of recipe, none, mirror, shift, mirror_shift"),
        (
            {"score": "test", "val": 0.1},
            "val cannot be given with score test: all training images are trained on then",
        ),
        (
            {"val": "none"},
            "val 'none' leaves nothing to score: hold images out, or use score=\"test\" for a record",
        ),
        ({"precision": "fp8"}, "precision 'fp8' must be one of auto, fp32, bf16, fp16"),
    ],
)
def test_what_cannot_be_asked(changes: dict[str, object], message: str) -> None:
    assert refusal(lambda: CONFIG.replace(**changes)) == message


def test_a_trial_budget_that_cannot_work() -> None:
    assert refusal(lambda: CONFIG.replace(trial_budget="soon"), BudgetError) == (
        "trial_budget 'soon' is not a duration; write it like 90s, 10m or 1h30m"
    )


def read_back(values: dict[str, object]) -> BenchmarkConfig:
    return config_of(from_values(values, BenchmarkArguments, "it"), "it")


def test_it_reads_back() -> None:
    config = CONFIG.replace(val=0.25, train_limit=500)
    values = to_values(arguments_of(config))
    assert read_back(values) == config
    assert refusal(lambda: read_back({key: values[key] for key in values if key != "tta"}), RunError) == (
        "it is damaged: object missing required field tta"
    )
    for name, wrong in (("recipes", 5), ("seeds", "many"), ("trial_budget", None)):
        message = refusal(lambda name=name, wrong=wrong: read_back({**values, name: wrong}), RunError)  # type: ignore[misc]
        assert message.startswith("it is damaged: expected ")
    for name, wrong in (("recipes", ["gone.toml"]), ("device", "tpu")):
        message = refusal(lambda name=name, wrong=wrong: read_back({**values, name: wrong}), RunError)  # type: ignore[misc]
        assert message.startswith("it is damaged, or what it names is gone: ")


def test_paths_mean_the_same_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "mine.toml"):
        (tmp_path / name).touch()
    assert absolute("cifar11") == "cifar11", "a message about it shows what was given"
    assert absolute("digits") == "digits"
    assert absolute("./digits") == absolute(Path("digits")) == str(tmp_path / "digits")
    assert absolute_recipe("auto width=8") == "auto width=8"
    assert absolute_recipe("mine.toml width=8") == f"{tmp_path}/mine.toml width=8"


def test_commands_are_shown_with_short_paths() -> None:
    assert shortened(["timebox", "train", "/data/my photos", "--recipe", "auto width=8"]) == (
        'timebox train "my photos" --recipe "auto width=8"'
    )
    config = CONFIG.replace(
        data="/data/photos",
        recipes=("/tmp/mine.toml width=8", "auto"),
        settings=(),
        train_limit=500,
        split_seed=3,
        coarse=True,
        val=0.5,
        data_dir="/data/sets",
        device="cpu",
        precision="fp32",
        max_bad_share=0.2,
        tta="none",
    )
    assert command(config) == (
        'timebox benchmark photos --recipe "mine.toml width=8" --recipe auto --seeds 3 --trial-budget 60s '
        "--score val --tta none --val 0.5 --train-limit 500 --split-seed 3 --coarse --max-bad-share 0.2 "
        "--data-dir sets --device cpu --precision fp32"
    )
