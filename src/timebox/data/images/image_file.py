"""Images as users hand them over from Python: paths, file objects and PIL images. Errors name the image."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from timebox.data.images.collate import ImageFile
from timebox.data.images.decode import decode_image, largest_16bit_value, read_header
from timebox.errors import DataError
from timebox.paths import expand_user


def decode_file(
    file: ImageFile, size: tuple[int, int], channels: int, image_fit: str, white_16bit: int
) -> NDArray[np.uint8]:
    """The pixels, uint8 (H, W, channels), as of :func:`decode_image`."""
    with with_file_in_errors(file):
        source = file if isinstance(file, Image.Image) else _path(file)
        return decode_image(source, size, channels, image_fit, white_16bit)


def largest_16bit_value_of(file: ImageFile) -> int:
    """The largest value of a 16-bit grey image; 0 for any other image."""
    with with_file_in_errors(file):
        is_16bit = file.mode.startswith("I") if isinstance(file, Image.Image) else read_header(_path(file)).is_16bit
        return largest_16bit_value(file) if is_16bit else 0


def _path(file: str | Path | BinaryIO) -> Path | BinaryIO:
    return Path(expand_user(file)) if isinstance(file, str | Path) else file


def size_of(file: ImageFile) -> tuple[int, int]:
    """(width, height) in pixels, from the header."""
    if isinstance(file, Image.Image):
        return file.size
    with with_file_in_errors(file):
        header = read_header(_path(file))
    return header.width, header.height


@contextmanager
def with_file_in_errors(file: ImageFile) -> Iterator[None]:
    """Name the image in a DataError of the body."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{file} cannot be read: {error}") from error
