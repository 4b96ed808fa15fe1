"""Links of the pages to files that the site does not hold: their paths in the repository are shown instead."""

import re
from typing import Any

_OUTSIDE = re.compile(r"\[(?P<text>[^\]]*)\]\(\.\./(?P<path>[^)\s]+)\)")


def on_page_markdown(markdown: str, page: Any, **rest: Any) -> str:
    """Called by MkDocs for each page, before it becomes HTML."""
    return _OUTSIDE.sub(_path_beside_text, markdown) if "/" not in page.file.src_uri else markdown


def _path_beside_text(link: "re.Match[str]") -> str:
    text, path = link["text"], link["path"]
    return text if path.endswith(text.strip("`")) else f"{text} (`{path}`)"
