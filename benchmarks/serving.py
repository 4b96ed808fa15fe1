"""Latency and throughput of ``timebox serve`` beside a bare loop over the model.

    python benchmarks/serving.py RUN PHOTO...

A server is started for the run. So many clients send one picture a request over connections that are kept open, each
its next one when the answer has come. The bare loop predicts the same pictures, already decoded, in batches of 32, and
nothing is beside it. Loop and loads alternate; a line of JSON for each, with the median of the rounds at the end.

Clients and server share the cores of this machine: what a client costs is taken from the server.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.request import urlopen

import numpy as np

BATCH_SIZE = 32
HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--engine", choices=("auto", "torch"), default="auto", help="auto: waits for ONNX Runtime")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    bodies = [path.read_bytes() for path in args.photos]
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
    command = [sys.executable, "-m", "timebox", "serve", run, "--port", "0", "--feedback", "none", "--engine", engine]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = re.search(r":(\d+)/", server.stdout.readline())
        assert found is not None, "the server did not start"
        try:
            while engine == "auto" and "onnxruntime" not in _health(int(found[1])):
                time.sleep(0.5)
            return asyncio.run(_load(int(found[1]), bodies, clients, seconds))
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


if __name__ == "__main__":
    main()
