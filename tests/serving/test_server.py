"""The command as a process: it answers, ends on a signal, and says why it cannot listen."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.request import Request, urlopen

import pytest

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
    with serving(trained, "--host", "0.0.0.0", "--feedback", "none") as (_, address):
        found = re.search(r":(\d+)/\?token=(\S+)", address)
        assert found is not None
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
