"""Hosts, tokens, and the addresses that the servers print."""

import socket
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")

from timebox.errors import UsageError
from timebox.serving.http import addresses
from timebox.serving.http.addresses import address_of, is_loopback, lines_for_others, network_addresses, token_for
from timebox.serving.http.server import listen

TOKEN = "correct-horse"


@pytest.fixture
def everywhere() -> Iterator[socket.socket]:
    with listen("0.0.0.0", 0) as listener:
        yield listener


def test_a_token_is_made_where_other_machines_reach_the_server() -> None:
    assert token_for("127.0.0.1", None) is None
    assert token_for("127.0.0.1", TOKEN) == TOKEN
    one, other = token_for("0.0.0.0", None), token_for("0.0.0.0", None)
    assert one and other and one != other and len(one) >= 16
    with pytest.raises(UsageError, match="8 characters"):
        token_for("0.0.0.0", "short")


@pytest.mark.parametrize(
    "token", ["schlüssel", "correct\nhorse", "correct\x7fhorse", " correct-horse", "battery  ", "\ud800" * 9]
)
def test_a_token_that_no_header_can_hold(token: str) -> None:
    with pytest.raises(UsageError, match="printable ASCII characters, without spaces around them"):
        token_for("127.0.0.1", token)


@pytest.mark.parametrize("token", [TOKEN, "a b&c#d%e+f", "?token=x/../", "\"'<>\\^`{|}"])
def test_the_token_is_quoted_in_the_address(everywhere: socket.socket, token: str) -> None:
    assert token_for("0.0.0.0", token) == token
    for address in (address_of(everywhere, "0.0.0.0", token), *network_addresses(everywhere, token)):
        parts = urlsplit(address)
        assert parse_qs(parts.query, strict_parsing=True) == {"token": [token]}
        assert (parts.path, parts.fragment) == ("/", "")
        assert address.isascii() and " " not in address and '"' not in address


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("LocalHost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True),
     ("::ffff:127.0.0.2", True), ("0.0.0.0", False), ("::", False), ("::ffff:192.168.1.9", False),
     ("192.168.1.9", False), ("example.org", False), ("", False)],
)  # fmt: skip
def test_which_hosts_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_where_all_of_this_machine_is_reached_its_addresses_in_the_network_are_printed(
    everywhere: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = everywhere.getsockname()[1]
    assert address_of(everywhere, "0.0.0.0", None) == f"http://127.0.0.1:{port}/"
    monkeypatch.setattr(addresses, "_own_hosts", lambda family: ["192.168.1.7", "10.0.0.3", "192.168.1.7"])
    assert lines_for_others(everywhere, TOKEN) == (
        f"other devices in the same network: http://192.168.1.7:{port}/?token={TOKEN}\n"
        f"other devices in the same network: http://10.0.0.3:{port}/?token={TOKEN}\n"
    )
    monkeypatch.setattr(addresses, "_own_hosts", lambda family: [])  # a machine without a network
    assert network_addresses(everywhere, None) == [f"http://{socket.gethostname()}:{port}/"]


def test_own_addresses_are_no_loopback(everywhere: socket.socket) -> None:
    for address in network_addresses(everywhere, None):
        assert not is_loopback(urlsplit(address).hostname or "")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_one_host_is_printed_as_it_was_given(host: str) -> None:
    try:
        listener = listen(host, 0)
    except UsageError:
        pytest.skip(f"this machine has no {host}")
    with listener:
        name = f"[{host}]" if ":" in host else host
        assert address_of(listener, host, None) == f"http://{name}:{listener.getsockname()[1]}/"
        assert lines_for_others(listener, TOKEN) == ""


def test_all_addresses_of_ip_version_6() -> None:
    try:
        listener = listen("::", 0)
    except UsageError:
        pytest.skip("this machine has no IPv6")
    with listener:
        assert address_of(listener, "::", None) == f"http://[::1]:{listener.getsockname()[1]}/"
        assert network_addresses(listener, None)
