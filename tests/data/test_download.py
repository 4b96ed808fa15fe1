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


def test_a_download_leaves_only_the_file(server, tmp_path):
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


def test_the_next_download_continues_an_abandoned_one(server, tmp_path):
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


def test_the_part_file_of_a_killed_process_is_reused_but_not_a_live_one(server, tmp_path):
    dead, living = tmp_path / "set.gz.dead.part", tmp_path / "set.gz.living.part"
    dead.write_bytes(CONTENT[:200_000])
    os.utime(dead, (time.time() - 1000, time.time() - 1000))
    living.write_bytes(b"another process writes here")
    fetch(server, tmp_path / "set.gz")
    assert server.requests == ["bytes=200000-"]
    assert left_over(tmp_path / "set.gz") == ["set.gz.living.part"]


def test_a_complete_part_file_needs_no_bytes(server, tmp_path):
    (tmp_path / "set.gz.part").write_bytes(CONTENT)
    fetch(server, tmp_path / "set.gz")
    assert (tmp_path / "set.gz").read_bytes() == CONTENT


def test_a_wrong_md5_sum_removes_the_file(server, tmp_path):
    wrong = "0" * 32
    with pytest.raises(DataError, match=f"wrong bytes: its MD5 sum is {MD5}, the published one {wrong}"):
        fetch(server, tmp_path / "set.gz", md5=wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_part_file_is_removed_and_downloaded_again(server, tmp_path):
    (tmp_path / "set.gz.part").write_bytes(b"x" * 100)
    with pytest.raises(DataError, match="wrong bytes"):
        fetch(server, tmp_path / "set.gz")
    fetch(server, tmp_path / "set.gz")
    assert (tmp_path / "set.gz").read_bytes() == CONTENT


def test_a_missing_file_is_requested_once_then_the_next_address(server, tmp_path):
    with pytest.raises(DataError, match=r"gone\.gz: HTTP 404 Not Found$"):
        fetch(server, tmp_path / "set.gz", names=("gone.gz",))
    assert len(server.requests) == 1
    fetch(server, tmp_path / "set.gz", names=("gone.gz", "set.gz"))
    assert (tmp_path / "set.gz").exists()


def test_a_temporary_server_error_is_retried(server, tmp_path):
    server.statuses = [503, 500]
    fetch(server, tmp_path / "set.gz")
    assert len(server.requests) == 3


def test_a_silent_server_times_out(server, tmp_path):
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


def test_a_target_that_is_not_writable(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"file/set\.gz cannot be written"):
        fetch(server, tmp_path / "file" / "set.gz")


def test_concurrent_downloads_of_one_file(server, tmp_path):
    server.delay_seconds = 0.1
    threads = [threading.Thread(target=fetch, args=(server, tmp_path / "set.gz")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "set.gz").read_bytes() == CONTENT
    assert left_over(tmp_path / "set.gz") == []
    assert len(server.requests) == 3
