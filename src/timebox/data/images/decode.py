"""Image files to pixels, the same way for training and for prediction.

Every file is read by its content, whatever its suffix says; of an animation the first frame counts; the EXIF
orientation is honoured; transparency is laid on white. Pillow's global settings are left alone.
"""

import contextlib
import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from timebox.errors import DataError
from timebox.files import open_regular

# Pixels held in memory at once, after a JPEG's scaled decoding: far above any camera's, far below what exhausts a
# laptop. A few hundred kilobytes of PNG can claim more (a decompression bomb).
MAX_DECODED_PIXELS = 100_000_000

# Images above this are decoded one at a time, as threads would multiply what they take.
LARGE_PIXELS = 20_000_000
_ONE_LARGE = threading.Lock()

# How an image of another shape is brought to one: the middle of it, or all of it.
CROP, LETTERBOX = "crop", "letterbox"
HOW_FITTED = {
    CROP: "the shorter side scaled, the middle kept",
    LETTERBOX: "the longer side scaled, black beside it",
}

MAX_FILE_BYTES = 1 << 29  # MAX_DECODED_PIXELS of three channels and 8 bits, unpacked, have 300 MB

# The formats read, by Pillow's names, and the suffixes each goes by. Not all that Pillow knows: EPS would start
# Ghostscript.
_SUFFIXES = {
    "PNG": {".png", ".apng"},
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "MPO": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "BMP": {".bmp", ".dib"},
    "DIB": {".bmp", ".dib"},
    "GIF": {".gif"},
    "TIFF": {".tif", ".tiff"},
    "WEBP": {".webp"},
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm"},
    "JPEG2000": {".jp2"},
    "AVIF": {".avif"},
}

# What counts as an image file by name. HEIC is among them though Pillow cannot read it: whoever has a folder of phone
# photos must be told so, file by file, rather than that it is empty.
IMAGE_SUFFIXES = frozenset.union(*map(frozenset, _SUFFIXES.values()), {".heic", ".heif"})

_CHANNEL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"})
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class ImageHeader:
    """What an image file says of itself before its pixels are decoded; misnamed_as is its true format, if it lies."""

    width: int
    height: int
    mode: str
    misnamed_as: str | None

    @property
    def is_grey(self) -> bool:
        return self.mode in _GREY_MODES


def read_header(file: Path | BinaryIO) -> ImageHeader:
    """Size, mode and true format of an encoded image, without decoding it. Raises DataError with the reason alone."""
    with _opened(file) as image:
        true_format = str(image.format)
        misnamed = isinstance(file, Path) and file.suffix.lower() not in _SUFFIXES[true_format]
        return ImageHeader(image.width, image.height, image.mode, true_format if misnamed else None)


def decode_image(
    file: str | Path | BinaryIO | Image.Image, size: tuple[int, int], channels: int, fit: str = CROP
) -> NDArray[np.uint8]:
    """One image, scaled (antialiased) until it just covers `size`, then cropped at the centre; or, as a letterbox,
    until it just fits in, black beside it.

    The decode is a full one, so a truncated file is found out. Pixels that are of that size already stay as they are.

    Args:
        file: a path, a binary file at its start, or an image already opened, which is left as it is.
        size: (height, width) in pixels.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        fit: ``crop`` or ``letterbox``.
    Returns:
        uint8 (height, width, channels).
    Raises:
        DataError: with the reason alone ("truncated: ..."); the caller knows the file's name.
    """
    with _opened(file) as image:
        _draft(image, size, fit)
        _check_pixels(image)
        with _ONE_LARGE if image.width * image.height > LARGE_PIXELS else contextlib.nullcontext():
            image.load()
            height, width = size
            orientation = _orientation(image)
            if orientation >= 5:  # a quarter turn: fit before turning, which is cheaper than turning a full-size photo
                height, width = width, height
            fitted = _FITS[fit](_flatten(image, channels), width, height)
            if orientation in _UPRIGHT:
                fitted = fitted.transpose(_UPRIGHT[orientation])
            return np.asarray(fitted, dtype=np.uint8).reshape(*size, channels)


def decode_whole(file: str | Path | BinaryIO | Image.Image, channels: int) -> NDArray[np.uint8]:
    """One image upright and in its own size, as uint8 (height, width, channels); else like decode_image."""
    with _opened(file) as image:
        _check_pixels(image)
        image.load()
        flat = _flatten(image, channels)
        orientation = _orientation(image)
        upright = flat.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else flat
        return np.array(upright, dtype=np.uint8).reshape(upright.height, upright.width, channels)


def fit_images(images: NDArray[np.uint8], size: tuple[int, int], channels: int, fit: str = CROP) -> NDArray[np.uint8]:
    """Images already in memory, brought to a size and number of channels by the rule of decode_image.

    Args:
        images: uint8 (N, H, W, C), C of 1, 3 or 4.
        size: (height, width) in pixels.
        channels: 1, 3 or 4.
        fit: ``crop`` or ``letterbox``.
    Returns:
        uint8 (N, height, width, channels); the very same array where it fits already.
    """
    if images.shape[1:] == (*size, channels):
        return images
    fitted = np.empty((len(images), *size, channels), np.uint8)
    for source, target in zip(images, fitted, strict=True):
        image = _flatten(Image.fromarray(source.squeeze(2) if source.shape[2] == 1 else source), channels)
        target[...] = np.asarray(_FITS[fit](image, size[1], size[0])).reshape(target.shape)
    return fitted


@cache
def _readable_formats() -> tuple[str, ...]:
    """Those of our formats that this build of Pillow has."""
    Image.init()
    return tuple(name for name in _SUFFIXES if name in Image.OPEN)


@contextlib.contextmanager
def _opened(file: str | Path | BinaryIO | Image.Image) -> Iterator[Image.Image]:
    """The image, opened; whatever goes wrong with it inside the block becomes a DataError that gives the reason."""
    try:
        if isinstance(file, Image.Image):
            yield file.copy()
        elif isinstance(file, str | Path):
            with open_regular(file) as stream, _opened_stream(stream) as image:
                yield image
        else:
            with _opened_stream(file) as image:
                yield image
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(_unidentified(file)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"over the limit of pixels: {error}") from error
    # Pillow's plugins raise almost anything on damaged files (SyntaxError, struct.error, IndexError, ...), and one
    # file must never end the reading of a hundred thousand.
    except Exception as error:
        raise DataError(_one_line(error)) from error


@contextlib.contextmanager
def _opened_stream(stream: BinaryIO) -> Iterator[Image.Image]:
    length = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    if length > MAX_FILE_BYTES:
        raise DataError(f"{length:,} bytes are over the limit of {MAX_FILE_BYTES:,} bytes")
    with Image.open(stream, formats=_readable_formats()) as image:
        yield image


def _unidentified(file: str | Path | BinaryIO | Image.Image) -> str:
    if isinstance(file, str | Path) and Path(file).stat().st_size == 0:
        return "empty file (0 bytes)"
    return "not an image that can be read here"


def _one_line(error: Exception) -> str:
    text = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    return f"truncated: {text}" if "truncated" in text.lower() or isinstance(error, EOFError) else text


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MAX_DECODED_PIXELS:
        raise DataError(f"{image.width}x{image.height} pixels are over the limit of {MAX_DECODED_PIXELS:,} pixels")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation of a loaded image, 1..8; 1 (upright) where there is none or it cannot be read."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # broken EXIF raises almost anything, and says nothing about the pixels
        return 1


def _draft(image: Image.Image, size: tuple[int, int], fit: str) -> None:
    """Let a JPEG be decoded at 1/2, 1/4 or 1/8 while that is no less than what is kept, either way up: far faster."""
    cover = max(size) / (min(image.size) if fit == CROP else max(image.size))
    if cover < 1:
        image.draft(None, (max(1, round(image.width * cover)), max(1, round(image.height * cover))))


def _flatten(image: Image.Image, channels: int) -> Image.Image:
    """Any mode to L, RGB or RGBA; without an alpha channel to keep, transparency is laid on white."""
    mode = _CHANNEL_MODES[channels]
    if image.mode == "F":
        raise DataError("floating-point pixels have no known range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        image = _from_16_bits(image)
    has_alpha = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    if has_alpha and channels < 4:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _from_16_bits(image: Image.Image) -> Image.Image:
    """16-bit grey (also where Pillow widens it to 32) to 8 bits: 65535 becomes 255, whatever range an image uses."""
    return Image.fromarray((np.clip(np.asarray(image), 0, 65535) // 257).astype(np.uint8))


def _cropped(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scaled (antialiased) to cover width x height and cut about the centre."""
    if image.size == (width, height):
        return image
    scale = min(image.width / width, image.height / height)
    left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
    box = (left, top, left + width * scale, top + height * scale)
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)


def _letterboxed(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scaled (antialiased) to fit into width x height, in the middle of it, black around."""
    if image.size == (width, height):
        return image
    scale = max(image.width / width, image.height / height)
    inside = (max(1, round(image.width / scale)), max(1, round(image.height / scale)))
    box = Image.new(image.mode, (width, height))
    scaled = image.resize(inside, Image.Resampling.BILINEAR, reducing_gap=3.0)
    box.paste(scaled, ((width - inside[0]) // 2, (height - inside[1]) // 2))
    return box


_FITS = {CROP: _cropped, LETTERBOX: _letterboxed}
