import hashlib
import os
import threading
import time

import numpy as np
import pytest

from timebox.data.download import PublishedFile, download
from timebox.errors import DataError

from .serving import FileServer

CONTENT = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with FileServer({"set.gz": CONTENT}) as serving:
        yield serving


def fetch(server, target, md5=MD5, names=("set.gz",), timeout_seconds=120.0):
    messages = []
    file = PublishedFile("set.gz", tuple(server.url + name for name in names), md5)
    download(file, target, notify=messages.append, timeout_seconds=timeout_seconds)
    return messages


def left_over(target):
    return sorted(path.name for path in target.parent.iterdir() if path != target)


def test_a_file_arrives_whole_and_alone(server, tmp_path):
    target = tmp_path / "new" / "set.gz"
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert left_over(target) == []


def test_a_broken_connection_is_resumed(server, tmp_path):
    server.stop_after = [100_000, 50_000]
    messages = fetch(server, tmp_path / "set.gz")
    assert (tmp_path / "set.gz").read_bytes() == CONTENT
    assert server.requests == [None, "bytes=100000-", "bytes=150000-"]
    assert "the connection broke after 100,000 of 300,000 bytes; trying again" in messages[0]


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.stop_after, server.ranges = [100_000], False
    fetch(server, tmp_path / "set.gz")
    assert (tmp_path / "set.gz").read_bytes() == CONTENT


def test_a_given_up_download_is_gone_on_with_by_the_next(server, tmp_path):
    server.stop_after = [100_000, 0, 0]
    with pytest.raises(
        DataError, match=r"set\.gz could not be downloaded: http.*the connection broke after 100,000 of"
    ):
        fetch(server, tmp_path / "set.gz")
    assert left_over(tmp_path / "set.gz") == ["set.gz.part"]
    fetch(server, tmp_path / "set.gz")
    assert server.requests[-1] == "bytes=100000-"
    assert (tmp_path / "set.gz").read_bytes() == CONTENT
    assert left_over(tmp_path / "set.gz") == []


def test_a_part_whose_process_was_killed_is_claimed_but_not_a_living_one(server, tmp_path):
    dead, living = tmp_path / "set.gz.dead.part", tmp_path / "set.gz.living.part"
    dead.write_bytes(CONTENT[:200_000])
    os.utime(dead, (time.time() - 1000, time.time() - 1000))
    living.write_bytes(b"another process writes here")
    fetch(server, tmp_path / "set.gz")
    assert server.requests == ["bytes=200000-"]
    assert left_over(tmp_path / "set.gz") == ["set.gz.living.part"]


def test_a_part_that_is_whole_needs_no_bytes(server, tmp_path):
    (tmp_path / "set.gz.part").write_bytes(CONTENT)
    fetch(server, tmp_path / "set.gz")
    assert (tmp_path / "set.gz").read_bytes() == CONTENT


def test_wrong_bytes_are_thrown_away(server, tmp_path):
    wrong = "0" * 32
    with pytest.raises(DataError, match=f"wrong bytes: its MD5 sum is {MD5}, the published one {wrong}"):
        fetch(server, tmp_path / "set.gz", md5=wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_spoilt_part_is_thrown_away_and_fetched_anew_next_time(server, tmp_path):
    (tmp_path / "set.gz.part").write_bytes(b"x" * 100)
    with pytest.raises(DataError, match="wrong bytes"):
        fetch(server, tmp_path / "set.gz")
    fetch(server, tmp_path / "set.gz")
    assert (tmp_path / "set.gz").read_bytes() == CONTENT


def test_a_missing_file_is_asked_for_once_then_the_next_address(server, tmp_path):
    with pytest.raises(DataError, match=r"gone\.gz: HTTP 404 Not Found$"):
        fetch(server, tmp_path / "set.gz", names=("gone.gz",))
    assert len(server.requests) == 1
    fetch(server, tmp_path / "set.gz", names=("gone.gz", "set.gz"))
    assert (tmp_path / "set.gz").exists()


def test_a_passing_server_error_is_tried_again(server, tmp_path):
    server.statuses = [503, 500]
    fetch(server, tmp_path / "set.gz")
    assert len(server.requests) == 3


def test_a_silent_server_is_given_up(server, tmp_path):
    server.may_answer.clear()
    with pytest.raises(DataError, match=r"no answer within 0\.1 s"):
        fetch(server, tmp_path / "set.gz", timeout_seconds=0.1)


def test_a_slow_server_is_waited_for(server, tmp_path):
    server.delay_seconds = 0.2
    fetch(server, tmp_path / "set.gz")
    assert (tmp_path / "set.gz").read_bytes() == CONTENT


def test_no_server_at_all(tmp_path):
    with FileServer({}) as gone:
        pass
    with pytest.raises(DataError, match=r"could not be downloaded: http://127.*refused"):
        fetch(gone, tmp_path / "set.gz")


def test_a_place_that_cannot_be_written_to(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"file/set\.gz cannot be written"):
        fetch(server, tmp_path / "file" / "set.gz")


def test_two_at_once_do_not_spoil_each_other(server, tmp_path):
    server.delay_seconds = 0.1
    threads = [threading.Thread(target=fetch, args=(server, tmp_path / "set.gz")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "set.gz").read_bytes() == CONTENT
    assert left_over(tmp_path / "set.gz") == []
    assert len(server.requests) == 3
