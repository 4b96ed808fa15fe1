import pytest

from timebox.data.reading.lookup import Lookup

from ..making import save


@pytest.fixture
def lookup(tmp_path):
    for name in ("photos/train/1.jpg", "photos/test/1.jpg", "photos/train/2.jpg", "photos/a.b.png", "above.png"):
        save(tmp_path / name)
    return Lookup(tmp_path / "photos")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("train/1.jpg", "photos/train/1.jpg"),
        ("./train/1.jpg", "photos/train/1.jpg"),
        ("train\\1.jpg", "photos/train/1.jpg"),
        (" 2.jpg ", "photos/train/2.jpg"),
        ("2", "photos/train/2.jpg"),
        ("/somebody/elses/train/2.jpg", "photos/train/2.jpg"),
        ("test/1", "photos/test/1.jpg"),
        ("a.b", "photos/a.b.png"),
        ("above.png", "above.png"),
        ("photos/train/2.jpg", "photos/train/2.jpg"),
    ],
)
def test_what_a_text_means(lookup, tmp_path, text, place):
    assert lookup.find(text) == tmp_path / place


def test_an_absolute_path_is_taken_as_it_is(lookup, tmp_path):
    assert lookup.find(str(tmp_path / "above.png")) == tmp_path / "above.png"


@pytest.mark.parametrize("text", ["", "  ", "3.jpg", "nu\0ll", "x" * 5000, "..", "/", "1.jpg", "val/2.jpg"])
def test_what_means_none_or_several(lookup, text):
    assert lookup.find(text) is None


def test_a_split_tells_which_of_several(lookup, tmp_path):
    assert lookup.find("1.jpg", "train") == tmp_path / "photos/train/1.jpg"
    assert lookup.find("1", "test") == tmp_path / "photos/test/1.jpg"
    assert lookup.knows("1.jpg")
    assert not lookup.knows("3.jpg")


def test_what_lies_below_comes_before_what_lies_above(lookup, tmp_path):
    save(tmp_path / "2.jpg")
    assert lookup.find("2.jpg") == tmp_path / "photos/train/2.jpg"


def test_an_archive_is_never_left(lookup, tmp_path):
    confined = Lookup(tmp_path / "photos", confined=True)
    assert confined.find("train/2.jpg") == tmp_path / "photos/train/2.jpg"
    for text in ("above.png", "../above.png", str(tmp_path / "above.png"), "/etc/passwd"):
        assert confined.find(text) is None
    assert lookup.find("../above.png") == tmp_path / "photos/../above.png"
