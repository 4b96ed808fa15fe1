"""Requests that are refused: a status of HTTP and a sentence."""

from collections.abc import Mapping


class RequestError(Exception):
    """A request that is refused.

    Attributes:
        status: of HTTP.
        headers: of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers


class OverloadedError(RequestError):
    """There are too many requests already: the client is to try again later."""

    def __init__(self, what: str) -> None:
        super().__init__(429, f"too many {what} are waiting; try again in a second", {"Retry-After": "1"})
