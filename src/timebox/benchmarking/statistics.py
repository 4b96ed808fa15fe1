"""Statistics of repeated trials: means with intervals, paired t-tests and Holm's correction.

Pure functions of accuracies, without rounding. No test is made of fewer than MIN_PAIRS pairs.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec import Struct

from timebox.run.json_values import Count, Share

ALPHA = 0.05
CONFIDENCE = 0.95
# With fewer pairs the result of a t-test depends on its assumption of normal differences.
MIN_PAIRS = 5
# Accuracies are ratios of counts: smaller differences are rounding errors.
_SAME = 1e-12


@dataclass(frozen=True)
class SampleStatistics:
    """Size, mean, standard deviation and interval of a sample.

    Attributes:
        mean: None for an empty sample. sd: standard deviation; None for fewer than two values.
        interval: 95 % confidence interval of the mean (Student's t); None for fewer than two values.
    """

    n: int
    mean: float | None
    sd: float | None
    interval: tuple[float, float] | None


class ComparisonResult(Struct, frozen=True, kw_only=True):
    """The difference of a recipe from the first one.

    Attributes:
        mean_difference: mean of the recipe's accuracies less those of the first.
        interval: 95 % interval of the difference.
        p: p of the test; null where it was not done.
        p_corrected: p after the correction for several comparisons.
        significant: whether p_corrected is below alpha; null where the test was not done.
        verdict: the result in words.
    """

    recipe: str
    against: str
    num_pairs: Count
    mean_difference: float | None
    interval: tuple[float, float] | None
    p: Share | None
    p_corrected: Share | None
    significant: bool | None
    verdict: str


def describe(values: Sequence[float]) -> SampleStatistics:
    if not values:
        return SampleStatistics(0, None, None, None)
    mean = statistics.fmean(values)
    if len(values) < 2:
        return SampleStatistics(1, mean, None, None)
    sd = 0.0 if _all_same(values) else statistics.stdev(values)
    from scipy import stats

    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * sd / math.sqrt(len(values))
    return SampleStatistics(len(values), mean, sd, (mean - half, mean + half))


def paired_p(differences: Sequence[float]) -> float | None:
    """p of the two-sided paired t-test; None with fewer than two differences, or where all are the same."""
    if len(differences) < 2 or _all_same(differences):
        return None
    from scipy import stats

    n = len(differences)
    t = statistics.fmean(differences) / (statistics.stdev(differences) / math.sqrt(n))
    return float(2 * stats.t.sf(abs(t), n - 1))


def p_above(values: Sequence[float], target: float) -> float | None:
    """p of the one-sided t-test that the mean is above ``target``; None with fewer than two values."""
    if len(values) < 2:
        return None
    from scipy import stats

    apart = statistics.fmean(values) - target
    if _all_same(values):
        return float(apart <= 0)
    return float(stats.t.sf(apart / (statistics.stdev(values) / math.sqrt(len(values))), len(values) - 1))


def holm(p_values: Sequence[float | None], num_comparisons: int) -> list[float | None]:
    """p-values with the correction of Holm (1979) for a family of ``num_comparisons``; None stays None.

    Comparisons without a p-value count as members of the family, which is fixed before the trials.
    """
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    in_order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    for rank, (p, place) in enumerate(in_order):
        largest = max(largest, min(1.0, (num_comparisons - rank) * p))
        corrected[place] = largest
    return corrected


def compare(accuracies: Mapping[str, Mapping[int, float]], recipes: Sequence[str]) -> list[ComparisonResult]:
    """Compare every other recipe with the first.

    Args:
        accuracies: for each recipe, the accuracy in each block to be paired. Two recipes are paired in the blocks that
            both have.
        recipes: all recipes of the benchmark, the first being the baseline.
    """
    first, others = recipes[0], recipes[1:]
    base = accuracies.get(first, {})
    pairs = []
    for other in others:
        own = accuracies.get(other, {})
        pairs.append([own[block] - base[block] for block in sorted(set(own) & set(base))])
    p_values = [paired_p(differences) if len(differences) >= MIN_PAIRS else None for differences in pairs]
    corrected = holm(p_values, len(others))
    return [
        _comparison(other, first, differences, p, p_corrected)
        for other, differences, p, p_corrected in zip(others, pairs, p_values, corrected, strict=True)
    ]


def _comparison(
    recipe: str, against: str, differences: Sequence[float], p: float | None, p_corrected: float | None
) -> ComparisonResult:
    sample = describe(differences)
    significant = None if p_corrected is None else p_corrected < ALPHA
    return ComparisonResult(
        recipe=recipe,
        against=against,
        num_pairs=sample.n,
        mean_difference=sample.mean,
        interval=sample.interval,
        p=p,
        p_corrected=p_corrected,
        significant=significant,
        verdict=_verdict(differences, sample.mean, significant),
    )


def _verdict(differences: Sequence[float], mean: float | None, significant: bool | None) -> str:
    """The result of a comparison in words."""
    n = len(differences)
    if n < MIN_PAIRS:
        return f"not tested: {n} complete {'pair' if n == 1 else 'pairs'}, the test needs {MIN_PAIRS}"
    assert mean is not None
    if significant is None:
        if abs(mean) <= _SAME:
            return f"the same in all {n} pairs"
        return f"not tested: all {n} pairs differ by the same {100 * mean:+.2f} points, without any spread"
    if not significant:
        return "no difference shown"
    return "better" if mean > 0 else "worse"


def _all_same(values: Sequence[float]) -> bool:
    return max(values) - min(values) <= _SAME
