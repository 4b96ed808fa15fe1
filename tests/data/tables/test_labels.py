"""Labels that are none, labels that are the same, and labels that are no classes."""

import pytest

from timebox.data.tables.labels import clean_labels
from timebox.errors import DataError


@pytest.mark.parametrize(
    "text", ["", "  ", "nan", "NaN", "NAN", "None", "null", "NULL", "<NA>", "N/A", "n/a", "#N/A", "NA", "NaT", " nan "]
)
def test_what_is_no_label(text):
    cleaned = clean_labels(["a", text, "b", None], "t.csv")
    assert cleaned.labels == ("a", None, "b", None)
    assert cleaned.missing_example == (repr(text) if text.strip() else "an empty cell")


@pytest.mark.parametrize("text", ["none", "na", "nano", "Nan Goldin", "0", "-1", "False", "naan"])
def test_what_is_a_label(text):
    assert clean_labels(["a", text], "t.csv").labels == ("a", text)


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["0", "1", "0.0", "1.0"], ("0", "1", "0", "1")),
        (["0.0", "1.0"], ("0", "1")),
        (["1e0", "2"], ("1", "2")),
        (["0.0", "nan", "2.0"], ("0", None, "2")),
        (["cat", " cat", "cat ", "\tcat\n"], ("cat",) * 4),
        (["k\u00f6ter", "ko\u0308ter"], ("k\u00f6ter",) * 2),
        (["1.0", "cat"], ("1.0", "cat")),
        (["01", "02"], ("01", "02")),
        (["1.5", "2.5"], ("1.5", "2.5")),
    ],
)
def test_labels_that_are_the_same(cells, labels):
    assert clean_labels(cells, "t.csv").labels == labels


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["b'cat'", "b'dog'"], ("cat", "dog")),
        (["['cat']", "['dog']", ""], ("cat", "dog", None)),
        (["[0]", "[1]"], ("0", "1")),
        (["['cat']", "dog"], ("['cat']", "dog")),
        (["-", "?", "#REF!", "nil", "a"], (None, None, None, None, "a")),
        (["cat\u200b", "\ufeffcat"], ("cat", "cat")),
    ],
)
def test_what_other_programs_write_around_a_label(cells, labels):
    assert clean_labels(cells, "t.csv").labels == labels


@pytest.mark.parametrize(
    ("cells", "column"),
    [
        (["['cat', 'dog']", "['cat']"], "label"),
        (["16 0", "3", "0"], "Target"),
        (["clear primary", "haze primary", "clear"], "tags"),
        (["cat\x1fdog", "cat"], "label"),
    ],
)
def test_several_labels_of_other_forms_are_refused(cells, column):
    with pytest.raises(DataError, match="has several labels in a row"):
        clean_labels(cells, "t.csv", column)


def test_words_in_a_class_name_are_one_label():
    cells = ["golden retriever", "labrador retriever", "golden eagle"]
    assert clean_labels(cells, "t.csv", "breed").labels == tuple(cells)


def test_what_became_one_class_is_said():
    assert clean_labels(["0", "0.0", "1"], "t.csv").notes == ("'0' and '0.0' are one class: '0'",)
    assert clean_labels(["cat", "cat ", "dog"], "t.csv").notes == ("'cat' and 'cat ' are one class: 'cat'",)
    assert clean_labels(["a", "a ", "b", "b ", "c", "c ", "d", "d "], "t.csv").notes[-1] == (
        "4 classes in all came under several such names"
    )


@pytest.mark.parametrize("pair", [("Cat", "cat"), ("hot dog", "hot_dog"), ("hot-dog", "hot  dog"), ("CAT", "Cat")])
def test_names_that_look_alike_are_two_classes_with_a_warning(pair):
    cleaned = clean_labels([*pair, "x"], "t.csv")
    first, second = sorted(pair)
    assert cleaned.labels == (*pair, "x")
    assert cleaned.notes == (f"{first!r} and {second!r} are different classes: rename one if they are the same",)


def test_measured_quantities_are_refused():
    with pytest.raises(
        DataError, match=r"t.csv holds 30 different numbers such as 0.1: a measured quantity, not a class"
    ):
        clean_labels([str(k / 10) for k in range(1, 31)], "t.csv")


@pytest.mark.parametrize("separator", ["|", ";", ", "])
def test_several_labels_in_a_cell_are_refused(separator):
    cells = ["Mass", "Nodule", "Mass", f"Mass{separator}Nodule"]
    with pytest.raises(DataError, match=r"t.csv has several labels in a row, as in 'Mass.+Nodule' \(1 row\): timebox"):
        clean_labels(cells, "t.csv")
    assert clean_labels([f"a{separator}b", "c"], "t.csv").labels == (f"a{separator}b", "c")
