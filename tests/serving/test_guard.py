"""Other sites cannot use the server, and a token keeps other machines out."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from timebox.run import Run
from timebox.serving.predictions.app import PredictionServer

from .conftest import ADDRESS, encoded

TOKEN = "correct-horse"


@pytest.fixture
def guarded(trained: Run) -> Iterator[TestClient]:
    with TestClient(PredictionServer(trained, "recipe", TOKEN, None).app, "http://192.168.1.9:8000") as client:
        yield client


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:9000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST", "127.0.0.2", "[::ffff:127.0.0.1]"],
)
def test_names_of_this_machine(client: TestClient, host: str) -> None:
    assert client.get("/model", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "192.168.1.9", "[", "", "127.0.0.1.nip.io"])
def test_a_name_that_somebody_pointed_at_this_machine(client: TestClient, host: str) -> None:
    for path in ("/", "/model", "/health"):
        assert client.get(path, headers={"Host": host}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://[::1"}, {"Origin": ""}, {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/predict", "/explain", "/feedback?label=red"])
def test_pages_of_other_sites_send_nothing(client: TestClient, headers: dict[str, str], path: str) -> None:
    assert client.post(path, content=encoded(), headers=headers).status_code == 403


@pytest.mark.parametrize("headers", [{}, {"Origin": ADDRESS}, {"Origin": ADDRESS, "Sec-Fetch-Site": "same-origin"}])
def test_the_page_itself_and_programs_do(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/predict", content=encoded(), headers=headers).status_code == 200


def test_answers_are_not_for_other_sites(client: TestClient) -> None:
    for answer in (client.get("/model"), client.get("/nothing"), client.get("/model", headers={"Host": "x"})):
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer"}, {"Authorization": "Bearer é"},
    ],
)  # fmt: skip
def test_without_the_token_nothing_is_said(guarded: TestClient, headers: dict[str, str]) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    for path in ("/", "/model", "/openapi.json", "/model?token=wrong"):
        answer = guarded.get(path, headers=raw)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert guarded.post("/predict", content=encoded(), headers=raw).status_code == 401
    assert guarded.get("/health").json()["status"] == "ok"


def test_with_the_token_all_is_answered(guarded: TestClient) -> None:
    assert guarded.get(f"/?token={TOKEN}").status_code == 200
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert guarded.get("/model", headers=bearer).status_code == 200
    assert guarded.post("/predict", content=encoded(), headers=bearer).status_code == 200
    described = guarded.get("/openapi.json", headers=bearer).json()
    assert described["security"] == [{"token": []}]
