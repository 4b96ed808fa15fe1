import base64
import csv
import json
from pathlib import Path

import numpy as np
import pytest

from timebox.data import load_data
from timebox.errors import DataError, UsageError

from ..making import photo_folder, picture, png_bytes, save

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow, of the extra `tables`, is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow, of the extra `tables`, is not installed")


def write_rows(path: Path, rows: list[list[object]], separator: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    return path


def labelled_photos(folder: Path, per_class: int = 3) -> list[list[object]]:
    """photos/0.png ... and a row for each: its path and its class."""
    rows: list[list[object]] = []
    for number in range(2 * per_class):
        save(folder / "photos" / f"{number}.png", picture(seed=number))
        rows.append([f"photos/{number}.png", ("cat", "dog")[number % 2]])
    return rows


def write_parquet(path: Path, columns: dict[str, object], features: dict[str, object] | None = None) -> Path:
    table = pyarrow.table(columns)
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)
    return path


def hugging_face(folder: Path) -> Path:
    """data/train-0000k-of-00002.parquet and test, as Hugging Face writes images with a class label."""
    features = {"image": {"_type": "Image"}, "label": {"names": ["zebra", "ant"], "_type": "ClassLabel"}}
    for name, start in (("train-00000-of-00002", 0), ("train-00001-of-00002", 4), ("test-00000-of-00001", 8)):
        images = [{"bytes": png_bytes(picture(seed=start + k)), "path": f"{k}.png"} for k in range(4)]
        write_parquet(folder / "data" / f"{name}.parquet", {"image": images, "label": [0, 1, 1, 0]}, features)
    return folder


def assert_is_photos(loaded, folder: Path) -> None:
    train = loaded.splits.train
    assert train.class_names == ("cat", "dog")
    assert train.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert all(np.array_equal(image, np.asarray(picture(seed=k))) for k, image in enumerate(train.images))


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", "\t")])
@pytest.mark.parametrize("header", [True, False])
def test_csv_separators_and_headers(tmp_path, name, separator, header):
    rows = labelled_photos(tmp_path)
    loaded = load_data(write_rows(tmp_path / name, [["filename", "label"]] * header + rows, separator))
    assert_is_photos(loaded, tmp_path)
    assert loaded.splits.train.ids == tuple(f"photos/{k}.png" for k in range(6))
    assert loaded.format == f"{name[-3:].upper()} table"
    columns = ("filename", "label") if header else ("column 1", "column 2")
    assert loaded.why == f"paths in column '{columns[0]}', labels in column '{columns[1]}'"


def test_base64_images(tmp_path):
    rows = [[base64.b64encode(png_bytes(picture(seed=k))).decode(), ("cat", "dog")[k % 2]] for k in range(6)]
    loaded = load_data(write_rows(tmp_path / "a.tsv", [["image", "label"], *rows], "\t"))
    assert_is_photos(loaded, tmp_path)
    assert loaded.why.startswith("encoded texts in column 'image'")


def test_a_split_column(tmp_path):
    rows = labelled_photos(tmp_path)
    split = ["train", "Training", "train", "train", "valid", "TEST"]
    table = [["path", "set", "label"], *([path, split[k], label] for k, (path, label) in enumerate(rows))]
    loaded = load_data(write_rows(tmp_path / "a.csv", table))
    assert {name: len(part) for name, part in loaded.splits.items()} == {"train": 4, "val": 1, "test": 1}
    assert loaded.why.endswith("splits in column 'set'")


def test_tables_by_split_in_a_folder(tmp_path):
    rows = labelled_photos(tmp_path)
    write_rows(tmp_path / "train.csv", [["path", "label"], *rows[:4]])
    write_rows(tmp_path / "test.csv", [["path", "label"], *rows[4:]])
    loaded = load_data(tmp_path)
    assert loaded.format == "CSV tables in train, test"
    assert (len(loaded.splits.train), loaded.splits.test.labels.tolist()) == (4, [0, 1])


def test_a_test_table_without_labels_is_left_out(tmp_path):
    rows = labelled_photos(tmp_path)
    write_rows(tmp_path / "train.csv", [["path", "label"], *rows])
    write_rows(tmp_path / "test.csv", [["path"], *([path] for path, _ in rows)])
    loaded = load_data(tmp_path)
    assert loaded.splits.test is None
    assert "test.csv has no labels: left out" in loaded.notes


def test_a_table_beside_class_folders_is_read_if_it_names_labels(tmp_path):
    """Folders are classes unless a table beside them names images and their labels."""
    folder = photo_folder(tmp_path, ("part_1", "part_2"))
    write_rows(folder / "measures.csv", [["path", "width"], ["part_1/0.png", "16"]])
    with pytest.raises(DataError, match="part_1/, part_2/ look like parts of one set, not like classes"):
        load_data(tmp_path)
    rows = [[f"{k % 3}", "mole" if k % 2 else "wart", f"part_{1 + k // 3}/{k % 3}.png"] for k in range(6)]
    (folder / "measures.csv").unlink()
    write_rows(folder / "metadata.csv", [["age", "dx", "image"], *rows])
    assert load_data(tmp_path).splits.train.class_names == ("mole", "wart")


def test_equal_names_in_two_split_folders(tmp_path):
    for split in ("Training_Set", "test"):
        for k in range(4):
            save(tmp_path / split / f"{k}.png", picture(seed=k + 10 * (split == "test")))
    for split in ("train", "test"):
        write_rows(tmp_path / f"{split}.csv", [["file", "label"], *([f"{k}.png", "ab"[k % 2]] for k in range(4))])
    loaded = load_data(tmp_path)
    assert np.array_equal(loaded.splits.train.images[1], np.asarray(picture(seed=1)))
    assert np.array_equal(loaded.splits.test.images[1], np.asarray(picture(seed=11)))


def test_a_test_table_with_one_hot_labels(tmp_path):
    rows = labelled_photos(tmp_path)
    marked = [[path, int(label == "cat"), int(label == "dog")] for path, label in rows]
    for name, part in (("train", marked), ("test", marked[:2])):
        write_rows(tmp_path / f"{name}.csv", [["image", "cat", "dog"], *part])
    assert load_data(tmp_path).splits.test.labels.tolist() == [0, 1]


def test_line_breaks_in_cells_and_other_line_ends(tmp_path):
    rows = labelled_photos(tmp_path)
    rows[0].append("two\nlines")
    rows[1].append("a separator\u2028of lines")
    loaded = load_data(write_rows(tmp_path / "a.csv", [["path", "label", "caption"], *rows]))
    assert len(loaded.splits.train) == 6


def test_a_text_too_long_for_a_file_name(tmp_path):
    rows = [[path, label, "x" * 300] for path, label in labelled_photos(tmp_path)]
    assert len(load_data(write_rows(tmp_path / "a.csv", [["path", "label", "caption"], *rows])).splits.train) == 6


def test_rows_without_image_or_label_are_left_out(tmp_path):
    rows = labelled_photos(tmp_path)
    loaded = load_data(write_rows(tmp_path / "a.csv", [["path", "label"], *rows, ["photos/0.png", ""], ["", "cat"]]))
    assert len(loaded.splits.train) == 6
    assert "2 rows of a.csv without an image or a label (an empty cell) left out: row 7, row 8" in loaded.notes
    assert [(each.what, each.count) for each in loaded.left_out] == [("row", 2)]


def test_missing_files_are_listed(tmp_path):
    rows = labelled_photos(tmp_path, per_class=10)
    loaded = load_data(write_rows(tmp_path / "a.csv", [["path", "label"], *rows, ["photos/lost.png", "cat"]]))
    assert [(bad.path, bad.reason) for bad in loaded.bad_files] == [("photos/lost.png", "No such file or directory")]


def test_hugging_face_parquet(tmp_path):
    loaded = load_data(hugging_face(tmp_path))
    train, test = loaded.splits.train, loaded.splits.test
    assert (loaded.format, len(train), len(test)) == ("Parquet tables in train, test", 8, 4)
    assert train.class_names == ("zebra", "ant")  # as declared
    assert train.labels.tolist() == [0, 1, 1, 0] * 2
    assert np.array_equal(train.images[5], np.asarray(picture(seed=5)))
    assert loaded.why == "encoded images in column 'image', labels in column 'label'"


def test_one_parquet_file_with_bytes_or_paths(tmp_path):
    rows = labelled_photos(tmp_path)
    labels = [label for _, label in rows]
    images = [png_bytes(picture(seed=k)) for k in range(6)]
    assert_is_photos(load_data(write_parquet(tmp_path / "a.parquet", {"img": images, "class": labels})), tmp_path)
    paths = [path for path, _ in rows]
    assert_is_photos(load_data(write_parquet(tmp_path / "b.parquet", {"path": paths, "class": labels})), tmp_path)


def test_superclasses_of_a_table(tmp_path):
    images = [png_bytes(picture(seed=k)) for k in range(4)]
    columns = {"img": images, "fine_label": [0, 1, 2, 3], "coarse_label": [0, 0, 1, 1]}
    path = write_parquet(tmp_path / "a.parquet", columns)
    assert load_data(path).splits.train.num_classes == 4
    assert load_data(path, coarse=True).splits.train.labels.tolist() == [0, 0, 1, 1]
    write_parquet(path, {"img": images, "label": [0, 1, 2, 3]})
    with pytest.raises(UsageError, match=r"coarse asks for superclasses, but .*a\.parquet has no column of them"):
        load_data(path, coarse=True)


def test_the_label_minus_one_means_none(tmp_path):
    features = {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}
    images = [png_bytes(picture(seed=k)) for k in range(3)]
    path = write_parquet(tmp_path / "a.parquet", {"image": images, "label": [0, 1, -1]}, features)
    assert len(load_data(path).splits.train) == 2
    write_parquet(path, {"image": images, "label": [0, 1, 2]}, features)
    with pytest.raises(DataError, match=r"a\.parquet: has the label 2, but names 2 classes \(0\.\.1\)"):
        load_data(path)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "holds no rows"),
        ([["path", "label"]], "holds column names, but no rows"),
        ([["path", "label"], ["photos/0.png"], ["photos/1.png", "dog", "more"]], "row 2 has 3 cells, but there are 2"),
        ([["a", "a"], ["photos/0.png", "dog"]], "two columns are named 'a'"),
        ([["path", "label"], ["lost/0.png", "dog"]], "no column holds images or names image files that lie in"),
        ([["path"], ["photos/0.png"]], "which column holds the labels"),
        ([["path", "x", "z"], ["photos/0.png", "1", "2"]], "Besides the images there are 'x', 'z'; name one of them"),
        ([["path", "label"], ["photos/0.png", ""]], "no row holds an image to train on"),
    ],
)
def test_tables_without_image_or_label_column_are_refused(tmp_path, rows, words):
    labelled_photos(tmp_path)
    with pytest.raises(DataError, match=words):
        load_data(write_rows(tmp_path / "a.csv", rows))


def test_files_that_are_not_tables_are_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"path,label\n\xff\xfe,x\n")
    with pytest.raises(DataError, match=r"a\.csv: byte 11 is not UTF-8"):
        load_data(tmp_path / "a.csv")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match=r"a\.parquet: not a Parquet table, or a damaged one"):
        load_data(tmp_path / "a.parquet")


def test_shards_must_have_the_same_columns(tmp_path):
    images = [png_bytes(picture(seed=k)) for k in range(4)]
    write_parquet(tmp_path / "train-0.parquet", {"image": images, "label": [0, 1, 0, 1]})
    write_parquet(tmp_path / "train-1.parquet", {"image": images, "class": [0, 1, 0, 1]})
    with pytest.raises(DataError, match=r"its columns \(image, class\) are not those of train-0\.parquet"):
        load_data(tmp_path)


def test_repeated_column_names_are_refused(tmp_path):
    table = pyarrow.table([[1, 2], [3, 4]], names=["a", "a"])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: two columns are named 'a'"):
        load_data(tmp_path / "a.parquet")


def test_a_parquet_bomb_is_refused(tmp_path):
    """One image that a dictionary refers to again and again."""
    blob = bytes(1 << 20)
    path = write_parquet(tmp_path / "a.parquet", {"image": [blob] * 400, "label": [0, 1] * 200})
    with pytest.raises(DataError, match="looks like a decompression bomb"):
        load_data(path)


def test_without_pyarrow_the_error_names_the_package(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "a.parquet", {"label": [0, 1]})
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"reading Parquet takes pyarrow: pip install 'timebox-vision\[tables\]'"):
        load_data(path)
