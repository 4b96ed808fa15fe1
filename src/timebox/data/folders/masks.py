"""Recognises masks and thumbnails: images that describe or repeat other images, and are no class."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from timebox.data.folders.names import split_camel_case, words_of
from timebox.data.folders.tree import ImageFolder

# Words of folder names, where they may stand beside any other; and such that count only alone.
_MASK_WORDS = frozenset({
    "mask", "masks", "label", "labels", "annotation", "annotations", "segmentation", "segmentations", "gt",
    "groundtruth", "groundtruths", "trimap", "trimaps", "gtfine", "gtcoarse", "labelids",
})  # fmt: skip
_MASK_NAMES = frozenset({
    "seg", "target", "targets", "depth", "edges", "heatmap", "heatmaps", "matte", "mattes", "alpha", "y", "output",
    "outputs", "truth",
})  # fmt: skip
_THUMBNAIL_WORDS = frozenset({"thumbnail", "thumbnails", "thumb", "thumbs", "preview", "previews"})
# Beside these words, a mask is one that people wear.
_WORN = frozenset({"no", "with", "without", "wearing", "worn", "face", "facemask", "surgical", "cloth", "n95", "un"})
# Words of file names that tell an image from its mask.
_ROLE_STEMS = _MASK_WORDS | frozenset({
    "img", "image", "images", "imgs", "lbl", "lab", "l", "seg", "leftimg8bit", "color", "instanceids", "matte", "rgb",
})  # fmt: skip
_MIN_SHARED = 0.8  # of the smaller folder's images
_MASK_STEM = re.compile(
    r"(?P<image>.+?)[ _.-]*[_ .-](mask|masks|seg|segmentation|segmented|gt|groundtruth|trimap|matte)([_ -]?\d+)?",
    re.IGNORECASE,
)


def find_masks(folders: Sequence[ImageFolder]) -> tuple[ImageFolder, ImageFolder] | None:
    """(images, masks) of two folders of which one, by its name, masks or repeats the images of others; None without.

    The names of its files, apart from words such as ``mask`` and ``img``, must be those of the others' files.
    """
    if any({"mask", "masks"} & set(words_of(folder.name)) and _is_worn(folder.name) for folder in folders):
        return None
    masks = [folder for folder in folders if _is_secondary(folder.name)]
    others = [folder for folder in folders if folder not in masks]
    if not others:
        return None
    for mask in masks:
        if shares_names(mask, others):
            return max(others, key=lambda other: len(_keys(other.all_images()) & _keys(mask.all_images()))), mask
    return None


def is_mask_name(name: str) -> bool:
    """Whether the name of a folder is one of masks, such as "masks", "train_labels" or "SegmentationClass"."""
    words = {word.rstrip("0123456789") for word in words_of(split_camel_case(name))} | set(words_of(name))
    if _is_worn(name):
        return False
    return bool(words & _MASK_WORDS or {"ground", "truth"} <= words or (len(words) == 1 and words <= _MASK_NAMES))


def without_masks(folder: ImageFolder) -> tuple[ImageFolder, list[ImageFolder]]:
    """(a class folder without the folders below it that mask or repeat its images, these folders)."""
    removed: list[ImageFolder] = []
    kept: list[ImageFolder] = []
    for inner in folder.folders:
        rest = [other for other in folder.holders if other is not inner and not _is_secondary(other.name)]
        if inner.num_images and _is_secondary(inner.name) and shares_names(inner, rest, folder.images):
            removed.append(inner)
        else:
            inner, below = without_masks(inner)
            kept.append(inner)
            removed += below
    if not removed:
        return folder, []
    num_images = len(folder.images) + sum(inner.num_images for inner in kept)
    return replace(folder, folders=tuple(kept), num_images=num_images), removed


def masks_of_others(images: Sequence[Path]) -> list[Path]:
    """The images of a folder that are masks of other images in it: ``1_mask.png`` beside ``1.png``."""
    stems = {path.stem for path in images}
    matches = [(path, _MASK_STEM.fullmatch(path.stem)) for path in images]
    return [path for path, match in matches if match and match["image"].rstrip(" _.-") in stems]


def shares_names(folder: ImageFolder, others: Sequence[ImageFolder], images: Collection[Path] = ()) -> bool:
    """Whether most images of a folder are named as images of others, or as `images`."""
    own = _keys(folder.all_images())
    rest = _keys(images).union(*(_keys(other.all_images()) for other in others))
    return bool(rest) and len(own & rest) >= _MIN_SHARED * min(len(own), len(rest))


def _is_worn(name: str) -> bool:
    return bool(set(words_of(name)) & _WORN)


def _is_secondary(name: str) -> bool:
    return is_mask_name(name) or bool(set(words_of(name)) & _THUMBNAIL_WORDS)


def _keys(paths: Iterable[Path]) -> set[str]:
    """File names without suffix and without the words that tell an image from its mask."""
    return {" ".join(word for word in words_of(path.stem) if word not in _ROLE_STEMS) or path.stem for path in paths}
