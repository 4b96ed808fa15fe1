"""Goes into the only folder of a source that holds its images: ``food-101/images/``, ``pets/pets/train/``."""

from collections.abc import Collection

from timebox.data.folders.class_folders import class_root, is_container
from timebox.data.folders.names import is_extra, split_of
from timebox.data.folders.tree import ImageFolder
from timebox.errors import DataError

_MAX_BESIDE_SHARE = 0.1  # of the images, that may lie beside the folder that is gone into
_HUB_CACHE = {"blobs", "snapshots"}  # folders of the Hugging Face cache: files, and links to them by name


def inner_folder(folder: ImageFolder, class_names: Collection[str]) -> ImageFolder | None:
    """The folder in ``folder`` that alone holds class folders or splits; None where there is none, or several.

    ``class_names`` are those of a model, if any: a folder of that name is a class. Raises DataError for a cache
    folder of Hugging Face with several snapshots.
    """
    holders = folder.holders
    if {holder.name for holder in holders} >= _HUB_CACHE:
        return _snapshot(folder)
    if any(split_of(holder.name) or holder.name in class_names for holder in holders):
        return None
    inner = holders[0] if len(holders) == 1 else _candidate(holders, class_names)
    if inner is None or not inner.holders or len(folder.images) > inner.num_images / 2:
        return None
    return inner if len(inner.images) <= sum(holder.num_images for holder in inner.holders) else None


def _candidate(holders: list[ImageFolder], class_names: Collection[str]) -> ImageFolder | None:
    """The folder with splits, or else named "images" or the like, if few images or only plots lie beside it."""
    with_splits = [holder for holder in holders if _holds_splits(holder)]
    containers = [
        holder for holder in holders if is_container(holder, class_names) and holder.holders and not holder.images
    ]
    found = with_splits or containers
    if len(found) != 1:
        return None
    rest = [holder for holder in holders if holder is not found[0]]
    num_beside = sum(holder.num_images for holder in rest)
    is_small = num_beside <= _MAX_BESIDE_SHARE * found[0].num_images or all(is_extra(holder.name) for holder in rest)
    return found[0] if is_small and num_beside < found[0].num_images else None


def _holds_splits(folder: ImageFolder) -> bool:
    """Whether a folder holds train/ with class folders in it, and another split."""
    splits = {split_of(inner.name): inner for inner in folder.holders}
    train = splits.get("train")
    return (
        train is not None
        and len(splits.keys() - {None}) > 1
        and class_root(train) is not None
        and len(train.holders) > 1
    )


def _snapshot(folder: ImageFolder) -> ImageFolder:
    snapshots = next(holder for holder in folder.holders if holder.name == "snapshots")
    if len(snapshots.holders) > 1:
        names = ", ".join(holder.name for holder in snapshots.holders[:3])
        raise DataError(f"{folder.path} is a cache of Hugging Face with several snapshots ({names}): give one of them")
    return snapshots.holders[0] if snapshots.holders else snapshots
