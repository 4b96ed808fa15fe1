"""What folders mean: a table of trees, and what each is read as, or why it is refused."""

import re
from pathlib import Path

import pytest

from timebox.data import load_data
from timebox.data.left_out import LeftOut
from timebox.errors import DataError

from ..making import picture, save


def grow(root: Path, tree: dict[str, int]) -> Path:
    """Folders with so many images each; a name with a dot is a single file: an image, or an empty one."""
    seed = 0
    for name, count in tree.items():
        if re.search(r"\.[a-z]+$", name.removesuffix(".ipynb_checkpoints")):
            if name.endswith(".png"):
                save(root / name, picture(seed=seed))
            else:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text("")
            seed += 1
            continue
        (root / name).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            save(root / name / f"{k}.png", picture(seed=seed))
            seed += 1
    return root


PETS = {"cat": 4, "dog": 4}
TRAIN = {"train/cat": 4, "train/dog": 4}
TEST = {"test/cat": 2, "test/dog": 2}
CAT_DOG = {"train": {"cat": 4, "dog": 4}}
WITH_TEST = {**CAT_DOG, "test": {"cat": 2, "dog": 2}}
WITH_VAL = {**CAT_DOG, "val": {"cat": 2, "dog": 2}}

READ = {
    # Splits, and what lies beside them
    "a stray picture": (TRAIN | TEST | {"plots/a.png": 1}, WITH_TEST, "1 folder beside train/ left out: plots"),
    "results of another program": (TRAIN | TEST | {"results/cat": 2}, WITH_TEST, "beside train/ left out: results"),
    "an old train folder": (TRAIN | {"old_train/cat": 3, "old_train/dog": 3}, CAT_DOG, "left out: old_train"),
    "a backup as large": (TRAIN | TEST | {"backup/cat": 9, "backup/dog": 9}, WITH_TEST, "left out: backup"),
    "a picture at the root": (TRAIN | TEST | {"logo.png": 1}, WITH_TEST, "1 image beside train/ left out: logo.png"),
    "a picture in train": (TRAIN | {"train/all.png": 1}, CAT_DOG, "outside any class folder left out: train/all.png"),
    "a picture beside classes": (PETS | {"all.png": 1}, CAT_DOG, "1 image outside any class folder left out: all.png"),
    "valid": (TRAIN | {"valid/cat": 2, "valid/dog": 2}, WITH_VAL, None),
    "validation": (TRAIN | {"validation/cat": 2, "validation/dog": 2}, WITH_VAL, None),
    "Dev": (TRAIN | {"Dev/cat": 2, "Dev/dog": 2}, WITH_VAL, None),
    "capitals": ({"TRAIN/cat": 4, "TRAIN/dog": 4, "Test/cat": 2, "Test/dog": 2}, WITH_TEST, None),
    "years": ({"train2017/cat": 4, "train2017/dog": 4, "val2017/cat": 2, "val2017/dog": 2}, WITH_VAL, None),
    "a prefix": ({"pets_train/cat": 4, "pets_train/dog": 4, "pets_test/cat": 2, "pets_test/dog": 2}, WITH_TEST, None),
    "a suffix": ({"train_v2/cat": 4, "train_v2/dog": 4, "val_v2/cat": 2, "val_v2/dog": 2}, WITH_VAL, None),
    "eval beside val": (TRAIN | {"val/cat": 2, "val/dog": 2, "eval/cat": 1}, WITH_VAL | {"test": {"cat": 1}}, None),
    "splits in classes": ({"cat/train": 4, "cat/test": 2, "dog/train": 4, "dog/test": 2}, WITH_TEST, None),
    "splits in classes below images": ({"images/cat/train": 4, "images/dog/train": 4}, CAT_DOG, "read from images/"),
    "test beside classes": (PETS | TEST, WITH_TEST, None),
    "an unlabelled test": (
        TRAIN | {"test": 3},
        CAT_DOG,
        "test/ holds 3 images without labels, such as test/0.png",
    ),
    "a test folder in test": (TRAIN | {"test/test": 3}, CAT_DOG, "test/ holds 3 images without labels"),
    "an unknown class in test": (TRAIN | {"test/unknown": 3}, CAT_DOG, "test/ holds 3 images without labels"),
    "an unlabelled test beside classes": (PETS | {"test": 3}, CAT_DOG, "test/ holds 3 images without labels"),
    "an empty val": (TRAIN | {"val": 0}, CAT_DOG, "val/ holds no images: no val split"),
    "a class called train": ({"train": 4, "bus": 4}, {"train": {"bus": 4, "train": 4}}, "train/ is taken for a class"),
    "images in train": ({"train/images/cat": 4, "train/images/dog": 4}, CAT_DOG, None),
    # One folder too high
    "images above": ({"food/images/cat": 4, "food/images/dog": 4, "food/README.txt": 1}, CAT_DOG, "from food/images/"),
    "figures beside images": (
        {"images/cat": 4, "images/dog": 4, "figures": 1},
        CAT_DOG,
        "beside images/ left out",
    ),
    "code beside the folder": ({"raw/cat": 4, "raw/dog": 4, "a.py": 1, "b.docx": 1, "meta": 0}, CAT_DOG, "from raw/"),
    "splits one below": ({"pets/train/cat": 4, "pets/train/dog": 4, "pets/a.csv": 1}, CAT_DOG, "read from pets/"),
    "a copy of the class folders": (
        PETS | {"pets/cat": 4, "pets/dog": 4},
        CAT_DOG,
        "the same class folders again",
    ),
    # Depth
    "images in each class": ({"cat/images": 4, "dog/images": 4}, CAT_DOG, None),
    "breeds below one class": (
        {"cat": 2, "cat/siamese": 2, "dog": 1, "dog/a": 1, "dog/b": 2},
        CAT_DOG,
        "images in folders below a class folder belong to that class: those of dog/a/ too",
    ),
    "sessions of each class": ({"cat/part1": 2, "cat/part2": 2, "dog/part1": 2, "dog/part2": 2}, CAT_DOG, None),
    "parts of class folders": (
        {"part_1/cat": 2, "part_1/dog": 2, "part_2/cat": 2, "part_2/dog": 2},
        CAT_DOG,
        "part_1/, part_2/ are taken for parts of one set: their class folders are merged",
    ),
    # What is no image of ours
    "names of systems": (
        PETS | {"@eaDir": 2, "$RECYCLE.BIN": 1, "__MACOSX/cat": 1, ".ipynb_checkpoints": 1, "cat/@eaDir": 3},
        CAT_DOG,
        "5 hidden or system items left out: $RECYCLE.BIN, .ipynb_checkpoints, @eaDir, ...",
    ),
    "more names of systems": (PETS | {"System Volume Information": 2, "#recycle": 1, "lost+found": 1}, CAT_DOG, None),
    "files of systems": (PETS | {"cat/Thumbs.db": 1, "cat/._0.png": 1, "dog/desktop.ini": 1}, CAT_DOG, "cat/._0.png"),
    "masks beside images": (
        PETS | {"cat/0_mask.png": 1, "cat/1_mask.png": 1, "dog/2-seg.png": 1, "dog/2 gt 1.png": 1},
        CAT_DOG,
        "4 masks of another image left out: cat/0_mask.png",
    ),
    "people with and without a mask": (
        {"mask": 4, "no_mask": 4},
        {"train": {"mask": 4, "no_mask": 4}},
        None,
    ),
    "other files": (PETS | {"cat/boxes.txt": 1}, CAT_DOG, "1 other file in class folders left out: cat/boxes.txt"),
    "masks below classes": (
        {"cat/images": 4, "cat/masks": 4, "dog/images": 4, "dog/masks": 4},
        CAT_DOG,
        "2 folders of masks or thumbnails of other images left out: cat/masks, dog/masks",
    ),
    "masks below images": ({"cat": 4, "cat/lung masks": 4, "dog": 4}, CAT_DOG, "left out: cat/lung masks"),
    "thumbnails below images": ({"cat": 4, "cat/thumbs": 4, "dog": 4}, CAT_DOG, "left out: cat/thumbs"),
    "an unlabelled folder": (PETS | {"unlabeled": 9}, CAT_DOG, "1 folder of unlabelled images left out: unlabeled"),
    "a cache of Hugging Face": (
        {"blobs": 3, "refs": 0, "snapshots/abc/train/cat": 4, "snapshots/abc/train/dog": 4},
        CAT_DOG,
        "read from snapshots/abc/",
    ),
    "splits in classes beside plots": (
        {"cat/train": 4, "cat/test": 2, "dog/train": 4, "dog/test": 2, "plots": 1},
        WITH_TEST,
        "1 folder beside cat/ left out: plots",
    ),
    "splits one below beside samples": (
        {"pets/train/cat": 4, "pets/train/dog": 4, "pets/test/cat": 2, "pets/test/dog": 2, "sample_images": 2},
        WITH_TEST,
        "1 folder beside pets/ left out: sample_images",
    ),
    "a container that is a class": (
        {"raw/beef": 2, "raw/pork": 2, "cooked": 4},
        {"train": {"cooked": 4, "raw": 4}},
        "images in folders below a class folder belong to that class: those of raw/beef/ too",
    ),
    "eval for val": (TRAIN | TEST | {"eval/cat": 1}, WITH_TEST | {"val": {"cat": 1}}, "eval/ is taken for val"),
    # Names
    "a copy of a folder": (
        PETS | {"cat - Copy": 2},
        {"train": {"cat": 4, "cat - Copy": 2, "dog": 4}},
        "'cat' and 'cat - Copy' are different classes",
    ),
    "leading zeros": (
        {"1": 2, "01": 2},
        {"train": {"01": 2, "1": 2}},
        "'01' and '1' are different classes",
    ),
    "invisible characters": ({"cat\u200b": 2, "cat": 2, "dog": 4}, CAT_DOG, "are one class: 'cat'"),
    "a space in a name": ({"cat ": 2, "cat": 2, "dog": 4}, CAT_DOG, "'cat' and 'cat ' are one class: 'cat'"),
    "two forms of ö": (
        {"ko\u0308ter": 2, "k\u00f6ter": 2, "cat": 4},
        {"train": {"cat": 4, "k\u00f6ter": 4}},
        "are one class: 'köter'",
    ),
    "capitals in a name": (
        {"Cat": 2, "cat": 2},
        {"train": {"Cat": 2, "cat": 2}},
        "'Cat' and 'cat' are different classes: rename one if they are the same",
    ),
    "a class called nan": ({"nan": 2, "naan": 2}, {"train": {"naan": 2, "nan": 2}}, None),
    "numbered classes": ({"class_1": 2, "class_2": 2}, {"train": {"class_1": 2, "class_2": 2}}, None),
    "numbers": ({"01": 2, "02": 2}, {"train": {"01": 2, "02": 2}}, None),
}

REFUSED = {
    "train or a class": (
        {"train/steam": 2, "train/diesel": 2, "bus": 3, "car": 3},
        r"train/ could be the training images, or a class beside bus/, car/: give .*/train to train on",
    ),
    "two validation folders": (TRAIN | {"val/cat": 1, "validation/cat": 1}, "val/ and validation/, both of which mean"),
    "eval alone": (TRAIN | {"eval/cat": 1}, "eval/ could be the validation or the test images: "),
    "splits in one class": (
        {"cat/train": 2, "cat/test": 2, "dog": 2},
        "cat/ holds test/, train/, but dog/ holds",
    ),
    "two sets": (
        {"a_train/x": 1, "a_test/x": 1, "b_train/x": 1, "b_test/x": 1},
        "several sets with splits",
    ),
    "one class beside test": (
        {"control": 2, "test": 2},
        "one class, 'control', beside test/, .*: rename that",
    ),
    "no classes in train": (
        {"train": 3, "test": 2},
        "no class folders in train/, and no table of labels",
    ),
    "other classes in test": (TRAIN | {"test/Cat": 1, "test/Dog": 1}, r"classes unknown to training \(Cat, Dog\)"),
    "parts": ({"part_1": 2, "part_2": 2}, "part_1/, part_2/ look like parts of one set, not like classes"),
    "batches": ({"batch1": 2, "batch2": 2, "batch3": 2}, "batch1/, batch2/, batch3/ look like parts"),
    "numbered images": (
        {f"images_{k:03}": 1 for k in range(12)},
        r"images_000/, images_001/, images_002/, \.\.\.",
    ),
    "folds": ({"fold-a": 2, "fold-b": 2}, "fold-a/, fold-b/ look like parts"),
    "images in parts": ({"part1/images": 2, "part2/images": 2}, "part1/, part2/ look like parts"),
    "images and masks": ({"images": 3, "masks": 3}, "masks/ holds masks of the images in images/, by their file names"),
    "image and label": ({"image": 3, "label": 3}, "label/ holds masks of the images in image/"),
    "VOC": ({"JPEGImages": 3, "SegmentationClass": 3}, "SegmentationClass/ holds masks of the images in JPEGImages/"),
    "masks of splits": ({"train/images": 3, "train/masks": 3}, "masks/ holds masks of the images in images/"),
    "masks of classes": ({"images/cat": 2, "images/dog": 2, "masks/cat": 2, "masks/dog": 2}, "masks/ holds masks of"),
    "input and target": ({"input": 3, "target": 3}, "target/ holds masks of the images in input/"),
    "rgb and depth": ({"rgb": 3, "depth": 3}, "depth/ holds masks of the images in rgb/"),
    "masks with an ending": (
        {"imgs/a.png": 1, "imgs/b.png": 1, "gt/a_mask.png": 1, "gt/b_mask.png": 1},
        "gt/ holds masks of the images in imgs/",
    ),
    "masks of split folders": ({"images/train": 2, "masks/train": 2}, "masks/ holds masks of the images in images/"),
    "masks beside splits": (
        {"train": 3, "train_labels": 3, "test": 2, "test_labels": 2},
        "labels/ holds masks of",
    ),
    "masks with other names": (
        {"images/img_1.png": 1, "images/img_2.png": 1, "labels/lbl_1.png": 1, "labels/lbl_2.png": 1},
        "labels/ holds masks of the images in images/",
    ),
    "city scapes": (
        {"leftImg8bit/a_leftImg8bit.png": 1, "gtFine/a_gtFine_labelIds.png": 1},
        "gtFine/ holds masks of the images in leftImg8bit/",
    ),
    "ground truth": (
        {"Training_Input/1.png": 1, "Training_GroundTruth/1_segmentation.png": 1},
        "Training_GroundTruth/ holds masks of the images in Training_Input/",
    ),
    "masks of each class": ({"cat": 2, "dog": 2, "cat_masks": 2, "dog_masks": 2}, "cat_masks/ holds masks of the"),
    "thumbnails": ({"images": 3, "thumbnails": 3}, "thumbnails/ holds thumbnails of the images in images/"),
    "two sets with splits": (
        {"a/train/cat": 1, "a/train/dog": 1, "b/train/cat": 1, "b/train/dog": 1},
        "several sets with splits of their own, a/, b/: give one",
    ),
    "domains": ({"trainA": 1, "trainB": 1, "testA": 1, "testB": 1}, "are splits of two sets, A and B"),
    "two snapshots": (
        {"blobs": 1, "snapshots/a/cat": 1, "snapshots/b/cat": 1},
        r"cache of Hugging Face with several snapshots \(a, b\): give one",
    ),
    "patients": ({"p1/0": 1, "p1/1": 1, "p2/0": 1, "p2/1": 1}, "could be p1, p2, or the folders in these, 0, 1"),
    "superclasses": ({"pet/cat": 1, "pet/dog": 1, "car/bus": 1, "car/van": 1}, "could be car, pet, or the folders in"),
    "letters": ({"a/abbey": 2, "a/arch": 2, "b/bank": 2}, "could be a, b, or the folders in these, abbey, arch, bank"),
    "two candidates": ({"web/images/cat": 1, "web/images/dog": 1, "cam/images/cat": 1}, "could be cam, web, or the"),
    "one folder of images": (
        {"jpg": 3, "labels.mat": 1},
        r"3 images, but no class folders .*\(labels.mat cannot",
    ),
    "boxes": ({"train/images": 3, "train/labels/0.txt": 1}, "no class folders in train/, and no table of labels"),
}


@pytest.mark.parametrize("name", READ)
def test_read(tmp_path: Path, name: str) -> None:
    tree, expected, says = READ[name]
    loaded = load_data(grow(tmp_path, tree))
    counts = {
        split: {
            class_name: count
            for class_name, count in zip(part.class_names, part.class_counts().tolist(), strict=True)
            if count
        }
        for split, part in loaded.splits.items()
    }
    assert counts == expected
    assert says is None or any(says in note for note in loaded.notes), loaded.notes


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path: Path, name: str) -> None:
    tree, words = REFUSED[name]
    with pytest.raises(DataError, match=words) as refusal:
        load_data(grow(tmp_path, tree))
    assert "\n" not in str(refusal.value)


def test_the_tables() -> None:
    assert (len(READ), len(REFUSED)) == (58, 37)


@pytest.mark.parametrize(("depth", "names"), [(1, ("p1", "p2")), (2, ("0", "1"))])
def test_the_class_depth_decides(tmp_path: Path, depth: int, names: tuple[str, ...]) -> None:
    grow(tmp_path, {"p1/0": 1, "p1/1": 1, "p2/0": 1, "p2/1": 1})
    assert load_data(tmp_path, class_depth=depth).splits.train.class_names == names


def test_parts_may_be_classes_if_that_is_said(tmp_path: Path) -> None:
    grow(tmp_path, {"part_1": 2, "part_2": 2})
    assert load_data(tmp_path, class_depth=1).splits.train.class_names == ("part_1", "part_2")


def test_a_split_that_is_not_used_may_have_any_form(tmp_path: Path) -> None:
    grow(tmp_path, TRAIN | {"val/Cat": 1, "val/Dog": 1, "test/x": 2, "test/y": 1})
    splits = load_data(tmp_path, splits=("train",)).splits
    assert [name for name, _ in splits.items()] == ["train"]


def test_what_is_left_out_is_counted_with_examples(tmp_path: Path) -> None:
    grow(tmp_path, TRAIN | TEST | {"plots": 5, "a.png": 1, "b.png": 1, "c.png": 1, "d.png": 1})
    loaded = load_data(tmp_path)
    assert loaded.left_out == (
        LeftOut("folder", "beside train/", 1, ("plots",)),
        LeftOut("image", "beside train/", 4, ("a.png", "b.png", "c.png")),
    )
    assert loaded.notes == (
        "1 folder beside train/ left out: plots",
        "4 images beside train/ left out: a.png, b.png, c.png, ...",
    )


MODEL = ("cat", "dog", "train")


@pytest.mark.parametrize(
    ("tree", "counts"),
    [
        ({"cat": 2}, {"train": 2}),
        ({"dog": 1, "cat": 2}, {"train": 3}),
        ({"test/cat": 2, "test/dog": 1}, {"train": 0, "test": 3}),
        ({"test/dog": 2, "val/dog": 1}, {"train": 0, "val": 1, "test": 2}),
        ({"cat/a": 1, "cat/b": 1}, {"train": 2}),
        ({"train": 2, "dog": 1}, {"train": 3}),
        ({"new/cat": 2}, {"train": 2}),
        ({"train/cat": 2, "test/dog": 2}, {"train": 2, "test": 2}),
        ({"siteA/cat": 1, "siteB/cat": 1, "siteA/dog": 1, "siteB/dog": 1}, {"train": 4}),
        ({"cat/day": 1, "cat/night": 1, "dog/day": 1, "dog/night": 1}, {"train": 4}),
    ],
)
def test_data_to_score_a_model_on_may_lack_classes_and_train(tmp_path: Path, tree, counts) -> None:
    loaded = load_data(grow(tmp_path, tree), class_names=MODEL)
    assert {name: len(part) for name, part in loaded.splits.items()} == counts
    assert loaded.splits.train.class_names == MODEL


@pytest.mark.parametrize("name", ["images", "unknown", "x", "cat"])
def test_the_folder_of_one_class_can_be_scored(tmp_path: Path, name: str) -> None:
    """Also where its name says nothing in other data, and where that folder itself is given."""
    grow(tmp_path, {name: 2})
    for path in (tmp_path, tmp_path / name):
        train = load_data(path, class_names=(name, "zz")).splits.train
        assert train.class_counts().tolist() == [2, 0]


def test_data_to_score_a_model_on_must_have_its_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"images of classes unknown to training \(emu\); known are cat, dog, train"):
        load_data(grow(tmp_path, {"cat": 1, "emu": 1}), class_names=MODEL)
