"""What is claimed from repeated trials, against scipy, published examples and figures worked out by hand."""

import math

import pytest
from scipy import stats

from timebox.benchmarking.statistics import MIN_PAIRS, SampleStatistics, compare, describe, holm, p_above, paired_p

FIRST = [0.800, 0.812, 0.795, 0.808, 0.803, 0.799]
OTHER = [0.806, 0.815, 0.799, 0.806, 0.812, 0.807]


def blocks(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_figures_worked_out_by_hand() -> None:
    figures = describe([0.70, 0.80, 0.90])
    assert figures.n == 3
    assert figures.mean == pytest.approx(0.80)
    assert figures.sd == pytest.approx(0.10)
    # Student's t for two degrees of freedom is 4.303 at 97.5 %.
    half = 4.302653 * 0.10 / math.sqrt(3)
    assert figures.interval == pytest.approx((0.80 - half, 0.80 + half), abs=1e-6)


def test_the_interval_is_scipys() -> None:
    expected = stats.t.interval(0.95, len(FIRST) - 1, loc=stats.tmean(FIRST), scale=stats.sem(FIRST))
    assert describe(FIRST).interval == pytest.approx(expected)


def test_too_few_for_a_spread() -> None:
    assert describe([]) == SampleStatistics(0, None, None, None)
    assert describe([0.5]) == SampleStatistics(1, 0.5, None, None)


def test_values_that_are_all_the_same_have_no_spread() -> None:
    assert describe([0.1 + 0.2, 0.3, 0.3]) == SampleStatistics(3, pytest.approx(0.3), 0.0, pytest.approx((0.3, 0.3)))


def test_p_is_scipys() -> None:
    differences = [b - a for a, b in zip(FIRST, OTHER, strict=True)]
    assert paired_p(differences) == pytest.approx(stats.ttest_rel(OTHER, FIRST).pvalue)
    assert paired_p([-difference for difference in differences]) == pytest.approx(paired_p(differences))


def test_there_is_no_p_without_a_spread() -> None:
    assert paired_p([]) is None
    assert paired_p([0.1]) is None
    assert paired_p([0.0] * 9) is None
    assert paired_p([0.8 - 0.7, 0.9 - 0.8, 0.4 - 0.3]) is None, "equal but for the rounding of a subtraction"


def test_holm_worked_out_by_hand() -> None:
    # 4 x 0.005; 3 x 0.01; 2 x 0.03; then 1 x 0.04, which may not fall below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005], 4) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5], 2) == [1.0, 1.0]
    assert holm([0.03], 1) == [0.03]
    assert holm([], 0) == []


def test_a_comparison_that_could_not_be_made_still_counts_in_the_family() -> None:
    assert holm([0.01, None, 0.02], 3) == pytest.approx([0.03, None, 0.04])


def test_one_comparison() -> None:
    (found,) = compare({"a": blocks(*FIRST), "b": blocks(*OTHER)}, ["a", "b"])
    differences = [b - a for a, b in zip(FIRST, OTHER, strict=True)]
    assert (found.recipe, found.against, found.num_pairs) == ("b", "a", 6)
    assert found.mean_difference == pytest.approx(sum(differences) / 6)
    assert found.interval == pytest.approx(tuple(stats.ttest_rel(OTHER, FIRST).confidence_interval(0.95)))
    assert found.p == found.p_corrected == pytest.approx(stats.ttest_rel(OTHER, FIRST).pvalue)
    assert found.p is not None
    assert 0.01 < found.p < 0.05
    assert (found.significant, found.verdict) == (True, "better")
    (reverse,) = compare({"a": blocks(*OTHER), "b": blocks(*FIRST)}, ["a", "b"])
    assert (reverse.significant, reverse.verdict) == (True, "worse")


def test_what_one_comparison_shows_two_may_not() -> None:
    noise = [a + shift for a, shift in zip(FIRST, (0.01, -0.01, 0.005, -0.006, 0.002, 0.001), strict=True)]
    b, c = compare({"a": blocks(*FIRST), "b": blocks(*OTHER), "c": blocks(*noise)}, ["a", "b", "c"])
    assert b.p is not None
    assert b.p_corrected == pytest.approx(2 * b.p)
    assert (b.significant, b.verdict) == (False, "no difference shown")
    assert c.p == c.p_corrected
    assert c.verdict == "no difference shown"


def test_only_blocks_that_both_have_are_paired() -> None:
    base = blocks(*FIRST)
    other = {block: accuracy for block, accuracy in blocks(*OTHER).items() if block != 2} | {9: 0.9}
    (found,) = compare({"a": base, "b": other}, ["a", "b"])
    assert found.num_pairs == 5
    assert found.mean_difference == pytest.approx(sum(other[i] - base[i] for i in (0, 1, 3, 4, 5)) / 5)


@pytest.mark.parametrize("num", range(MIN_PAIRS))
def test_nothing_is_claimed_from_few_pairs(num: int) -> None:
    (found,) = compare({"a": blocks(*FIRST[:num]), "b": blocks(*[x + 0.1 for x in OTHER[:num]])}, ["a", "b"])
    assert (found.p, found.p_corrected, found.significant) == (None, None, None)
    words = "1 complete pair" if num == 1 else f"{num} complete pairs"
    assert found.verdict == f"not tested: {words}, the test needs 5"
    assert (found.interval is None) == (num < 2)
    assert (found.mean_difference is None) == (num < 1)


def test_differences_without_a_spread() -> None:
    (same,) = compare({"a": blocks(*FIRST), "b": blocks(*FIRST)}, ["a", "b"])
    assert (same.p, same.significant, same.verdict) == (None, None, "the same in all 6 pairs")
    (shifted,) = compare({"a": blocks(*[0.5] * 5), "b": blocks(*[0.75] * 5)}, ["a", "b"])
    assert (shifted.mean_difference, shifted.p, shifted.significant) == (0.25, None, None)
    assert shifted.verdict == "not tested: all 5 pairs differ by the same +25.00 points, without any spread"


def test_a_recipe_without_any_result() -> None:
    b, c = compare({"a": blocks(*FIRST), "b": blocks(*OTHER)}, ["a", "b", "c"])
    assert (c.num_pairs, c.mean_difference, c.p) == (0, None, None)
    assert b.p is not None
    assert b.p_corrected == pytest.approx(2 * b.p), "the family was fixed beforehand"


def test_one_recipe_is_compared_with_nothing() -> None:
    assert compare({"a": blocks(*FIRST)}, ["a"]) == []


def test_a_mean_above_a_target_is_tested_from_one_side() -> None:
    values = [0.941, 0.939, 0.943]
    expected = stats.ttest_1samp(values, 0.94, alternative="greater").pvalue
    assert p_above(values, 0.94) == pytest.approx(expected)
    assert p_above(values, 0.95) == pytest.approx(stats.ttest_1samp(values, 0.95, alternative="greater").pvalue)
    assert p_above([0.95], 0.94) is None
    assert (p_above([0.95, 0.95], 0.94), p_above([0.93, 0.93], 0.94)) == (0.0, 1.0)
