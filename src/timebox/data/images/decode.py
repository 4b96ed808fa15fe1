"""Decodes image files with Pillow, in the same way for training and prediction.

The format is recognised by content, not by suffix; of an animation the first frame is read; the EXIF orientation is
applied; transparent pixels get a white background. Pillow's global settings are not changed.
"""

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose

from timebox.data.images.signatures import describe_foreign, is_encoded_image, is_heif
from timebox.errors import DataError
from timebox.files import open_regular
from timebox.machine import memory_shortage

# Largest decoded image, after JPEG scaling: above the resolution of any camera, and far below the memory of a laptop.
# A few hundred kilobytes of PNG can declare more pixels (a decompression bomb).
MAX_DECODED_PIXELS = 100_000_000

# Larger images are decoded one at a time: several threads at once would multiply the memory.
LARGE_PIXELS = 20_000_000
_LARGE_IMAGE_LOCK = threading.Lock()
_DECODING_BYTES = 16  # for each pixel, in any mode: four channels and the copies of _convert, or 16 bits and its copies

# Values of `fit`. The descriptions are written to model.json.
CROP, LETTERBOX = "crop", "letterbox"
FIT_DESCRIPTIONS = {
    CROP: "the shorter side scaled, the middle kept",
    LETTERBOX: "the longer side scaled, black beside it",
}

_SIGNATURE_BYTES = 512
_IMAGES_PER_CALL = 64

MAX_FILE_BYTES = 1 << 29  # MAX_DECODED_PIXELS of three channels and 8 bits, unpacked, are 300 MB

# Supported formats by Pillow's names, with their suffixes. Not all that Pillow reads: EPS would start Ghostscript.
_JPEG, _BMP = {".jpg", ".jpeg", ".jpe", ".jfif"}, {".bmp", ".dib"}
_SUFFIXES = {
    "PNG": {".png", ".apng"}, "JPEG": _JPEG, "MPO": _JPEG, "BMP": _BMP, "DIB": _BMP, "GIF": {".gif"},
    "TIFF": {".tif", ".tiff"}, "WEBP": {".webp"}, "PPM": {".ppm", ".pgm", ".pbm", ".pnm"},
    "JPEG2000": {".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"}, "AVIF": {".avif", ".avifs"},
    "TGA": {".tga", ".icb", ".vda", ".vst"}, "HEIF": {".heic", ".heif", ".hif"},
}  # fmt: skip

# Suffixes of image files. Reading HEIC takes another package; without it the photos of phones are reported as
# unreadable files and not ignored.
IMAGE_SUFFIXES = frozenset.union(*map(frozenset, _SUFFIXES.values()))
_RAW_SUFFIXES = frozenset({".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw"})
# Formats without a signature: files of these are known by their suffix alone.
_BY_SUFFIX = {"TGA"}

WHITE_16BIT = 65_535  # the value of 16-bit grey images that becomes 255, unless the data use fewer bits

CHANNEL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"})
_STEPS = {"LAB": "RGB", "HSV": "RGB", "La": "LA"}  # Pillow converts these modes to L and RGBA in two steps only
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
}  # fmt: skip


@dataclass(frozen=True)
class ImageHeader:
    """Size in pixels, Pillow mode and format of an image file.

    Attributes:
        misnamed_as: the format, where the file's suffix is that of another.
    """

    width: int
    height: int
    mode: str
    format: str
    misnamed_as: str | None

    @property
    def is_grey(self) -> bool:
        return self.mode in _GREY_MODES

    @property
    def is_16bit(self) -> bool:
        """Whether pixels are grey values of 16 bits, or of 32 that hold 16."""
        return self.mode.startswith("I")


def read_header(file: Path | BinaryIO) -> ImageHeader:
    """Read size, mode and format of an encoded image without decoding it. Raises DataError as decode_image does."""
    with _open_image(file) as image:
        true_format = str(image.format)
        misnamed = isinstance(file, Path) and file.suffix.lower() not in _SUFFIXES[true_format]
        return ImageHeader(image.width, image.height, image.mode, true_format, true_format if misnamed else None)


def decode_image(
    file: str | Path | BinaryIO | Image.Image,
    size: tuple[int, int] | None = None,
    channels: int = 3,
    fit: str = CROP,
    white_16bit: int = WHITE_16BIT,
) -> NDArray[np.uint8]:
    """Decode one image as for training: scale it with antialiasing to cover `size`, and crop the centre.

    With the fit ``letterbox``, scale it to fit into `size`, and pad with black. An image that has `size` already is not
    resampled. The file is decoded completely, so that a truncated file is detected. Works without torch.

    Args:
        file: a path, a binary stream, or an open Pillow image, which is not modified.
        size: (height, width) in pixels; None for the image's own size, after its EXIF orientation is applied.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        white_16bit: the value of a 16-bit grey image that becomes 255; larger ones do too.
    Returns:
        uint8 (height, width, channels).
    Raises:
        DataError: with the reason only ("truncated: ..."), without the name of the file.

    >>> import timebox
    >>> timebox.decode_image("photos/red/1.png").shape
    (16, 16, 3)
    """
    if size is None:
        return decode_whole(file, channels, white_16bit)
    with _open_image(file) as image:
        _scale_jpeg_decoding(image, size, fit)
        _check_pixels(image)
        with _LARGE_IMAGE_LOCK if image.width * image.height > LARGE_PIXELS else contextlib.nullcontext():
            image.load()
            height, width = size
            orientation = _orientation(image)
            if orientation >= 5:  # a quarter turn: resize first, which is cheaper than turning the full-size photo
                height, width = width, height
            fitted = _FITS[fit](_convert(image, channels, white_16bit), width, height)
            if orientation in _UPRIGHT:
                fitted = fitted.transpose(_UPRIGHT[orientation])
            return np.asarray(fitted, dtype=np.uint8).reshape(*size, channels)


def decode_whole(
    file: str | Path | BinaryIO | Image.Image, channels: int, white_16bit: int = WHITE_16BIT
) -> NDArray[np.uint8]:
    """Decode one image upright and at its own size: uint8 (height, width, channels). See decode_image."""
    with _open_image(file) as image:
        _check_pixels(image)
        image.load()
        flat = _convert(image, channels, white_16bit)
        orientation = _orientation(image)
        upright = flat.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else flat
        return np.array(upright, dtype=np.uint8).reshape(upright.height, upright.width, channels)


def white_of(largest: int) -> int:
    """The value of 16-bit images that becomes white: all ones, of as many bits as their largest value takes."""
    return (1 << largest.bit_length()) - 1 if largest > 0 else WHITE_16BIT


def largest_16bit_value(file: str | Path | BinaryIO | Image.Image) -> int:
    """The largest value of a 16-bit grey image, at most 65,535. Raises DataError as decode_image does."""
    with _open_image(file) as image:
        _check_pixels(image)
        with _LARGE_IMAGE_LOCK if image.width * image.height > LARGE_PIXELS else contextlib.nullcontext():
            return int(np.clip(np.asarray(image).max(), 0, WHITE_16BIT))


def fit_images(
    images: NDArray[np.uint8],
    size: tuple[int, int],
    channels: int,
    fit: str = CROP,
    advance: Callable[[int], object] = lambda num_done: None,
) -> NDArray[np.uint8]:
    """Resize and convert images in memory as decode_image does: uint8 (N, H, W, C) to (N, *size, channels).

    `size` is (height, width) in pixels; `advance` is called with the number of images done. Returns `images` itself
    where it has that shape.
    """
    if images.shape[1:] == (*size, channels):
        return images
    fitted = np.empty((len(images), *size, channels), np.uint8)
    for number, (source, target) in enumerate(zip(images, fitted, strict=True)):
        if number % _IMAGES_PER_CALL == 0:
            advance(number)
        image = _convert(Image.fromarray(source.squeeze(2) if source.shape[2] == 1 else source), channels)
        target[...] = np.asarray(_FITS[fit](image, size[1], size[0])).reshape(target.shape)
    return fitted


@cache
def _readable_formats() -> tuple[str, ...]:
    """The supported formats that this build of Pillow can read."""
    Image.init()
    return tuple(name for name in _SUFFIXES if name in Image.OPEN)


@contextlib.contextmanager
def _open_image(file: str | Path | BinaryIO | Image.Image) -> Iterator[Image.Image]:
    """Open an image. Any exception in the block becomes a DataError with the reason."""
    try:
        if isinstance(file, Image.Image):
            yield file.copy()
        elif isinstance(file, str | Path):
            with open_regular(file) as stream, _open_stream(stream, Path(file).suffix) as image:
                yield image
        else:
            with _open_stream(file) as image:
                yield image
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(_why_unidentified(file)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"over the limit of pixels: {error}") from error
    # Pillow's plugins raise nearly any exception on damaged files (SyntaxError, struct.error, IndexError, ...), and one
    # damaged file must not end the reading of 100,000.
    except Exception as error:
        raise DataError(_one_line(error)) from error


def _why_unidentified(file: object) -> str:
    """Why Pillow does not know a file, from its first bytes."""
    if isinstance(file, str | Path):
        with open_regular(file) as stream:
            start = stream.read(_SIGNATURE_BYTES)
    elif isinstance(file, io.BytesIO):
        start = file.getvalue()[:_SIGNATURE_BYTES]
    else:
        start = b"?"
    if not start:
        return "empty file (0 bytes)"
    if is_heif(start):
        return "a HEIC image: reading it takes pillow-heif: pip install 'timebox-vision[heic]'"
    if isinstance(file, str | Path) and Path(file).suffix.lower() in _RAW_SUFFIXES:
        return "a raw photo of a camera: develop it to JPEG or PNG first"
    if is_encoded_image(start):
        return f"an image in a format that Pillow {PIL.__version__} cannot read: pip install --upgrade pillow"
    if not any(start):
        return "only zero bytes: the file was not written completely"
    return describe_foreign(start) or "not an image that can be read here"


def _open_heif(stream: BinaryIO) -> Image.Image | None:
    """A HEIC image by pillow-heif; None for any other image, and where that package is not installed."""
    start = stream.read(_SIGNATURE_BYTES)
    stream.seek(0)
    if not is_heif(start):
        return None
    try:
        import pillow_heif
    except ImportError:
        return None
    opened = pillow_heif.open_heif(stream, convert_hdr_to_8bit=True)
    if opened.size[0] * opened.size[1] > MAX_DECODED_PIXELS:
        raise DataError(f"{opened.size[0]}x{opened.size[1]} pixels are over the limit of {MAX_DECODED_PIXELS:,} pixels")
    image: Image.Image = opened.to_pillow()
    image.format = "HEIF"
    image.info.pop("exif", None)  # libheif has turned the image upright
    return image


@contextlib.contextmanager
def _open_stream(stream: BinaryIO, suffix: str = "") -> Iterator[Image.Image]:
    length = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    if length > MAX_FILE_BYTES:
        raise DataError(f"{length:,} bytes are over the limit of {MAX_FILE_BYTES:,} bytes")
    if heif := _open_heif(stream):
        yield heif
        return
    formats = [name for name in _readable_formats() if name not in _BY_SUFFIX or suffix.lower() in _SUFFIXES[name]]
    with Image.open(stream, formats=formats) as image:
        yield image


def _one_line(error: Exception) -> str:
    text = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    return f"truncated: {text}" if "truncated" in text.lower() or isinstance(error, EOFError) else text


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MAX_DECODED_PIXELS:
        raise DataError(f"{image.width}x{image.height} pixels are over the limit of {MAX_DECODED_PIXELS:,} pixels")
    num_pixels = image.width * image.height
    if num_pixels > LARGE_PIXELS:
        reason = memory_shortage(num_pixels * _DECODING_BYTES, f"{image.width}x{image.height} pixels")
        if reason:
            raise DataError(f"it {reason}")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation of a loaded image, 1..8; 1 (upright) where there is none or it cannot be read."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # broken EXIF raises nearly any exception, while the pixels may be intact
        return 1


def _scale_jpeg_decoding(image: Image.Image, size: tuple[int, int], fit: str) -> None:
    """Decode a JPEG at 1/2, 1/4 or 1/8 of its size, as long as it covers `size` in either orientation: far faster."""
    cover = max(size) / (min(image.size) if fit == CROP else max(image.size))
    if cover < 1:
        image.draft(None, (max(1, round(image.width * cover)), max(1, round(image.height * cover))))


def _convert(image: Image.Image, channels: int, white_16bit: int = WHITE_16BIT) -> Image.Image:
    """Convert any mode to L, RGB or RGBA; to L and RGB with a white background."""
    mode = CHANNEL_MODES[channels]
    if image.mode in _STEPS:
        image = image.convert(_STEPS[image.mode])
    if image.mode == "F":
        raise DataError("floating-point pixels have no known range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # to 8 bits, by the same scale in every image of a data set
        values = np.asarray(image)
        if values.min() < 0:
            raise DataError("pixels below 0, as of a CT image: shift and scale them to 0...65,535 or 0...255 first")
        values = np.minimum(values, white_16bit).astype(np.uint32)
        image = Image.fromarray((values * 255 // white_16bit).astype(np.uint8))
    has_alpha = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    if has_alpha and channels < 4:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _crop(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scale with antialiasing to cover width x height, and crop the centre."""
    if image.size == (width, height):
        return image
    scale = min(image.width / width, image.height / height)
    left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
    box = (left, top, left + width * scale, top + height * scale)
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)


def _letterbox(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scale with antialiasing to fit into width x height, and pad evenly with black."""
    if image.size == (width, height):
        return image
    scale = max(image.width / width, image.height / height)
    inside = (max(1, round(image.width / scale)), max(1, round(image.height / scale)))
    box = Image.new(image.mode, (width, height))
    scaled = image.resize(inside, Image.Resampling.BILINEAR, reducing_gap=3.0)
    box.paste(scaled, ((width - inside[0]) // 2, (height - inside[1]) // 2))
    return box


_FITS = {CROP: _crop, LETTERBOX: _letterbox}
