"""What a benchmark is asked for: read, refused, and handed on to each trial."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from timebox.benchmarking.config import Asked, Contender, absolute, absolute_recipe, budget_text, shortened
from timebox.errors import BudgetError, RunError, UsageError

ASKED = Asked(
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
    assert Contender.of(text) == Contender(label, recipe, settings)


def test_a_label_makes_a_file_name() -> None:
    assert Contender.of("haet2021 width=32 max_lr=1e-3").file_name == "haet2021-width=32-max_lr=1e-3"
    assert Contender.of("/a/my own.toml").file_name == "my-own"
    assert "/" not in Contender.of("auto name=../../x").file_name


def test_a_contender_has_a_name() -> None:
    assert refusal(lambda: Contender.of("width=32")) == (
        "recipe 'width=32' must begin with auto, a name or a .toml file, before any FIELD=VALUE"
    )


def test_a_contenders_own_settings_go_before_those_of_all() -> None:
    request = ASKED.request(ASKED.contenders[1], 7)
    assert request.settings == ("width=16", "tta=none", "width=32", "max_lr=0.4")
    assert (request.recipe, request.seed, request.scoring, request.num_steps) == ("haet2021", 7, False, None)


def test_what_is_held_out() -> None:
    assert (ASKED.source.val, ASKED.source.test) == (None, "none")
    assert replace(ASKED, train_limit=100).source.val == "rest"
    assert replace(ASKED, train_limit=100, val=0.2).source.val == 0.2
    assert replace(ASKED, train_limit=100, score="test").source.val == "none"
    assert replace(ASKED, score="test").source.test == "none"


def test_all_wrong_recipes_and_fields_are_told_together() -> None:
    asked = replace(ASKED, recipes=("haet", "auto widht=8", "dawnbench width=9999", "auto", "auto"), settings=())
    message = refusal(asked.check)
    for words in (
        "recipe 'haet' is unknown; did you mean 'haet2021'?",
        "unknown field 'widht', did you mean 'width'?",
        "width 9999 must be between 4 and 512",
        "recipe 'auto' is given twice",
    ):
        assert words in message


def test_a_wrong_setting_for_all_is_told_once() -> None:
    assert refusal(replace(ASKED, settings=("widht=8",)).check).count("widht") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 0}, "seeds 0 must be at least 1: each is one block of trials"),
        ({"recipes": ()}, "give at least one recipe, for instance --recipe auto"),
        ({"score": "train"}, "score 'train' is unknown; use val, test"),
        ({"tta": "ten"}, "tta 'ten' is unknown; use recipe, none, mirror, shift, mirror_shift"),
        (
            {"score": "test", "val": 0.1},
            "val cannot be given with score test: all training images are trained on then",
        ),
        (
            {"val": "none"},
            "val 'none' leaves nothing to score: hold images out, or use --score test for a record",
        ),
        ({"precision": "fp8"}, "precision 'fp8' is unknown; use auto, fp32, bf16, fp16"),
    ],
)
def test_what_cannot_be_asked(changes: dict[str, object], message: str) -> None:
    assert refusal(replace(ASKED, **changes).check) == message  # type: ignore[arg-type]


def test_a_trial_budget_that_cannot_work() -> None:
    assert refusal(replace(ASKED, trial_budget="2s").check, BudgetError) == (
        "trial_budget 2.0s is too short: starting and leaving alone take seconds; use at least 4s"
    )
    assert refusal(replace(ASKED, trial_budget="soon").check, BudgetError) == (
        "trial_budget 'soon' is not a duration; write it like 90s, 10m or 1h30m"
    )


def test_it_reads_back() -> None:
    asked = replace(ASKED, val=0.25, train_limit=500)
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in asked.as_dict().items()}
    assert Asked.from_dict(values, "it") == asked
    assert refusal(lambda: Asked.from_dict({**values, "more": 1}, "it"), RunError) == (
        "it is damaged: what was asked for is incomplete"
    )
    for name, wrong in (("recipes", 5), ("seeds", "many"), ("trial_budget", None), ("recipes", ["gone.toml"])):
        message = refusal(lambda name=name, wrong=wrong: Asked.from_dict({**values, name: wrong}, "it"), RunError)  # type: ignore[misc]
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


@pytest.mark.parametrize(
    ("budget", "text"), [("10m", "10m"), (60, "1m"), (7.5, "7.5s"), ("90", "90s"), (3600, "1h00m")]
)
def test_a_budget_as_people_write_it(budget: str | float, text: str) -> None:
    assert budget_text(budget) == text


def test_commands_are_shown_with_short_paths() -> None:
    assert shortened(["timebox", "train", "/data/my photos", "--recipe", "auto width=8"]) == (
        'timebox train "my photos" --recipe "auto width=8"'
    )
    asked = replace(
        ASKED,
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
    assert asked.command() == (
        'timebox benchmark photos --recipe "mine.toml width=8" --recipe auto --seeds 3 --trial-budget 60s '
        "--train-limit 500 --split-seed 3 --precision fp32 --coarse --device cpu --data-dir sets --max-bad-share 0.2 "
        "--val 0.5 --score val --tta none"
    )
