import pytest

from timebox.data.tables.image_paths import LINK_IN_ARCHIVE, OUTSIDE_ARCHIVE, ImagePaths, is_image_path

from ..making import save


@pytest.fixture
def folder(tmp_path):
    for name in ("train/1.jpg", "train/2.jpg", "train/a.b.png", "test/1.jpg", "test/3.jpg", "photos/x/7.png", "0.png"):
        save(tmp_path / "data" / name)
    save(tmp_path / "above.png")
    return tmp_path / "data"


def found(folder, texts, split=None, **options):
    """The paths that texts stand for, relative to the folder; the problem where there is none."""
    result = ImagePaths(folder, **options).find(texts, split)
    return [
        problem or path.relative_to(folder.parent).as_posix().removeprefix("data/")
        for path, problem in zip(result.paths, result.problems, strict=True)
    ]


MISSING = "No such file or directory"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (
            ["train/1.jpg", "./train/2.jpg", "test\\1.jpg", " 0.png "],
            ["train/1.jpg", "train/2.jpg", "test/1.jpg", "0.png"],
        ),
        (["train/1", "train/2", "train/a.b"], ["train/1.jpg", "train/2.jpg", "train/a.b.png"]),
        (["data/train/1.jpg", "data/train/2.jpg"], ["train/1.jpg", "train/2.jpg"]),
        (["/home/ann/set/train/1.jpg", "/home/ann/set/train/2.jpg"], ["train/1.jpg", "train/2.jpg"]),
        (["C:\\set\\train\\1.jpg", "C:\\set\\train\\2.jpg"], ["train/1.jpg", "train/2.jpg"]),
        (["../input/set/train/1.jpg", "../input/set/train/2.jpg"], ["train/1.jpg", "train/2.jpg"]),
        (["x/7.png"], ["photos/x/7.png"]),
        (["7.png"], ["photos/x/7.png"]),
        (["7"], ["photos/x/7.png"]),
    ],
)
def test_all_cells_follow_one_rule(folder, texts, expected):
    assert found(folder, texts) == expected


def test_absolute_paths_and_paths_from_the_folder_above(folder):
    assert found(folder, [str(folder.parent / "above.png"), str(folder / "0.png")]) == ["above.png", "0.png"]
    assert found(folder, ["above.png"]) == ["above.png"]


@pytest.mark.parametrize(
    "texts",
    [
        ["train/1.jpg", "train/2.jpg", "train/3.jpg"],  # test/3.jpg is there
        ["train/1.jpg", "0.png", "7.png"],  # photos/x/7.png is there
        ["/set/train/1.jpg", "/set/train/2.jpg", "/set/train/3.jpg"],
        ["train/1.jpg", "train/2.jpg", "x/7.png"],  # a tail of photos/x/7.png
        ["train/1.jpg", "train/2.jpg", "nu\0ll"],
        ["train/1.jpg", "train/2.jpg", "x" * 5000],
        ["train/1.jpg", "train/2.jpg", ".."],
    ],
)
def test_a_path_is_itself_or_missing(folder, texts):
    assert found(folder, texts)[-1] == MISSING


def test_a_name_is_looked_for_in_the_folder_of_its_split(folder):
    assert found(folder, ["1", "2"], "train") == ["train/1.jpg", "train/2.jpg"]
    assert found(folder, ["1.jpg", "3.jpg"], "test") == ["test/1.jpg", "test/3.jpg"]
    assert (
        found(folder, ["1", "2", "3"], "train")[2] == "no such file, but one in the folder of another split, test/3.jpg"
    )
    # A table that says nothing of splits is one of train.
    assert found(folder, ["1", "2", "3"])[2] == "no such file, but one in the folder of another split, test/3.jpg"


def test_a_name_must_be_unique(folder):
    save(folder / "photos" / "y" / "7.png")
    save(folder / "photos" / "y" / "8.png")
    save(folder / "photos" / "y" / "9.png")
    assert found(folder, ["8.png", "9.png", "7.png"], "val") == [
        "photos/y/8.png",
        "photos/y/9.png",
        "2 files have that name: photos/x/7.png, photos/y/7.png",
    ]


def test_rules_other_than_plain_paths_are_said(folder):
    paths = ImagePaths(folder)
    assert paths.find(["train/1.jpg"]).note is None
    assert paths.find(["7.png"]).note == "files are found by their names alone, as '7.png' at photos/x/7.png"
    assert paths.find(["x/7.png"]).note == "paths are those of files below photos/"
    assert paths.find(["/set/train/1.jpg"]).note == (
        "paths are those of files beside the table, without their first folders set/"
    )


def test_a_confined_search_finds_nothing_outside_its_folder(folder):
    assert found(folder, ["above.png"], is_confined=True) == [MISSING]
    for text in ("../above.png", str(folder.parent / "above.png"), "/etc/hostname"):
        assert found(folder, [text], is_confined=True) == [OUTSIDE_ARCHIVE]
    assert not ImagePaths(folder, is_confined=True).has_image("above.png")
    assert not ImagePaths(folder, is_confined=True).has_image("/etc/hostname")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("/etc/a.png", OUTSIDE_ARCHIVE),
        ("../a.png", OUTSIDE_ARCHIVE),
        ("train/../../a.png", OUTSIDE_ARCHIVE),
        ("..\\a.png", OUTSIDE_ARCHIVE),
        ("\\\\server\\share\\a.png", OUTSIDE_ARCHIVE),
        ("\\a.png", OUTSIDE_ARCHIVE),
        ("C:\\a.png", OUTSIDE_ARCHIVE),
        ("c:a.png", OUTSIDE_ARCHIVE),
        ("file:///etc/a.png", OUTSIDE_ARCHIVE),
        ("file:/etc/a.png", OUTSIDE_ARCHIVE),
        ("HTTP://host/a.png", OUTSIDE_ARCHIVE),
        (" /etc/a.png", OUTSIDE_ARCHIVE),
        ("train/9.jpg", None),
        ("12:30.png", None),
        ("Cat: a.png", None),
        ("a..b/c.png", None),
        ("~/a.png", None),
        ("link/a.png", LINK_IN_ARCHIVE),
        ("x/alias.png", LINK_IN_ARCHIVE),
    ],
)
def test_a_cell_that_leads_out_of_an_archive_is_refused_and_counts_as_an_image(folder, text, reason):
    paths = ImagePaths(folder, None, True, frozenset({folder / "link", folder / "x" / "alias.png"}))
    (problem,) = paths.find([text]).problems
    assert problem == reason if reason else problem not in (OUTSIDE_ARCHIVE, LINK_IN_ARCHIVE)
    assert paths.has_image(text) == (reason is not None)
    assert ImagePaths(folder).find([text]).problems[0] not in (OUTSIDE_ARCHIVE, LINK_IN_ARCHIVE)


@pytest.mark.parametrize("prefix", ["/set/", "C:\\set\\", "../", "file:///set/", "https://host/set/"])
def test_a_file_that_an_archive_lacks_beside_those_that_the_same_paths_name_is_missing(folder, prefix):
    paths = ImagePaths(folder, None, True, frozenset({folder / "train" / "link.jpg"}))
    named = [f"{prefix}train/{name}.jpg" for name in ("1", "2", "1", "2", "9", "link")]
    assert paths.find([*named, "/etc/a.png"]).problems == ("", "", "", "", MISSING, LINK_IN_ARCHIVE, OUTSIDE_ARCHIVE)


def test_a_name_that_leads_out_of_an_archive_is_refused_beside_names_alone(folder):
    problems = ImagePaths(folder / "train", is_confined=True).find(["1.jpg", "2.jpg", "1.jpg", "/3.jpg", "c:3.jpg"])
    assert problems.problems == ("", "", "", OUTSIDE_ARCHIVE, OUTSIDE_ARCHIVE)


def test_the_path_of_a_missing_file_lies_inside_the_folder(folder):
    result = ImagePaths(folder, is_confined=True).find(["../../etc/hostname"])
    assert result.paths[0] == folder / "etc" / "hostname"


def test_names_of_images():
    assert is_image_path("a\\b.JPG")
    assert not is_image_path("a/b.txt")
    assert not is_image_path("._b.jpg")
