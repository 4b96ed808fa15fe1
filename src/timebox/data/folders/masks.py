"""Recognises masks: images that label the pixels of other images, and are no class."""

import re
from collections.abc import Sequence
from pathlib import Path

from timebox.data.folders.names import IMAGE_ROLES, MASK_ROLES, words_of
from timebox.data.folders.tree import ImageFolder

_MIN_SHARED = 0.8  # of the smaller folder's images
_MASK_STEM = re.compile(
    r"(?P<image>.+?)[ _.-]*[_ .-](mask|masks|seg|segmentation|segmented|gt|groundtruth|trimap|matte)([_ -]?\d+)?",
    re.IGNORECASE,
)


def find_masks(folders: Sequence[ImageFolder]) -> tuple[ImageFolder, ImageFolder] | None:
    """(images, masks) of two folders of which one, by its name, masks the images of the other; None without such.

    The file names of one, without suffixes and endings such as ``_mask``, must be those of the other.
    """
    images = [folder for folder in folders if _has_role(folder.name, IMAGE_ROLES)]
    masks = [folder for folder in folders if _has_role(folder.name, MASK_ROLES)]
    for mask in masks:
        for image in images:
            if mask is not image and _share_stems(image, mask):
                return image, mask
    return None


def masks_of_others(images: Sequence[Path]) -> list[Path]:
    """The images of a folder that are masks of other images in it: ``1_mask.png`` beside ``1.png``."""
    stems = {path.stem for path in images}
    matches = [(path, _MASK_STEM.fullmatch(path.stem)) for path in images]
    return [path for path, match in matches if match and match["image"].rstrip(" _.-") in stems]


def _has_role(name: str, roles: frozenset[str]) -> bool:
    """Whether a name is one of ``roles``, alone or with the word of another: "mask_images", "label1"."""
    words = [word.rstrip("0123456789") for word in words_of(name)]
    is_mask = any(word in MASK_ROLES for word in words)
    if roles is MASK_ROLES:
        return is_mask and all(word in MASK_ROLES or word in IMAGE_ROLES or not word for word in words)
    return not is_mask and bool(words) and all(word in IMAGE_ROLES or not word for word in words)


def _share_stems(images: ImageFolder, masks: ImageFolder) -> bool:
    of_images = {path.stem for path in images.all_images()}
    of_masks = {_image_stem(path.stem) for path in masks.all_images()} | {path.stem for path in masks.all_images()}
    return len(of_images & of_masks) >= _MIN_SHARED * min(
        len(of_images), len({path.stem for path in masks.all_images()})
    )


def _image_stem(stem: str) -> str:
    match = _MASK_STEM.fullmatch(stem)
    return match["image"] if match else stem
