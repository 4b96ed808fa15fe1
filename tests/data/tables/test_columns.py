from pathlib import Path

import pytest

from timebox.data.tables.columns import find_columns
from timebox.data.tables.files.table import Table
from timebox.errors import DataError

FILES = {"1.jpg", "2.jpg", "10.jpg"}
SOURCE = Path("photos/table.csv")


def has_image(text):
    return text in FILES or f"{text}.jpg" in FILES


def roles_of(columns, **declared):
    return find_columns(Table(columns, declared), has_image, SOURCE)


def test_the_image_column_is_found_by_content_not_by_name():
    roles = roles_of({"image": ["a", "b"], "remark": ["1.jpg", "2.jpg"], "label": ["x", "y"]})
    assert (roles.images, roles.labels.labels) == ("remark", ("x", "y"))


def test_of_several_file_columns_the_most_likely_name_is_used():
    assert roles_of({"mask": ["1.jpg"], "Image Path": ["2.jpg"], "label": ["x"]}).images == "Image Path"


@pytest.mark.parametrize("name", ["label", "ClassId", "class_name", "Category", "diagnosis", "TARGET"])
def test_common_names_of_label_columns(name):
    assert roles_of({"file": ["1.jpg"], "width": ["30"], name: ["x"]}).labels.labels == ("x",)


def test_the_only_other_column_holds_the_labels():
    assert roles_of({"file": ["1.jpg"], "whatever": ["x"]}).labels.labels == ("x",)


def test_one_hot_columns_are_classes():
    roles = roles_of({"image": ["1.jpg", "2.jpg"], "MEL": ["1.0", "0.0"], "NV": ["0.0", "1.0"]})
    assert roles.labels.labels == ("MEL", "NV")
    assert roles.why == "paths in column 'image', labels in columns MEL, NV of 0 and 1"


def test_several_ones_in_a_row_are_not_one_hot():
    with pytest.raises(DataError, match="which column holds the labels"):
        roles_of({"image": ["1.jpg", "2.jpg"], "red": ["1", "0"], "round": ["1", "1"]})


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            {"left": ["1.jpg"], "right": ["2.jpg"], "label": ["x"]},
            "columns 'left' and 'right' all name images",
        ),
        (
            {"file": ["1.jpg", "2.jpg"], "target": ["a", "a"], "class": ["b", "c"]},
            "'target' and 'class' could both be",
        ),
        (
            {"file": [f"{k}.jpg" for k in range(10)], "caption": list("abcdefghij")},
            "'caption' has another text in",
        ),
        ({"file": ["1.jpg"], "x": ["3"], "y": ["4"]}, "which column holds the labels"),
    ],
)
def test_columns_with_two_readings_are_refused(columns, words):
    with pytest.raises(DataError, match=words):
        find_columns(Table(columns, {}), lambda text: text.endswith(".jpg"), SOURCE)


def test_the_image_column_is_not_that_of_masks():
    assert roles_of({"mask_path": ["1.jpg"], "scan_path": ["2.jpg"], "label": ["x"]}).images == "scan_path"


def test_label_is_the_label_beside_other_columns():
    assert roles_of({"file": ["1.jpg", "2.jpg"], "label": ["a", "b"], "target": ["1", "1"]}).labels.labels == ("a", "b")


def test_one_hot_columns_may_be_called_labels():
    roles = roles_of({"file": ["1.jpg", "2.jpg"], "label_0": ["1", "0"], "label_1": ["0", "1"]})
    assert roles.labels.labels == ("label_0", "label_1")


def test_numbers_become_declared_class_names():
    assert roles_of(
        {"image": ["1.jpg", "2.jpg", "10.jpg"], "label": ["1", "0", "-1"]}, label=("a", "b")
    ).labels.labels == (
        "b",
        "a",
        None,
    )


def test_coarse_uses_the_coarser_label_column():
    columns = {"image": ["1.jpg"], "fine_label": ["oak"], "coarse_label": ["tree"]}
    assert find_columns(Table(columns, {}), has_image, SOURCE).labels.labels == ("oak",)
    assert find_columns(Table(columns, {}), has_image, SOURCE, coarse=True).labels.labels == ("tree",)


def test_a_split_column_holds_only_splits():
    columns = {"image": ["1.jpg", "2.jpg"], "label": ["x", "y"], "data set": ["train", "Validation"]}
    assert roles_of(columns).splits.splits == ("train", "val")
    assert roles_of({**columns, "data set": ["beach", "holidays"]}).splits is None


def test_errors_show_the_first_row():
    with pytest.raises(DataError, match=r"photos/table\.csv: no column holds images .* Its first row: a='lost', b='x'"):
        roles_of({"a": ["lost"], "b": ["x"]})


def test_index_and_label_columns_are_image_columns_only_without_another():
    roles = roles_of({"column 1": ["1", "2"], "img_file": ["2.jpg", "1.jpg"], "label": ["x", "y"]})
    assert roles.images == "img_file"
    assert roles_of({"label": ["1", "2"], "shot": ["2", "1"]}).images == "shot"
    assert roles_of({"label": ["x"], "id": ["1"]}).images == "id"
