"""Small images of the scored images: those of thumbnails.npz, which the report shows."""

import io
from collections.abc import Mapping

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from PIL import Image, features

from timebox.run.files import THUMBNAILS

QUALITY = 80
# What an encoded image begins with, by kind.
SIGNATURES = {"webp": b"RIFF", "jpeg": b"\xff\xd8", "png": b"\x89PNG"}


class Thumbnails(Struct, frozen=True, eq=False):
    """Encoded small images of one split.

    Attributes:
        split: "test" or "val".
        rows: int64 (N,), the position of each image among the rows of its split in predictions.npz.
        images: the files, each of one of the kinds in ``SIGNATURES``.
    """

    split: str
    rows: NDArray[np.int64]
    images: tuple[bytes, ...]

    @property
    def num_bytes(self) -> int:
        """Of all images."""
        return sum(map(len, self.images))

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """The arrays of thumbnails.npz."""
        return {
            "split": np.array(self.split),
            "row": self.rows,
            "end": np.cumsum([len(image) for image in self.images], dtype=np.int64),
            "bytes": np.frombuffer(b"".join(self.images), np.uint8),
        }


def thumbnails_from_columns(columns: Mapping[str, NDArray[np.generic]], num_rows: Mapping[str, int]) -> Thumbnails:
    """The thumbnails in the arrays of thumbnails.npz.

    Args:
        num_rows: of each split in predictions.npz.
    Raises:
        ValueError: where an array is missing, or does not fit the others or the predictions.
    """
    try:
        split, rows, ends, content = (columns[name] for name in ("split", "row", "end", "bytes"))
    except KeyError as error:
        raise ValueError(f"{THUMBNAILS} lacks {error}") from error
    if content.dtype != np.uint8 or any(one.dtype != np.int64 or one.ndim != 1 for one in (rows, ends)):
        raise ValueError(f"{THUMBNAILS} holds arrays of other types or shapes than it should")
    if len(rows) != len(ends) or not np.isin(rows, np.arange(num_rows.get(str(split), 0))).all():
        raise ValueError(f"{THUMBNAILS} does not fit the predictions")
    starts = np.concatenate([np.zeros(1, np.int64), ends.astype(np.int64)])
    if (np.diff(starts) <= 0).any() or starts[-1] != content.size:
        raise ValueError(f"{THUMBNAILS} holds images of impossible sizes")
    whole = content.tobytes()
    images = tuple(whole[start:end] for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True))
    if not all(image.startswith(tuple(SIGNATURES.values())) for image in images):
        raise ValueError(f"{THUMBNAILS} holds something that is no image")
    return Thumbnails(str(split), rows.astype(np.int64), images)


def encode_thumbnail(image: NDArray[np.uint8], max_side: int) -> bytes:
    """An image (H, W, C), C of 1, 3 or 4, brought to at most ``max_side`` pixels a side, as the content of a file."""
    picture = Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
    picture.thumbnail((max_side, max_side), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    if features.check("webp"):
        picture.save(buffer, "webp", quality=QUALITY, method=2)
    elif picture.mode == "RGBA":
        picture.save(buffer, "png")
    else:
        picture.save(buffer, "jpeg", quality=QUALITY)
    return buffer.getvalue()
