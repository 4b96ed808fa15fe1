"""Lists of files on stdin, in the encodings and with the line ends of any system."""

import io
import os
from pathlib import Path

import pytest

from timebox.cli.file_list import read_names

PLAIN = ["a.png", "photos/b c.png"]


class Slowly(io.RawIOBase):
    """A pipe that brings a few bytes at a time."""

    def __init__(self, content: bytes, size: int) -> None:
        self._content, self._size = content, size

    def read1(self, size: int) -> bytes:
        chunk, self._content = self._content[: self._size], self._content[self._size :]
        return chunk


def names(content: bytes) -> list[str]:
    return list(read_names(io.BytesIO(content)))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    "content",
    [
        b"a.png\nphotos/b c.png\n",
        b"a.png\nphotos/b c.png",
        b"a.png\r\nphotos/b c.png\r\n",
        b"a.png\rphotos/b c.png\r",
        b"\n\r\n  \na.png\n\t\nphotos/b c.png\n\n",
        b"\xef\xbb\xbfa.png\r\nphotos/b c.png\r\n",
        b"a.png\0photos/b c.png\0",
        b"a.png\0photos/b c.png",
        b"\"a.png\"\n'photos/b c.png'\n",
        b'  a.png \t\r\n "photos/b c.png" \r\n',
        "\ufeffa.png\r\nphotos/b c.png\r\n".encode("utf-16-le"),
        "\ufeffa.png\nphotos/b c.png".encode("utf-16-be"),
        "a.png\r\nphotos/b c.png\r\n".encode("utf-16-le"),
    ],
)
def test_the_same_names_however_they_are_written(content: bytes, size: int) -> None:
    assert names(content) == PLAIN
    assert list(read_names(Slowly(content, size))) == PLAIN  # type: ignore[arg-type]


def test_names_that_are_not_ascii() -> None:
    assert names("köter.png\n犬.png\n".encode()) == ["köter.png", "犬.png"]
    assert names("\ufeffköter.png\r\n犬.png\r\n".encode("utf-16")) == ["köter.png", "犬.png"]


def test_bytes_that_are_not_utf_8_are_kept() -> None:
    assert [os.fsencode(name) for name in names(b"caf\xe9.png\n\xff\xfe.png\n")] == [b"caf\xe9.png", b"\xff\xfe.png"]
    assert [os.fsencode(name) for name in names(b"caf\xe9.png\0b.png\0")] == [b"caf\xe9.png", b"b.png"]


def test_after_nul_every_character_of_a_name_counts() -> None:
    assert names(b" a\nb.png \0'quoted'\0") == [" a\nb.png ", "'quoted'"]


def test_a_file_that_is_named_with_quotes_or_spaces_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("'quoted'", " spaced.png", "x", "y"):
        (tmp_path / name).touch()
    assert names(b"'quoted'\n spaced.png\n 'other' \n") == ["'quoted'", " spaced.png", "other"]
    assert names(b"x\0y\0") == ["x", "y"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\r\n", b"\xef\xbb\xbf", b"\0", b"\xff\xfe", b"   \n\t"])
def test_an_empty_list(content: bytes) -> None:
    assert names(content) == []


def test_a_name_is_given_as_soon_as_its_line_is_there() -> None:
    class Endless(Slowly):
        def read1(self, size: int) -> bytes:
            return super().read1(size) or pytest.fail("read on after the first name was whole")

    assert next(read_names(Endless(b"a.png\nb", 7))) == "a.png"  # type: ignore[arg-type]
