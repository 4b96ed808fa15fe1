"""A curve drawn in Braille characters."""

from collections.abc import Sequence

# The dots of a Braille character, by column and row, as bits added to its first one.
_FIRST = 0x2800
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_COLUMNS, _ROWS = 2, 4


def sketch(points: Sequence[tuple[float, float]], width: int, height: int) -> list[str]:
    """The points as Braille dots, two by four in a character; x and y are scaled to fill the drawing.

    Args:
        points: one or more (x, y), x rising.
        width, height: of the drawing in characters, 1 or more.
    Returns:
        The lines, from top to bottom, each of ``width`` characters.
    """
    xs, ys = [x for x, _ in points], [y for _, y in points]
    cells = [[_FIRST] * width for _ in range(height)]
    for x, y in points:
        column = _place(x, min(xs), max(xs), width * _COLUMNS)
        row = height * _ROWS - 1 - _place(y, min(ys), max(ys), height * _ROWS)
        cells[row // _ROWS][column // _COLUMNS] |= _DOTS[column % _COLUMNS][row % _ROWS]
    return ["".join(map(chr, line)) for line in cells]


def _place(value: float, low: float, high: float, number: int) -> int:
    return round((value - low) / (high - low) * (number - 1)) if high > low else 0
