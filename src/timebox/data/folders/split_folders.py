"""Finds the folders of the splits: train/ val/ test/ beside each other, or inside each class folder."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from timebox.data.folders.class_folders import class_root, clean_name
from timebox.data.folders.names import EVALUATION, is_extra, split_of, split_word
from timebox.data.folders.tree import ImageFolder
from timebox.data.reading.text import abbreviate_list, printable, relative_name
from timebox.errors import DataError, option_text

_DOMAIN = re.compile("(train|val|test)[_-]?[ab]", re.IGNORECASE)  # trainA, testB: of image-to-image translation


def split_folders(
    folder: ImageFolder, wanted: Collection[str], class_names: Collection[str] | None
) -> tuple[ImageFolder | None, dict[str, ImageFolder]]:
    """(the train folder, the val and test folders by split) in a folder.

    Without a train folder, the class folders lie beside those of val and test, if any.

    Args:
        wanted: the splits that are used.
        class_names: those of a model, if any: a folder of that name is a class.

    Raises DataError where two folders mean the same split, or a folder could be a split or a class.
    """
    domains = [each.name for each in folder.holders if _DOMAIN.fullmatch(each.name)]
    if len(domains) > 1 and len(domains) == len(folder.holders):
        listed = abbreviate_list([f"{name}/" for name in domains])
        raise DataError(
            f"{folder.path}: {listed} are splits of two sets, A and B: put them as train/A, train/B, test/A ..."
        )
    known = {name for name in class_names or () if split_of(name)}
    named: dict[str, list[ImageFolder]] = {}
    for each in folder.folders:
        if (split := split_of(each.name)) and each.name not in known:
            named.setdefault(split, []).append(each)
    if not (train := [each for each in named.get("train", []) if class_root(each)]):
        with_affix = _split_folders_with_affix(folder)
        if not named or with_affix:
            named = with_affix or named
            train = [each for each in named.get("train", []) if class_root(each)]
    held_out = {split: folders for split, folders in named.items() if split != "train"}
    if train:
        _check_unique(folder, {"train": train, **held_out})
        single = {split: folders[0] for split, folders in held_out.items()}
        single |= _evaluation_folder(folder, single, wanted)
        _check_not_a_class(folder, train[0], single)
        return train[0], single
    if unlabelled := named.get("train"):
        return None, _beside_unlabelled_train(folder, unlabelled[0], held_out)
    _check_unique(folder, held_out)
    return None, {
        split: folders[0] for split, folders in held_out.items() if folders[0].num_images or folders[0].others
    }


@dataclass(frozen=True, eq=False)
class NestedSplits:
    """The images by split and class, and the class folders, of a source with splits inside its class folders."""

    splits: dict[str, dict[str, list[Path]]]
    holders: list[ImageFolder]


def nested_splits(folder: ImageFolder) -> NestedSplits | None:
    """The splits where every class folder holds train/, val/ or test/; else None.

    Raises DataError where only some class folders do, or where the splits hold class folders: then there are several
    data sets.
    """
    holders = [holder for holder in folder.holders if not is_extra(holder.name)]
    inside = {holder: all(split_of(inner.name) for inner in holder.holders) and holder.holders for holder in holders}
    if not any(inside.values()):
        return None
    with_splits = [holder for holder in holders if inside[holder]]
    listed = abbreviate_list([f"{holder.name}/" for holder in with_splits])
    if all(len(inner.holders) > 1 for holder in with_splits for inner in holder.holders):
        raise DataError(f"{folder.path} holds several sets with splits of their own, {listed}: give one")
    for holder in holders:
        if not inside[holder] or holder.images:
            names = abbreviate_list([f"{inner.name}/" for inner in with_splits[0].holders])
            raise DataError(
                f"{folder.path}: {with_splits[0].name}/ holds {names}, but {holder.name}/ holds images outside such "
                "folders: give every class the same folders"
            )
    splits: dict[str, dict[str, list[Path]]] = {}
    for holder in holders:
        for inner in holder.holders:
            classes = splits.setdefault(str(split_of(inner.name)), {})
            classes.setdefault(clean_name(printable(holder.name)), []).extend(inner.all_images())
    if "train" not in splits:
        raise DataError(f"{folder.path}: the class folders hold {abbreviate_list(list(splits))}, but no train/")
    return NestedSplits(splits, holders)


def _split_folders_with_affix(folder: ImageFolder) -> dict[str, list[ImageFolder]]:
    """Folders whose names differ only in the word for the split: cars_train/ and cars_test/."""
    families: dict[tuple[str, ...], dict[str, list[ImageFolder]]] = {}
    for each in folder.folders:
        if (found := split_word(each.name)) and each.num_images and split_of(each.name) is None:
            families.setdefault(found[1], {}).setdefault(found[0], []).append(each)
    complete = [family for family in families.values() if "train" in family and len(family) > 1]
    if len(complete) > 1:
        names = [family["train"][0].name + "/" for family in complete]
        raise DataError(
            f"{folder.path} holds several sets with splits of their own, {abbreviate_list(names)}: give one"
        )
    return complete[0] if complete else {}


def _check_unique(folder: ImageFolder, named: Mapping[str, Sequence[ImageFolder]]) -> None:
    for split, folders in named.items():
        if len(folders) > 1:
            raise DataError(
                f"{folder.path} has {folders[0].name}/ and {folders[1].name}/, both of which mean {split}: keep one"
            )


def _evaluation_folder(
    folder: ImageFolder, held_out: Mapping[str, ImageFolder], wanted: Collection[str]
) -> dict[str, ImageFolder]:
    """An eval/ folder as the one of val and test that is missing. Raises DataError where both are."""
    found = [each for each in folder.holders if each.name.lower() in EVALUATION]
    missing = [split for split in ("val", "test") if split not in held_out and split in wanted]
    if not found or not missing:
        return {}
    if len(missing) == 2:
        raise DataError(
            f"{folder.path}: {found[0].name}/ could be the validation or the test images: rename it val/ or test/, or "
            f"set {option_text('val', 'none')} or {option_text('test', 'none')}"
        )
    return {missing[0]: found[0]}


def _check_not_a_class(folder: ImageFolder, train: ImageFolder, held_out: Mapping[str, ImageFolder]) -> None:
    """Raise DataError where train/, which holds folders, could be one class among others."""
    others = [each for each in folder.holders if each is not train and each not in held_out.values()]
    others = [each for each in others if not split_word(each.name)]
    if not held_out and 2 * sum(each.num_images for each in others) > train.num_images:
        names = abbreviate_list([f"{each.name}/" for each in others])
        raise DataError(
            f"{folder.path}: {train.name}/ could be the training images, or a class beside {names}: give {train.path} "
            "to train on that folder alone, or rename it"
        )


def _beside_unlabelled_train(
    folder: ImageFolder, train: ImageFolder, held_out: Mapping[str, Sequence[ImageFolder]]
) -> dict[str, ImageFolder]:
    """The val and test folders where a folder named train holds images but no class folders: it may be a class."""
    named = [train, *(each for folders in held_out.values() for each in folders)]
    if any(holder not in named for holder in folder.holders):
        return {split: folders[0] for split, folders in held_out.items() if folders[0].num_images}
    names = "/ and ".join(sorted(each.name for each in named))
    example = next(train.all_images(), None)
    detail = f": nothing says what {relative_name(example, folder.path)} is" if example else ""
    raise DataError(
        f"{folder.path} has {names}/ but no class folders in {train.name}/, and no table of labels{detail}; "
        "put images in class folders, or add a table of file names and labels"
    )
