"""The automatic recipe: a pure function of the task and of what the budget buys."""

from collections.abc import Callable

import pytest

from timebox.recipe import Task, auto_recipe
from timebox.recipe.auto import WIDTHS, batch_for, wanted_epochs

CIFAR = Task(num_images=5000, side=32, num_classes=10, mirror_allowed=True)


def affordable(images_at_width_8: float) -> Callable[[int], float]:
    """A machine on which a network costs the square of its width."""
    return lambda width: images_at_width_8 * 64 / width**2


def test_pure() -> None:
    assert auto_recipe(CIFAR, affordable(1e6)) == auto_recipe(CIFAR, affordable(1e6))


@pytest.mark.parametrize("num_images", [40, 1000, 5000, 50_000, 1_000_000])
def test_a_larger_budget_never_gives_a_narrower_network(num_images: int) -> None:
    task = Task(num_images=num_images, side=32, num_classes=10, mirror_allowed=True)
    recipes = [auto_recipe(task, affordable(num_images * 2**k))[0] for k in range(16)]
    assert len(recipes) == 16
    widths = [recipe.width for recipe in recipes]
    assert widths == sorted(widths)
    assert (widths[0], widths[-1]) == (8, 128)


def test_the_widest_that_sees_every_image_often_enough() -> None:
    for k in range(4, 12):
        buys = affordable(5000 * 2**k)
        width = auto_recipe(CIFAR, buys)[0].width
        fits = [w for w in WIDTHS if buys(w) >= 5000 * wanted_epochs(5000)]
        assert width == max(fits, default=8)


def test_even_a_hopeless_budget_gives_a_valid_recipe() -> None:
    for images in (0.0, -100.0, 1e-9):
        assert auto_recipe(CIFAR, lambda width, images=images: images)[0].width == 8  # type: ignore[misc]


def test_larger_data_want_fewer_epochs_within_bounds() -> None:
    wanted = [wanted_epochs(n) for n in (10, 5000, 10_000, 50_000, 10**7)]
    assert wanted == sorted(wanted, reverse=True)
    assert 10 < wanted[1] < wanted[0] <= 50
    assert wanted[-1] == 6


@pytest.mark.parametrize("num_images", [2, 9, 20, 33, 100])
def test_tiny_data_get_tiny_batches(num_images: int) -> None:
    task = Task(num_images=num_images, side=8, num_classes=2, mirror_allowed=False)
    recipe, _ = auto_recipe(task, affordable(1e7))
    assert recipe.batch_size == max(8, 2 ** int(max(8, num_images / 4)).bit_length() // 2)
    assert recipe.batch_size <= max(8, num_images / 4)
    assert recipe.crop_padding == 1


@pytest.mark.parametrize("num_images_seen", [0, 1e3, 5e4, 1e5, 2e5, 1e7])
def test_the_batch_is_a_power_of_two_that_leaves_steps(num_images_seen: float) -> None:
    batch = batch_for(num_images_seen, 50_000)
    assert batch & (batch - 1) == 0
    assert 32 <= batch <= 512
    assert batch == 32 or num_images_seen / batch >= 400


def test_the_rate_follows_the_batch() -> None:
    for k in range(6, 14):
        recipe, _ = auto_recipe(CIFAR, affordable(5000 * 2**k))
        assert recipe.max_lr == pytest.approx(recipe.batch_size / 512, abs=1e-4)


def test_mirroring_only_where_it_is_allowed() -> None:
    allowed, reasons = auto_recipe(CIFAR, affordable(1e6))
    assert (allowed.flip, allowed.tta) == ("alternating", "mirror")
    assert "mirrored images keep their class: flip alternating, scoring on both" in reasons[-1]
    forbidden, reasons = auto_recipe(Task(5000, 32, 10, mirror_allowed=False), affordable(1e6))
    assert (forbidden.flip, forbidden.tta) == ("none", "none")
    assert "mirrored images lose their class: flip none, scoring as they are" in reasons[-1]


def test_the_more_often_an_image_is_seen_the_stronger_it_is_altered() -> None:
    assert auto_recipe(CIFAR, affordable(5000 * 10))[0].cutout_size == 0
    assert auto_recipe(CIFAR, affordable(5000 * 1000))[0].cutout_size == 8


@pytest.mark.parametrize("side", [8, 9, 32, 224, 600, 5000])
def test_any_image_size_gives_a_valid_recipe(side: int) -> None:
    recipe, _ = auto_recipe(Task(5000, side, 1000, mirror_allowed=True), affordable(5000 * 1000))
    assert 1 <= recipe.crop_padding < side
    assert recipe.cutout_size < side


def test_reasons_are_given_line_by_line() -> None:
    recipe, reasons = auto_recipe(CIFAR, affordable(5000 * 400))
    assert len(reasons) == 3
    assert reasons[0].startswith(f"width {recipe.width}: the widest that sees each of 5000 images ")
    assert reasons[1].startswith(f"batch {recipe.batch_size}: about ")
    assert all("\n" not in reason for reason in reasons)
