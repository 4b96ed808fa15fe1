"""Latency and throughput of ``timebox serve`` beside a bare loop over the model; or a soak, for an hour say.

    python benchmarks/serving.py RUN PHOTO...
    python benchmarks/serving.py RUN PHOTO... --soak 3600 --rate 20

A server is started for the run. So many clients send one picture a request over connections that are kept open, each
its next one when the answer has come. The bare loop predicts the same pictures, already decoded, in batches of 32, and
nothing is beside it. Loop and loads alternate; a line of JSON for each, with the median of the rounds at the end.

Clients and server share the cores of this machine: what a client costs is taken from the server.

A soak sends so many requests a second at most, by several clients, good pictures and damaged ones in turn. It prints a
line of JSON for each minute: the memory of the server, the latency, and how many answers had each status; the last line
is about all of it.
"""

import argparse
import asyncio
import io
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import numpy as np

BATCH_SIZE = 32
SOAK_CLIENTS, SOAK_LINE_SECONDS = 4, 60.0
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--engine", choices=("auto", "torch"), default="auto", help="auto: waits for ONNX Runtime")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak", type=float, metavar="SECONDS", help="send requests for so long, and watch the memory")
    parser.add_argument("--rate", type=float, default=20.0, help="requests per second of a soak, at most")
    args = parser.parse_args()
    bodies = [path.read_bytes() for path in args.photos]
    if args.soak:
        with server_of(args.run, args.engine) as (port, pid):
            asyncio.run(Soak(port, pid, mixed_requests(bodies), args.rate).run(args.soak))
        return
    rows: dict[str, list[dict[str, float]]] = {}
    for _ in range(args.rounds):
        rows.setdefault("loop", []).append({"images_per_second": _in_a_process(args)})
        for clients in args.clients:
            rows.setdefault(f"{clients} clients", []).append(
                served(args.run, bodies, clients, args.seconds, args.engine)
            )
        for name, lines in rows.items():
            print(json.dumps({"what": name, **lines[-1]}), flush=True)
    for name, measured in rows.items():
        medians = {key: round(statistics.median(row[key] for row in measured), 2) for key in measured[0]}
        print(json.dumps({"what": name, "median_of": len(measured), **medians}), flush=True)


def _in_a_process(args: argparse.Namespace) -> float:
    """Images per second of the bare loop, in a process of its own, as the server's is."""
    code = "import serving, sys; serving.print_loop(sys.argv[1], sys.argv[4:], float(sys.argv[2]), sys.argv[3])"
    command = [sys.executable, "-c", code, args.run, str(args.seconds), args.engine, *map(str, args.photos)]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    return float(done.stdout)


def print_loop(run: str, photos: Sequence[str], seconds: float, engine: str) -> None:
    """Print the images per second of the model on decoded pictures."""
    import timebox
    from timebox.exporting.onnx_runtime import open_model

    trained = timebox.load(run)
    decoded = [trained.model_input.decode(io.BytesIO(Path(photo).read_bytes())) for photo in photos]
    batch = np.stack([decoded[index % len(decoded)] for index in range(BATCH_SIZE)])
    if engine == "torch":
        predict: Callable[[], object] = lambda: trained.predict_proba(batch)  # noqa: E731
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = timebox.export(trained, output=Path(folder) / "model.onnx").path
            model = open_model(path)
        predict = lambda: model(batch)  # noqa: E731
    predict()
    started, num_images = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        predict()
        num_images += len(batch)
    print(num_images / (time.perf_counter() - started))


def served(run: str, bodies: Sequence[bytes], clients: int, seconds: float, engine: str) -> dict[str, float]:
    """Latency in milliseconds, and images per second, of a server of its own."""
    with server_of(run, engine) as (port, _):
        while engine == "auto" and "onnxruntime" not in _health(port):
            time.sleep(0.5)
        return asyncio.run(_load(port, bodies, clients, seconds))


@contextmanager
def server_of(run: str, engine: str) -> Iterator[tuple[int, int]]:
    """A server that keeps no pictures: its port and the number of its process."""
    command = [sys.executable, "-m", "timebox", "serve", run, "--port", "0", "--feedback", "none", "--engine", engine]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = re.search(r":(\d+)/", server.stdout.readline())
        assert found is not None, "the server did not start"
        try:
            yield int(found[1]), server.pid
        finally:
            server.terminate()


def _health(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/health") as answer:
        return str(answer.read())


async def _load(port: int, bodies: Sequence[bytes], clients: int, seconds: float) -> dict[str, float]:
    requests = [HEAD % len(body) + body for body in bodies]
    warm = time.perf_counter() + min(2.0, seconds / 4)
    end = warm + seconds
    latencies: list[float] = []

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (sent := time.perf_counter()) < end:
            writer.write(requests[number % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            found = re.search(rb"content-length: (\d+)", head)
            assert found is not None
            await reader.readexactly(int(found[1]))
            if sent >= warm:
                latencies.append(time.perf_counter() - sent)
            number += clients
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    milliseconds = np.array(latencies) * 1000
    return {
        "p50_ms": round(float(np.percentile(milliseconds, 50)), 2),
        "p99_ms": round(float(np.percentile(milliseconds, 99)), 2),
        "images_per_second": round(len(latencies) / seconds, 1),
    }


def mixed_requests(bodies: Sequence[bytes]) -> list[bytes]:
    """Good pictures, and in turn with them bodies that are damaged in four ways."""
    good, other = bodies[0], bodies[-1]
    part = b'--x\r\nContent-Disposition: form-data; name=file; filename="a.png"\r\n\r\n%b\r\n'
    form = b"Content-Type: multipart/form-data; boundary=x\r\n"
    damaged = [
        _request(good[: len(good) // 2]),
        _request(b"no picture"),
        _request(part % good + part % b"no picture" + b"--x--\r\n", form),
        _request(part % good + part % other[:-9], form),
    ]
    good_ones = [_request(body) for body in bodies]
    return [
        one
        for number in range(4 * len(bodies))
        for one in (good_ones[number % len(bodies)], damaged[number % len(damaged)])
    ]


def _request(body: bytes, headers: bytes = b"") -> bytes:
    return HEAD.replace(b"\r\n\r\n", b"\r\n" + headers + b"\r\n") % len(body) + body


@dataclass
class Soak:
    """Sends requests in turn, so many a second at most, and prints a line a minute."""

    port: int
    pid: int
    requests: Sequence[bytes]
    rate: float
    num_sent: int = 0
    answers: list[tuple[str, float]] = field(default_factory=list)

    async def run(self, seconds: float) -> None:
        """Send for so long."""
        started = time.perf_counter()
        clients = [asyncio.create_task(self._client(started, seconds)) for _ in range(SOAK_CLIENTS)]
        every: list[tuple[str, float]] = []
        while (left := started + seconds - time.perf_counter()) > 0:
            await asyncio.sleep(min(left, SOAK_LINE_SECONDS))
            every += self.answers
            self._print(time.perf_counter() - started, self.answers)
            self.answers = []
        await asyncio.gather(*clients)
        self._print(time.perf_counter() - started, every + self.answers)

    async def _client(self, started: float, seconds: float) -> None:
        connection: Connection | None = None
        while (sent := self.num_sent / self.rate) < seconds:
            request = self.requests[self.num_sent % len(self.requests)]
            self.num_sent += 1
            await asyncio.sleep(max(0.0, started + sent - time.perf_counter()))
            began = time.perf_counter()
            try:
                connection = connection or await asyncio.open_connection("127.0.0.1", self.port)
                status, is_kept = await _exchange(connection, request)
            except (OSError, EOFError) as error:
                status, is_kept = type(error).__name__, False
            self.answers.append((status, time.perf_counter() - began))
            if connection and not is_kept:
                connection[1].close()
                connection = None
        if connection:
            connection[1].close()

    def _print(self, seconds: float, answers: Sequence[tuple[str, float]]) -> None:
        resident = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text(encoding="ascii"))
        latencies = np.array([latency for _, latency in answers] or [0.0]) * 1000
        line = {
            "minutes": round(seconds / 60, 2),
            "rss_mb": round(int(resident[1]) / 1024, 1) if resident else None,
            "p50_ms": round(float(np.percentile(latencies, 50)), 2),
            "p99_ms": round(float(np.percentile(latencies, 99)), 2),
            "answers": dict(sorted(Counter(status for status, _ in answers).items())),
        }
        print(json.dumps(line), flush=True)


async def _exchange(connection: Connection, request: bytes) -> tuple[str, bool]:
    """The status of the answer, and whether the connection stays open."""
    reader, writer = connection
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    found = re.search(rb"content-length: (\d+)", head)
    assert found is not None
    await reader.readexactly(int(found[1]))
    return head.split()[1].decode(), b"connection: close" not in head


if __name__ == "__main__":
    main()
