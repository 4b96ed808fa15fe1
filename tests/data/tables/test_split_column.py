"""Columns that say which split a row belongs to."""

import pytest

from timebox.data.tables.files.table import Table
from timebox.data.tables.split_column import find_row_splits, unused_fold_note
from timebox.errors import DataError


def splits_of(**columns: list[str]):
    size = len(next(iter(columns.values())))
    cells = {name.replace("_", " ") if name.startswith("data") else name: values for name, values in columns.items()}
    return find_row_splits(Table({"image": [f"{k}.png" for k in range(size)], **cells}, {}), "image", "t.csv")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["training", "validation", "testing"], ("train", "val", "test")),
        (["TRAIN", "Valid", "Test"], ("train", "val", "test")),
        (["train", "dev", "test"], ("train", "val", "test")),
        (["Training set", "validation_set", "test-data"], ("train", "val", "test")),
        ([" train ", "train", "val"], ("train", "train", "val")),
        (["0", "0", "0", "1", "2"], ("train", "train", "train", "val", "test")),
        (["0.0", "0.0", "1.0", "2.0"], ("train", "train", "val", "test")),
    ],
)
@pytest.mark.parametrize("name", ["split", "Split", "splits", "train_test", "data_split"])
def test_known_words_in_any_case(name, values, expected):
    assert splits_of(**{name: values}).splits == expected


@pytest.mark.parametrize("name", ["set", "subset", "dataset", "partition", "Usage", "fold", "phase"])
def test_names_that_may_mean_something_else(name):
    assert splits_of(**{name: ["train", "test"]}).splits == ("train", "test")
    assert splits_of(**{name: ["vidir", "rosendahl"]}) is None


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("split", ["train", "holdout"], r"t.csv: column 'split' holds train \(1\), holdout \(1\), and 'holdout' is no"),
        (
            "split",
            ["train", "train", ""],
            r"holds train \(2\), \(empty\) \(1\), and '\(empty\)' is no split",
        ),
        ("split", ["a", "b"], r"column 'split' holds a \(1\), b \(1\), and 'a' is no split"),
        ("split", ["0", "1"], "and '0' is no split"),
        ("split", ["0", "1", "2"], "and '0' is no split"),  # as many of val and test as of train
        ("split", ["1", "1", "2", "3"], "and '1' is no split"),
        ("usage", ["Training", "PublicTest", "PrivateTest"], r"'PublicTest' is no split"),
        ("set", ["train", "extra"], "'extra' is no split"),
        ("is_valid", ["0", "maybe"], "column 'is_valid' has 'maybe' in row 2: it must be 0 or 1, or True or False"),
        ("is_test", ["1", ""], r"column 'is_test' has '\(empty\)' in row 2"),
    ],
)
def test_unknown_words_are_refused_with_what_was_found(name, values, words):
    with pytest.raises(DataError, match=words):
        splits_of(**{name: values})


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"is_valid": ["True", "False"]}, ("val", "train")),
        ({"is_valid": ["1", "0"]}, ("val", "train")),
        ({"Is Val": ["yes", "no"]}, ("val", "train")),
        ({"is_test": ["0.0", "1.0"]}, ("train", "test")),
        ({"is_training_image": ["1", "0"]}, ("train", "test")),
        ({"is_valid": ["0", "1", "0", "0"], "is_test": ["0", "0", "1", "0"]}, ("train", "val", "test", "train")),
        ({"is_train": ["1", "0", "0", "1"], "is_val": ["0", "1", "0", "0"]}, ("train", "val", "test", "train")),
        ({"test": ["False", "True"]}, ("train", "test")),
        ({"train": ["1", "0"]}, ("train", "test")),
        ({"valid": ["0", "1"]}, ("train", "val")),
        ({"in_train": ["yes", "no"]}, ("train", "test")),
        (
            {"train": ["1", "1", "0", "0"], "val": ["0", "0", "1", "0"], "test": ["0", "0", "0", "1"]},
            ("train", "train", "val", "test"),
        ),
        ({"cat": ["1", "0"], "dog": ["0", "1"], "test": ["0", "1"]}, ("train", "test")),
    ],
)
def test_columns_of_yes_and_no(columns, expected):
    found = splits_of(**columns)
    assert found.splits == expected
    assert set(found.columns) == {name for name in columns if name not in ("cat", "dog")}
    assert "1 is " in found.notes[0]


def test_one_hot_classes_called_like_splits_are_classes():
    assert splits_of(bus=["1", "0", "0"], car=["0", "1", "0"], train=["0", "0", "1"]) is None


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"is_valid": ["1", "1", "1", "0"]}, "'is_valid' would hold out 3 of 4 rows and leave few to train on"),
        ({"is_valid": ["1", "0", "0"], "is_test": ["1", "0", "0"]}, "row 1 is of val and of test, by its columns"),
        ({"split": ["train", "test"], "set": ["test", "train"]}, "the columns 'split' and 'set' give different splits"),
    ],
)
def test_columns_that_contradict_each_other_are_refused(columns, words):
    with pytest.raises(DataError, match=words):
        splits_of(**columns)


def test_a_column_of_any_name_with_nothing_but_splits():
    assert splits_of(remark=["train", "test"]).splits == ("train", "test")
    assert splits_of(vehicle=["train", "train"]) is None
    assert splits_of(vehicle=["train", "bus"]) is None


def test_numbers_of_splits_are_said():
    assert splits_of(partition=["0", "0", "1", "2"]).notes == (
        "column 'partition': 0 is read as train, 1 as val and 2 as test",
    )


def test_numbered_folds_are_not_used_and_that_is_said():
    table = Table({"image": ["1.png", "2.png"], "fold": ["0", "1"]}, {})
    assert find_row_splits(table, "image", "t.csv") is None
    note = "column 'fold' (0, 1) numbers folds and is not used: the val split is cut by timebox"
    assert unused_fold_note(table) == note
    assert unused_fold_note(Table({"image": ["1.png"]}, {})) is None
