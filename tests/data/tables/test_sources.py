"""Which table of a folder labels its images, and whether its labels or the folders' are learned."""

import json
from pathlib import Path

import pytest

from timebox.data import load_data
from timebox.data.dataset import LoadedData
from timebox.errors import DataError

from ..making import picture, save


def images(folder: Path, *names: str) -> None:
    for name in names:
        save(folder / name, picture(seed=sum(name.encode())))


def table(path: Path, header: str, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")


def parts(folder: Path, names: tuple[str, str], suffix: str = ".png") -> list[str]:
    """Two folders of three images each, and rows that label them across the folders."""
    for k in range(6):
        images(folder, f"{names[k // 3]}/im{k}.png")
    return [f"im{k}{suffix},{'mel' if k % 2 else 'nv'}" for k in range(6)]


def labels(loaded: LoadedData, split: str = "train") -> dict[str, str]:
    part = dict(loaded.splits.items())[split]
    return {Path(name).stem: part.class_names[label] for name, label in zip(part.ids, part.labels, strict=True)}


BY_TABLE = {f"im{k}": "mel" if k % 2 else "nv" for k in range(6)}


@pytest.mark.parametrize("suffix", [".png", ""])
@pytest.mark.parametrize(
    "names",
    [
        ("part_1", "part_2"), ("batch1", "batch2"), ("images_001", "images_012"), ("HAM_part_1", "HAM_part_2"),
        ("fold-a", "fold-b"), ("set 1", "set 2"), ("shard0", "shard1"),
    ],
)  # fmt: skip
def test_part_folders_have_the_labels_of_the_table(tmp_path: Path, names: tuple[str, str], suffix: str) -> None:
    table(tmp_path / "meta.csv", "image_id,dx", *parts(tmp_path, names, suffix))
    loaded = load_data(tmp_path)
    assert labels(loaded) == BY_TABLE
    assert f"meta.csv: files are found by their names alone, as 'im0{suffix}' at {names[0]}/im0.png" in loaded.notes


@pytest.mark.parametrize("place", ["annotations/meta.csv", "labels/csv/meta.tsv", "data/meta.csv", "meta.jsonl"])
def test_the_table_may_lie_in_a_folder_beside_the_images(tmp_path: Path, place: str) -> None:
    rows = parts(tmp_path, ("part_1", "part_2"))
    separator = "\t" if place.endswith("tsv") else ","
    if place.endswith("jsonl"):
        lines = [json.dumps(dict(zip(("image_id", "dx"), row.split(","), strict=True))) for row in rows]
        (tmp_path / place).write_text("\n".join(lines))
    else:
        table(tmp_path / place, f"image_id{separator}dx", *(row.replace(",", separator) for row in rows))
    assert labels(load_data(tmp_path)) == BY_TABLE


def test_a_table_of_pixels_beside_it_is_not_read(tmp_path: Path) -> None:
    table(tmp_path / "meta.csv", "image_id,dx", *parts(tmp_path, ("part_1", "part_2")))
    table(tmp_path / "hmnist_2_2.csv", "pixel0,pixel1,pixel2,pixel3,label", "1,2,3,4,0", "5,6,7,8,1")
    assert labels(load_data(tmp_path)) == BY_TABLE


def test_two_tables_of_labels_are_refused(tmp_path: Path) -> None:
    rows = parts(tmp_path, ("part_1", "part_2"))
    table(tmp_path / "a.csv", "image_id,dx", *rows)
    table(tmp_path / "b.csv", "image,label", *rows[::-1])
    with pytest.raises(DataError, match=r"has several tables of labels, a.csv, b.csv: give the one to read"):
        load_data(tmp_path)
    assert labels(load_data(tmp_path / "a.csv")) == BY_TABLE


def test_a_submission_is_no_table_of_labels(tmp_path: Path) -> None:
    rows = parts(tmp_path, ("part_1", "part_2"))
    table(tmp_path / "meta.csv", "image_id,dx", *rows)
    table(tmp_path / "sample_submission.csv", "image_id,dx", *(f"im{k}.png,nv" for k in range(6)))
    assert labels(load_data(tmp_path)) == BY_TABLE


def test_without_a_table_parts_are_refused(tmp_path: Path) -> None:
    parts(tmp_path, ("part_1", "part_2"))
    with pytest.raises(DataError, match="give the table that has their labels"):
        load_data(tmp_path)


def class_folders(folder: Path, names: tuple[str, str] = ("cat", "dog")) -> list[str]:
    for k in range(8):
        images(folder, f"{names[k % 2]}/{k}.png")
    return [f"{names[k % 2]}/{k}.png" for k in range(8)]


@pytest.mark.parametrize("values", [("cat", "dog"), ("0", "1"), ("Katze", "Hund")])
def test_a_table_that_agrees_with_the_folders(tmp_path: Path, values: tuple[str, str]) -> None:
    paths = class_folders(tmp_path)
    table(tmp_path / "labels.csv", "path,label", *(f"{path},{values[k % 2]}" for k, path in enumerate(paths)))
    loaded = load_data(tmp_path)
    assert loaded.splits.train.class_names == ("cat", "dog")
    assert "labels.csv, which labels 8 images, is not read: the class folders label them" in loaded.notes


def test_numbered_class_folders_and_a_table_that_agrees(tmp_path: Path) -> None:
    paths = class_folders(tmp_path, ("0", "1"))
    table(tmp_path / "labels.csv", "path,label", *(f"{path},{k % 2}" for k, path in enumerate(paths)))
    assert labels(load_data(tmp_path)) == {str(k): str(k % 2) for k in range(8)}


def test_a_table_that_disagrees_with_the_folders_is_refused(tmp_path: Path) -> None:
    paths = class_folders(tmp_path)
    table(
        tmp_path / "labels.csv", "path,label", *(f"{path},{'in' if k < 4 else 'out'}" for k, path in enumerate(paths))
    )
    words = (
        r"the labels of labels.csv are not those of the folders \(an image in cat/ has the label 'in'\): give .*labels"
    )
    with pytest.raises(DataError, match=words):
        load_data(tmp_path)
    assert load_data(tmp_path / "labels.csv").splits.train.class_names == ("in", "out")


def test_a_table_of_a_few_images_is_not_read(tmp_path: Path) -> None:
    paths = class_folders(tmp_path)
    table(tmp_path / "corrections.csv", "path,label", f"{paths[0]},dog")
    assert load_data(tmp_path).splits.train.class_names == ("cat", "dog")


def test_a_table_of_class_names_is_no_table_of_images(tmp_path: Path) -> None:
    class_folders(tmp_path, ("0", "1"))
    table(tmp_path / "classes.csv", "id,name", "0,cat", "1,dog")
    assert load_data(tmp_path).splits.train.class_names == ("0", "1")


def test_images_that_no_row_names_are_counted(tmp_path: Path) -> None:
    table(tmp_path / "meta.csv", "image_id,dx", *parts(tmp_path, ("part_1", "part_2"))[:4])
    loaded = load_data(tmp_path)
    assert "2 images that meta.csv does not name left out: part_2/im4.png, part_2/im5.png" in loaded.notes
    assert [(each.what, each.count) for each in loaded.left_out] == [("image", 2)]


def test_an_unlabelled_test_folder_is_left_for_predict(tmp_path: Path) -> None:
    images(tmp_path, *(f"train_images/{k}.png" for k in range(4)), "test_images/9.png")
    table(tmp_path / "train.csv", "id,label", *(f"{k},{'ab'[k % 2]}" for k in range(4)))
    table(tmp_path / "test.csv", "id", "9")
    loaded = load_data(tmp_path)
    assert "test.csv has no labels: left out" in loaded.notes
    assert any(note.startswith("test_images/ holds 1 image without labels") for note in loaded.notes)


def test_tables_in_the_folders_of_the_splits(tmp_path: Path) -> None:
    for split, start in (("train", 0), ("valid", 4)):
        images(tmp_path, *(f"{split}/{k}.jpg" for k in range(start, start + 4)))
        rows = (f"{k}.jpg, {1 - k % 2}, {k % 2}" for k in range(start, start + 4))
        table(tmp_path / split / "_classes.csv", "filename, cat, dog", *rows)
    loaded = load_data(tmp_path)
    assert labels(loaded) == {str(k): "dog" if k % 2 else "cat" for k in range(4)}
    assert labels(loaded, "val") == {str(k): "dog" if k % 2 else "cat" for k in range(4, 8)}


def test_paths_in_a_table_without_splits_say_them(tmp_path: Path) -> None:
    names = [*(f"train/{k}.png" for k in range(4)), *(f"test/{k}.png" for k in range(4, 6))]
    images(tmp_path, *names)
    table(tmp_path / "all.csv", "path,label", *(f"{name},{'ab'[k % 2]}" for k, name in enumerate(names)))
    loaded = load_data(tmp_path)
    assert (len(loaded.splits.train), len(loaded.splits.test)) == (4, 2)
    assert "all.csv: splits are those of the folders that the images lie in" in loaded.notes


def test_a_missing_file_is_never_taken_from_another_split(tmp_path: Path) -> None:
    names = [f"train/x/{k}.png" for k in range(20)]
    images(tmp_path, *(name for name in names if "/7." not in name), *(f"test/x/{k}.png" for k in range(20)))
    table(tmp_path / "labels.csv", "file,label", *(f"{name},{'ab'[k % 2]}" for k, name in enumerate(names)))
    loaded = load_data(tmp_path / "labels.csv")
    assert [(bad.path, bad.reason) for bad in loaded.bad_files] == [("train/x/7.png", "No such file or directory")]
    assert len(loaded.splits.train) == 19


def test_an_image_with_several_labels(tmp_path: Path) -> None:
    images(tmp_path, *(f"{k}.png" for k in range(20)))
    rows = [f"{k}.png,{'ab'[k % 2]}" for k in range(20)]
    table(tmp_path / "a.csv", "file,label", *rows, rows[3], "0.png,b")
    loaded = load_data(tmp_path / "a.csv")
    assert len(loaded.splits.train) == 19
    assert any(note.startswith("1 image with several labels in a.csv left out") for note in loaded.notes)
    table(tmp_path / "b.csv", "file,label", *rows, *(f"{k}.png,c" for k in range(20)))
    with pytest.raises(DataError, match=r"b.csv: 20 images of 20 have several labels, as 0.png has 'a', 'c'"):
        load_data(tmp_path / "b.csv")


@pytest.mark.parametrize(
    ("line", "words"), [("[1]", "line 2 is no JSON object"), ("{", "line 2 is no JSON: "), ("", "which column holds")]
)
def test_json_lines_that_are_none(tmp_path: Path, line: str, words: str) -> None:
    images(tmp_path, "a.png")
    (tmp_path / "metadata.jsonl").write_text(f'{{"file_name": "a.png"}}\n{line}\n')
    with pytest.raises(DataError, match=words):
        load_data(tmp_path / "metadata.jsonl")


def test_labels_of_a_table_that_swaps_the_folders_are_refused(tmp_path: Path) -> None:
    paths = class_folders(tmp_path)
    table(tmp_path / "labels.csv", "path,label", *(f"{path},{('dog', 'cat')[k % 2]}" for k, path in enumerate(paths)))
    with pytest.raises(DataError, match=r"an image in cat/ has the label 'dog'"):
        load_data(tmp_path)


def test_names_that_are_in_both_class_folders_are_refused(tmp_path: Path) -> None:
    images(tmp_path, *(f"{folder}/{k}.png" for folder in "ab" for k in range(4)))
    table(tmp_path / "labels.csv", "file,label", *(f"{k}.png,{'xy'[k % 2]}" for k in range(4)))
    with pytest.raises(DataError, match=r"do not fit together \(0.png: 2 files have that name: a/0.png, b/0.png\)"):
        load_data(tmp_path)


def test_a_wrong_table_of_images_is_not_passed_over_for_another(tmp_path: Path) -> None:
    rows = parts(tmp_path, ("part_1", "part_2"))
    table(tmp_path / "few.csv", "image_id,dx", *rows[:2])
    table(tmp_path / "full.csv", "image_id,dx,split", *(f"{row},holdout" for row in rows))
    with pytest.raises(DataError, match="'holdout' is no split"):
        load_data(tmp_path)


@pytest.mark.parametrize(
    ("cells", "files"),
    [
        (["IMG_1.JPG", "IMG_2.JPG"], ["img_1.jpg", "img_2.jpg"]),
        (["k\u00f6ter.png", "b.png"], ["ko\u0308ter.png", "b.png"]),
        (["train/X/1.png", "train/X/2.png"], ["Train/x/1.png", "Train/x/2.png"]),
    ],
)
def test_names_in_another_spelling_are_found(tmp_path: Path, cells: list[str], files: list[str]) -> None:
    images(tmp_path, *files)
    table(tmp_path / "labels.csv", "file,label", *(f"{cell},{'ab'[k]}" for k, cell in enumerate(cells)))
    assert len(load_data(tmp_path / "labels.csv").splits.train) == 2


@pytest.mark.parametrize("cell", ["a%20b.png", "1.jpg", "9.png", "1.0"])
def test_a_table_whose_names_do_not_fit_is_named(tmp_path: Path, cell: str) -> None:
    images(tmp_path, "a b.png", "1.png", "2.png")
    table(tmp_path / "labels.csv", "file,label", f"{cell},a", f"{cell},b")
    with pytest.raises(DataError, match=r"labels\.csv: no column holds images .* Its first row: file="):
        load_data(tmp_path)


def test_a_split_column_outranks_the_folder_all_images_lie_in(tmp_path: Path) -> None:
    images(tmp_path, *(f"train/{k}.jpg" for k in range(5)))
    table(tmp_path / "t.csv", "fname,labels,is_valid", *(f"{k}.jpg,{'ab'[k % 2]},{k == 4}" for k in range(5)))
    loaded = load_data(tmp_path)
    assert (len(loaded.splits.train), len(loaded.splits.val)) == (4, 1)
    says = "1 image in the folder of another split than their row says: 4.jpg is of val and lies in a folder of train"
    assert any(says in note for note in loaded.notes)


def test_unique_names_in_train_and_test_are_split_by_their_folders(tmp_path: Path) -> None:
    images(tmp_path, *(f"train/a{k}.png" for k in range(4)), *(f"test/b{k}.png" for k in range(2)))
    rows = [*(f"a{k}.png,{'xy'[k % 2]}" for k in range(4)), *(f"b{k}.png,{'xy'[k % 2]}" for k in range(2))]
    table(tmp_path / "labels.csv", "file,label", *rows)
    splits = load_data(tmp_path).splits
    assert (len(splits.train), len(splits.test)) == (4, 2)


def test_one_file_in_two_splits_is_noted(tmp_path: Path) -> None:
    images(tmp_path, *(f"img/{k}.png" for k in range(6)))
    rows = [f"img/{k}.png,{'ab'[k % 2]}" for k in range(6)]
    table(tmp_path / "train.csv", "file,label", *rows)
    table(tmp_path / "test.csv", "file,label", *rows[4:])
    assert any("2 images are in more than one split, such as img/4.png" in note for note in load_data(tmp_path).notes)


def test_hidden_labels_of_a_test_split_are_none(tmp_path: Path) -> None:
    images(tmp_path, *(f"{k}.png" for k in range(6)))
    table(tmp_path / "train.csv", "file,label", *(f"{k}.png,{k % 2}" for k in range(4)))
    table(tmp_path / "test.csv", "file,label", "4.png,-1", "5.png,-1")
    loaded = load_data(tmp_path)
    assert loaded.splits.test is None
    assert any(note.startswith("2 images with the label -1 of hidden labels left out") for note in loaded.notes)


@pytest.mark.parametrize("name", ["test.csv", "test/metadata.csv", "labels.csv"])
def test_a_model_can_be_scored_on_a_table_of_test_alone(tmp_path: Path, name: str) -> None:
    images(tmp_path, *(f"{name.rpartition('/')[0] or '.'}/{k}.png" for k in range(4)))
    split = ",split" if name == "labels.csv" else ""
    rows = (f"{k}.png,{'ab'[k % 2]}{',test' if split else ''}" for k in range(4))
    table(tmp_path / name, f"file,label{split}", *rows)
    splits = load_data(tmp_path, class_names=("a", "b")).splits
    assert {split: len(part) for split, part in splits.items()} == {"train": 0, "test": 4}


def annotated(folder: Path, lines: list[str], name: str = "val/val_annotations.txt") -> LoadedData:
    for k in range(4):
        images(folder, f"train/n0{k % 2}/images/t{k}.png", f"val/images/v{k}.png")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(lines))
    return load_data(folder)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("val/val_annotations.txt", [f"v{k}.png\tn0{k % 2}\t0\t0\t9\t9" for k in range(4)]),
        ("val/labels.csv", ["image,class", *(f"v{k}.png,n0{k % 2}" for k in range(4))]),
        ("val.txt", [f"val/images/v{k}.png n0{k % 2}" for k in range(4)]),
        ("meta/val_labels.txt", [f"n0{k % 2}; v{k}.png" for k in range(4)]),
        ("val_annotations.csv", ["ImageId,Label", *(f"v{k},n0{k % 2}" for k in range(4))]),
    ],
)
def test_annotations_label_a_split_without_class_folders(tmp_path: Path, name: str, lines: list[str]) -> None:
    loaded = annotated(tmp_path, lines, name)
    assert labels(loaded, "val") == {f"v{k}": f"n0{k % 2}" for k in range(4)}
    assert f"{name} has the labels of the 4 images of val" in loaded.notes


def test_annotations_that_name_other_classes_are_none(tmp_path: Path) -> None:
    loaded = annotated(tmp_path, [f"v{k}.png other" for k in range(4)])
    assert loaded.splits.val is None
    assert any(note.startswith("val/ holds 4 images without labels") for note in loaded.notes)


def test_annotations_of_some_images(tmp_path: Path) -> None:
    loaded = annotated(tmp_path, [f"v{k}.png n0{k % 2}" for k in range(3)])
    assert len(loaded.splits.val) == 3
    assert "1 image of val without a label in val/val_annotations.txt left out" in loaded.notes
