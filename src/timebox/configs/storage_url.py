"""URLs of databases: their passwords are hidden wherever a URL is printed or recorded, and not compared."""

import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote, unquote_plus

from timebox.errors import HIDDEN, is_secret_name, secret_values, without_passwords

_HOST = re.compile(r"[^:]*(:\d+)?(/[^:]*)?")  # host:port/database
_MIN_PIECE = 3
_MIN_LENGTH_ANYWHERE = 4  # a shorter password is hidden where it is a word of its own: each "a" says nothing


class _Parts(NamedTuple):
    """A URL: ``scheme user : password @ location ? parameters``; the password is None where there is none."""

    scheme: str
    user: str
    password: str | None
    location: str
    parameters: tuple[tuple[str, str], ...]


def is_url(storage: str) -> bool:
    """Whether a storage is the URL of a database, not the path of a journal."""
    return "://" in storage


def without_password(storage: str) -> str:
    """A URL with ``***`` in place of its password and of all parameters that may hold one."""
    parts = _parts(storage)
    user = "" if parts.password is None else f"{parts.user}:{HIDDEN}@"
    query = "&".join(
        f"{name}={HIDDEN}" if _is_secret(name) else "=".join((name, value)) for name, value in parts.parameters
    )
    return without_passwords(f"{parts.scheme}{user}{parts.location}{'?' if query else ''}{query}")


def hide_passwords(text: str, storage: str) -> str:
    """A text with ``***`` in place of the passwords of a URL, however the text quotes them."""
    shown, passwords = without_password(storage), _passwords_of(storage)
    if not passwords:
        return without_passwords(text)
    return shown.join(_hide(part, passwords) for part in text.replace(storage, shown).split(shown))


def _hide(text: str, passwords: Sequence[str]) -> str:
    for password in passwords:
        place = re.escape(password)
        text = re.sub(place if len(password) >= _MIN_LENGTH_ANYWHERE else rf"(?<!\w){place}(?!\w)", HIDDEN, text)
    return without_passwords(text)


def is_same_storage(one: str, other: str) -> bool:
    """Whether two URLs are of the same database, server and user, whatever their passwords and drivers."""
    return _identity(one) == _identity(other)


def _passwords_of(storage: str) -> list[str]:
    """All that must not be shown, as it is written and as it is meant, the longest first.

    Also the pieces of a password with special characters: a driver that cuts a URL at another place shows one of them.
    """
    parts = _parts(storage)
    written = [value for name, value in parts.parameters if _is_secret(name)]
    written += [parts.password or "", *secret_values(storage)]
    found = {form for text in written for form in (text, unquote(text), unquote_plus(text))}
    pieces = {piece for text in found for piece in re.split(r"[^\w-]+", text) if len(piece) >= _MIN_PIECE}
    return sorted(found.union(pieces) - {"", HIDDEN}, key=len, reverse=True)


def _identity(storage: str) -> tuple[object, ...]:
    parts = _parts(storage)
    user = parts.user
    location = parts.location
    if parts.password is None and "@" in location:
        user, _, location = location.rpartition("@")
    others = sorted(
        (unquote_plus(name), unquote_plus(value)) for name, value in parts.parameters if not _is_secret(name)
    )
    return parts.scheme.partition("+")[0].removesuffix("://"), unquote(user), unquote(location), others


def _parts(storage: str) -> _Parts:
    """The parts of a URL, also of one that is written wrongly: what may be a password is taken for one.

    A password may hold ``/``, ``?`` and ``@`` that should have been written ``%2F``, ``%3F`` and ``%40``.
    """
    scheme, separator, rest = storage.partition("://")
    if not separator:
        scheme, rest = "", storage
    end = _end_of_user(rest)
    user, colon, password = rest[: max(end, 0)].partition(":")
    start = end + 1 if colon else 0
    location, _, query = rest[start:].partition("?")
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    parameters = tuple((name, value) for name, _, value in pairs)
    return _Parts(scheme + separator, user if colon else "", password if colon else None, location, parameters)


def _end_of_user(rest: str) -> int:
    """The place of the ``@`` before the host; -1 without one."""
    last, question = rest.rfind("@"), rest.find("?")
    if question < 0 or "=" not in rest[question:last]:
        return last
    before_query = rest.rfind("@", 0, question)
    return before_query if before_query >= 0 or _HOST.fullmatch(rest[:question]) else last


def _is_secret(name: str) -> bool:
    return is_secret_name(unquote_plus(name))
