"""The network interface on which the ranks of a group listen for one another."""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

# Without these, gloo listens on the address of the host's name and NCCL on every interface it finds.
GLOO_VARIABLE, NCCL_VARIABLE = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"
_SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of an interface


@contextmanager
def listen_on_interface_of(address: str, port: int, is_one_host: bool) -> Iterator[str | None]:
    """Have process groups made in the body listen on the interface that leads to ``torchrun``'s address.

    Yields its name; None where it is unknown, and gloo and NCCL choose.

    Ranks of one host listen on the loopback interface alone. Between hosts only gloo is bound: NCCL would lose the
    bandwidth of further network cards. Interfaces that the user has named stay as they are.
    """
    name = _loopback() if is_one_host else interface_to(address, port)
    variables = (GLOO_VARIABLE, NCCL_VARIABLE) if is_one_host else (GLOO_VARIABLE,)
    added = [variable for variable in variables if name and variable not in os.environ]
    os.environ.update(dict.fromkeys(added, name or ""))
    try:
        yield name
    finally:
        for variable in added:
            os.environ.pop(variable, None)


def interface_to(address: str, port: int) -> str | None:
    """Name of the interface whose address this host uses towards another; None if unknown, or the loopback."""
    with suppress(OSError):
        family, kind, _, _, target = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)  # of a datagram socket: looks up the route and sends nothing
            own = ip_address(probe.getsockname()[0].partition("%")[0])
        if not own.is_loopback:
            return next((name for name in _interface_names() if own in _addresses_of(name)), None)
    return None


def _loopback() -> str | None:
    return next((name for name in ("lo", "lo0") if name in _interface_names()), None)


def _interface_names() -> list[str]:
    return [name for _, name in socket.if_nameindex()] if hasattr(socket, "if_nameindex") else []


def _addresses_of(name: str) -> set[object]:
    """The IPv4 address and the IPv6 addresses of an interface, on Linux."""
    addresses: set[object] = set()
    with suppress(OSError, ImportError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        from fcntl import ioctl

        answer = ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
        addresses.add(ip_address(answer[20:24]))
    with suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines():
            digits, *_, owner = line.split()
            if owner == name:
                addresses.add(ip_address(bytes.fromhex(digits)))
    return addresses
