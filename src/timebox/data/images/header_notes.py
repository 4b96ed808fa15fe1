"""Notes for the user on images that were resized, converted or scaled, from their headers."""

from collections.abc import Iterator, Sequence

from timebox.data.images.decode import CHANNEL_MODES, FIT_DESCRIPTIONS, WHITE_16BIT, ImageHeader
from timebox.data.reading.text import abbreviate_list
from timebox.formatting import plural


def resize_notes(sizes: dict[str, int], modes: dict[str, int], side: int, channels: int, fit: str) -> Iterator[str]:
    """Notes on images that were resized, or converted to another mode."""
    if list(sizes) != [f"{side}x{side}"]:
        common = abbreviate_list([f"{size} ({number:,})" for size, number in sizes.items()])
        resized = f"{side}x{side}: {FIT_DESCRIPTIONS[fit]}"
        yield f"images of {plural(len(sizes), 'size')} ({common}) resized to {resized}"
    mode = CHANNEL_MODES[channels]
    if list(modes) != [mode]:
        listed = ", ".join(f"{name} ({number:,})" for name, number in modes.items())
        yield f"images of mode {listed} converted to {mode}, transparent pixels on a white background"


def white_notes(white: int, found: int, headers: Sequence[ImageHeader | None]) -> Iterator[str]:
    """Notes on 16-bit images; `found` is the white that their values suggest."""
    num_images = sum(header is not None and header.is_16bit for header in headers)
    if num_images and found > white:
        yield f"16-bit images hold values above {white:,}, which is white for this model: they become white too"
    elif num_images and white < WHITE_16BIT:
        yield (
            f"{plural(num_images, 'image')} of 16 bits hold values of {white.bit_length()} bits: {white:,} becomes "
            "white, "
            "in every image of this model"
        )


def misnamed_notes(names: Sequence[str], headers: Sequence[ImageHeader | None]) -> Iterator[str]:
    """A note on files whose suffix is that of another format."""
    pairs = zip(names, headers, strict=True)
    if misnamed := [(name, header.misnamed_as) for name, header in pairs if header and header.misnamed_as]:
        name, true_format = misnamed[0]
        yield (
            f"{plural(len(misnamed), 'file')} not of the format the suffix says ({name} is {true_format}): "
            "read by content"
        )
