"""Replaces the tables in Markdown pages that are generated from records/: each lies between two comments."""

from collections.abc import Sequence

BEGIN, END = "<!-- {}:begin -->", "<!-- {}:end -->"


class PageError(Exception):
    """A page lacks the comments of a table, or has them twice or in the wrong order."""


def replace_table(page: str, text: str, name: str, lines: Sequence[str]) -> str:
    """The text of a page with the table between the comments replaced.

    Args:
        page: name of the page, for the error message.
        text: of the page.
        name: of the table, as in its comments.
        lines: of the new table.
    """
    begin, end = BEGIN.format(name), END.format(name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise PageError(f"{page} must hold {begin} and, below it, {end}, each once")
    before, after = text.split(begin)[0], text.split(end)[1]
    return "\n".join((before + begin, *lines, end + after))
