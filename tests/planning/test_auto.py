"""The automatic recipe, a pure function of the dataset profile and the images that the budget allows."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from timebox.planning.auto import (
    HEAD_TRAVEL,
    MAX_BATCH_SIZE,
    MAX_LOGIT_SCALE,
    MIN_BATCH_SIZE,
    MIN_LOGIT_SCALE,
    auto_recipe,
    candidate_scales,
    choose_batch_size,
    choose_logit_scale,
    largest_useful_side,
    max_batch_size,
)
from timebox.planning.dataset_profile import DatasetProfile
from timebox.planning.model_scales import MODEL_SCALES, ModelScale, required_epochs
from timebox.recipes import Multiplier, Recipe, Value
from timebox.recipes.builtin import airbench94

CIFAR = DatasetProfile(num_images=5000, side=32, num_classes=10, mirror_allowed=True)


def profile_of(num_images: int) -> DatasetProfile:
    return DatasetProfile(num_images=num_images, side=32, num_classes=10, mirror_allowed=True)


def work(recipe: Recipe) -> float:
    """Operations per image, relative to one network of width 8 at full resolution."""
    return recipe.ensemble_size * recipe.width**2 / 64 * recipe.input_scale**2


def affordable(images_at_width_8: float) -> Callable[[Recipe], float]:
    return lambda recipe: images_at_width_8 / work(recipe)


def test_pure() -> None:
    assert auto_recipe(CIFAR, affordable(1e6)) == auto_recipe(CIFAR, affordable(1e6))


@pytest.mark.parametrize("num_images", [40, 1000, 5000, 50_000, 1_000_000])
def test_a_larger_budget_never_gives_less_network(num_images: int) -> None:
    recipes = [auto_recipe(profile_of(num_images), affordable(num_images * 2.0 ** (k - 5)))[0] for k in range(33)]
    assert [work(recipe) for recipe in recipes] == sorted(work(recipe) for recipe in recipes)
    assert (recipes[0].width, recipes[0].ensemble_size) == (8, 1)
    assert (recipes[-1].width, recipes[-1].ensemble_size) == (MODEL_SCALES[-1].width, MODEL_SCALES[-1].ensemble_size)


@pytest.mark.parametrize("side", [8, 28, 32, 48, 64, 96, 200])
def test_larger_budgets_select_larger_scales_for_all_image_sizes(side: int) -> None:
    profile = DatasetProfile(num_images=5000, side=side, num_classes=10, mirror_allowed=True)
    recipes = [auto_recipe(profile, affordable(5000 * 1.4**k))[0] for k in range(60)]
    assert [work(recipe) for recipe in recipes] == sorted(work(recipe) for recipe in recipes)
    assert len({(recipe.width, recipe.ensemble_size, recipe.input_scale) for recipe in recipes}) > 10
    inside = [side * recipe.input_scale for recipe in recipes]
    assert min(inside) >= 15.9
    assert max(inside) == pytest.approx(max(16, min(128, side), min(40, 1.25 * side)), abs=0.1)


@pytest.mark.parametrize("k", range(4, 18))
def test_all_smaller_scales_are_affordable(k: int) -> None:
    buys = affordable(5000 * 2**k)
    chosen, reasons = auto_recipe(CIFAR, buys)
    below = [(scale, recipe) for scale, recipe in candidate_scales(CIFAR, {}) if work(recipe) < work(chosen) - 1e-9]
    for scale, recipe in below:
        assert buys(recipe) >= 5000 * required_epochs(scale, CIFAR)
    networks = "one network" if chosen.ensemble_size == 1 else f"{chosen.ensemble_size} networks"
    assert reasons[0].startswith(
        f"{networks} of width {chosen.width} at {32 * chosen.input_scale:.0f} px: needs about "
    )


def test_a_budget_for_no_images_gives_the_smallest_scale() -> None:
    for images in (0.0, -100.0, 1e-9):
        assert auto_recipe(CIFAR, lambda recipe, images=images: images)[0].width == 8  # type: ignore[misc]


def test_required_epochs_fall_with_the_number_of_images_within_bounds() -> None:
    wanted = [required_epochs(ModelScale(64, 10, exponent=0.45), profile_of(n)) for n in (10, 500, 5000, 50_000, 10**7)]
    assert wanted == sorted(wanted, reverse=True)
    assert wanted[0] == 80
    assert wanted[2] == 10
    assert wanted[-1] == pytest.approx(10 * 2000**-0.28)
    assert required_epochs(ModelScale(16, 10, exponent=0.8), profile_of(50_000)) == pytest.approx(1.585, abs=0.001)
    assert required_epochs(ModelScale(16, 10, exponent=0.8), profile_of(10**9)) == 0.1


def test_of_many_images_wide_networks_need_more_epochs() -> None:
    def wanted(num_images: int) -> list[float]:
        return [required_epochs(ModelScale(width, 10, exponent=0.8), profile_of(num_images)) for width in (16, 24, 32)]

    assert wanted(5000) == [10, 10, 10]
    assert wanted(500) == pytest.approx([63.1] * 3, rel=1e-3)
    assert wanted(45_000) == pytest.approx([1.72, 2.68, 5.41], abs=0.01)


@pytest.mark.parametrize(
    ("num_images", "share"), [(500, 0.5), (5000, 0.5), (10_000, 0.707), (20_000, 1.0), (10**6, 1.0)]
)
def test_large_images_need_fewer_epochs_if_they_are_few(num_images: int, share: float) -> None:
    photos = DatasetProfile(num_images, side=48, num_classes=2, mirror_allowed=True)
    small = DatasetProfile(num_images, side=32, num_classes=2, mirror_allowed=True)
    scale = ModelScale(16, 10, exponent=0.5)
    assert required_epochs(scale, photos) == pytest.approx(share * required_epochs(scale, small), rel=1e-3)


def test_photos_get_a_higher_resolution_before_a_wider_network() -> None:
    photos = DatasetProfile(num_images=900, side=128, num_classes=2, mirror_allowed=True)
    chosen = [auto_recipe(photos, affordable(900 * 1.3**k))[0] for k in range(60)]
    inside = {recipe.width: 128 * recipe.input_scale for recipe in reversed(chosen)}
    assert inside == pytest.approx(
        {8: 32, 12: 64, 16: 64, 24: 64, 32: 64, 48: 96, 64: 96, 96: 128, 128: 128, 192: 128, 256: 128}, abs=0.1
    )
    assert required_epochs(MODEL_SCALES[5], photos) < required_epochs(MODEL_SCALES[5], profile_of(900))


def test_of_many_images_width_comes_before_resolution() -> None:
    photos = DatasetProfile(25_000, side=64, num_classes=50, mirror_allowed=True, mirror_accuracies=(0.06, 0.06))
    chosen = [auto_recipe(photos, affordable(2e4 * 1.3**k))[0] for k in range(60)]
    inside = {(recipe.width, round(64 * recipe.input_scale)): None for recipe in chosen}
    assert list(inside)[:3] == [(8, 32), (12, 32), (16, 32)]
    assert list(inside)[3:8] == [(24, 32), (32, 32), (32, 48), (32, 64), (48, 64)]
    work_done = [work(recipe) for recipe in chosen]
    assert work_done == sorted(work_done)


@pytest.mark.parametrize(
    ("accuracies", "is_easy"), [(None, False), ((0.54, 0.5), False), ((0.56, 0.5), True), ((0.99, 0.3), True)]
)
def test_many_easy_images_get_resolution_first(accuracies: tuple[float, float] | None, is_easy: bool) -> None:
    signs = DatasetProfile(25_000, side=64, num_classes=10, mirror_allowed=False, mirror_accuracies=accuracies)
    assert signs.is_easy_when_small == is_easy
    sides = [round(64 * recipe.input_scale) for _, recipe in candidate_scales(signs, {})]
    assert sides[1] == (48 if is_easy else 32)


@pytest.mark.parametrize("num_images", [100, 900, 10_000, 1_000_000])
def test_the_largest_useful_side_grows_with_time_and_speed(num_images: int) -> None:
    sides = [largest_useful_side(num_images, 4.0 * 3**k, 500) for k in range(16)]
    assert sides == sorted(sides)
    assert sides[-1] == 128
    assert {64, 96, 128} <= set(sides) <= {32, 48, 64, 96, 128}
    assert largest_useful_side(num_images, 60, 5000) == largest_useful_side(num_images, 600, 500)
    assert largest_useful_side(num_images, 0.0, 500) == 32


@pytest.mark.parametrize("num_images", [2, 9, 20, 33, 100])
def test_tiny_data_get_tiny_batches(num_images: int) -> None:
    profile = DatasetProfile(num_images=num_images, side=8, num_classes=2, mirror_allowed=False)
    recipe, _ = auto_recipe(profile, affordable(1e7))
    assert recipe.batch_size & (recipe.batch_size - 1) == 0
    assert 8 <= recipe.batch_size <= max(8, num_images / 4)
    assert recipe.crop_padding == 1
    assert recipe.start_size == 1.0, "three quarters of 8 px do not survive three halvings"


@pytest.mark.parametrize("num_images_seen", [-5.0, 0, 1e3, 5e4, 1e5, 2e5, 1e7])
def test_the_batch_is_a_power_of_two_that_leaves_steps(num_images_seen: float) -> None:
    batch = choose_batch_size(num_images_seen, 50_000, width=8)
    assert batch & (batch - 1) == 0
    assert MIN_BATCH_SIZE <= batch <= MAX_BATCH_SIZE
    if MIN_BATCH_SIZE < batch < MAX_BATCH_SIZE:
        assert 200 <= num_images_seen / batch <= 430


def test_many_epochs_get_smaller_batches_and_more_steps() -> None:
    for epochs, width, num_steps in ((28, 16, 300), (28, 64, 600), (112, 64, 1200), (112, 16, 600)):
        batch = choose_batch_size(epochs * 5000, 5000, width)
        assert 0.7 <= epochs * 5000 / batch / num_steps <= 1.42


def test_the_largest_batch_is_no_more_than_a_quarter_of_the_data() -> None:
    assert [max_batch_size(n) for n in (2, 40, 100, 1000, 50_000)] == [8, 8, 16, 128, 1024]
    assert choose_batch_size(float("inf"), 1000, 64) == 128


def test_mixup_grows_with_epochs_times_width() -> None:
    seen = []
    for epochs, width in ((5, 256), (20, 48), (20, 64), (60, 16), (30, 96), (90, 64)):
        buys = lambda recipe, epochs=epochs: 5000.0 * epochs  # noqa: E731
        recipe, reasons = auto_recipe(CIFAR, buys, {"width": width})
        seen.append(recipe.mixup)
        assert reasons[2].endswith(f", mixup {100 * recipe.mixup:.0f} % until 85 % of training") is (recipe.mixup > 0)
        assert recipe.mixup_until == (0.85 if recipe.mixup else 1.0)
        assert auto_recipe(CIFAR, buys, {"mixup": 0.1})[0].mixup == 0.1
        to_the_end, reasons = auto_recipe(CIFAR, buys, {"mixup": 0.1, "mixup_until": 1.0})
        assert to_the_end.mixup_until == 1.0 and reasons[2].endswith(", mixup 10 %")
        assert auto_recipe(CIFAR, buys, {"width": width, "mixup": Multiplier(0.5)})[0].mixup == recipe.mixup / 2
    assert seen == [0.0, 0.0, 0.25, 0.0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("epochs", "width", "has_blurpool"), [(9, 64, False), (11, 64, True), (60, 32, False), (11, 48, True)]
)
def test_wide_networks_with_many_epochs_have_blurpool(epochs: float, width: int, has_blurpool: bool) -> None:
    recipe, reasons = auto_recipe(CIFAR, lambda recipe: 5000.0 * epochs, {"width": width})
    assert recipe.blur_pool is has_blurpool
    assert reasons[0].endswith("; BlurPool in place of max pooling") is has_blurpool
    for wanted in (False, True):
        chosen, _ = auto_recipe(CIFAR, lambda recipe: 5000.0 * epochs, {"width": width, "blur_pool": wanted})
        assert chosen == recipe.replace(blur_pool=wanted)


def test_the_learning_rate_is_proportional_to_the_batch_size() -> None:
    for k in range(6, 14):
        recipe, _ = auto_recipe(CIFAR, affordable(5000 * 2**k))
        assert recipe.max_lr == pytest.approx(1340 * recipe.batch_size / 2000, abs=1e-4)


def test_horizontal_flips_only_where_they_are_allowed() -> None:
    allowed, reasons = auto_recipe(CIFAR, affordable(1e6))
    assert (allowed.flip, allowed.tta) == ("alternating", "mirror_shift")
    assert reasons[2] == "augmentation: random crop ±2 px, horizontal flip"
    forbidden, reasons = auto_recipe(DatasetProfile(5000, 32, 10, mirror_allowed=False), affordable(1e6))
    assert (forbidden.flip, forbidden.tta) == ("none", "shift")
    assert reasons[2] == "augmentation: random crop ±2 px, no horizontal flip"


def test_overridden_fields_are_kept_and_the_others_go_with_them() -> None:
    buys = affordable(5000 * 2**9)
    free, _ = auto_recipe(CIFAR, buys)
    fixed: dict[str, Value] = {"width": 96, "ensemble_size": 1, "input_scale": 1.0}
    wider, reasons = auto_recipe(CIFAR, buys, fixed)
    assert (wider.width, wider.ensemble_size, wider.input_scale) == (96, 1, 1.0)
    assert wider.batch_size == choose_batch_size(buys(wider), 5000, 96) < free.batch_size
    assert reasons[0].startswith("one network of width 96 at 32 px: needs about ")
    chosen, _ = auto_recipe(CIFAR, buys, {"batch_size": 500})
    assert (chosen.width, chosen.batch_size, chosen.max_lr) == (free.width, 500, 1340 * 500 / 2000)
    assert auto_recipe(CIFAR, buys, {"batch_size": 500, "max_lr": 7.0})[0].max_lr == 7.0
    still, reasons = auto_recipe(CIFAR, buys, {"flip": "none"})
    assert still.flip == "none"
    assert "no horizontal flip" in reasons[2]


def test_multipliers_apply_to_the_planned_value() -> None:
    buys = affordable(5000 * 100)
    planned, _ = auto_recipe(CIFAR, buys)
    changed, _ = auto_recipe(CIFAR, buys, {"batch_size": Multiplier(2.0), "max_lr": Multiplier(0.5)})
    assert changed.batch_size == 2 * planned.batch_size
    assert changed.max_lr == pytest.approx(planned.max_lr)  # it goes with the batch
    wider, _ = auto_recipe(CIFAR, buys, {"width": Multiplier(1.5)})
    assert wider.width % 12 == 0


@pytest.mark.parametrize("side", [8, 32, 64, 96])
def test_no_two_successive_candidates_are_equal(side: int) -> None:
    recipes = [recipe for _, recipe in candidate_scales(DatasetProfile(5000, side, 10, mirror_allowed=True), {})]
    assert all(below != above for below, above in pairwise(recipes))
    assert len(candidate_scales(CIFAR, {"width": 8, "ensemble_size": 1, "input_scale": 1.0})) == 1


def test_the_logit_scale_gives_the_same_head_travel_for_all_tasks() -> None:
    for width, num_images_seen, num_classes in ((8, 3e4, 10), (32, 1e5, 100), (64, 4e5, 10), (64, 4e5, 200)):
        recipe = airbench94().replace(width=width)
        scale = choose_logit_scale(recipe, num_images_seen, num_classes)
        images_of_a_class = num_images_seen / num_classes
        assert 0.67 * images_of_a_class * 4 * width * scale**2 == pytest.approx(HEAD_TRAVEL, rel=0.42)
    published = airbench94()
    assert choose_logit_scale(published, 4e5, 10) == pytest.approx(published.logit_scale, rel=0.5), "as tuned by others"


def test_similar_trainings_have_equal_logit_scales() -> None:
    scales = {choose_logit_scale(airbench94(), images, 100) for images in (3.9e5, 4.1e5, 4.3e5)}
    assert len(scales) == 1


def test_the_logit_scale_stays_within_bounds() -> None:
    recipe = airbench94()
    assert choose_logit_scale(recipe, -5.0, 1000) == MAX_LOGIT_SCALE
    assert choose_logit_scale(recipe, 1e12, 2) == pytest.approx(MIN_LOGIT_SCALE, rel=0.01)
    many = DatasetProfile(num_images=5000, side=32, num_classes=100, mirror_allowed=True)
    few = DatasetProfile(num_images=5000, side=32, num_classes=2, mirror_allowed=True)
    buys = affordable(1e6)
    assert auto_recipe(many, buys)[0].logit_scale > auto_recipe(few, buys)[0].logit_scale
    assert auto_recipe(many, buys, {"logit_scale": 0.5})[0].logit_scale == 0.5


def test_the_last_line_names_the_next_larger_scale_and_the_range_of_the_fit() -> None:
    recipe, reasons = auto_recipe(CIFAR, affordable(1e6))
    assert (recipe.width, recipe.ensemble_size) == (32, 1)
    missing = 5000 * required_epochs(candidate_scales(CIFAR, {})[5][0], CIFAR) / (1e6 / work(recipe.replace(width=48)))
    assert reasons[-1].startswith(
        f"next larger scale: one network of width 48 at 32 px, with {missing:.1f}x the time; on tasks left out"
    )
    assert "outside the range" not in reasons[-1]
    _, reasons = auto_recipe(DatasetProfile(60_000, 200, 1000, mirror_allowed=True), affordable(1e12))
    assert "larger scale" not in reasons[-1], "the largest scale is selected"
    assert reasons[-1].endswith("; outside the range of the fit: 60,000 images, 200 px, 1,000 classes")


@pytest.mark.parametrize(("imbalance", "balanced"), [(1.0, False), (3.9, False), (4.0, True), (200.0, True)])
def test_imbalanced_classes_are_weighted(imbalance, balanced):
    profile = DatasetProfile(5000, 32, 10, mirror_allowed=True, imbalance=imbalance)
    recipe, reasons = auto_recipe(profile, affordable(1e6))
    assert (recipe.class_balance > 0) is balanced
    assert any("; class weights, as the largest class has " in reason for reason in reasons) is balanced
    fixed, _ = auto_recipe(profile, affordable(1e6), {"class_balance": 0.25})
    assert fixed.class_balance == 0.25
