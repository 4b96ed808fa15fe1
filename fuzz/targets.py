"""One fuzz target per reader: `python fuzz/targets.py TARGET CORPUS -max_total_time=60`."""

import asyncio
import contextlib
import hashlib
import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from starlette.requests import Request
from torch.distributed import HashStore

from harness import Target, fuzz
from saved_directories import DIRECTORY_TARGETS
from timebox.configs.data import DataConfig
from timebox.data import load_data
from timebox.data.images.decode import decode_image, read_header
from timebox.distributed.messages import MessageChannel, decode_message
from timebox.errors import TimeboxError
from timebox.evaluation.scoring import ScoreSplit
from timebox.jobs.existing_run import ExistingRun
from timebox.jobs.messages import ReadData, ReadResult, RunFinished, StartTraining
from timebox.planning.throughput.distributed import MeasurementRequest
from timebox.recipes import get_recipe, parse_settings
from timebox.run.files import read_training_hashes
from timebox.run.metrics_log import final_step_plans, prefix_at_checkpoint, read_metrics
from timebox.run.run import load
from timebox.serving.http.bodies import Limits, RequestPictures, Room
from timebox.serving.http.errors import RequestError

MAX_ZEROS = 1 << 20
_BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")


def split(data: bytes, count: int) -> list[bytes]:
    """`count` parts, each with its length in four bytes before it; parts that are missing are empty."""
    parts = []
    for _ in range(count):
        length = int.from_bytes(data[:4], "little")
        parts.append(data[4 : 4 + length])
        data = data[4 + length :]
    return parts


def cifar_pickle(scratch: Path, data: bytes) -> None:
    batch, meta = split(data, 2)
    folder = scratch / "cifar-10-batches-py"
    folder.mkdir(exist_ok=True)
    for name in _BATCHES:
        (folder / name).write_bytes(batch)
    (folder / "batches.meta").write_bytes(meta)
    load_data(folder)


def cifar_binary(scratch: Path, data: bytes) -> None:
    batch, meta = split(data, 2)
    folder = scratch / "cifar-10-batches-bin"
    folder.mkdir(exist_ok=True)
    for name in _BATCHES:
        (folder / f"{name}.bin").write_bytes(batch)
    (folder / "batches.meta.txt").write_bytes(meta)
    load_data(folder)


def idx(scratch: Path, data: bytes) -> None:
    images, labels = split(data, 2)
    zipped = ".gz" if images[:2] == b"\x1f\x8b" else ""
    for path in scratch.iterdir():
        path.unlink()
    (scratch / f"train-images-idx3-ubyte{zipped}").write_bytes(images)
    (scratch / f"train-labels-idx1-ubyte{zipped}").write_bytes(labels)
    load_data(scratch)


def npz(scratch: Path, data: bytes) -> None:
    (scratch / "a.npz").write_bytes(data)
    load_data(scratch / "a.npz")


def image(scratch: Path, data: bytes) -> None:
    path = scratch / "a.png"
    path.write_bytes(data)
    with contextlib.suppress(TimeboxError):
        read_header(path)
    for channels in (1, 3, 4):
        decode_image(path, (8, 8), channels)


def tar(scratch: Path, data: bytes) -> None:
    path = scratch / "cifar-10-python.tar.gz"
    path.write_bytes(data)
    load_data(path)


def table(scratch: Path, data: bytes) -> None:
    _load_table(scratch, "a.csv", data)


def json_lines(scratch: Path, data: bytes) -> None:
    _load_table(scratch, "a.jsonl", data)


def parquet(scratch: Path, data: bytes) -> None:
    _load_table(scratch, "a.parquet", data)


def _load_table(scratch: Path, name: str, data: bytes) -> None:
    for image_name in ("0.png", "1.png"):
        if not (scratch / image_name).exists():
            Image.new("L", (8, 8), 255 * int(image_name[0])).save(scratch / image_name)
    path = scratch / name
    path.write_bytes(data)
    load_data(path)


def archive(scratch: Path, data: bytes) -> None:
    path = scratch / "a.zip"
    path.write_bytes(data)
    load_data(path)


def recipe(scratch: Path, data: bytes) -> None:
    path = scratch / "a.toml"
    path.write_bytes(data)
    with contextlib.suppress(TimeboxError):
        get_recipe(str(path)).to_toml()
    parse_settings(data.decode("utf-8", "replace").splitlines())


def run(scratch: Path, data: bytes) -> None:
    config, summary, header, zeros, hashes = split(data, 5)
    folder = scratch / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "model.json").write_bytes(config)
    (folder / "summary.json").write_bytes(summary)
    (folder / "model.safetensors").write_bytes(header + bytes(int.from_bytes(zeros[:4], "little") % MAX_ZEROS))
    (folder / "trained_on.npy").write_bytes(hashes)
    with contextlib.suppress(TimeboxError):
        read_training_hashes(folder)
    loaded = load(folder, device="cpu")
    _ = loaded.summary, loaded.test_accuracy
    DataConfig.of_run(loaded.config, folder)


def continuing(scratch: Path, data: bytes) -> None:
    """A run that was killed: its checkpoint, its metrics, and all that a resume or a replay reads."""
    config, manifest, header, zeros, metrics = split(data, 5)
    folder = scratch / "run"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "checkpoint").mkdir(parents=True)
    tensors = header + bytes(int.from_bytes(zeros[:4], "little") % MAX_ZEROS)
    (folder / "model.json").write_bytes(config)
    (folder / "metrics.jsonl").write_bytes(metrics)
    (folder / "checkpoint" / "a.safetensors").write_bytes(tensors)
    checksum = hashlib.sha256(tensors).hexdigest().encode()
    (folder / "checkpoint" / "manifest.json").write_bytes(manifest.replace(b"SHA256", checksum))
    with contextlib.suppress(TimeboxError):
        load(folder, device="cpu")
    with contextlib.suppress(TimeboxError):
        final_step_plans((entry for _, entry in read_metrics(folder / "metrics.jsonl")), folder)
    with contextlib.suppress(TimeboxError):
        prefix_at_checkpoint(folder / "metrics.jsonl", 2, 1)
    _ = ExistingRun.load(folder).device


def http_request(scratch: Path, data: bytes) -> None:
    """A request with pictures: its content type and its body, in two parts."""
    content_type, body = split(data, 2)
    asyncio.run(_read_request(content_type, body))


async def _read_request(content_type: bytes, body: bytes) -> None:
    middle = len(body) // 2
    messages = iter(
        (
            {"type": "http.request", "body": body[:middle], "more_body": True},
            {"type": "http.request", "body": body[middle:], "more_body": False},
        )
    )

    async def receive() -> dict[str, object]:
        return next(messages)

    headers = [(b"content-type", content_type)]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    limits = Limits(body_bytes=1 << 20, images=8)
    room = Room(limits)
    with contextlib.suppress(RequestError):
        async with RequestPictures(Request(scope, receive), room, limits) as pictures:
            for picture in pictures:
                with contextlib.suppress(TimeboxError):
                    decode_image(io.BytesIO(picture.content), (8, 8), 3)
    if room.num_bytes or room.num_images:
        raise AssertionError("a request that has ended still takes room")


MESSAGES = ReadData | ReadResult | MeasurementRequest | StartTraining | ScoreSplit | RunFinished


def messages(scratch: Path, data: bytes) -> None:
    """A message as it comes through the network, and one that is signed."""
    store = HashStore()
    store.set("run/one", data.decode("latin-1"))
    with contextlib.suppress(TimeboxError):
        MessageChannel(store, "run", b"k" * 32).receive("one", MESSAGES)
        raise AssertionError("a message that is not signed was received")
    decode_message(data, MESSAGES, "one")


TARGETS: dict[str, Target] = {
    "cifar_pickle": cifar_pickle,
    "cifar_binary": cifar_binary,
    "idx": idx,
    "npz": npz,
    "image": image,
    "tar": tar,
    "table": table,
    "json_lines": json_lines,
    "parquet": parquet,
    "archive": archive,
    "recipe": recipe,
    "run": run,
    "continuing": continuing,
    "messages": messages,
    "http_request": http_request,
    **DIRECTORY_TARGETS,
}

if __name__ == "__main__":
    fuzz(TARGETS[sys.argv.pop(1)])
