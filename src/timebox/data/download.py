"""Fetching one published file: resumed where it broke off, checked against its published sum, put in place whole."""

import hashlib
import http.client
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

from timebox.data.formats.base import Throttle
from timebox.errors import DataError

TIMEOUT_SECONDS = 30.0  # without a byte from the server
_ATTEMPTS = 3  # per address, each going on where the last broke off
_CHUNK_BYTES = 1 << 18


class _DownloadError(Exception):
    """Why one address failed; `final` where asking it again is pointless."""

    def __init__(self, reason: str, *, final: bool) -> None:
        super().__init__(reason)
        self.final = final


def download(
    urls: tuple[str, ...],
    target: Path,
    md5: str,
    *,
    progress: Callable[[str], None],
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Put the file into `target` from the first of `urls` that gives it whole and with the MD5 sum `md5`.

    What has arrived lies in a part file beside the target, and a later call goes on from there. Each process has a
    part file of its own, so two may fetch the same file at once; the last one's rename wins. Raises DataError with
    every address's reason.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = _claim_part(target, timeout_seconds)
        try:
            reasons = _try_each(urls, part, md5, progress, timeout_seconds)
            if reasons is None:
                part.replace(target)
                return
        finally:
            if part.exists():
                part.replace(_shared_part(target))
    except OSError as error:
        raise DataError(f"{target} cannot be written ({error.strerror or error})") from error
    raise DataError(f"{target.name} could not be downloaded: {'; '.join(reasons)}")


def _try_each(
    urls: tuple[str, ...], part: Path, md5: str, progress: Callable[[str], None], timeout_seconds: float
) -> list[str] | None:
    """None once `part` is whole and right; else the reason each address failed for."""
    reasons = []
    for url in urls:
        try:
            _fetch(url, part, progress, timeout_seconds)
            _check_sum(part, md5)
        except _DownloadError as error:
            reasons.append(f"{url}: {error}")
        else:
            return None
    return reasons


def _shared_part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _claim_part(target: Path, timeout_seconds: float) -> Path:
    """A part file no other process writes to: what an earlier download left, or a new name.

    One given up properly lies under the shared name. One whose process was killed has not grown for longer than
    any living download waits. Renaming claims it, as only one of several processes can succeed in that.
    """
    own = target.with_name(f"{target.name}.{uuid.uuid4().hex[:12]}.part")
    for left in sorted(target.parent.glob(f"{target.name}*.part")):
        try:
            if left == _shared_part(target) or time.time() - left.stat().st_mtime > 2 * timeout_seconds:
                return left.rename(own)
        except FileNotFoundError:  # another process was faster
            continue
    return own


def _fetch(url: str, part: Path, progress: Callable[[str], None], timeout_seconds: float) -> None:
    """Bring `part` to its full length, in several attempts if need be."""
    for attempt in range(_ATTEMPTS):
        try:
            _fetch_rest(url, part, progress, timeout_seconds)
            return
        except _DownloadError as error:
            if error.final or attempt == _ATTEMPTS - 1:
                raise
            progress(f"{url}: {error}; trying again")


def _fetch_rest(url: str, part: Path, progress: Callable[[str], None], timeout_seconds: float) -> None:
    """One request for what `part` lacks; from the start where the server does not serve ranges."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds) as response:
            resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            have = have if resumed else 0
            length = response.headers.get("Content-Length")
            total = have + int(length) if length else None
            have = _copy(response, part, have, total, Throttle(progress))
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing lies beyond what we have: perhaps whole, perhaps another file; the sum decides
            return
        raise _DownloadError(f"HTTP {error.code} {error.reason}", final=error.code < 500) from error
    except urllib.error.URLError as error:
        raise _DownloadError(str(error.reason), final=False) from error
    except TimeoutError as error:
        raise _DownloadError(f"no answer within {timeout_seconds:g} s", final=False) from error
    except (ConnectionError, http.client.HTTPException) as error:
        raise _DownloadError(f"the connection broke ({type(error).__name__})", final=False) from error
    if total is not None and have < total:
        raise _DownloadError(f"the connection broke after {have:,} of {total:,} bytes", final=False)


def _copy(response: http.client.HTTPResponse, part: Path, have: int, total: int | None, notify: Throttle) -> int:
    """Append the response to the first `have` bytes of `part`; returns its length then."""
    with part.open("r+b" if have else "wb") as file:
        file.seek(have)
        while chunk := response.read1(_CHUNK_BYTES):
            file.write(chunk)
            have += len(chunk)
            of_total = f" of {total / 1e6:.0f}" if total else ""
            notify(f"downloading {part.name.split('.')[0]}: {have / 1e6:.0f}{of_total} MB")
    return have


def _check_sum(part: Path, md5: str) -> None:
    """Raises _DownloadError, and removes the part, where its sum is not `md5`."""
    with part.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        part.unlink()
        raise _DownloadError(f"wrong bytes: its MD5 sum is {found}, the published one {md5}", final=True)
