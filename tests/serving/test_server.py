"""The command as a process: it answers, ends on a signal, and says why it cannot listen."""

import asyncio
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from timebox.exporting.parity import PredictFn
from timebox.run import Run
from timebox.serving.http.bodies import Picture
from timebox.serving.predictions.onnx_engine import OnnxEngine
from timebox.serving.predictions.predicting import Predictor

from .conftest import encoded

pytestmark = pytest.mark.integration
WAIT = 60


@contextmanager
def serving(run: Run, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and the address that it printed."""
    command: Sequence[str] = [
        sys.executable,
        "-m",
        "timebox",
        "serve",
        str(run.path),
        "--port",
        "0",
        "--engine",
        "torch",
        *options,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            assert found is not None, (line, process.stderr and process.stderr.read())
            yield process, found[0]
        finally:
            process.kill()


def predict(address: str, body: bytes) -> str:
    with urlopen(Request(f"{address}predict", body), timeout=WAIT) as answer:
        return str(json.load(answer)["predictions"][0]["label"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_until_a_signal_comes(trained: Run, number: signal.Signals) -> None:
    with serving(trained, "--feedback", "none") as (process, address):
        assert predict(address, encoded(1)) == "green"
        process.send_signal(number)
        _, errors = process.communicate(timeout=WAIT)
    assert process.returncode == 0
    assert errors == ""


def test_requests_in_progress_are_finished(trained: Run) -> None:
    with serving(trained, "--feedback", "none") as (process, address):
        predict(address, encoded())
        port = int(address.rstrip("/").rpartition(":")[2])
        body = encoded(2)
        with socket.create_connection(("127.0.0.1", port)) as connection:
            head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body[:100])
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            connection.sendall(body[100:])
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        _, errors = process.communicate(timeout=WAIT)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"label":"blue"' in answer
    assert (process.returncode, errors) == (0, "")


def stalled_request(address: str) -> socket.socket:
    """A request whose body does not come."""
    connection = socket.create_connection(("127.0.0.1", int(address.rstrip("/").rpartition(":")[2])))
    connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n1")
    return connection


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT, signal.SIGTERM)])
def test_a_second_signal_drops_what_is_in_progress_without_a_word(
    trained: Run, numbers: tuple[signal.Signals, ...]
) -> None:
    with serving(trained, "--feedback", "none") as (process, address), stalled_request(address):
        time.sleep(0.3)
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.3)
        _, errors = process.communicate(timeout=WAIT)
    assert (process.returncode, errors) == (0, "")


def test_a_request_that_takes_too_long_at_the_end_is_dropped_without_a_word(trained: Run) -> None:
    with serving(trained, "--feedback", "none") as (process, address), stalled_request(address):
        time.sleep(0.3)
        process.terminate()
        _, errors = process.communicate(timeout=WAIT)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize("path", ["/predict", "/nothing", "/model"])
@pytest.mark.parametrize("kept", ["close", "keep-alive"])
def test_an_answer_reaches_a_client_that_still_sends(trained: Run, path: str, kept: str) -> None:
    with serving(trained, "--feedback", "none") as (_, address):
        connection = HTTPConnection(address.removeprefix("http://").rstrip("/"), timeout=WAIT)
        connection.request("POST", path, bytes(70 << 20), {"Connection": kept})
        answer = connection.getresponse()
        assert answer.status == {"/predict": 413, "/nothing": 404, "/model": 405}[path]
        assert "error" in json.load(answer)


def test_libraries_that_warn_of_a_request_say_it_to_nobody(trained: Run) -> None:
    with serving(trained, "--feedback", "none") as (process, address):
        for body, kind in (
            (picture_that_pillow_warns_of(), "image/jpeg"),
            (picture_that_libtiff_warns_of(), "image/tiff"),
            (b"\0", "multipart/form-data; boundary=x"),
            (b"--x--\r\nmore", "multipart/form-data; boundary=x"),
        ):
            with suppress(HTTPError):
                urlopen(Request(f"{address}predict", body, {"Content-Type": kind}), timeout=WAIT)
        port = int(address.rstrip("/").rpartition(":")[2])
        for line in (b"nonsense\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(line)
                assert connection.recv(1000).startswith(b"HTTP/1.1 400")
        process.terminate()
        _, errors = process.communicate(timeout=WAIT)
    assert errors == ""


def picture_that_pillow_warns_of() -> bytes:
    """A JPEG whose Exif data are cut off."""
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20)).save(
        buffer, "jpeg", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\xff\0\0\0\x06\0\0\0"
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Image.open(buffer).getexif()
    assert caught
    return buffer.getvalue()


def picture_that_libtiff_warns_of() -> bytes:
    """A TIFF whose compressed pixels are damaged."""
    buffer = io.BytesIO()
    Image.effect_noise((40, 40), 50).save(buffer, "tiff", compression="tiff_lzw")
    content = bytearray(buffer.getvalue())
    content[8:200] = bytes(192)
    return bytes(content)


def test_many_clients_at_once_get_their_own_answers(trained: Run) -> None:
    wrong: list[str] = []

    def ask(address: str, number: int) -> None:
        for colour, name in enumerate(trained.class_names):
            expected = {"red": 0, "green": 1, "blue": 2}[name]
            if predict(address, encoded(expected, seed=number)) != name:
                wrong.append(f"{number}: {name} {colour}")

    with serving(trained, "--feedback", "none") as (_, address):
        threads = [threading.Thread(target=ask, args=(address, number)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
    assert wrong == []


def test_a_port_that_is_taken(trained: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "timebox", "serve", str(trained.path), "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 2
    assert re.search(rf"error: cannot listen on host '127.0.0.1', port {port}: .*; --port 0 takes", done.stderr)
    assert done.stderr.count("\n") == 1


def test_other_machines_need_the_printed_token(trained: Run) -> None:
    with serving(trained, "--host", "0.0.0.0", "--feedback", "none") as (process, address):
        found = re.search(r":(\d+)/\?token=(\S+)", address)
        assert found is not None and process.stdout is not None
        others = re.escape(f":{found[1]}/?token={found[2]}")
        assert re.fullmatch(rf"other devices in the same network: http://\S+{others}\n", process.stdout.readline())
        local = f"http://127.0.0.1:{found[1]}/model"
        with pytest.raises(OSError, match="401"):
            urlopen(local, timeout=WAIT)
        with urlopen(f"{local}?token={found[2]}", timeout=WAIT) as answer:
            assert json.load(answer)["classes"] == list(trained.class_names)


def test_onnx_runtime_takes_over_and_answers_the_same(trained: Run) -> None:
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    done = threading.Event()
    predictor = Predictor(trained, "recipe")
    picture = Picture("a.png", encoded(1, seed=4))
    by_torch = asyncio.run(predictor.predict([picture], 3))[0]

    def use(predict: PredictFn, speedup: float) -> None:
        assert speedup > 0
        predictor.use("onnxruntime", predict)
        done.set()

    engine = OnnxEngine(trained, "recipe", (), use)
    engine.wait(WAIT)
    engine.close()
    if not done.is_set():
        pytest.skip("ONNX Runtime was not faster here")
    by_onnx = asyncio.run(predictor.predict([picture], 3))[0]
    predictor.close()
    assert predictor.engine == "onnxruntime"
    assert by_torch.top and by_onnx.top
    for one, other in zip(by_torch.top, by_onnx.top, strict=True):
        assert one.label == other.label
        assert one.probability == pytest.approx(other.probability, abs=1e-6)


def test_a_server_that_ends_does_not_wait_for_onnx_runtime(trained: Run) -> None:
    started = time.monotonic()
    OnnxEngine(trained, "recipe", (), lambda predict, speedup: None).close()
    assert time.monotonic() - started < 5
