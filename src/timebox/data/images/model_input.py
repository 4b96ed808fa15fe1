"""Images from Python as a model takes them: decoded, resized as in training, and uint8 (N, H, W, C)."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from timebox.data.images.collate import ImageFile, as_batch, collate
from timebox.data.images.decode import decode_image, fit_images
from timebox.data.images.fit import batch_fit
from timebox.data.images.pixel_range import BYTE, PixelScale
from timebox.errors import DataError
from timebox.paths import expand_user

BYTE_SCALE = PixelScale(0.0, BYTE, BYTE)  # of the images that a run is trained on


@dataclass(frozen=True)
class ModelInput:
    """The form of a model's images, and the conversion of images from Python to it.

    Attributes:
        image_shape: height and width of the working size in pixels, and channels.
        fit: how an image is made to fit the working size, ``crop`` or ``letterbox``.
        white_16bit: the value of 16-bit grey images that becomes 255.
        check_memory: raises where a number of bytes, for a purpose in words, cannot be allocated.
    """

    image_shape: tuple[int, int, int]
    fit: str
    white_16bit: int
    check_memory: Callable[[int, str], None]

    @property
    def num_bytes(self) -> int:
        """Bytes of one image."""
        return prod(self.image_shape)

    def convert(self, images: object) -> NDArray[np.uint8]:
        """The images that ``Run.predict_proba`` takes as uint8 (N, H, W, C) of the working size.

        Raises DataError for an image that cannot be read, and for arrays whose layout or scale has two readings.
        """
        batch = collate(images, "images")
        if isinstance(batch, np.ndarray):
            return self._resized(*BYTE_SCALE.to_uint8([as_batch(batch, "images", self.image_shape)], "images"))
        if not batch:
            return np.zeros((0, *self.image_shape), np.uint8)
        self.check_memory(2 * len(batch) * self.num_bytes, f"{len(batch):,} images of its size")
        arrays = iter(BYTE_SCALE.to_uint8([item for item in batch if isinstance(item, np.ndarray)], "images"))
        return np.stack(
            [
                self._resized(next(arrays)[None])[0] if isinstance(item, np.ndarray) else self._read(item, position)
                for position, item in enumerate(batch)
            ]
        )

    def decode(self, image: ImageFile) -> NDArray[np.uint8]:
        """The pixels of an image file, uint8 (H, W, C) of the working size. Raises DataError with the reason alone."""
        if isinstance(image, str | Path):
            image = expand_user(image)
        return decode_image(image, self.image_shape[:2], self.image_shape[2], self.fit, self.white_16bit)

    def _resized(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Images (N, H, W, C) with the channels and the size of the model's."""
        # torch takes neither arrays with negative strides nor read-only ones.
        writable = np.require(images, requirements=["C", "W"])
        array = fit_images(writable, images.shape[1:3], self.image_shape[2])
        return array if array.shape[1:3] == self.image_shape[:2] else self._fitted(array)

    def _fitted(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Images resized to the working size, with the same tensor operations as in an exported model."""
        self.check_memory(len(images) * self.num_bytes, f"{len(images):,} images of its size")
        fitted = np.empty((len(images), *self.image_shape), np.uint8)
        for position, image in enumerate(images):
            planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
            planes = batch_fit(planes, *self.image_shape[:2], self.fit)[0]
            fitted[position] = planes.permute(1, 2, 0).numpy()
        return fitted

    def _read(self, image: ImageFile, position: int) -> NDArray[np.uint8]:
        """The pixels of a file; the message of an error names the file, or its position among the images."""
        name = repr(str(image)) if isinstance(image, str | Path) else f"number {position}"
        try:
            return self.decode(image)
        except DataError as error:
            if isinstance(image, str | Path) and os.path.isdir(image):  # noqa: PTH112  # refuses no name, unlike Path's
                raise DataError(
                    f"image {name} is a folder: give its files, for instance sorted(Path({name}).glob('*.jpg')), or "
                    "`timebox predict` the folder"
                ) from error
            raise DataError(f"image {name} cannot be read: {error}") from error
