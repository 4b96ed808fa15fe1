"""Writes a small valid input for each fuzz target: `python fuzz/seeds.py FOLDER` fills FOLDER/TARGET/."""

import base64
import gzip
import io
import json
import pickle
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from PIL import Image
from safetensors.torch import save

from timebox.builders import build_model
from timebox.evaluation.scoring import ScoreSplit
from timebox.file_versions import CHECKPOINT_FORMAT, MODEL_FORMAT, SUMMARY_FORMAT
from timebox.jobs.messages import ReadResult, RunFinished
from timebox.planning.plan import Plan
from timebox.planning.throughput.distributed import MeasurementRequest
from timebox.recipes import RECIPES
from timebox.run.json_values import to_values
from timebox.run.model_config import Machine, PlanRecord, installed_versions
from timebox.runtime.precision import Precision
from timebox.training.state import TrainingState

Blobs = list[bytes]
RNG = np.random.default_rng(0)
PLANES = RNG.integers(0, 256, (2, 3072), dtype=np.uint8)
IMAGES = RNG.integers(0, 256, (4, 8, 8), dtype=np.uint8)
LABELS = np.array([0, 1, 0, 1], np.uint8)


def joined(*parts: bytes) -> bytes:
    """Parts in one input, as targets.split separates them."""
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def cifar_pickle() -> Blobs:
    batch = {b"data": PLANES, b"labels": [0, 1], b"filenames": [b"a.png", b"b.png"]}
    meta = {b"label_names": [b"cat", b"dog"], b"num_cases_per_batch": 2}
    return [joined(pickle.dumps(batch, protocol), pickle.dumps(meta, protocol)) for protocol in (0, 2, 4)]


def cifar_binary() -> Blobs:
    records = np.concatenate([np.array([[0], [1]], np.uint8), PLANES], axis=1).tobytes()
    return [joined(records, b"cat\ndog\n")]


def idx() -> Blobs:
    def written(array: np.ndarray) -> bytes:
        return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()

    return [
        joined(written(IMAGES), written(LABELS)),
        joined(gzip.compress(written(IMAGES), mtime=0), gzip.compress(written(LABELS), mtime=0)),
    ]


def npz() -> Blobs:
    blobs = []
    for write in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        write(stream, images=IMAGES, labels=LABELS, class_names=np.array(["cat", "dog"]))
        blobs.append(stream.getvalue())
    stream = io.BytesIO()
    np.savez(
        stream,
        x_train=IMAGES[..., None],
        y_train=np.array(["a", "b", "a", "b"]),
        x_test=IMAGES[:1],
        y_test=np.array(["b"]),
    )
    return [*blobs, stream.getvalue()]


def image() -> Blobs:
    colour = Image.fromarray(RNG.integers(0, 256, (12, 10, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    blobs = []
    for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000"):
        stream = io.BytesIO()
        colour.save(stream, kind, **({"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}))
        blobs.append(stream.getvalue())
    for mode in ("1", "LA", "P", "I;16", "CMYK"):
        stream = io.BytesIO()
        colour.convert("L" if mode == "I;16" else mode).convert(mode).save(stream, "TIFF" if mode == "CMYK" else "PNG")
        blobs.append(stream.getvalue())
    return blobs


def tar() -> Blobs:
    members = {f"data_batch_{k}": cifar_member(0) for k in range(1, 6)}
    members |= {"test_batch": cifar_member(0), "batches.meta": cifar_member(1)}
    blobs = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
            for name, blob in members.items():
                member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                member.size = len(blob)
                archive.addfile(member, io.BytesIO(blob))
            length = 50 if kind == tarfile.USTAR_FORMAT else 150  # the others need a header of their own for it
            archive.addfile(tarfile.TarInfo(f"cifar-10-batches-py/{'x' * length}"))
        blobs += [stream.getvalue(), gzip.compress(stream.getvalue(), mtime=0)]
    return blobs


def table() -> Blobs:
    rows = ("0.png,cat", "1.png,dog")
    encoded = [base64.b64encode(blob).decode() for blob in image()[:2]]
    return [
        "\n".join(["path,label", *rows]).encode(),
        "\n".join(rows).replace(",", ";").encode("utf-8-sig"),
        "\n".join(["path,split,A,B", "0.png,train,1,0", "1.png,train,0,1", "0.png,test,1,0"]).encode(),
        "\n".join(["image,label", f"{encoded[0]},cat", f"{encoded[1]},dog"]).encode(),
    ]


def json_lines() -> Blobs:
    rows: list[list[dict[str, object]]] = [
        [{"path": "0.png", "label": "cat"}, {"path": "1.png", "label": "dog"}],
        [{"file_name": "0.png", "label": 0, "split": "train"}, {"file_name": "1.png", "label": 1, "split": "train"}],
        [{"image": base64.b64encode(blob).decode(), "label": label} for label, blob in enumerate(image()[:2])],
    ]
    return ["\n".join(map(json.dumps, lines)).encode() for lines in rows]


def parquet() -> Blobs:
    blobs = image()[:2]
    columns: list[dict[str, list[object]]] = [
        {"path": ["0.png", "1.png"], "label": ["cat", "dog"]},
        {"image": [{"bytes": blob, "path": None} for blob in blobs], "label": [0, 1]},
        {"image": list(blobs), "label": [1.0, 2.0]},
    ]
    tables = [pyarrow.table(values) for values in columns]
    streams = []
    for number, written in enumerate([*tables, tables[0]]):
        streams.append(io.BytesIO())
        pyarrow.parquet.write_table(written, streams[-1], compression="none" if number < len(tables) else "snappy")
    return [stream.getvalue() for stream in streams]


def messages() -> Blobs:
    sent = (ScoreSplit("val", "mirror"), RunFinished("runs/a"), ReadResult("0" * 64), ReadResult(None, "no images"))
    measured = MeasurementRequest(RECIPES["haet2021"]().as_dict(), True, "fp32", 0.5, 3.0)
    return [msgspec.msgpack.encode(message) for message in (*sent, measured)]


def undamaged() -> Blobs:
    """Operations of `damage` that leave every file as it is."""
    return [b"", b"\0", b"\1", bytes(40)]


def archive() -> Blobs:
    blobs = []
    pictures = dict(zip(("cat/0.png", "dog/0.png"), image()[:2], strict=True))
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", kind) as zipped:
            for name, blob in pictures.items():
                zipped.writestr(name, blob)
        blobs.append(stream.getvalue())
    for mode in ("w:gz", "w:xz"):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode=mode) as tarred:
            for name, blob in pictures.items():
                member = tarfile.TarInfo(name)
                member.size = len(blob)
                tarred.addfile(member, io.BytesIO(blob))
        blobs.append(stream.getvalue())
    return blobs


def cifar_member(part: int) -> bytes:
    """A batch (0) or the meta file (1) of cifar_pickle's second seed."""
    blob = cifar_pickle()[1]
    length = int.from_bytes(blob[:4], "little")
    return blob[4 : 4 + length] if part == 0 else blob[8 + length :]


def recipe() -> Blobs:
    whole = [make().to_toml().encode() for make in RECIPES.values()]
    return [*whole, b'extends = "haet2021"\nmax_lr = 1e-3\nwidth = 0x10\n', b"max_lr=0.4\nwidth=32"]


def run_config() -> dict[str, object]:
    """The part of a model.json that a prediction needs, and the source of its data."""
    source = {"data": "d", "val": 0.1, "test": None, "train_limit": 5, "test_limit": None}
    return {
        "format": MODEL_FORMAT.newest,
        "class_names": ["cat", "dog"],
        "recipe": RECIPES["haet2021"]().replace(width=4).as_dict(),
        "preprocessing": {"image_shape": [8, 8, 1], "mean": [0.5], "std": [0.25]},
        "source": {**source, "split_seed": 0, "coarse": False},
    }


def run() -> Blobs:
    recipe = RECIPES["haet2021"]().replace(width=4)
    with torch.device("meta"):
        model = build_model(recipe, 1, 2)
    weights = save({name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in model.state_dict().items()})
    length = 8 + int.from_bytes(weights[:8], "little")
    hashes = io.BytesIO()
    np.save(hashes, np.arange(3, dtype=np.uint64))
    # The weights themselves are zeros that the target puts back, so that libFuzzer's changes go to the header.
    size = (len(weights) - length).to_bytes(4, "little")
    summary = {"format": SUMMARY_FORMAT.newest, "test_accuracy": 0.5, "temperature": 1.5, "recipe": recipe.as_dict()}
    files = (json.dumps(values).encode() for values in (run_config(), summary))
    return [joined(*files, weights[:length], size, hashes.getvalue())]


def continuing() -> Blobs:
    recipe = RECIPES["haet2021"]().replace(width=4)
    plan = Plan(
        recipe=recipe,
        device=torch.device("cpu"),
        threads=1,
        precision="fp32",
        num_steps=None,
        micro_batch=32,
        step_seconds=0.1,
        expected_steps=9,
        scoring_seconds=1.0,
        saving_seconds=0.1,
        finish_seconds=1.0,
        num_val_images=0,
        scoring_batch=50,
        lines=("a line",),
    )
    with torch.device("meta"):
        training = TrainingState(build_model(recipe, 1, 2), recipe, Precision("fp32", torch.device("cpu")))
    tensors = save({name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in training.tensors().items()})
    length = 8 + int.from_bytes(tensors[:8], "little")
    request = {"recipe": "haet2021", "settings": [], "precision": "auto", "num_steps": None, "data_sha256": ""}
    config = {
        **run_config(),
        "seed": 0,
        "training": request,
        "plan": to_values(PlanRecord.of(plan)),
        "machine": to_values(Machine.current(torch.device("cpu"))),
        "versions": installed_versions(),
    }
    state = {"lr_factor": 1.0, "micro_batch": 32, "step_seconds": 0.1, "metrics_lines": 1, "phases": {"training": 1.0}}
    described = {"file": "a.safetensors", "sha256": "SHA256", "step": 1, "progress": 0.5, "training_state": state}
    manifest = CHECKPOINT_FORMAT.numbered(described)
    step = {"step": 1, "progress": 1.0, "lr": 0.1, "momentum": 0.9, "micro_batch": 32, "loss": 2.0}
    lines = (step, {"step": 0, "rolled_back": True}, step)
    metrics = "".join(json.dumps(line) + "\n" for line in lines).encode()
    size = (len(tensors) - length).to_bytes(4, "little")
    return [joined(json.dumps(config).encode(), json.dumps(manifest).encode(), tensors[:length], size, metrics)]


def http_request() -> Blobs:
    form = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="%d.png"\r\n\r\n%b\r\n' % (number, blob)
        for number, blob in enumerate(image()[:2])
    )
    requests = [joined(b"image/png", blob) for blob in image()[:4]]
    return [*requests, joined(b"multipart/form-data; boundary=x", form + b"--x--\r\n")]


SEEDS = {
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
    "run_directory": undamaged,
    "search_directory": undamaged,
    "benchmark_directory": undamaged,
    "classifier_directory": undamaged,
    "image_cache": undamaged,
}


def main(folder: Path) -> None:
    for target, seeds in SEEDS.items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for number, blob in enumerate(seeds()):
            (folder / target / f"seed-{number}").write_bytes(blob)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
