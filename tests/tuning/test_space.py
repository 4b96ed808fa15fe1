"""The search space."""

from pathlib import Path

import optuna
import pytest

from timebox.errors import UsageError
from timebox.recipes import FIELDS, parse_recipe, parse_settings
from timebox.tuning.space import Space, default_space, read_space

AUTO = parse_recipe("auto")


def space_of(tmp_path: Path, text: str) -> Space:
    file = tmp_path / "space.toml"
    file.write_text(text)
    return read_space(str(file))


def test_the_default_space_has_all_fields_with_a_declared_range() -> None:
    declared = {
        name for name, field in FIELDS.items() if field.search_factor or field.search_range or field.search_choices
    }
    names = list(default_space(AUTO).distributions)
    assert set(names) == declared
    assert names == [name for name in FIELDS if name in declared]
    assert {"batch_size", "max_lr", "policy", "weight_decay", "label_smoothing", "width", "start_size"} <= set(names)


def test_fields_without_effect_are_left_out() -> None:
    names = set(default_space(parse_recipe("haet2021")).distributions)
    assert not names & {"filter_lr", "filter_momentum", "input_scale"}
    assert "max_lr" in names


@pytest.mark.parametrize("name", ["auto", "haet2021", "superconvergence"])
def test_suggested_values_are_valid_settings(name: str) -> None:
    draft = parse_recipe(name)
    space = default_space(draft)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        params = space.suggest(trial)
        changes = parse_settings(space.settings(params))
        assert set(changes) == set(space.distributions)
        draft.base.replace(**changes)
    assert set(study.trials[0].params) == set(params)


def test_start_values_are_within_the_distributions() -> None:
    space = default_space(AUTO)
    start = space.start_values(AUTO.base)
    assert set(start) == set(space.distributions)
    for name, distribution in space.distributions.items():
        assert distribution._contains(distribution.to_internal_repr(start[name]))
    assert start["max_lr"] == 1.0
    assert start["label_smoothing"] == AUTO.base.label_smoothing


def test_screening_trials_change_one_field_down_and_up() -> None:
    space = default_space(AUTO)
    start = space.start_values(AUTO.base)
    assert space.settings(start, ()) == ()
    trials = space.screening_trials(start)
    settings = [space.settings(params, (name,)) for name, params in trials]
    assert all(one[0].startswith(f"{name}=") for one, (name, _) in zip(settings, trials, strict=True))
    assert all(len(one) == 1 for one in settings)
    assert ("max_lr=x0.25",) in settings
    assert ("max_lr=x4",) in settings
    assert not any("width" in one[0] for one in settings)  # its range is too narrow


def test_settings_of_unchanged_fields_come_from_the_parent() -> None:
    space = default_space(AUTO)
    params = {**space.start_values(AUTO.base), "max_lr": 2.0, "batch_size": 1.0, "label_smoothing": 0.25}
    before = ("batch_size=x4", "weight_decay=x0.5")
    settings = space.settings(params, ("batch_size", "max_lr", "label_smoothing"), before)
    assert settings == ("max_lr=x2", "weight_decay=x0.5", "label_smoothing=0.25")


def test_the_start_value_of_a_range_without_1_is_its_bound(tmp_path: Path) -> None:
    assert space_of(tmp_path, "[max_lr]\ntimes = [2, 8]").start_values(AUTO.base) == {"max_lr": 2.0}


def test_a_space_reads_back_equal_from_json() -> None:
    space = default_space(AUTO)
    assert Space.from_json(space.to_json()) == space


def test_a_space_file_is_read(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        '[flip]\namong = ["none", "random"]\n[max_lr]\ntimes = [0.5, 2]\n[whitening]\namong = [true, false]\n'
        "[batch_size]\nwithin = [16, 64]\n[label_smoothing]\nwithin = [0, 0.3]\n",
    )
    assert list(space.distributions) == [
        "whitening", "batch_size", "max_lr", "label_smoothing", "flip",
    ]  # fmt: skip
    params = {"whitening": True, "batch_size": 32, "max_lr": 0.5, "label_smoothing": 0.1, "flip": "none"}
    settings = space.settings(params)
    assert settings == ("whitening=true", "batch_size=32", "max_lr=x0.5", "label_smoothing=0.1", "flip=none")
    parse_settings(settings)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[widht]\ntimes = [1, 2]", "did you mean 'width'"),
        ("[max_lr]\ntimes = [2, 0.5]", "max_lr: times [2, 0.5] is empty"),
        ("[max_lr]\ntimes = [1, 1]", "is empty"),
        ("[max_lr]\ntimes = [0, 2]", "factor must be above 0"),
        ("[max_lr]\ntimes = [-1, 2]", "max_lr"),
        ("[max_lr]\ntimes = [1]", "two numbers"),
        ('[max_lr]\ntimes = ["a", 2]', "two numbers"),
        ("[max_lr]\nwithin = [0.1, 1e9]", "must be between"),
        ("[flip]\ntimes = [1, 2]", "flip"),
        ("[whitening]\ntimes = [1, 2]", "whitening"),
        ('[flip]\namong = ["none"]', "two values or more"),
        ('[flip]\namong = ["none", "sideways"]', "must be one of"),
        ('[max_lr]\namong = ["x2", 1.0]', "use times"),
        ('[name]\namong = ["a", "b"]', "cannot be searched"),
        ('[tta]\namong = ["none", "mirror"]', "cannot be searched"),
        (f"[max_lr]\ntimes = [1, {'9' * 400}]", "no field takes"),
        ("max_lr = 3", "must have one of"),
        ("[max_lr]\ntimes = [1, 2]\nwithin = [1, 2]", "must have one of"),
        ("[max_lr]\nbetween = [1, 2]", "must have one of"),
        ("", "names no field"),
        ("[max_lr", "cannot be read"),
    ],
)
def test_an_invalid_space_file_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=r"space\.toml") as caught:
        space_of(tmp_path, text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_problems_of_a_space_file_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        space_of(tmp_path, "[widht]\ntimes = [1, 2]\n[max_lr]\ntimes = [2, 1]\n")
    assert "widht" in str(caught.value)
    assert "is empty" in str(caught.value)


def test_a_missing_space_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_space(str(tmp_path / "none.toml"))


def test_what_code_of_the_users_replaces_is_not_searched() -> None:
    settings = ["model=own_networks:Mlp", "loss=own_networks:focal", "optimizer=own_networks:adam"]
    names = set(default_space(parse_recipe("auto", settings)).distributions)
    assert {"max_lr", "batch_size", "crop_padding"} <= names
    assert not names & {"width", "input_scale", "label_smoothing", "weight_decay", "bias_lr_multiplier", "filter_lr"}
    assert {"width", "label_smoothing"} <= set(default_space(parse_recipe("auto")).distributions)
