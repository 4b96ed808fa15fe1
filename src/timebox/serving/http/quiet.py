"""Keeps warnings of libraries about pictures and requests off the server's stderr: they are the client's matter, and
stand in the answer."""

import asyncio
import ctypes
import logging
import warnings
from contextlib import suppress
from pathlib import Path

# Files that this process has mapped, on Linux.
MAPS = Path("/proc/self/maps")
LIBRARY = "/libtiff"


def silence_libraries() -> None:
    """Called once Pillow is imported, if it is."""
    warnings.simplefilter("ignore")  # Pillow's
    for name in ("python_multipart", "PIL"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    _silence_libtiff()


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of uvicorn's is worth reading: not that requests which took too long were dropped at the end."""
    is_cancelled = record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
    text = record.getMessage()
    return not (is_cancelled or "CancelledError" in text or text.startswith("Cancel "))


def _silence_libtiff() -> None:
    """Take its handlers from the libtiff that Pillow has loaded: it writes on stderr itself, whatever Python thinks."""
    with suppress(OSError, AttributeError):
        lines = MAPS.read_text(encoding="utf-8", errors="replace").splitlines()
        for path in {line.split(maxsplit=5)[-1] for line in lines if LIBRARY in line}:
            library = ctypes.CDLL(path)
            library.TIFFSetErrorHandler(None)
            library.TIFFSetWarningHandler(None)
