"""The pictures in a request: the body itself, or the files of a form; read within limits of bytes, number and time."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from email.message import Message

from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from timebox.serving.http.errors import OverloadedError, RequestError

FORM = "multipart/form-data"


@dataclass(frozen=True)
class Limits:
    """Bounds of one request, and of all that are in progress together.

    Attributes:
        body_bytes: of a request's body.
        body_seconds: in which a body has to arrive.
        images: of a request.
        waiting_images: of all requests.
        waiting_bytes: of all bodies.
    """

    body_bytes: int = 64 << 20
    body_seconds: float = 30.0
    images: int = 100
    waiting_images: int = 256
    waiting_bytes: int = 256 << 20


@dataclass(frozen=True)
class Picture:
    """An encoded image as it was sent.

    Attributes:
        name: of the file, for the answer only; empty where none was sent.
    """

    name: str
    content: bytes


class Room:
    """Counts the bytes and images of all requests in progress, and refuses more than fit. Used in one thread."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.num_bytes = self.num_images = 0

    def add_bytes(self, number: int) -> None:
        if self.num_bytes + number > self._limits.waiting_bytes:
            raise OverloadedError("bytes")
        self.num_bytes += number

    def add_images(self, number: int) -> None:
        if self.num_images + number > self._limits.waiting_images:
            raise OverloadedError("pictures")
        self.num_images += number


class _WholeForm(MultiPartParser):
    """A form that is refused if the boundary that closes it is missing: its last file may be cut off."""

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], max_parts: int) -> None:
        super().__init__(headers, self._whole(stream), max_files=max_parts, max_fields=max_parts)
        self._has_ended = False

    def on_end(self) -> None:
        """Called by the parser at the boundary that closes the form."""
        self._has_ended = True

    async def _whole(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in stream:
            yield chunk
        if not self._has_ended:
            raise MultiPartException("it is cut off, as the boundary that closes it is missing")


class RequestPictures:
    """The pictures of one request, which take room until the context is left."""

    def __init__(self, request: Request, room: Room, limits: Limits) -> None:
        self._request, self._room, self._limits = request, room, limits
        self._num_bytes = self._num_images = 0

    async def __aenter__(self) -> list[Picture]:
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                pictures = await self._read()
            self._add_images(len(pictures))
            return pictures
        except BaseException as error:
            self._leave()
            if isinstance(error, TimeoutError):
                raise RequestError(408, f"the body took over {self._limits.body_seconds:g} seconds") from error
            if isinstance(error, ClientDisconnect):
                raise RequestError(400, "the connection was closed within the body") from error
            raise

    async def __aexit__(self, *error: object) -> None:
        self._leave()

    def _leave(self) -> None:
        self._room.num_bytes -= self._num_bytes
        self._room.num_images -= self._num_images
        self._num_bytes = self._num_images = 0

    def _add_images(self, number: int) -> None:
        if number > self._limits.images:
            raise RequestError(413, f"{number} pictures, and a request may have {self._limits.images}")
        self._room.add_images(number)
        self._num_images = number

    async def _read(self) -> list[Picture]:
        declared = self._request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._limits.body_bytes:
            raise self._too_large()
        content_type = self._request.headers.get("content-type", "")
        if content_type.split(";")[0].strip().lower() == FORM:
            return await self._files_of_form()
        body = b"".join([chunk async for chunk in self._chunks()])
        if not body:
            raise RequestError(400, "the body is empty: send a picture, or several as the files of a form")
        return [Picture(_as_text(_file_name(self._request)), body)]

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        async for chunk in self._request.stream():
            self._num_bytes += len(chunk)
            try:
                self._room.add_bytes(len(chunk))
            except OverloadedError:
                self._num_bytes -= len(chunk)
                raise
            if self._num_bytes > self._limits.body_bytes:
                raise self._too_large()
            yield chunk

    async def _files_of_form(self) -> list[Picture]:
        parser = _WholeForm(self._request.headers, self._chunks(), self._limits.images)
        parser.spool_max_size = self._limits.body_bytes  # nothing is written to the disk
        try:
            form = await parser.parse()
        except (MultiPartException, MultipartParseError) as error:
            message = getattr(error, "message", None) or str(error)
            is_too_many = message.startswith("Too many")
            raise RequestError(413 if is_too_many else 400, f"the form cannot be read: {message}") from error
        except (KeyError, ValueError, UnicodeError) as error:
            raise RequestError(400, "the form cannot be read: its boundary is missing or damaged") from error
        pictures = []
        for name, part in form.multi_items():
            if not isinstance(part, UploadFile):
                raise RequestError(400, f"the part {name!r} of the form is text: every part has to be a file")
            pictures.append(Picture(_as_text(part.filename or ""), await part.read()))
        await form.close()
        if not pictures:
            raise RequestError(400, "the form has no files: send a picture as one, as in curl -F file=@photo.jpg")
        return pictures

    def _too_large(self) -> RequestError:
        return RequestError(413, f"the body has over {self._limits.body_bytes >> 20} MB, the most that are read")


def _as_text(name: str) -> str:
    """A name that can be answered as JSON: halves of a pair of surrogates become question marks."""
    return name.encode("utf-8", "replace").decode("utf-8")


def _file_name(request: Request) -> str:
    """The file name in the header Content-Disposition."""
    message = Message()
    message["Content-Disposition"] = request.headers.get("content-disposition", "")
    try:
        return message.get_filename() or ""
    except (ValueError, LookupError, TypeError):  # any part of the header may be damaged
        return ""
