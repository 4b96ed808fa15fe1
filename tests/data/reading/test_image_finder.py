import pytest

from timebox.data.reading.image_finder import ImageFinder

from ..making import save


@pytest.fixture
def finder(tmp_path):
    for name in ("photos/train/1.jpg", "photos/test/1.jpg", "photos/train/2.jpg", "photos/a.b.png", "above.png"):
        save(tmp_path / name)
    return ImageFinder(tmp_path / "photos")


@pytest.mark.parametrize(
    ("text", "path"),
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
def test_find_a_path_or_name(finder, tmp_path, text, path):
    assert finder.find(text) == tmp_path / path


def test_an_absolute_path(finder, tmp_path):
    assert finder.find(str(tmp_path / "above.png")) == tmp_path / "above.png"


@pytest.mark.parametrize("text", ["", "  ", "3.jpg", "nu\0ll", "x" * 5000, "..", "/", "1.jpg", "val/2.jpg"])
def test_none_for_no_file_or_several(finder, text):
    assert finder.find(text) is None


def test_the_split_selects_among_several(finder, tmp_path):
    assert finder.find("1.jpg", "train") == tmp_path / "photos/train/1.jpg"
    assert finder.find("1", "test") == tmp_path / "photos/test/1.jpg"
    assert finder.has_image("1.jpg")
    assert not finder.has_image("3.jpg")


def test_files_below_the_table_precede_files_above(finder, tmp_path):
    save(tmp_path / "2.jpg")
    assert finder.find("2.jpg") == tmp_path / "photos/train/2.jpg"


def test_a_confined_finder_finds_nothing_outside_its_folder(finder, tmp_path):
    confined = ImageFinder(tmp_path / "photos", is_confined=True)
    assert confined.find("train/2.jpg") == tmp_path / "photos/train/2.jpg"
    for text in ("above.png", "../above.png", str(tmp_path / "above.png"), "/etc/passwd"):
        assert confined.find(text) is None
    assert finder.find("../above.png") == tmp_path / "photos/../above.png"
