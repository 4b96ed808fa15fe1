"""Pages with tables that are made from records/: each stands between two comments that name it."""

from collections.abc import Sequence

BEGIN, END = "<!-- {}:begin -->", "<!-- {}:end -->"


class PageError(Exception):
    """A page with no place for a table."""


def with_table(page: str, text: str, name: str, lines: Sequence[str]) -> str:
    """The text of a page with a table in its place."""
    begin, end = BEGIN.format(name), END.format(name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise PageError(f"{page} must hold {begin} and, below it, {end}, each once")
    before, after = text.split(begin)[0], text.split(end)[1]
    return "\n".join((before + begin, *lines, end + after))
