"""Files of labels beside images are read only where their cells fit into memory."""

from pathlib import Path

import pytest

from timebox.data import load_data
from timebox.errors import DataError

from .. import making


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"0.png a" + b" x" * 9_000 + b"\n" + b"a b\n" * 9_000, "looks like a decompression bomb"),
        (b"0.png,a" + b",x" * 9_000 + b"\n" + b"a,b\n" * 9_000, "looks like a decompression bomb"),
        (None, "larger than the 67,108,864 bytes such a file may have"),
    ],
    ids=["spaces", "commas", "a hole of gigabytes"],
)
def test_labels_that_ask_for_much_memory_are_refused(tmp_path: Path, content: bytes | None, words: str) -> None:
    for name in ("train/a/0.png", "train/b/1.png", "val/0.png", "val/1.png"):
        making.save(tmp_path / name, making.picture((8, 8)))
    with (tmp_path / "val" / "val_annotations.txt").open("wb") as file:
        file.write(content or b"")
        file.truncate(len(content) if content else 8 << 30)
    with pytest.raises(DataError, match=words) as caught:
        load_data(tmp_path)
    assert "val_annotations.txt" in str(caught.value)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_labels_with_the_line_ends_of_any_system_are_read(tmp_path: Path, end: str) -> None:
    folder = unlabelled_val(tmp_path, end.join(["0.png,a", "1.png,b", ""]))
    assert load_data(folder).splits.val.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    "text", ['a, "never closed ' + "x" * 200_000, "a," + "x" * 200_000], ids=["a quotation mark", "a long cell"]
)
def test_a_text_that_is_no_table_gives_no_labels(tmp_path: Path, text: str) -> None:
    folder = unlabelled_val(tmp_path, text)
    assert load_data(folder).splits.val is None


def unlabelled_val(folder: Path, text: str) -> Path:
    """Images of the classes a and b to train on, two without a class in val, and a text beside those."""
    for seed, name in enumerate(("train/a/0.png", "train/b/1.png", "val/0.png", "val/1.png")):
        making.save(folder / name, making.picture((8, 8), seed=seed))
    (folder / "val" / "notes.txt").write_text(text, newline="")
    return folder
