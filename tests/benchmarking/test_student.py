"""Student's t against scipy's, and the test it is for."""

import pytest
from scipy import stats

from timebox.benchmarking.student import interval, p_at_most, t_above, t_quantile


@pytest.mark.parametrize("freedom", [1, 2, 4, 9, 49, 199, 1999])
@pytest.mark.parametrize("t", [-40.0, -2.5, -0.3, 0.0, 1e-6, 0.7, 1.96, 3.0, 12.0])
def test_tails(t: float, freedom: int) -> None:
    assert t_above(t, freedom) == pytest.approx(stats.t.sf(t, freedom), rel=1e-8, abs=1e-14)


@pytest.mark.parametrize("freedom", [1, 4, 49, 199])
@pytest.mark.parametrize("share", [0.025, 0.5, 0.9, 0.975, 0.995])
def test_quantiles(share: float, freedom: int) -> None:
    assert t_quantile(share, freedom) == pytest.approx(stats.t.ppf(share, freedom), rel=1e-8, abs=1e-12)


def test_the_interval_and_the_test() -> None:
    values = [0.941, 0.939, 0.942, 0.940, 0.9415]
    mean, sd = sum(values) / 5, stats.tstd(values)
    assert interval(mean, sd, 5) == pytest.approx(stats.t.interval(0.95, 4, loc=mean, scale=sd / 5**0.5))
    expected = stats.ttest_1samp(values, 0.94, alternative="greater").pvalue
    assert p_at_most(mean, sd, 5, 0.94) == pytest.approx(expected)


def test_one_value_tells_no_spread_and_equal_ones_tell_all() -> None:
    assert interval(0.94, 0.0, 1) is None
    assert p_at_most(0.95, 0.0, 1, 0.94) is None
    assert p_at_most(0.95, 0.0, 3, 0.94) == 0.0
    assert p_at_most(0.93, 0.0, 3, 0.94) == 1.0
    assert interval(0.95, 0.0, 3) == (0.95, 0.95)
