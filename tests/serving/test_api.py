"""The API: answers are those of `timebox predict`, and bad requests get a sentence."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from small_runs import CLASSES
from timebox.run import Run
from timebox.serving.predictions.app import PredictionServer
from timebox.version import VERSION

from .conftest import ADDRESS, encoded

KINDS = [
    ("png", "RGB"), ("png", "L"), ("png", "RGBA"), ("png", "LA"), ("png", "P"), ("png", "1"), ("png", "I;16"),
    ("jpeg", "RGB"), ("jpeg", "L"), ("jpeg", "CMYK"), ("gif", "P"), ("webp", "RGB"), ("webp", "RGBA"),
    ("tiff", "RGB"), ("tiff", "CMYK"), ("bmp", "RGB"), ("ppm", "RGB"),
]  # fmt: skip


def ask(client: TestClient, body: bytes, path: str = "/predict", **headers: str) -> Any:
    return client.post(path, content=body, headers=headers)


@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_probabilities_are_those_of_predict_for_every_mode(
    client: TestClient, trained: Run, tmp_path: Path, kind: str, mode: str
) -> None:
    path = tmp_path / f"picture.{kind}"
    path.write_bytes(encoded(1, kind=kind, mode=mode))
    (expected,) = trained.predict_files([path])
    assert expected.probabilities is not None
    answer = ask(client, path.read_bytes(), "/predict?top=3").json()["predictions"][0]
    found = {row["label"]: row["probability"] for row in answer["top"]}
    np.testing.assert_allclose([found[name] for name in trained.class_names], expected.probabilities, atol=1e-6)
    assert answer["label"] == trained.class_names[int(expected.probabilities.argmax())]
    assert answer["probability"] == max(found.values())


def test_orientation_is_applied_as_by_predict(client: TestClient, trained: Run, tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    with Image.open(io.BytesIO(encoded(side=40))) as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(path, exif=exif)
    (expected,) = trained.predict_files([path])
    answer = ask(client, path.read_bytes()).json()["predictions"][0]
    assert expected.probabilities is not None
    assert answer["probability"] == pytest.approx(float(expected.probabilities.max()), abs=1e-6)


def test_many_pictures_are_answered_in_order_with_their_names(client: TestClient) -> None:
    files = [("file", (f"{name}.png", encoded(colour, seed=5))) for colour, name in enumerate(CLASSES)] * 4
    answer = client.post("/predict", files=files).json()
    assert [row["label"] for row in answer["predictions"]] == [*CLASSES] * 4
    assert [row["path"] for row in answer["predictions"]] == [f"{name}.png" for name in CLASSES] * 4
    assert answer["milliseconds"] > 0
    assert all(len(row["top"]) == 1 for row in answer["predictions"])


def test_a_bad_picture_among_good_ones_is_answered_in_its_place(client: TestClient) -> None:
    files = [("a", ("good.png", encoded())), ("b", ("bad.png", b"nonsense")), ("a", ("also.png", encoded(2)))]
    good, bad, also = client.post("/predict", files=files).json()["predictions"]
    assert (good["label"], also["label"]) == ("red", "blue")
    assert bad == {"path": "bad.png", "error": "the picture cannot be read: not an image that can be read here"}


def test_the_name_in_content_disposition_comes_back(client: TestClient) -> None:
    header = "attachment; filename*=UTF-8''b%C3%A4r.png"
    assert ask(client, encoded(), **{"Content-Disposition": header}).json()["predictions"][0]["path"] == "bär.png"
    assert "path" not in ask(client, encoded()).json()["predictions"][0]


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("attachment; filename*=utf-7''+2AA-", "?"), ("attachment; filename*=unicode-escape''\\ud800", "?"),
        ("attachment; filename*0=a; filename*=b", ""), ("attachment; filename*=nonesuch''a.png", ""),
        ("attachment; filename=", ""), (";;;=", ""),
    ],
)  # fmt: skip
def test_a_damaged_name_costs_nothing_but_the_name(client: TestClient, header: str, name: str) -> None:
    answer = ask(client, encoded(), **{"Content-Disposition": header})
    assert answer.status_code == 200, answer.text
    if name:
        assert answer.json()["predictions"][0]["path"] == name


def test_a_damaged_name_in_a_form(client: TestClient) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name=a; filename="+2AA-.png"\r\n\r\n'
    form = {"Content-Type": "multipart/form-data; boundary=x; charset=utf-7"}
    answer = ask(client, head + encoded() + b"\r\n--x--\r\n", **form)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("status", "body", "content_type"),
    [
        (400, b"", "image/png"),
        (415, b"hello", "text/plain"),
        (415, b'{"image": "/etc/passwd"}', "application/json"),
        (415, b"%PDF-1.7 ...", "application/pdf"),
        (415, b"\0" * 1000, "image/png"),
        (400, encoded()[:-200], "image/png"),
        (400, encoded()[:40], "image/png"),
        (400, b"--x\r\n", "multipart/form-data; boundary=x"),
        (400, b"anything", "multipart/form-data"),
        (400, b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\nhi\r\n--x--", "multipart/form-data; boundary=x"),
        (400, b"--x--\r\n", "multipart/form-data; boundary=x"),
    ],
)
def test_bad_requests_get_a_sentence(client: TestClient, status: int, body: bytes, content_type: str) -> None:
    answer = ask(client, body, **{"Content-Type": content_type})
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert len(answer.json()["error"]) > 10


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\n--x", b"\r\n--x\r\n", b"\r\n--x-", b"\r\n--y--\r\n"])
def test_a_form_without_the_boundary_that_closes_it(client: TestClient, end: bytes) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name=a; filename="a.png"\r\n\r\n' + encoded()
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    body = part + b"\r\n" + part
    assert len(ask(client, body + b"\r\n--x--", **form).json()["predictions"]) == 2
    answer = ask(client, body + end, **form)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"].startswith("the form ")


@pytest.mark.parametrize("path", ["/%ff", "/static/%ff", "/%ed%a0%80", "/model/%c3%28", "/%00"])
def test_a_path_that_is_not_utf_8(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()) == (404, {"error": "there is nothing at this address"})


@pytest.mark.parametrize("label", ["%ff", "%ed%a0%80", "%00"])
def test_a_class_that_is_not_utf_8(client: TestClient, label: str) -> None:
    for verb in ("explain", "feedback"):
        answer = ask(client, encoded(), f"/{verb}?label={label}")
        assert answer.status_code == 400, answer.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/predict", 405), ("PUT", "/model", 405), ("GET", "/nothing", 404), ("GET", "/static/app.py", 404),
        ("GET", "/static/..%2fapp.py", 404), ("POST", "/predict?top=0", 400), ("POST", "/predict?top=x", 400),
        ("POST", "/predict?top=99999999999999999999", 400), ("POST", "/explain?label=purple", 400),
        ("POST", "/feedback", 400), ("POST", "/feedback?label=purple", 400), ("POST", "/feedback?label=../x", 400),
    ],
)  # fmt: skip
def test_addresses_that_are_no_good(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path, content=encoded() if method == "POST" else None)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}


def test_more_classes_than_there_are(client: TestClient) -> None:
    assert len(ask(client, encoded(), "/predict?top=50").json()["predictions"][0]["top"]) == len(CLASSES)


def test_the_model_is_described(client: TestClient, trained: Run, feedback: Path) -> None:
    answer = client.get("/model").json()
    assert answer["classes"] == list(trained.class_names)
    assert answer["accuracy"] == trained.test_accuracy
    assert (answer["accuracy_split"], answer["num_images"]) == ("test", 24)
    assert answer["preprocessing"]["height"] == answer["preprocessing"]["width"] == 8
    assert len(answer["preprocessing"]["mean"]) == answer["preprocessing"]["channels"] == 3
    assert answer["feedback"] == str(feedback)
    assert answer["timebox"] == VERSION
    assert client.get("/health").json() == {"status": "ok", "waiting": 0, "engine": "torch"}


def test_openapi_describes_all_paths_and_answers(client: TestClient) -> None:
    text = client.get("/openapi.json").text
    described = json.loads(text)
    assert set(described["paths"]) == {"/predict", "/explain", "/feedback", "/feedback/undo", "/model", "/health"}
    schemas = described["components"]["schemas"]
    references = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert references <= set(schemas)
    answer = ask(client, encoded()).json()
    assert set(answer) == set(schemas["Predictions"]["properties"])
    assert set(answer["predictions"][0]) <= set(schemas["Prediction"]["properties"])
    assert set(client.get("/model").json()) == set(schemas["ModelDescription"]["properties"])


def test_the_heat_map_is_a_png_of_the_size_of_the_model(client: TestClient) -> None:
    answer = ask(client, encoded(2), "/explain").json()
    assert answer["label"] == "blue"
    assert (answer["width"], answer["height"]) == (8, 8)
    assert answer["heat_map"].startswith("data:image/png;base64,")
    assert ask(client, encoded(2), "/explain?label=red").json()["label"] == "red"
    assert ask(client, b"nonsense", "/explain").status_code == 415
    two = [("a", ("a.png", encoded())), ("b", ("b.png", encoded()))]
    assert client.post("/explain", files=two).status_code == 400


def test_a_corrected_picture_is_kept_once_and_moves_with_the_next_correction(
    client: TestClient, feedback: Path
) -> None:
    picture = encoded(kind="jpeg")
    saved = Path(ask(client, picture, "/feedback?label=red").json()["saved"])
    assert saved.parent == feedback / "red"
    assert saved.suffix == ".jpg"
    assert saved.read_bytes() == picture
    assert Path(ask(client, picture, "/feedback?label=red").json()["saved"]) == saved
    moved = Path(ask(client, picture, "/feedback?label=green").json()["saved"])
    assert moved == feedback / "green" / saved.name
    assert [path for path in feedback.rglob("*") if path.is_file()] == [moved]
    assert ask(client, b"nonsense", "/feedback?label=red").status_code == 415
    assert not list((feedback / "red").iterdir())


def test_a_correction_is_undone(client: TestClient, feedback: Path) -> None:
    picture = encoded(kind="jpeg")
    assert ask(client, picture, "/feedback/undo").json() == {"removed": []}
    first = ask(client, picture, "/feedback?label=red").json()
    assert first["previous"] is None
    other = ask(client, encoded(1), "/feedback?label=red").json()["saved"]
    assert ask(client, picture, "/feedback?label=green").json()["previous"] == "red"
    assert ask(client, picture, "/feedback?label=green").json()["previous"] == "green"
    moved = feedback / "green" / Path(first["saved"]).name
    assert ask(client, picture, "/feedback/undo").json() == {"removed": [str(moved)]}
    assert [str(path) for path in feedback.rglob("*") if path.is_file()] == [other]
    assert ask(client, b"nonsense", "/feedback/undo").status_code == 415


def test_without_a_folder_for_corrections_none_are_taken(trained: Run) -> None:
    with TestClient(PredictionServer(trained, "recipe", None, None).app, ADDRESS) as client:
        assert client.get("/model").json()["feedback"] is None
        assert ask(client, encoded(), "/feedback?label=red").status_code == 403
        assert ask(client, encoded(), "/feedback/undo").status_code == 403


def test_a_full_disk_is_said(client: TestClient, feedback: Path) -> None:
    feedback.write_text("a file in the place of the folder")
    answer = ask(client, encoded(), "/feedback?label=red")
    assert answer.status_code == 507
    assert "cannot be written" in answer.json()["error"]
    assert feedback.read_text() == "a file in the place of the folder"


def test_a_fault_of_the_model_is_no_fault_of_the_request(
    client: TestClient, trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Run, images: object, tta: str) -> object:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(Run, "predict_proba", fail)
    answer = ask(client, encoded())
    assert (answer.status_code, answer.json()) == (500, {"error": "internal error: ZeroDivisionError: oops"})


def test_the_page_and_its_files_need_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for name in ("style.css", "predict.css", "predict.js"):
        assert f"/static/{name}" in page.text
        assert client.get(f"/static/{name}").status_code == 200
    everything = page.text + "".join(client.get(f"/static/{name}").text for name in ("predict.css", "predict.js"))
    assert "//" not in everything.replace("http://localhost", "").replace("// ", "")
    assert "default-src 'self'" in page.headers["content-security-policy"]
