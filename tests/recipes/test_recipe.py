"""A recipe checks itself, says all that is wrong at once, and reads back equal."""

import tomllib
from pathlib import Path

import pytest

from timebox.errors import UsageError
from timebox.recipes import (
    AUTO,
    FIELDS,
    RECIPES,
    Multiplier,
    Recipe,
    describe_field,
    describe_recipe,
    get_recipe,
    parse_recipe,
    parse_settings,
    recipe_from,
    recipe_names,
)

NUM_FIELDS = 44
NAMES = ["haet2021", "dawnbench", "airbench94", "superconvergence", "adamw"]


def haet() -> Recipe:
    return RECIPES["haet2021"]()


def refusal(call: object, *args: object) -> str:
    with pytest.raises(UsageError) as caught:
        call(*args)  # type: ignore[operator]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_field_has_a_description_and_every_number_a_range() -> None:
    assert len(FIELDS) == NUM_FIELDS
    for name, value in haet().as_dict().items():
        field = FIELDS[name]
        assert field.description
        if type(value) in (int, float):
            assert field.low < field.high, name
            assert f"[{field.low:g} ... {field.high:g}]" in describe_field(name)
    assert describe_field("flip") == "horizontal flip of training images: none, random, alternating"
    assert describe_field("width") == "channels of the network's first stage [4 ... 512]"
    assert describe_field("whitening") == (
        "fixed whitening filters in the first convolution; identity filters in airbench if false"
    )


def test_the_built_in_recipes() -> None:
    assert list(RECIPES) == NAMES
    assert recipe_names() == [AUTO, *NAMES]
    for name in NAMES:
        assert get_recipe(name) == RECIPES[name]()
        assert get_recipe(name).name == name
        assert len(describe_recipe(name).splitlines()[0]) > 20
    assert describe_recipe(AUTO).startswith("Networks, batch, image sizes and augmentation from the data")


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_reads_back_equal(name: str, tmp_path: Path) -> None:
    recipe = get_recipe(name)
    text = recipe.to_toml()
    assert len(text.splitlines()) == NUM_FIELDS
    assert all(" # " in line for line in text.splitlines())
    assert recipe_from(tomllib.loads(text)) == recipe
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    assert get_recipe(str(tmp_path / "mine.toml")) == recipe
    assert recipe_from(recipe.as_dict()) == recipe


def test_a_hostile_name_reads_back_equal() -> None:
    recipe = haet().replace(name='a "b" # c\n\\d = 1')
    assert recipe_from(tomllib.loads(recipe.to_toml())) == recipe


def test_the_entry_is_what_its_paper_says() -> None:
    recipe = haet()
    assert (recipe.model, recipe.celu_alpha, recipe.ghost_size, recipe.policy) == ("resnet9", 0.3, 32, "one_cycle")
    assert (recipe.tta, recipe.flip, recipe.end_fraction) == ("mirror", "random", 0.0)
    assert RECIPES["superconvergence"]().model == "resnet18"
    assert RECIPES["dawnbench"]().policy == "piecewise"


def test_airbench94_is_the_published_one_per_image() -> None:
    recipe = RECIPES["airbench94"]()
    # The script sums the losses of a batch: its rates are those of one image.
    assert recipe.max_lr / recipe.batch_size == pytest.approx(0.67)
    assert recipe.bias_lr_multiplier * recipe.max_lr / recipe.batch_size == pytest.approx(0.053)
    assert recipe.weight_decay * recipe.max_lr == pytest.approx(2e-6 * 2000)
    assert (recipe.optimizer, recipe.filter_lr, recipe.filter_momentum) == ("muon", 0.24, 0.6)
    assert (recipe.start_fraction, recipe.peak_at, recipe.down_at, recipe.end_fraction) == (1.0, 0.0, 1.0, 0.0)
    assert recipe.min_steps == 8 * 50_000 // 2000


def test_unknown_fields_are_refused_all_at_once_with_suggestions() -> None:
    message = refusal(recipe_from, {**haet().as_dict(), "weigth_decay": 0.1, "bach_size": 3, "zzz": 1})
    assert message == (
        "recipe 'haet2021': unknown field 'weigth_decay', did you mean 'weight_decay'?; "
        "unknown field 'bach_size', did you mean 'batch_size'?; "
        "unknown field 'zzz'; `timebox recipes haet2021` shows all fields"
    )


def test_unknown_missing_and_bad_are_told_together() -> None:
    values = {**haet().as_dict(), "widht": 8, "flip": "randon", "batch_size": 2.5}
    del values["max_lr"], values["tta"]
    assert refusal(recipe_from, values) == (
        "recipe 'haet2021': unknown field 'widht', did you mean 'width'?; missing: max_lr, tta; "
        "batch_size 2.5 must be a whole number; "
        "flip 'randon' must be one of none, random, alternating, did you mean 'random'?"
    )


def test_settings_have_their_fields_types() -> None:
    values = parse_settings(
        ["width=32", "max_lr=1e-3", "weight_decay=0", "whitening=false", "flip=none", " tta = mirror ", "name='x y'"]
    )
    assert values == {
        "width": 32,
        "max_lr": 0.001,
        "weight_decay": 0.0,
        "whitening": False,
        "flip": "none",
        "tta": "mirror",
        "name": "x y",
    }
    assert [type(value) for value in values.values()] == [int, float, float, bool, str, str, str]


def test_settings_apply_one_after_the_other() -> None:
    assert parse_recipe("haet2021", ["width=16", "width=32"]).fixed.width == 32
    assert parse_recipe("haet2021").fixed == haet()
    assert parse_recipe("haet2021", ["max_lr=0.4", "max_lr=x2", "max_lr=x0.5"]).fixed.max_lr == 0.4
    assert parse_settings(["max_lr=x2", "max_lr=x3"]) == {"max_lr": Multiplier(6.0)}


def test_multiples_are_of_what_the_recipe_has_whole_where_it_is_and_within_its_range() -> None:
    changed = parse_recipe("haet2021", ["max_lr=x0.25", "batch_size=x1.0004", "label_smoothing=x100"]).fixed
    assert (changed.max_lr, changed.batch_size, changed.label_smoothing) == (
        haet().max_lr / 4, haet().batch_size, FIELDS["label_smoothing"].high,
    )  # fmt: skip


@pytest.mark.parametrize("setting", ["max_lr=x0", "max_lr=x-2", "max_lr=x", "flip=x2", "whitening=x2"])
def test_what_is_no_multiple_is_refused(setting: str) -> None:
    assert setting.partition("=")[0] in refusal(parse_settings, [setting])


def test_a_file_may_extend_auto_with_values_and_multiples(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('extends = "auto"\nmax_lr = "x0.5"\nlabel_smoothing = 0.1\n')
    spec = parse_recipe(str(file), ["max_lr=x3"])
    assert spec.fixed is None
    assert spec.overrides == {"name": "mine", "max_lr": Multiplier(1.5), "label_smoothing": 0.1}
    assert "has no fixed fields" in refusal(get_recipe, str(file))
    file.write_text('extends = "auto"\nmax_lr = "x0"\nwidht = 3\n')
    assert refusal(parse_recipe, str(file)).count(";") == 1


def test_wrong_settings_are_refused_all_at_once() -> None:
    assert refusal(
        parse_settings, ["widht=3", "width", "batch_size=big", "max_lr=50000", "whitening=1", "width=8"]
    ) == (
        "settings: unknown field 'widht', did you mean 'width'?; 'width' is not FIELD=VALUE; "
        "batch_size 'big' must be a whole number; max_lr 50000 must be between 1e-06 and 10000; "
        "whitening 1 must be true or false"
    )


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("width=3", "width 3 must be between 4 and 512"),
        ("width=32.0", "width 32.0 must be a whole number"),
        ("width=true", "width True must be a whole number"),
        ("width=", "width '' must be a whole number"),
        ("max_lr=nan", "max_lr nan must be between 1e-06 and 10000"),
        ("max_lr=inf", "max_lr inf must be between 1e-06 and 10000"),
        ("max_lr=true", "max_lr True must be a number"),
        ("max_lr=[1]", "max_lr [1] must be a number"),
        ("whitening=yes", "whitening 'yes' must be true or false"),
        (
            "model=resnet50",
            "model 'resnet50' must be one of resnet9, resnet18, airbench, "
            "or package.module:function, did you mean 'resnet9'?",
        ),
        ("policy=cosine", "policy 'cosine' must be one of one_cycle, triangular, piecewise, constant"),
        ("label_smoothing=1", "label_smoothing 1 must be between 0 and 0.9"),
    ],
)
def test_a_wrong_setting(setting: str, problem: str) -> None:
    assert refusal(parse_settings, [setting]) == f"settings: {problem}"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"peak_at": 0.9}, "peak_at 0.9 must be below down_at 0.85"),
        ({"min_momentum": 0.96}, "min_momentum 0.96 must not be above max_momentum 0.95"),
        ({"image_size": 7}, "image_size 7 must be 0 or at least 8"),
        ({"ghost_size": 1}, "ghost_size 1 must be 0 or at least 2: one image has no variance to normalise by"),
        (
            {"model": "resnet18"},
            "whitening must be false for resnet18; celu_alpha must be 0 for resnet18; "
            "ghost_size must be 0 for resnet18; logit_scale must be 1 for resnet18",
        ),
        ({"whitening_bias_until": 0.5}, "whitening_bias_until must be 0 for resnet9"),
        ({"model": "airbench", "whitening": False}, "celu_alpha must be 0 for airbench"),
        (
            {"width": 1000, "flip": "up"},
            "width 1000 must be between 4 and 512; flip 'up' must be one of none, random, alternating",
        ),
    ],
)
def test_what_does_not_go_together(changes: dict[str, int | float | str], problem: str) -> None:
    recipe = haet()
    assert refusal(lambda: recipe.replace(**changes)) == f"recipe 'haet2021': {problem}"


def test_the_constructor_checks_too() -> None:
    assert refusal(lambda: Recipe(**{**haet().as_dict(), "width": 2})) == (  # type: ignore[arg-type]
        "recipe 'haet2021': width 2 must be between 4 and 512"
    )


def test_a_file_extends_a_built_in_recipe(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text('extends = "dawnbench"\nwidth = 16\nmax_lr = 1\n', encoding="utf-8")
    assert get_recipe(str(path)) == RECIPES["dawnbench"]().replace(name="small", width=16, max_lr=1.0)


def test_a_file_with_all_its_faults_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("width = 16\nepochs = 10\n", encoding="utf-8")
    message = refusal(get_recipe, str(path))
    assert message.startswith("recipe 'mine': unknown field 'epochs'; `timebox recipes haet2021` shows all fields; ")
    assert "missing: model, ensemble_size, input_scale, blur_pool, whitening, " in message
    assert "width" not in message.partition("missing: ")[2].split(", ")


@pytest.mark.parametrize("base", ['"haet2022"', "3", '["haet2021"]'])
def test_a_file_that_extends_nothing_known(tmp_path: Path, base: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"extends = {base}\n", encoding="utf-8")
    given = tomllib.loads(f"x = {base}")["x"]
    assert refusal(get_recipe, str(path)) == (
        f"recipe file {str(path)!r}: extends {given!r} must be one of auto, {', '.join(NAMES)}"
    )


@pytest.mark.parametrize("content", [b"width = = 3", b"\xff\xfe\x00", None])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    assert refusal(get_recipe, str(path)).startswith(f"recipe file {str(path)!r} cannot be read: ")


def test_did_you_mean() -> None:
    allowed = "use one of auto, haet2021, dawnbench, airbench94, superconvergence, adamw, or a file that ends in .toml"
    assert refusal(get_recipe, "dawnbensh") == (f"recipe 'dawnbensh' is unknown; did you mean 'dawnbench'? {allowed}")
    assert refusal(get_recipe, "xyz") == f"recipe 'xyz' is unknown; {allowed}"
    assert refusal(describe_recipe, "autp") == f"recipe 'autp' is unknown; did you mean 'auto'? {allowed}"


def test_a_file_of_absurd_size_or_depth_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.toml"
    for text, words in {
        "a" + ".a" * 50_000 + " = 1": "larger than the 16,384 bytes",
        "width = " + "[" * 10_000: "nested too deeply",
        "width = " + "9" * 5_000: "Exceeds the limit",
        "width = 0x" + "f" * 5_000: "width, a number of 20,000 bits, must be between 4 and 512",
        "max_lr = 0x" + "f" * 5_000: "max_lr, a number of 20,000 bits, must be between 1e-06 and 10000",
    }.items():
        path.write_text('extends = "haet2021"\n' + text)
        with pytest.raises(UsageError, match=words):
            get_recipe(str(path))


def test_a_setting_of_absurd_length_is_refused() -> None:
    for text in ("9" * 5_000, "0x" + "f" * 900, "[" * 900, "a" * 100_000):
        with pytest.raises(UsageError, match=r"^settings: width"):
            parse_settings([f"width={text}"])


def test_a_celu_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="celu_alpha 0 must be above 0 for resnet9"):
        haet().replace(celu_alpha=0.0)
