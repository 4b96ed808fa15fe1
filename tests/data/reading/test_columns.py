from pathlib import Path

import pytest

from timebox.data.reading.columns import Table, choose
from timebox.errors import DataError

FILES = {"1.jpg", "2.jpg", "10.jpg"}
SOURCE = Path("photos/table.csv")


def knows(text):
    return text in FILES or f"{text}.jpg" in FILES


def chosen(columns, **declared):
    return choose(Table(columns, declared), knows, SOURCE)


def test_images_are_found_by_what_is_there_not_by_the_column_name():
    found = chosen({"image": ["a", "b"], "remark": ["1.jpg", "2.jpg"], "label": ["x", "y"]})
    assert (found.images, found.labels) == ("remark", ["x", "y"])


def test_of_several_columns_of_files_the_likeliest_name_wins():
    assert chosen({"mask": ["1.jpg"], "Image Path": ["2.jpg"], "label": ["x"]}).images == "Image Path"


@pytest.mark.parametrize("name", ["label", "ClassId", "class_name", "Category", "diagnosis", "TARGET"])
def test_labels_go_by_many_names(name):
    assert chosen({"file": ["1.jpg"], "width": ["30"], name: ["x"]}).labels == ["x"]


def test_the_only_other_column_is_the_label():
    assert chosen({"file": ["1.jpg"], "whatever": ["x"]}).labels == ["x"]


def test_columns_of_0_and_1_are_classes():
    found = chosen({"image": ["1.jpg", "2.jpg"], "MEL": ["1.0", "0.0"], "NV": ["0.0", "1.0"]})
    assert found.labels == ["MEL", "NV"]
    assert found.why == "paths in column 'image', labels in columns MEL, NV of 0 and 1"


def test_several_marks_in_a_row_are_no_class():
    with pytest.raises(DataError, match="which column holds the labels"):
        chosen({"image": ["1.jpg", "2.jpg"], "red": ["1", "0"], "round": ["1", "1"]})


def test_declared_numbers_become_names():
    assert chosen({"image": ["1.jpg", "2.jpg", "10.jpg"], "label": ["1", "0", "-1"]}, label=("a", "b")).labels == [
        "b",
        "a",
        None,
    ]


def test_the_coarser_of_two_columns_of_classes():
    columns = {"image": ["1.jpg"], "fine_label": ["oak"], "coarse_label": ["tree"]}
    assert choose(Table(columns, {}), knows, SOURCE).labels == ["oak"]
    assert choose(Table(columns, {}), knows, SOURCE, coarse=True).labels == ["tree"]


def test_a_split_column_holds_nothing_but_splits():
    columns = {"image": ["1.jpg", "2.jpg"], "label": ["x", "y"], "data set": ["train", "Validation"]}
    assert chosen(columns).splits == ["train", "val"]
    assert chosen({**columns, "data set": ["train", "holidays"]}).splits is None


def test_errors_show_the_first_row():
    with pytest.raises(DataError, match=r"photos/table\.csv: no column holds images .* Its first row: a='lost', b='x'"):
        chosen({"a": ["lost"], "b": ["x"]})


def test_an_index_or_a_label_is_no_name_of_a_file_where_another_column_is():
    found = chosen({"column 1": ["1", "2"], "img_file": ["2.jpg", "1.jpg"], "label": ["x", "y"]})
    assert found.images == "img_file"
    assert chosen({"label": ["1", "2"], "shot": ["2", "1"]}).images == "shot"
    assert chosen({"label": ["x"], "id": ["1"]}).images == "id"
