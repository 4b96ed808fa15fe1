"""The most used public image data sets, in miniature: each is read as its authors mean, or refused in one line."""

import re
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from timebox.data import ImageDataset, LoadedData, load_data
from timebox.errors import DataError

from .layouts import arrays, fine_grained, kaggle, medical, objects, scenes, tools
from .layouts.miniature import SHADE_STEP, Miniature
from .layouts.table import LAYOUTS, Layout, Owed, reads, reads_or_refused, refused

NUM_LAYOUTS = 77
MAX_EITHER = 4  # rows that may be read or refused
FAMILIES = (objects, fine_grained, scenes, medical, kaggle, tools, arrays)


@pytest.mark.parametrize("row", LAYOUTS, ids=lambda row: row.name)
def test_the_published_layout(tmp_path, row):
    check(row, tmp_path)


def check(row: Layout, folder: Path) -> None:
    """Build the miniature of a row in `folder`, read it, and compare with what is owed."""
    mini = Miniature(folder / row.given)
    row.build(mini)
    try:
        loaded = load_data(mini.root, cache=False)
    except DataError as error:
        assert row.owed.match is not None, f"refused, but {row.owed.classes} are owed: {error}"
        check_refusal(str(error), mini, row.owed.match)
    else:
        assert row.owed.classes is not None, f"read as {summary(loaded)}, but a refusal is owed"
        check_reading(loaded, mini, row.owed)


def summary(loaded: LoadedData) -> dict[str, dict[str, int]]:
    """Number of images by split and class; classes without images are left out."""
    counts = {
        split: zip(dataset.class_names, dataset.class_counts().tolist(), strict=True)
        for split, dataset in loaded.splits.items()
    }
    return {split: {name: num for name, num in pairs if num} for split, pairs in counts.items()}


def check_refusal(message: str, mini: Miniature, match: str) -> None:
    """Check that a refusal is one line, and names the data and, besides their path, what was found."""
    assert "\n" not in message
    assert str(mini.root) in message
    assert re.search(match, message.replace(str(mini.root), "DATA")), message


def check_reading(loaded: LoadedData, mini: Miniature, owed: Owed) -> None:
    assert owed.classes is not None
    owed_counts = {split: len(labels) for split, labels in mini.labels.items()}
    assert owed_counts == owed.counts, "the row does not fit its builder"
    seen = summary(loaded)
    assert sorted(seen["train"]) == sorted(owed.classes), seen
    assert {split: len(dataset) for split, dataset in loaded.splits.items()} == owed.counts, seen
    for split, dataset in loaded.splits.items():
        assert labels_by_path(dataset, list(mini.labels[split])) == mini.labels[split]
        check_shades(dataset, mini.shades)
    bad_files = [bad.path for bad in loaded.bad_files]
    assert len(bad_files) == len(owed.bad_files), bad_files
    assert all(any(path.endswith(end) for path in bad_files) for end in owed.bad_files), bad_files
    said = "\n".join((*loaded.notes, loaded.why))
    for pattern in owed.says:
        assert re.search(pattern, said), f"{pattern!r} is not said: {said!r}"


def labels_by_path(dataset: ImageDataset, paths: list[str]) -> dict[str, str]:
    """The class of each of `paths`, to one of which every id of the data set must refer."""
    found = {}
    for id_, label in zip(dataset.ids, dataset.labels.tolist(), strict=True):
        matching = [path for path in paths if refers_to(id_, path)]
        assert len(matching) == 1, f"the id {id_!r} is that of {matching or 'no picture'}"
        found[matching[0]] = dataset.class_names[label]
    return found


def refers_to(id_: str, path: str) -> bool:
    """Whether an id is a path or the end of one, with or without its suffix."""
    stem = PurePosixPath(path).with_suffix("").as_posix()
    return any(f"/{whole}".endswith(f"/{id_}") for whole in (path, stem))


def check_shades(dataset: ImageDataset, shades: dict[str, int]) -> None:
    """Check that every image has the shade of its class: no other picture was taken for it."""
    for id_, image, label in zip(dataset.ids, dataset.images, dataset.labels.tolist(), strict=True):
        shade = shades.get(dataset.class_names[label])
        assert shade is None or abs(np.mean(image) - shade) < SHADE_STEP / 2, f"{id_}: this is another picture"


def test_the_table():
    assert len(LAYOUTS) == NUM_LAYOUTS
    assert {row.build.__module__ for row in LAYOUTS} == {family.__name__ for family in FAMILIES}
    assert len({row.name for row in LAYOUTS}) == NUM_LAYOUTS
    assert all(re.fullmatch(r"https?://\S+", row.source) for row in LAYOUTS)
    assert all(row.owed.match is not None or row.owed.classes is not None for row in LAYOUTS)
    either = [row.name for row in LAYOUTS if row.owed.match is not None and row.owed.classes is not None]
    assert len(either) <= MAX_EITHER


@pytest.mark.parametrize(
    ("id_", "path", "expected"),
    [
        ("train/cat/1.png", "train/cat/1.png", True),
        ("cat/1.png", "train/cat/1.png", True),
        ("1", "train/1.png", True),
        ("train/1", "train/1.png", True),
        ("1", "train/11.png", False),
        ("1.png", "train/11.png", False),
        ("dog/1.png", "train/cat/1.png", False),
        ("0", "0", True),
    ],
)
def test_ids_refer_to_pictures(id_, path, expected):
    assert refers_to(id_, path) is expected


def pets(mini: Miniature) -> None:
    mini.class_folders("{label}/{k}.png", ("cat", "dog"), num=2)


def pets_with_wrong_labels(mini: Miniature) -> None:
    pets(mini)
    mini.labels["train"] = {path: "dog" if label == "cat" else "cat" for path, label in mini.labels["train"].items()}


def pets_with_wrong_pictures(mini: Miniature) -> None:
    pets(mini)
    mini.copy("cat", "kept")
    mini.copy("dog", "cat", replace=True)
    mini.copy("kept", "dog", replace=True)
    mini.remove("kept")


def one_class(mini: Miniature) -> None:
    mini.class_folders("{label}/{k}.png", ("cat",))


PETS = ("cat", "dog")


@pytest.mark.parametrize(
    ("build", "owed"),
    [
        (pets, reads(PETS, says="images lie in", train=4)),
        (pets, reads_or_refused("cat", PETS, train=4)),
        (one_class, refused("1 class")),
        (one_class, reads_or_refused("1 class", PETS, train=4)),
    ],
)
def test_the_check_accepts(tmp_path, build, owed):
    check(Layout("pets", "pets", owed, "", build), tmp_path)


@pytest.mark.parametrize(
    ("build", "owed", "words"),
    [
        (pets, refused("cat"), "read as {'train': {'cat': 2, 'dog': 2}}, but a refusal is owed"),
        (one_class, reads(PETS, train=4), r"refused, but \('cat', 'dog'\) are owed: .*has 1 class"),
        (one_class, refused("pets"), "has 1 class"),  # the path alone says nothing
        (pets, reads(("cat", "dogs"), train=4), "'cat': 2"),
        (pets, reads(PETS, train=5), "the row does not fit its builder"),
        (pets, reads(PETS, says="left out", train=4), "'left out' is not said"),
        (pets, reads(PETS, ("cat/9.png",), train=4), r"\[\]"),
        (pets_with_wrong_labels, reads(PETS, train=4), r"cat/0\.png"),
        (pets_with_wrong_pictures, reads(PETS, train=4), r"cat/0\.png: this is another picture"),
    ],
)
def test_the_check_refuses(tmp_path, build, owed, words):
    with pytest.raises(AssertionError, match=words):
        check(Layout("pets", "pets", owed, "", build), tmp_path)
