"""Recognises files by their first bytes: images, and what lies in the place of one."""

import re

_IMAGE_STARTS = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+",
    b"\0\0\0\x0cjP  \r\n", b"\xff\x4f\xff\x51\xff\x52",
)  # fmt: skip
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")
_NETPBM = re.compile(rb"P[1-6]\s+(#|\d)")
# What is found in place of an image, by its first bytes, and what to do.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", "a PDF document, not an image"),
    (b"PK\x03\x04", "a zip archive, not an image"),
    (b"8BPS", "a Photoshop file: save it as PNG or JPEG"),
    (b"\x93NUMPY", "a NumPy array, not an image"),
    (b"{\\rtf", "a text document, not an image"),
)


def is_encoded_image(start: bytes) -> bool:
    """Whether the first bytes of a file, 32 or more, are those of an image."""
    if start.startswith(_IMAGE_STARTS) or is_heif(start) or _brand(start) in _AVIF_BRANDS:
        return True
    if start.startswith(b"RIFF"):
        return start[8:12] == b"WEBP"
    if start.startswith(b"BM"):
        return len(start) >= 18 and start[6:10] == bytes(4)
    return _NETPBM.match(start) is not None


def is_heif(start: bytes) -> bool:
    """Whether the first bytes are those of a HEIC or HEIF image, as phones take them."""
    return _brand(start) in _HEIF_BRANDS and _brand(start) not in _AVIF_BRANDS and b"avif" not in start[16:32]


def describe_foreign(start: bytes) -> str | None:
    """The kind of a file that is no image, in words, from its first bytes; None where it is unknown."""
    if placeholder := describe_placeholder(start):
        return placeholder
    for magic, description in _OTHERS:
        if start.startswith(magic):
            return description
    if start[128:132] == b"DICM":
        return "a DICOM file: convert it to PNG first"
    text = _text(start)
    if b"<svg" in text:
        return "an SVG drawing: save it as PNG first"
    if text.startswith(b"<?xml"):
        return "an XML document in place of the file: the download may have failed"
    if text.startswith((b'{"', b"{'", b"[{")):
        return "JSON text in place of the file: the download may have failed"
    return None


def describe_placeholder(start: bytes) -> str | None:
    """The kind of a file that stands for one that was not downloaded, from its first bytes; None for others."""
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return "a Git LFS pointer in place of the file: run git lfs pull"
    if _text(start).startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page in place of the file: the download failed, repeat it"
    return None


def _text(start: bytes) -> bytes:
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()


def _brand(start: bytes) -> bytes:
    return start[8:12] if start[4:8] == b"ftyp" else b""
