"""The key of a run: the user's, or one in a private file; and the interface on which ranks listen."""

import os
import socket
import stat
import sys
from pathlib import Path

import pytest
from torch.distributed import HashStore

from timebox.distributed import interface
from timebox.distributed.interface import GLOO_VARIABLE, NCCL_VARIABLE, interface_to, listen_on_interface_of
from timebox.distributed.run_key import KEY_BYTES, KEY_VARIABLE, is_key_secret, shared_run_key
from timebox.errors import UsageError


@pytest.fixture(autouse=True)
def no_own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (KEY_VARIABLE, GLOO_VARIABLE, NCCL_VARIABLE):
        monkeypatch.delenv(variable, raising=False)


def test_ranks_of_one_host_share_a_random_key_that_the_store_does_not_hold() -> None:
    keys = []
    for _ in range(2):
        store = HashStore()
        with shared_run_key(store, 0, True) as key:
            path = Path(store.get("key").decode())
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert path.read_bytes() == key
            with shared_run_key(store, 1, True) as received:
                assert received == key
        assert not path.parent.exists()
        keys.append(key)
    assert keys[0] != keys[1]
    assert all(len(key) == KEY_BYTES for key in keys)


def test_ranks_of_several_hosts_share_the_users_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "correct horse battery")
    for rank in range(2):
        with shared_run_key(HashStore(), rank, False) as key:
            assert key == b"correct horse battery"
    assert is_key_secret(is_one_host=False)


def test_the_users_key_may_hold_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, os.fsdecode(b"\xff\xfe" * 10))
    with shared_run_key(HashStore(), 0, True) as key:
        assert key == b"\xff\xfe" * 10


def test_without_it_they_share_one_through_the_store() -> None:
    store = HashStore()
    with shared_run_key(store, 0, False) as key, shared_run_key(store, 1, False) as received:
        assert key == received
    assert not is_key_secret(is_one_host=False)
    assert is_key_secret(is_one_host=True)


def test_a_short_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "short")
    with (
        pytest.raises(UsageError, match="TIMEBOX_GROUP_KEY has 5 characters; use at least 16"),
        shared_run_key(HashStore(), 0, True),
    ):
        pass


def _file(folder: Path, content: bytes = b"k" * KEY_BYTES, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def _link(folder: Path) -> Path:
    (folder / "link").symlink_to(_file(folder))
    return folder / "link"


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "fifo", 0o600)
    return folder / "fifo"


def _foreign(folder: Path) -> Path:
    path = _file(folder)
    os.chown(path, 12345, 12345)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda folder: _file(folder, mode=0o640), id="readable by the group"),
        pytest.param(lambda folder: _file(folder, content=b"short"), id="another size"),
        pytest.param(lambda folder: folder, id="a folder"),
        pytest.param(lambda folder: folder / "missing", id="missing"),
        pytest.param(_link, id="a link"),
        pytest.param(_fifo, id="a FIFO"),
        pytest.param(
            _foreign,
            id="another user's",
            marks=pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root"),
        ),
    ],
)
def test_a_path_from_the_store_that_is_no_key_is_refused(tmp_path: Path, make: object) -> None:
    assert callable(make)
    store = HashStore()
    store.set("key", str(make(tmp_path)))
    with (
        pytest.raises(UsageError, match=r"(is not the key of this run|cannot be read)"),
        shared_run_key(store, 1, True),
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="interfaces of Linux")
def test_ranks_of_one_host_listen_on_the_loopback_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with listen_on_interface_of("host", 29500, is_one_host=True) as name:
        assert name == os.environ[GLOO_VARIABLE] == os.environ[NCCL_VARIABLE] == "lo"
    assert GLOO_VARIABLE not in os.environ
    assert NCCL_VARIABLE not in os.environ
    monkeypatch.setenv(GLOO_VARIABLE, "eth7")
    with listen_on_interface_of("host", 29500, is_one_host=True):
        assert os.environ[GLOO_VARIABLE] == "eth7", "the user's choice"
    assert os.environ[GLOO_VARIABLE] == "eth7"


@pytest.mark.skipif(sys.platform != "linux", reason="interfaces of Linux")
def test_ranks_of_several_hosts_listen_on_the_interface_that_leads_to_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    assert interface_to("127.0.0.1", 29500) is None, "loopback, which no other host reaches"
    assert interface_to("no such host.invalid", 29500) is None
    monkeypatch.setattr(interface, "interface_to", lambda address, port: "eth0" if address == "10.0.0.1" else None)
    with listen_on_interface_of("10.0.0.1", 29500, is_one_host=False) as name:
        assert name == os.environ[GLOO_VARIABLE] == "eth0"
        assert NCCL_VARIABLE not in os.environ
    with listen_on_interface_of("unknown", 29500, is_one_host=False) as name:
        assert name is None
        assert GLOO_VARIABLE not in os.environ


@pytest.mark.skipif(sys.platform != "linux", reason="interfaces of Linux")
def test_addresses_of_the_loopback_interface() -> None:
    found = {str(address) for address in interface._addresses_of("lo")}
    assert "127.0.0.1" in found
    assert found <= {"127.0.0.1", "::1"}
    assert interface._addresses_of("none0") == set()
    assert socket.if_nameindex()
