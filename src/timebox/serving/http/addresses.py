"""Hosts and addresses: which of them only this machine reaches, the token for the others, and what to open where."""

import ipaddress
import secrets
import socket
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import quote

from timebox.errors import UsageError, option_text

TOKEN_BYTES, MIN_TOKEN_LENGTH = 16, 8
# An address of each range of private networks, of documentation in IPv4 and in IPv6: none of them is sent anything.
PROBED = {
    socket.AF_INET: ("192.0.2.1", "10.255.255.254", "172.31.255.254", "192.168.255.254"),
    socket.AF_INET6: ("2001:db8::1",),
}
ANY_PORT = 9


def token_for(host: str, token: str | None) -> str | None:
    """The token that requests need: the given one, a new one where other machines can reach the host, else None.

    Raises UsageError for a token that is easily guessed, or that a header cannot hold.
    """
    if token is None:
        return None if is_loopback(host) else secrets.token_urlsafe(TOKEN_BYTES)
    flag = option_text("token", "...")
    if not (token.isascii() and token.isprintable() and token == token.strip()):
        raise UsageError(f"{flag} must be of printable ASCII characters, without spaces around them, to fit a header")
    if len(token) < MIN_TOKEN_LENGTH:
        raise UsageError(f"{flag} must have {MIN_TOKEN_LENGTH} characters or more, or it is soon guessed")
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host, given by name or number."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def address_of(listener: socket.socket, host: str, token: str | None) -> str:
    """The address to open in a browser on this machine."""
    any_address = _any_address(listener)
    loopback = {4: "127.0.0.1", 6: "::1"}
    return _address(loopback[any_address.version] if any_address else host, listener, token)


def lines_for_others(listener: socket.socket, token: str | None) -> str:
    """A line for each address to open on other devices, where the server listens on all of this machine's."""
    return "".join(f"other devices in the same network: {each}\n" for each in network_addresses(listener, token))


def network_addresses(listener: socket.socket, token: str | None) -> list[str]:
    """The addresses to open on other devices, where the server listens on all of this machine's; else none."""
    any_address = _any_address(listener)
    if not any_address:
        return []
    families = [socket.AF_INET, *([socket.AF_INET6] if any_address.version == 6 else [])]
    hosts = dict.fromkeys(host for family in families for host in _own_hosts(family))
    return [_address(host, listener, token) for host in hosts or [socket.gethostname()]]


def _own_hosts(family: socket.AddressFamily) -> Iterator[str]:
    """The addresses from which this machine would send to other networks. Nothing is sent: a UDP socket only looks up
    its route when it is connected."""
    for probed in PROBED[family]:
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as prober:
            prober.connect((probed, ANY_PORT))
            host = str(prober.getsockname()[0])
            if not is_loopback(host):
                yield host


def _any_address(listener: socket.socket) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """0.0.0.0 or ::, if the socket listens there."""
    with suppress(ValueError):
        address = ipaddress.ip_address(listener.getsockname()[0])
        return address if address.is_unspecified else None
    return None


def _address(host: str, listener: socket.socket, token: str | None) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}/" + (f"?token={quote(token, safe='')}" if token else "")
