"""Links of the pages to files that the site does not hold: their paths in the repository are shown instead."""

import posixpath
import re
from typing import Any

_LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<path>\.\./[^)\s]+)\)")


def on_page_markdown(markdown: str, page: Any, **rest: Any) -> str:
    """Called by MkDocs for each page, before it becomes HTML."""
    folder = posixpath.dirname(posixpath.join("docs", page.file.src_uri))

    def path_beside_text(link: "re.Match[str]") -> str:
        text, path = link["text"], posixpath.normpath(posixpath.join(folder, link["path"]))
        if path.startswith("docs/"):
            return link[0]
        return text if path.endswith(text.strip("`")) else f"{text} (`{path}`)"

    return _LINK.sub(path_beside_text, markdown)
