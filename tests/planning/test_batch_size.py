"""Batch size and micro-batch size for data, budget and number of processes."""

import pytest

from timebox.errors import UsageError
from timebox.planning.batch_size import choose_micro_batch, fit_batch_size, fit_batch_to_processes
from tiny import tiny_recipe


@pytest.mark.parametrize(
    ("processes", "batch", "grown"), [(1, 32, 32), (2, 64, 64), (2, 32, 64), (4, 64, 128), (8, 24, 384), (16, 256, 512)]
)
def test_batch_and_learning_rate_grow_to_32_images_a_rank(processes: int, batch: int, grown: int) -> None:
    recipe = tiny_recipe(batch_size=batch, max_lr=2.0, min_steps=10)
    shared = fit_batch_to_processes(recipe, processes, float("inf"), 50_000, is_fixed=False)
    assert shared.batch_size == grown
    assert shared.max_lr == 2.0 * grown / batch


def test_a_batch_grows_only_while_data_and_budget_allow() -> None:
    recipe = tiny_recipe(batch_size=32, max_lr=2.0, min_steps=100)
    assert fit_batch_to_processes(recipe, 8, float("inf"), 100, is_fixed=False).batch_size == 64
    assert fit_batch_to_processes(recipe, 8, 64 * 100, 50_000, is_fixed=False).batch_size == 64
    assert fit_batch_to_processes(recipe, 8, 63 * 100, 50_000, is_fixed=False).batch_size == 32


def test_a_batch_size_set_by_the_user_is_not_changed() -> None:
    recipe = tiny_recipe(batch_size=32)
    assert fit_batch_to_processes(recipe, 8, float("inf"), 50_000, is_fixed=True) is recipe


def test_one_image_per_rank_is_refused() -> None:
    recipe = tiny_recipe(batch_size=8)
    assert fit_batch_to_processes(recipe, 4, float("inf"), 50_000, is_fixed=True) is recipe
    with pytest.raises(UsageError, match="5 processes cannot share batches of 8 images: each needs 2"):
        fit_batch_to_processes(recipe, 5, float("inf"), 50_000, is_fixed=True)


def test_micro_batches_split_the_batch_of_one_rank() -> None:
    recipe = tiny_recipe(batch_size=128, ghost_size=32)
    assert choose_micro_batch(recipe, 1, 1 / 64) == (64, ["batches of 128 are computed in micro-batches of 64 images"])
    # Two ranks have twice the throughput, and 64 images each.
    assert choose_micro_batch(recipe, 2, 1 / 128) == (64, [])
    assert choose_micro_batch(recipe, 2, 1 / 64) == (32, ["batches of 128 are computed in micro-batches of 32 images"])


def test_a_batch_is_halved_until_the_data_fill_it() -> None:
    recipe = tiny_recipe(batch_size=256, max_lr=4.0, min_steps=10)
    assert fit_batch_size(recipe, float("inf"), 100).batch_size == 64
    assert fit_batch_size(recipe, float("inf"), 100).max_lr == 1.0
