"""Untrusted files: only regular ones are opened, without blocking, and their JSON must be strict."""

import os
import socket
from pathlib import Path

import pytest

from timebox.files import open_regular, parse_json_object, read_lines, read_regular


def test_a_regular_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file", 5) == read_regular(str(tmp_path / "link"), 5) == b"12345"
    with pytest.raises(OSError, match="larger than the 4 bytes such a file may have"):
        read_regular(tmp_path / "file", 4)


def test_the_limit_is_not_allocated(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", 1 << 60) == b"12345"


def test_only_regular_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for path, words in {
            "pipe": "a named pipe",
            "socket": "a socket",
            "/dev/zero": "a device",
            ".": "a directory",
            "loop": "symbolic links",
            "none": "No such file",
            "nu\0ll": "null",
            "x" * 5000: "too long",
        }.items():
            with pytest.raises(OSError, match=words):
                open_regular(path)


def test_a_pipe_that_replaces_a_file_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    file = (tmp_path / "file").stat()
    monkeypatch.setattr(Path, "stat", lambda self: file)
    with pytest.raises(OSError, match="a named pipe, not a file"):
        open_regular(tmp_path / "pipe")


def test_json_must_be_strict() -> None:
    assert parse_json_object(b'{"a": [1, 2.5, null, true], "b": {"a": "\xc3\xa9"}}') == {
        "a": [1, 2.5, None, True],
        "b": {"a": "é"},
    }
    for blob, words in {
        b"": "it is empty",
        b"[]": "it holds no JSON object",
        b'{"a": 1}' + bytes(1 << 20): "it holds zero bytes",
        b'{"a": 1, "a": 2}': "it has the key 'a' twice",
        b'{"a": {"b": NaN}}': "NaN is no number of JSON",
        b'{"a": [1e999]}': "1e999 is no number of JSON, or too large for one",
        b"\xff": "it is not UTF-8: byte 0 is 0xff",
        b"[" * 10**6: "nested too deeply",
        b'{"a": ' + b"1" * 309 + b"}": "is no number of JSON, or too large for one",
        b'{"a": ' + b"1" * 10**5 + b"}": "is no number of JSON, or too large for one",
    }.items():
        with pytest.raises(ValueError, match=words):
            parse_json_object(blob)


def test_lines_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\n\nthree\nunfinished")
    assert list(read_lines(path, 10)) == [b"one\n", b"\n", b"three\n", b"unfinished"]
    assert list(read_lines(path, 10, path.stat().st_size)) == list(read_lines(path, 100))
    with pytest.raises(OSError, match="it has a line of over 9 bytes"):
        list(read_lines(path, 9))
    with pytest.raises(OSError, match="larger than the 20 bytes such a file may have"):
        list(read_lines(path, 10, 20))
    path.write_bytes(b"")
    os.truncate(path, 1 << 40)  # sparse
    with pytest.raises(OSError, match="it has a line of over 1,000 bytes"):
        list(read_lines(path, 1000))
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic link"):
        list(read_lines(tmp_path / "link", 1000))
