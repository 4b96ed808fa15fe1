"""Pieces of HTML that pages are made of."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from numpy import uint8
from numpy.typing import NDArray
from PIL import Image

from timebox.reporting.style import STYLE

# Images up to this side are shown pixel for pixel, without loss; larger ones as JPEG.
LARGEST_EXACT_SIDE = 48


def page(title: str, body: Iterable[str]) -> str:
    """A whole page that needs nothing else."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(name: str, title: str, *content: str) -> str:
    """A part of a page, with a heading; nothing without content."""
    inside = "\n".join(part for part in content if part)
    return f'<section id="{name}">\n<h2>{escape(title)}</h2>\n{inside}\n</section>' if inside else ""


def paragraph(text: str, style: str = "soft") -> str:
    """A paragraph of text."""
    return f'<p class="{style}">{escape(text)}</p>'


def items(texts: Sequence[str]) -> str:
    """A list of texts; nothing without any."""
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>" if texts else ""


def folded(summary: str, content: str) -> str:
    """What is shown when it is asked for."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], num_text_columns: int = 1) -> str:
    """A table whose first columns are text and whose others are numbers."""

    def row(tag: str, cells: Sequence[str]) -> str:
        styles = ["wrap" if position < num_text_columns else "n" for position in range(len(cells))]
        written = (f'<{tag} class="{style}">{escape(cell)}</{tag}>' for style, cell in zip(styles, cells, strict=True))
        return f"<tr>{''.join(written)}</tr>"

    body = "".join(row("td", cells) for cells in rows)
    return f'<div class="scroll"><table><thead>{row("th", headers)}</thead><tbody>{body}</tbody></table></div>'


def fields(values: Mapping[str, object]) -> str:
    """Names and values, a line each."""
    return table(("", ""), [(name, str(value)) for name, value in values.items()], 2) if values else ""


def chart(title: str, svg: str, style: str = "") -> str:
    """A chart under its title."""
    return f'<div class="{style}"><h3>{escape(title)}</h3>{svg}</div>'


def picture(image: NDArray[uint8], caption: str, title: str) -> str:
    """An image with a caption, which is HTML, and what is shown when it is pointed at."""
    height, width, channels = image.shape
    small = max(height, width) <= LARGEST_EXACT_SIDE or channels == 4
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(2) if channels == 1 else image).save(buffer, "PNG" if small else "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    kind, style = ("png", ' class="small"') if small else ("jpeg", "")
    return (
        f'<figure><img{style} src="data:image/{kind};base64,{data}" alt="{escape(title, quote=True)}" '
        f'title="{escape(title, quote=True)}"><figcaption>{caption}</figcaption></figure>'
    )
