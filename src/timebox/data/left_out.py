"""LeftOut: what a reader left out, with a count and examples."""

from collections.abc import Sequence
from dataclasses import dataclass

from timebox.data.reading.text import abbreviate_list
from timebox.formatting import plural

_MAX_EXAMPLES = 3


@dataclass(frozen=True)
class LeftOut:
    """Files, folders or rows of a source that are not read.

    Attributes:
        what: "image", "folder", "row", ...; singular.
        reason: why, as it follows ``what``: "outside any class folder".
        count: number of them.
        examples: paths of up to three, relative to the source.
    """

    what: str
    reason: str
    count: int
    examples: tuple[str, ...]

    @classmethod
    def of(cls, what: str, reason: str, names: Sequence[str]) -> "LeftOut | None":
        """The record of all `names`; None where there are none."""
        return cls(what, reason, len(names), tuple(names[:_MAX_EXAMPLES])) if names else None

    @property
    def sentence(self) -> str:
        """ "2 images outside any class folder left out: a.png, b.png"."""
        words = f"{plural(self.count, self.what)} {self.reason}".rstrip()
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{words} left out: {abbreviate_list(self.examples)}{more}"
