"""Student's t distribution, for machines that have no scipy."""

from math import copysign, exp, inf, lgamma, log, log1p, sqrt

# The fraction converges within about the square root of the degrees of freedom.
_NUM_TERMS = 400


def t_above(t: float, freedom: float) -> float:
    """The probability that a t-distributed number exceeds ``t``.

    Args:
        freedom: degrees of freedom, above 0.
    """
    if t in (inf, -inf):
        return 0.0 if t > 0 else 1.0
    square = t * t
    if square < freedom:  # else 1 less something close to 1, in which small digits are lost
        tail = 0.5 - 0.5 * _incomplete_beta(square / (freedom + square), 0.5, freedom / 2)
    else:
        tail = 0.5 * _incomplete_beta(freedom / (freedom + square), freedom / 2, 0.5)
    return tail if t > 0 else 1.0 - tail


def t_quantile(share: float, freedom: float) -> float:
    """What a t-distributed number stays below with a probability of ``share``, above 0 and below 1."""
    if share < 0.5:
        return -t_quantile(1.0 - share, freedom)
    low, high = 0.0, 1.0
    while t_above(high, freedom) > 1.0 - share:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if t_above(middle, freedom) > 1.0 - share else (low, middle)
    return (low + high) / 2


def interval(mean: float, sd: float, n: int, confidence: float = 0.95) -> tuple[float, float] | None:
    """Where the true mean lies, judged from ``n`` values; None for one value, which tells no spread."""
    if n < 2:
        return None
    reach = t_quantile((1 + confidence) / 2, n - 1) * sd / sqrt(n)
    return mean - reach, mean + reach


def p_at_most(mean: float, sd: float, n: int, target: float) -> float | None:
    """One-sided t-test: how probable a mean this large or larger would be if the true one were ``target`` only.

    Small where the true mean is above the target. None for one value.
    """
    if n < 2:
        return None
    apart = mean - target
    return t_above(apart / (sd / sqrt(n)) if sd else copysign(inf, apart), n - 1)


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (NIST, DLMF 8.17.22)."""
    if not 0.0 < x < 1.0:
        return float(x >= 1.0)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly
        return 1.0 - _incomplete_beta(1.0 - x, b, a)
    fraction = 1.0
    for i in range(_NUM_TERMS, 0, -1):
        m = i // 2
        if i % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        fraction = 1.0 + term / fraction
    return exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)) / (a * fraction)
