"""Numbers, percentages and counts as texts."""

import math

UNKNOWN = "–"


def number(value: object, spec: str = ",") -> str:
    """A number under a format spec; a dash for a missing value or one that is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return UNKNOWN
    return format(value, spec)


def percent(share: object, digits: int = 2) -> str:
    """A share between 0 and 1 as `98.33 %`; a dash where there is none."""
    text = number(share * 100 if isinstance(share, int | float) else None, f".{digits}f")
    return text if text == UNKNOWN else f"{text} %"


def short(value: float) -> str:
    """A loss or a rate in three significant digits: `0.512`, `0.00041`, `12.3`, `nan`."""
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"


def plural(count: int, noun: str, many: str | None = None) -> str:
    """`1 image`, `1,797 images`; `many` is the plural where it is not the noun and an s."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"
