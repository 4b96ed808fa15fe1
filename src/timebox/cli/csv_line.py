"""Lines of CSV that are safe to open in a spreadsheet and to print."""

import re
import unicodedata
from collections.abc import Sequence

from timebox.errors import as_unicode, one_line

# A spreadsheet takes a cell that begins with one of these for a formula, also in the wide and small forms of East Asian
# keyboards, and after blanks and characters that show nothing. An apostrophe stands before such a cell, and before one
# that begins with an apostrophe or a separator.
_FORMULA_SIGNS = frozenset("=+-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u2212")
_APOSTROPHE_AND_SEPARATORS = frozenset("'\t\r\n")
# Categories of Unicode, and letters and symbols by their code, that show nothing.
_INVISIBLE = frozenset({"Cc", "Cf", "Cn", "Co", "Me", "Mn", "Zl", "Zp", "Zs"})
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# Separators of other programs are quoted too, so that a cell is not cut in two.
_TO_QUOTE = re.compile(r"[,;\t\r\n\"|]|^\s|\s$")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def csv_line(cells: Sequence[str], for_terminal: bool = False) -> str:
    """A line of CSV, with its line break.

    An apostrophe stands before a cell that a spreadsheet would take for a formula, and before one that begins with an
    apostrophe: to undo this, take one away. Numbers stay as they are. Control characters but tabs and line ends are
    escaped, as in messages.

    Args:
        for_terminal: whether tabs and line ends in cells are escaped too.
    """
    return ",".join(_quoted(_cell(cell, for_terminal)) for cell in cells) + "\n"


def _cell(cell: str, for_terminal: bool) -> str:
    text = as_unicode(cell)
    text = one_line(text) if for_terminal else _CONTROL.sub(lambda found: one_line(found[0]), text)
    return f"'{text}" if _is_formula(text) and not _NUMBER.fullmatch(text) else text


def _is_formula(text: str) -> bool:
    shown = (char for char in text if char not in _BLANK and unicodedata.category(char) not in _INVISIBLE)
    return text[:1] in _APOSTROPHE_AND_SEPARATORS or next(shown, "") in _FORMULA_SIGNS


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if _TO_QUOTE.search(cell) else cell
