"""Downloads one published file: resumes after a broken connection, checks the MD5 sum, and renames it into place."""

import hashlib
import http.client
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from timebox.data.reading.options import ProgressNotifier
from timebox.errors import DataError

TIMEOUT_SECONDS = 30.0  # without a byte from the server
_MAX_ATTEMPTS = 3  # per address; each continues where the one before broke off
_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class PublishedFile:
    """A file as its authors publish it: its name, the addresses that serve it, tried in order, and its MD5 sum."""

    name: str
    urls: tuple[str, ...]
    md5: str


class _DownloadError(Exception):
    """The reason one address failed; `is_final` where another attempt is pointless."""

    def __init__(self, reason: str, *, is_final: bool) -> None:
        super().__init__(reason)
        self.is_final = is_final


def download(
    file: PublishedFile, target: Path, *, notify: Callable[[str], None], timeout_seconds: float = TIMEOUT_SECONDS
) -> None:
    """Download `file` to the path `target`, from the first address that serves it with the right MD5 sum.

    Incomplete content is kept in a part file beside the target, and a later call continues from it. Each process writes
    to its own part file, so several may download the same file at once; the last rename wins. Raises DataError with the
    reason of every address.
    """
    reasons: list[str] = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = _acquire_part_file(target, timeout_seconds)
        transfer = _Transfer(part, notify, timeout_seconds)
        try:
            for url in file.urls:
                try:
                    transfer.fetch(url)
                    with part.open("rb") as content:
                        md5 = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
                    if md5 == file.md5:
                        part.replace(target)
                        return
                    part.unlink()
                    reasons.append(f"{url}: wrong bytes: its MD5 sum is {md5}, the published one {file.md5}")
                except _DownloadError as error:
                    reasons.append(f"{url}: {error}")
        finally:
            if part.exists():
                part.replace(_shared_part_file(target))
    except OSError as error:
        raise DataError(f"{target} cannot be written ({error.strerror or error})") from error
    raise DataError(f"{target.name} could not be downloaded: {'; '.join(reasons)}")


def _shared_part_file(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _acquire_part_file(target: Path, timeout_seconds: float) -> Path:
    """A part file that no other process writes to: the remains of an earlier download, or a new name.

    A process that gave up leaves its part file under the shared name. One under another name that has not grown for
    longer than a live download waits is that of a killed process. Only one process can rename it.
    """
    own = target.with_name(f"{target.name}.{uuid.uuid4().hex[:12]}.part")
    for existing in sorted(target.parent.glob(f"{target.name}*.part")):
        try:
            if existing == _shared_part_file(target) or time.time() - existing.stat().st_mtime > 2 * timeout_seconds:
                return existing.rename(own)
        except FileNotFoundError:  # another process was faster
            continue
    return own


@dataclass(frozen=True)
class _Transfer:
    """Fetches one file into a part file."""

    part: Path
    notify: Callable[[str], None]
    timeout_seconds: float

    def fetch(self, url: str) -> None:
        """Complete the part file, in several attempts if necessary."""
        for attempt in range(_MAX_ATTEMPTS):
            try:
                self._fetch_rest(url)
                return
            except _DownloadError as error:
                if error.is_final or attempt == _MAX_ATTEMPTS - 1:
                    raise
                self.notify(f"{url}: {error}; trying again")

    def _fetch_rest(self, url: str) -> None:
        """One request for the missing bytes; for the whole file where the server does not support ranges."""
        length = self.part.stat().st_size if self.part.exists() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={length}-"} if length else {})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_seconds) as response:
                content_range = response.headers.get("Content-Range", "")
                is_resumed = response.status == 206 and content_range.startswith(f"bytes {length}-")
                length = length if is_resumed else 0
                content_length = response.headers.get("Content-Length")
                total = length + int(content_length) if content_length else None
                length = self._append(response, length, total)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # no bytes beyond ours: the part is whole, or another file; its MD5 sum will tell
                return
            raise _DownloadError(f"HTTP {error.code} {error.reason}", is_final=error.code < 500) from error
        except urllib.error.URLError as error:
            raise _DownloadError(str(error.reason), is_final=False) from error
        except TimeoutError as error:
            raise _DownloadError(f"no answer within {self.timeout_seconds:g} s", is_final=False) from error
        except (ConnectionError, http.client.HTTPException) as error:
            raise _DownloadError(f"the connection broke ({type(error).__name__})", is_final=False) from error
        if total is not None and length < total:
            raise _DownloadError(f"the connection broke after {length:,} of {total:,} bytes", is_final=False)

    def _append(self, response: http.client.HTTPResponse, length: int, total: int | None) -> int:
        """Write the response after the first `length` bytes of the part file; returns the new length."""
        report = ProgressNotifier(self.notify)
        with self.part.open("r+b" if length else "wb") as file:
            file.seek(length)
            while chunk := response.read1(_CHUNK_BYTES):
                file.write(chunk)
                length += len(chunk)
                of_total = f" of {total / 1e6:.0f}" if total else ""
                report(f"downloading {self.part.name.split('.')[0]}: {length / 1e6:.0f}{of_total} MB")
        return length
