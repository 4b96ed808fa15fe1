"""find_layout: assigns the images in folders to splits and classes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from timebox.data.folders.class_folders import (
    ClassFolders,
    class_root,
    find_class_folders,
    is_container,
    refuse_masks,
)
from timebox.data.folders.descend import inner_folder
from timebox.data.folders.names import CONTAINERS, EVALUATION, SPLITS, split_word
from timebox.data.folders.split_folders import NestedSplits, nested_splits, split_folders
from timebox.data.folders.tree import ImageFolder
from timebox.data.folders.unread import unread_files
from timebox.data.left_out import LeftOut
from timebox.data.reading.text import abbreviate_list, printable, relative_name
from timebox.errors import DataError
from timebox.formatting import plural


@dataclass(frozen=True, eq=False)
class FolderLayout:
    """The splits of a source of folders.

    Attributes:
        base: the folder that was read, which is the source or a folder in it.
        splits: "train", "val", "test" -> class name -> images; with train, unless a model is to be scored.
        unlabelled: val and test folders without class folders.
        why: the evidence, for the user.
    """

    base: Path
    splits: Mapping[str, Mapping[str, Sequence[Path]]]
    unlabelled: Mapping[str, ImageFolder]
    why: str
    notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class LayoutOptions:
    """Options of :func:`find_layout`.

    Attributes:
        wanted: the splits to read; a val or test split that is not wanted may have any form.
        class_depth: 1 or 2, as of :class:`ClassFolders`; None to find it.
        class_names: of a model that is to be scored; None for data to train on.
    """

    wanted: frozenset[str] = frozenset(SPLITS)
    class_depth: int | None = None
    class_names: frozenset[str] | None = None


@dataclass(eq=False)
class _Findings:
    notes: list[str] = field(default_factory=list)
    left_out: list[LeftOut | None] = field(default_factory=list)


def find_layout(root: ImageFolder, options: LayoutOptions) -> FolderLayout:
    """The splits and classes of the images below a folder.

    Raises DataError where there are no class folders, or two readings are plausible; the message names the way out.
    """
    findings = _Findings()
    inner = _descend(root, options, findings)
    refuse_masks(inner)
    train, held_out = split_folders(inner, options.wanted, options.class_names)
    if held_out and train is None and not _has_classes_beside(inner, held_out):
        return _held_out_layout(inner, held_out, options, findings)
    if train is None and not held_out and (nested := nested_splits(inner)):
        return _nested_layout(inner, nested, options, findings)
    if train is not None:
        _note_beside(inner, [train, *held_out.values()], findings)
    rest = train or _without(inner, held_out.values())
    found = _class_folders(root, rest, options)
    if train is None and held_out and len(found.images) < 2 and options.class_names is None:
        raise _one_class_beside(root, found, held_out)
    findings.notes += found.notes
    findings.notes += [f"{folder.name}/ is taken for {split}" for split, folder in held_out.items() if _is_eval(folder)]
    images = found.root.images if found.depth else ()
    outside = [relative_name(path, root.path) for path in images]
    findings.left_out += [LeftOut.of("image", "outside any class folder", outside), *found.left_out]
    splits: dict[str, Mapping[str, Sequence[Path]]] = {"train": found.images}
    unlabelled: dict[str, ImageFolder] = {}
    for split, folder in held_out.items():
        if split in options.wanted:
            if (classes := _held_out_classes(folder, found, root.path, options)) is None:
                unlabelled[split] = folder
            else:
                splits[split] = classes
    return _layout(inner.path, splits, unlabelled, _why(root, found), findings)


def _class_folders(root: ImageFolder, folder: ImageFolder, options: LayoutOptions) -> ClassFolders:
    """The class folders in a folder. Raises DataError where there are none."""
    known = options.class_names or ()
    if folder.images and not folder.holders and folder.name in known:
        return ClassFolders(folder, 0, {folder.name: folder.images}, (f"all images are of the class {folder.name!r}",))
    found = find_class_folders(class_root(folder, known) or folder, options.class_depth, root.path, known)
    only = found.root.holders[0] if len(found.root.holders) == 1 else None
    if found.images and not (only and is_container(only, known) and only.images):
        return found
    if folder.num_images:
        example = relative_name(next(folder.all_images()), root.path)
        raise DataError(
            f"{root.path}: {plural(folder.num_images, 'image')}, but no class folders and no table of labels, so "
            f"nothing says what {example} is: put them as CLASS/IMAGE.jpg, or add a table of file names and labels"
            f"{unread_files(root)}"
        )
    raise DataError(
        f"{root.path} holds no images in class folders: put them as {root.path}/CLASS/IMAGE.jpg{unread_files(root)}"
    )


def _why(root: ImageFolder, found: ClassFolders) -> str:
    where = relative_name(found.root.path, root.path)
    return f"images lie in the folders {abbreviate_list(list(found.images))}{'' if where == '.' else f' of {where}/'}"


def _held_out_layout(
    folder: ImageFolder, held_out: Mapping[str, ImageFolder], options: LayoutOptions, findings: _Findings
) -> FolderLayout:
    """The layout of val and test without train, to score a model on. Raises DataError for data to train on."""
    if options.class_names is None:
        listed = "/ and ".join(each.name for each in held_out.values())
        raise DataError(f"{folder.path} has {listed}/ but no train/ to learn from")
    _note_beside(folder, list(held_out.values()), findings)
    found = {
        split: _class_folders(inner, inner, options) for split, inner in held_out.items() if split in options.wanted
    }
    for each in found.values():
        findings.notes += each.notes
        findings.left_out += each.left_out
    why = "; ".join(_why(folder, each) for each in found.values())
    return _layout(folder.path, {split: each.images for split, each in found.items()}, {}, why, findings)


def _nested_layout(
    folder: ImageFolder, nested: NestedSplits, options: LayoutOptions, findings: _Findings
) -> FolderLayout:
    """The layout of class folders that hold train/, val/ or test/."""
    splits = {split: classes for split, classes in nested.splits.items() if split == "train" or split in options.wanted}
    _note_beside(folder, nested.holders, findings)
    why = f"each class folder holds {abbreviate_list([f'{split}/' for split in nested.splits])}"
    return _layout(folder.path, splits, {}, why, findings)


def _without(folder: ImageFolder, left: Collection[ImageFolder]) -> ImageFolder:
    """A folder without some of the folders in it."""
    folders = tuple(inner for inner in folder.folders if inner not in left)
    num_images = len(folder.images) + sum(inner.num_images for inner in folders)
    return replace(folder, folders=folders, num_images=num_images) if left else folder


def _layout(
    base: Path,
    splits: Mapping[str, Mapping[str, Sequence[Path]]],
    unlabelled: Mapping[str, ImageFolder],
    why: str,
    findings: _Findings,
) -> FolderLayout:
    ordered = {split: splits[split] for split in SPLITS if split in splits}
    left_out = tuple(each for each in findings.left_out if each)
    return FolderLayout(base, ordered, unlabelled, why, tuple(findings.notes), left_out)


def _descend(root: ImageFolder, options: LayoutOptions, findings: _Findings) -> ImageFolder:
    """Go into the only folder that holds class folders or splits."""
    folder = root
    while inner := inner_folder(folder, options.class_names or ()):
        names = [relative_name(path, root.path) for path in folder.images]
        rest = [each for each in folder.holders if not inner.path.is_relative_to(each.path) and each.name != "blobs"]
        beside = [printable(each.name) for each in rest]
        findings.left_out.append(LeftOut.of("image", f"beside {inner.name}/", names))
        findings.left_out.append(LeftOut.of("folder", f"beside {inner.name}/", beside))
        folder = inner
    if folder is not root:
        where = relative_name(folder.path, root.path)
        findings.notes.append(f"read from {where}/, the only folder with class folders")
    return folder


def _has_classes_beside(folder: ImageFolder, held_out: Mapping[str, ImageFolder]) -> bool:
    return any(holder not in held_out.values() for holder in folder.holders)


def _is_eval(folder: ImageFolder) -> bool:
    return folder.name.lower() in EVALUATION


def _note_beside(folder: ImageFolder, used: Sequence[ImageFolder], findings: _Findings) -> None:
    """Record the folders and images beside those of the splits."""
    beside = [printable(each.name) for each in folder.folders if each not in used]
    first = used[0].name
    findings.left_out.append(LeftOut.of("folder", f"beside {first}/", beside))
    findings.left_out.append(LeftOut.of("image", f"beside {first}/", [printable(each.name) for each in folder.images]))


def _one_class_beside(root: ImageFolder, found: ClassFolders, held_out: Mapping[str, ImageFolder]) -> DataError:
    names = "/, ".join(folder.name for folder in held_out.values())
    return DataError(
        f"{root.path} has one class, {next(iter(found.images))!r}, beside {names}/, which stands for images to "
        "validate or test with: rename that folder if it is a class"
    )


def _held_out_classes(
    folder: ImageFolder, train: ClassFolders, source: Path, options: LayoutOptions
) -> Mapping[str, Sequence[Path]] | None:
    """The classes of a val or test folder; None where its images have no labels.

    A folder of train's class names is labelled; any other with several folders is kept, so that the reader refuses it.
    """
    known = options.class_names or train.images.keys()
    root = class_root(folder, known)
    if root is None:
        return None
    depth = train.depth if train.depth and root.holders[0].holders else 1
    found = find_class_folders(root, depth, source, known)
    if set(found.images) & set(known):
        return found.images
    if len(found.images) > 1:
        return found.images
    name = next(iter(found.images))
    says_nothing = name.lower() in CONTAINERS or name == printable(folder.name) or split_word(name) is not None
    return None if says_nothing else found.images
