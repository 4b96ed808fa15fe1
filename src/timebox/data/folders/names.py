"""Names of files and folders: splits, parts, containers, masks, and what operating systems leave behind."""

import re
from collections.abc import Sequence

SPLITS = ("train", "val", "test")
_SPLIT_OF = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "development": "val", "test": "test", "testing": "test",
}  # fmt: skip
# Folders of images that nobody has labelled.
UNLABELLED = frozenset({"unlabeled", "unlabelled", "unsup", "unsupervised"})
# Folders that lie beside the images of a source and are no class.
_EXTRAS = frozenset({
    "figures", "figure", "plots", "plot", "results", "result", "samples", "sample", "examples", "example", "previews",
    "docs", "doc", "screenshots", "demo", "papers", "paper", "outputs", "output", "logs", "log", "assets", "readme",
    "thumbnails", "thumbs", "visualization", "visualizations", "predictions", "misc", "media", "logo", "logos",
})  # fmt: skip
# Test where the source has a val split, val where it has a test split: see ``find_split_folders``.
EVALUATION = frozenset({"eval", "evaluation"})
# Words that the name of a split may hold besides: "train_images", "Training Set".
_FILLER_WORDS = {
    "images", "image", "imgs", "img", "photos", "pictures", "set", "data", "dataset", "split", "final", "seg", "folder",
}  # fmt: skip
# Folders that hold all images of a source, or of a class, and say nothing about them.
CONTAINERS = frozenset({
    "images", "image", "imgs", "img", "photos", "photo", "pictures", "pics", "jpg", "jpeg", "jpegs", "jpegimages",
    "png",
    "pngs", "data", "dataset", "datasets", "raw", "raw-img", "all", "unknown", "unlabeled", "unlabelled",
    "unclassified",
    "files", "input", "inputs", "rgb", "x",
})  # fmt: skip
_PART_WORDS = {
    "part", "parts", "batch", "images", "image", "imgs", "img", "photos", "pictures", "pics", "chunk", "shard",
    "folder",
    "dir", "set", "subset", "archive", "volume", "vol", "disk", "disc", "fold", "split", "session", "data", "dataset",
    "files", "file", "block", "page", "zip", "section",
}  # fmt: skip
_PART = re.compile(r"(?P<stem>.*?)(?:[\s_.-]*\d+|[\s_.-]+[a-z])", re.IGNORECASE)
_ARCHIVE_SUFFIXES = frozenset({"zip", "tar", "gz", "tgz", "bz2", "xz", "7z", "rar", "zst"})
_SYSTEM_NAMES = frozenset({
    "__macosx", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "recycler",
    "recycled", "system volume information", "lost+found", "__pycache__", "thumbs.db", "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini", "found.000", "node_modules",
})  # fmt: skip


def split_of(name: str) -> str | None:
    """The split that the name of a folder, or a cell of a table, stands for: "train", "val", "test" or None."""
    words = [word for word in words_of(name) if word not in _FILLER_WORDS and not word.isdigit()]
    return _SPLIT_OF.get(words[0].rstrip("0123456789")) if len(words) == 1 else None


def split_word(name: str) -> tuple[str, tuple[str, ...]] | None:
    """(split, other words) of a name with exactly one word that stands for a split: "cars_train"; else None."""
    words = words_of(name)
    found = [word for word in words if word in _SPLIT_OF]
    if len(found) != 1:
        return None
    return _SPLIT_OF[found[0]], tuple("*" if word == found[0] else word for word in words)


def is_extra(name: str) -> bool:
    """Whether the name of a folder is one of plots, examples and the like, which lie beside the images of a source."""
    return any(word in _EXTRAS for word in words_of(name))


def held_out_split(name: str) -> str | None:
    """ "val" or "test" for the name of a folder that stands for that split, alone or among other words; else None."""
    split = split_of(name) or (split_word(name) or (None,))[0]
    return None if split == "train" else split


def words_of(name: str) -> list[str]:
    """The words of a name in lower case; digits belong to the word beside them."""
    return re.findall("[^\\W_]+", name.lower())


def split_camel_case(name: str) -> str:
    """ "SegmentationClass" as "Segmentation Class"."""
    return re.sub("(?<=[a-z])(?=[A-Z])", " ", name)


def is_system_name(name: str) -> bool:
    """Whether a file or folder is hidden, or was left by an operating system, a file server or a notebook."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def is_archive_name(name: str) -> bool:
    """Whether a file is an archive, by its name."""
    return name.lower().rpartition(".")[2] in _ARCHIVE_SUFFIXES


def are_parts(names: Sequence[str]) -> bool:
    """Whether names are those of numbered parts of one set: "part_1", "part_2"; "images_001", "images_002"."""
    stems = set()
    for name in names:
        match = _PART.fullmatch(name)
        words = words_of(match["stem"]) if match else []
        if not words or words[-1] not in _PART_WORDS:
            return False
        stems.add(tuple(words))
    return len(stems) == 1
