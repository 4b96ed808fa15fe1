"""Renders the Jinja2 templates of the pages, and encodes images as data URIs."""

import base64
import io
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from numpy import uint8
from numpy.typing import NDArray
from PIL import Image

from timebox.clock import format_duration

if TYPE_CHECKING:
    from jinja2 import Environment

# The height and width in pixels up to which an image is stored as PNG and shown with sharp pixels; larger ones as JPEG.
MAX_PNG_SIDE = 48


def render(template: str, **context: object) -> str:
    """Render a page: one HTML file with its style, charts and images inside.

    Every value is HTML-escaped unless the template marks it as safe.

    Args:
        template: name of a file in ``templates/``.
        context: the template's variables.
    Raises:
        jinja2.UndefinedError: where the template uses a variable that is not in ``context``.
    """
    return _environment().get_template(template).render(context)


def stylesheet() -> str:
    """The CSS that all pages share."""
    return (resources.files("timebox.reporting") / "templates" / "style.css").read_text(encoding="utf-8")


def data_uri(image: NDArray[uint8]) -> str:
    """An image (H, W, C), C of 1, 3 or 4, as a ``data:`` URI: PNG where it is small or transparent, else JPEG."""
    height, width, channels = image.shape
    kind = "png" if max(height, width) <= MAX_PNG_SIDE or channels == 4 else "jpeg"
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(2) if channels == 1 else image).save(buffer, kind, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


@cache
def _environment() -> "Environment":
    # Imported on first use: `import timebox` and the command line need no templates.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("timebox.reporting"),
        autoescape=True,
        optimized=False,  # constant folding costs 20 ms a page and saves nothing: each template is rendered once
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": "{:,.0f}".format,
        "data_uri": data_uri,
        "duration": format_duration,
        "percent": lambda value, decimals=1: f"{value:.{decimals}%}",
    }
    return environment
