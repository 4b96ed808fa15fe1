"""Requests that are too large, too slow or too many are refused, and leave no trace."""

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from timebox.run import Run
from timebox.serving.http import unread
from timebox.serving.http.bodies import Limits
from timebox.serving.predictions.app import PredictionServer

from .conftest import ADDRESS, encoded

SMALL = Limits(body_bytes=1 << 20, body_seconds=0.2, images=3, waiting_images=6, waiting_bytes=2 << 20)
FORM = "multipart/form-data; boundary=x"
REFUSED = {400, 408, 413, 415, 429}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a body that nobody reads is waited for less long."""
    monkeypatch.setattr(unread, "REST_SECONDS", 1.0)
    monkeypatch.setattr(unread, "PIECE_SECONDS", 0.1)


@pytest.fixture
def server(trained: Run) -> PredictionServer:
    return PredictionServer(trained, "recipe", None, None, SMALL)


@pytest.fixture
def client(server: PredictionServer) -> Iterator[TestClient]:
    with TestClient(server.app, ADDRESS, raise_server_exceptions=False) as client:
        yield client


def check_nothing_waits(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "waiting": 0, "engine": "torch"}
    assert client.post("/predict", content=encoded()).status_code == 200


@pytest.mark.parametrize("is_declared", [True, False])
def test_a_large_body(client: TestClient, is_declared: bool) -> None:
    chunks = (bytes(1 << 18) for _ in range(8))
    answer = client.post("/predict", content=bytes(SMALL.body_bytes + 1) if is_declared else chunks)
    assert answer.status_code == 413
    assert "1 MB" in answer.json()["error"]
    check_nothing_waits(client)


def test_many_pictures(client: TestClient) -> None:
    files = [("file", (f"{number}.png", encoded())) for number in range(4)]
    answer = client.post("/predict", files=files)
    assert answer.status_code == 413, answer.text
    assert client.post("/predict", files=files[:3]).status_code == 200
    check_nothing_waits(client)


def test_a_decompression_bomb(client: TestClient) -> None:
    buffer = io.BytesIO()
    Image.new("L", (20_000, 20_000)).save(buffer, "png")
    answer = client.post("/predict", content=buffer.getvalue())
    assert answer.status_code == 400
    assert "pixels" in answer.json()["error"]
    check_nothing_waits(client)


async def request(app: Any, receive: Callable[[], Any], path: str = "/predict") -> tuple[int, dict[str, Any]]:
    """Ask an app in this loop; the status and the JSON of its answer."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"transfer-encoding", b"chunked")],
        "http_version": "1.1", "scheme": "http", "root_path": "",
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], json.loads(body)


def whole(body: bytes) -> Callable[[], Any]:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def stalled() -> dict[str, Any]:
    await asyncio.sleep(60)
    raise AssertionError


async def gone() -> dict[str, Any]:
    return {"type": "http.disconnect"}


def test_a_body_that_does_not_come(server: PredictionServer) -> None:
    status, answer = asyncio.run(request(server.app, stalled))
    assert (status, answer["error"]) == (408, "the body took over 0.2 seconds")


def test_a_connection_that_is_closed_within_the_body(server: PredictionServer) -> None:
    status, answer = asyncio.run(request(server.app, gone))
    assert status == 400
    assert "closed" in answer["error"]


def test_more_requests_than_may_wait_are_refused_at_once(server: PredictionServer, trained: Run) -> None:
    async def all_at_once() -> list[tuple[int, dict[str, Any]]]:
        return await asyncio.gather(*(request(server.app, whole(encoded(seed=seed))) for seed in range(40)))

    statuses = [status for status, _ in asyncio.run(all_at_once())]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= SMALL.waiting_images
    with TestClient(server.app, ADDRESS) as client:
        check_nothing_waits(client)


def test_more_bytes_than_may_wait_are_refused(server: PredictionServer) -> None:
    async def endless() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": bytes(100_000), "more_body": True}

    async def all_at_once() -> list[tuple[int, dict[str, Any]]]:
        return await asyncio.gather(*(request(server.app, endless) for _ in range(8)))

    answers = asyncio.run(all_at_once())
    assert {status for status, _ in answers} <= {413, 429, 408}
    assert (429, {"error": "too many bytes are waiting; try again in a second"}) in answers


def test_the_rest_of_a_body_is_read_before_the_answer_ends(server: PredictionServer) -> None:
    pieces = iter([True] * 30 + [False])  # of 60 KB: over the limit of a body

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": bytes(60_000), "more_body": next(pieces)}

    status, _ = asyncio.run(request(server.app, receive))
    assert status == 413
    assert next(pieces, None) is None


@given(
    st.one_of(
        st.binary(max_size=300),
        st.tuples(st.integers(0, 1500), st.binary(min_size=1, max_size=8)).map(
            lambda change: encoded()[: change[0]] + change[1] + encoded()[change[0] + len(change[1]) :]
        ),
    ),
    st.sampled_from(["", "image/png", FORM, "multipart/form-data", 'multipart/form-data; boundary="\x7f"']),
)
def test_no_body_makes_the_server_fail(client: TestClient, body: bytes, content_type: str) -> None:
    answer = client.post("/predict", content=body, headers={"Content-Type": content_type})
    assert answer.status_code in {200, *REFUSED}, answer.text
    assert ("error" in answer.json()) == (answer.status_code != 200)
