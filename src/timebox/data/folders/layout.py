"""find_layout: assigns the images in folders to splits and classes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from timebox.data.folders.class_folders import ClassFolders, class_root, find_class_folders
from timebox.data.folders.names import CONTAINERS, SPLITS, split_of, split_word
from timebox.data.folders.split_folders import nested_splits, split_folders
from timebox.data.folders.tree import ImageFolder
from timebox.data.left_out import LeftOut
from timebox.data.reading.text import abbreviate_list, pluralize, printable
from timebox.errors import DataError

# Files that may hold labels in a form that is not read.
_LABEL_SUFFIXES = frozenset({".mat", ".json", ".xml", ".txt", ".pkl", ".xlsx", ".npy", ".h5", ".yaml", ".yml"})


@dataclass(frozen=True, eq=False)
class FolderLayout:
    """The splits of a source of folders.

    Attributes:
        base: the folder that was read, which is the source or a folder in it.
        splits: "train", "val", "test" -> class name -> images; always with train.
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
    train, held_out = split_folders(inner, options.wanted, options.class_names)
    if held_out and train is None and not _has_classes_beside(inner, held_out):
        train, held_out = _only_held_out(inner, held_out, options, findings)
    if train is None and not held_out and (by_split := nested_splits(inner)):
        return _nested_layout(inner, by_split, options, findings)
    if train is not None:
        _note_beside(inner, [train, *held_out.values()], findings)
    rest = train or _without(inner, held_out.values())
    found = find_class_folders(class_root(rest, options.class_names or ()) or rest, options.class_depth, root.path)
    _check_classes(root, rest, found)
    if train is None and held_out and len(found.images) < 2 and options.class_names is None:
        raise _one_class_beside(root, found, held_out)
    findings.notes += found.notes
    outside = [printable(path.relative_to(root.path).as_posix()) for path in found.root.images]
    findings.left_out += [LeftOut.of("image", "outside any class folder", outside), *found.left_out]
    splits: dict[str, Mapping[str, Sequence[Path]]] = {"train": found.images}
    unlabelled: dict[str, ImageFolder] = {}
    for split, folder in held_out.items():
        if split in options.wanted:
            if (classes := _held_out_classes(folder, found, root.path)) is None:
                unlabelled[split] = folder
            else:
                splits[split] = classes
    where = printable(found.root.path.relative_to(root.path).as_posix())
    why = f"images lie in the folders {abbreviate_list(list(found.images))}{'' if where == '.' else f' of {where}/'}"
    return _layout(inner.path, splits, unlabelled, why, findings)


def _nested_layout(
    folder: ImageFolder,
    by_split: Mapping[str, Mapping[str, Sequence[Path]]],
    options: LayoutOptions,
    findings: _Findings,
) -> FolderLayout:
    """The layout of class folders that hold train/, val/ or test/."""
    splits = {split: classes for split, classes in by_split.items() if split == "train" or split in options.wanted}
    _note_beside(folder, folder.holders, findings)
    why = f"each class folder holds {abbreviate_list([f'{split}/' for split in by_split])}"
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
    while inner := _only_candidate(folder, options, findings, root.path):
        folder = inner
    if folder is not root:
        where = printable(folder.path.relative_to(root.path).as_posix())
        findings.notes.append(f"read from {where}/, the only folder with class folders")
    return folder


def _only_candidate(
    folder: ImageFolder, options: LayoutOptions, findings: _Findings, source: Path
) -> ImageFolder | None:
    holders = folder.holders
    known = options.class_names or frozenset()
    if any(split_of(holder.name) or holder.name in known for holder in holders):
        return None
    if len(holders) == 1:
        inner, rest = holders[0], []
    else:
        candidates = [holder for holder in holders if holder.name.lower() in CONTAINERS and holder.holders]
        candidates = [holder for holder in candidates if not holder.images]
        if len(candidates) != 1:
            return None
        inner = candidates[0]
        rest = [holder for holder in holders if holder is not inner]
        if 2 * sum(other.num_images for other in rest) > inner.num_images:
            return None
    if not inner.holders or len(folder.images) > inner.num_images / 2:
        return None
    if len(inner.images) > sum(holder.num_images for holder in inner.holders):
        return None
    names = [printable(path.relative_to(source).as_posix()) for path in folder.images]
    findings.left_out.append(LeftOut.of("image", f"beside {inner.name}/", names))
    findings.left_out.append(LeftOut.of("folder", f"beside {inner.name}/", [printable(each.name) for each in rest]))
    return inner


def _has_classes_beside(folder: ImageFolder, held_out: Mapping[str, ImageFolder]) -> bool:
    return any(holder not in held_out.values() for holder in folder.holders)


def _only_held_out(
    folder: ImageFolder, held_out: Mapping[str, ImageFolder], options: LayoutOptions, findings: _Findings
) -> tuple[ImageFolder, dict[str, ImageFolder]]:
    """(the folder to read, no others), for data without train/. Raises DataError where they are to be trained on."""
    listed = "/ and ".join(each.name for each in held_out.values())
    if options.class_names is None:
        raise DataError(f"{folder.path} has {listed}/ but no train/ to learn from")
    chosen = held_out.get("test") or next(iter(held_out.values()))
    if len(held_out) > 1:
        findings.notes.append(f"of {listed}/, {chosen.name}/ is read")
    return chosen, {}


def _note_beside(folder: ImageFolder, used: Sequence[ImageFolder], findings: _Findings) -> None:
    """Record the folders and images beside those of the splits."""
    beside = [printable(each.name) for each in folder.folders if each not in used]
    first = used[0].name
    findings.left_out.append(LeftOut.of("folder", f"beside {first}/", beside))
    findings.left_out.append(LeftOut.of("image", f"beside {first}/", [printable(each.name) for each in folder.images]))


def _check_classes(root: ImageFolder, rest: ImageFolder, found: ClassFolders) -> None:
    """Raise DataError unless there are class folders."""
    only = found.root.holders[0] if len(found.root.holders) == 1 else None
    if not found.images or (only and only.name.lower() in CONTAINERS and only.images):
        if rest.num_images:
            example = printable(next(rest.all_images()).relative_to(root.path).as_posix())
            raise DataError(
                f"{root.path}: {pluralize(rest.num_images, 'image')}, but no class folders and no table of labels, so "
                f"nothing says what {example} is: put them as CLASS/IMAGE.jpg, or add a table of file names and labels"
                f"{_unread_files(root)}"
            )
        raise DataError(f"{root.path} holds no images in class folders: put them as {root.path}/CLASS/IMAGE.jpg")


def _one_class_beside(root: ImageFolder, found: ClassFolders, held_out: Mapping[str, ImageFolder]) -> DataError:
    names = "/, ".join(folder.name for folder in held_out.values())
    return DataError(
        f"{root.path} has one class, {next(iter(found.images))!r}, beside {names}/, which stands for images to "
        "validate or "
        "test with: rename that folder if it is a class"
    )


def _unread_files(root: ImageFolder) -> str:
    """Files beside the images that may hold labels in a form that is not read."""
    names = [
        printable(path.name)
        for folder in root.walk()
        if folder is root or not folder.num_images
        for path in folder.others
        if path.suffix.lower() in _LABEL_SUFFIXES
    ]
    return f" ({abbreviate_list(names)} cannot be read as one)" if names else ""


def _held_out_classes(folder: ImageFolder, train: ClassFolders, source: Path) -> Mapping[str, Sequence[Path]] | None:
    """The classes of a val or test folder; None where its images have no labels.

    A folder of train's class names is labelled; any other with several folders is kept, so that the reader refuses it.
    """
    root = class_root(folder)
    if root is None:
        return None
    found = find_class_folders(root, train.depth if root.holders[0].holders else 1, source)
    if set(found.images) & set(train.images):
        return found.images
    if len(found.images) > 1:
        return found.images
    name = next(iter(found.images))
    says_nothing = name.lower() in CONTAINERS or name == printable(folder.name) or split_word(name) is not None
    return None if says_nothing else found.images
