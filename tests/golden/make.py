"""Writes golden runs of the present version, which the tests of later versions read.

    PYTHONPATH=src OMP_NUM_THREADS=1 python tests/golden/make.py tests/golden/0.2.0

Run it when a format has changed, into a new folder named for the version. The folder of a released version is never
rewritten. It takes about four minutes; test_golden.py reads every folder.

A folder holds the data sets, an archive for each run, search and benchmark, and expected.npz: the probabilities that
each model gives for the first test images. Names of the machine are replaced. Weights are rounded to three bits of
mantissa, so that they compress, except those of the run that is replayed; expected.npz is of the rounded weights.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file, save

import timebox
from timebox.progress import SilentReporter, StepStatus

HERE = Path(__file__).resolve().parent
NUM_EXPECTED = 6
STOP_AT = 8
KEPT_BITS = ~((1 << 20) - 1)  # of a float32: sign, exponent, three bits of the mantissa
WIDTH = ("width=4",)
SMALL = (*WIDTH, "batch_size=16", "crop_padding=1")
LARGE_BATCH = (*SMALL, "batch_size=96")  # takes fewer steps, whose metrics take less room
LARGER = (*SMALL, "image_size=12")
GHOSTS = (*SMALL, "ghost_size=8")
# Reports take more room than all else of a run, and only people read them: one is enough.
WITH_REPORT = "haet2021"
UNROUNDED = "airbench94"


def at_size(images: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Images (N, H, W, C) padded with black to the working size, so that predictions do not depend on resizing."""
    rows, columns = ((to - length) // 2 for to, length in zip(size, images.shape[1:3], strict=True))
    return np.pad(images, ((0, 0), (rows, rows), (columns, columns), (0, 0)))


def save_data(path: Path, channels: int, seed: int) -> None:
    """Three classes that differ in which third is bright, at 16 levels: uint8 (N, 8, 8, channels) in three splits."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, NDArray[np.generic]] = {"class_names": np.array(("top", "middle", "bottom"))}
    for split, count in (("train", 96), ("val", 24), ("test", 24)):
        labels = np.arange(count) % 3
        images = rng.integers(0, 10, (count, 8, 8, channels))
        for image, label in zip(images, labels, strict=True):
            image[(0, 3, 5)[label] : (3, 5, 8)[label]] += 5
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = (images * 17).astype(np.uint8), labels
    np.savez_compressed(path, **arrays)


def train(name: str, data: object = "colours.npz", **options: object) -> None:
    arguments = {"steps": 12, "settings": SMALL, "device": "cpu", "precision": "fp32", "out": name}
    timebox.train(data, **{**arguments, "thumbnails": False, "cache": False, **options})  # type: ignore[arg-type]


class Stopping(SilentReporter):
    """Ends a training at step STOP_AT, once there is a checkpoint."""

    def __init__(self, run: str, end: Callable[[], object]) -> None:
        self._manifest, self._end = Path(run) / "checkpoint" / "manifest.json", end

    def step(self, status: StepStatus) -> None:
        while status.step >= STOP_AT and not self._manifest.exists():
            pass
        if status.step >= STOP_AT:
            self._end()


def interrupt() -> None:
    """Stop a training as the signal handlers of the command line do."""
    raise KeyboardInterrupt


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_killed(name: str) -> None:
    """Train in a process that is killed at step STOP_AT."""
    code = f"import make; make.train({name!r}, recipe='airbench94', reporter=make.Stopping({name!r}, make.kill))"
    paths = os.pathsep.join((str(HERE), os.environ.get("PYTHONPATH", "")))
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, check=False)


def train_launched(name: str) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "timebox"]
    words = ["train", "colours.npz", "--steps", "12", "--recipe", "airbench94", "--device", "cpu", "--no-thumbnails"]
    subprocess.run([*launcher, *words, "--out", name, *(word for s in SMALL for word in ("--set", s))], check=True)


def fit_estimator(name: str) -> None:
    with np.load("colours.npz") as arrays:
        images, labels, names = arrays["train_images"], arrays["train_labels"], arrays["class_names"]
    classifier = timebox.TimeboxClassifier(
        steps=12, recipe="airbench94", settings=SMALL, device="cpu", precision="fp32", random_state=0
    )
    classifier.fit(images, names[labels]).save(name)


def tune(name: str) -> None:
    Path("space.toml").write_text('[max_lr]\ntimes = [0.1, 10]\n[flip]\namong = ["none", "random"]\n')
    timebox.tune(
        "colours.npz", budget="80s", trial_budget="5s", recipe="airbench94", settings=LARGE_BATCH, space="space.toml",
        device="cpu", precision="fp32", study="golden", out=name,
    )  # fmt: skip


def benchmark(name: str) -> None:
    timebox.benchmark(
        "colours.npz", recipes=("airbench94", "airbench94 max_lr=100"), settings=SMALL, seeds=2, trial_budget="12s",
        device="cpu", precision="fp32", out=name,
    )  # fmt: skip


def find_lr(name: str) -> None:
    timebox.lr_find("colours.npz", budget="60s", recipe="airbench94", settings=SMALL, device="cpu", out=name)


MAKERS: dict[str, Callable[[str], None]] = {
    "haet2021": lambda name: train(name, recipe="haet2021", settings=GHOSTS, thumbnails=True),
    "dawnbench": lambda name: train(name, recipe="dawnbench", settings=GHOSTS),
    "airbench94": lambda name: train(name, recipe="airbench94"),
    "superconvergence": lambda name: train(name, recipe="superconvergence", settings=SMALL, steps=2),
    "auto": lambda name: train(name, settings=WIDTH),
    "ensemble": lambda name: train(name, settings=(*SMALL, "ensemble_size=2")),
    "grey": lambda name: train(name, "grey.npz", recipe="airbench94", settings=LARGER, thumbnails=True),
    "without-held-out": lambda name: train(name, recipe="airbench94", val="none", test="none"),
    "unscored": lambda name: train(name, recipe="airbench94", val=0.2, test=0.2, train_limit=60, scoring=False),
    "initialised": lambda name: train(name, init="auto", settings=()),
    "budget": lambda name: train(name, recipe="airbench94", settings=LARGE_BATCH, steps=None, budget="12s"),
    "stopped": lambda name: train(name, settings=WIDTH, reporter=Stopping(name, interrupt)),
    "stopped-budget": lambda name: train(
        name, recipe="airbench94", steps=None, budget="12s", reporter=Stopping(name, interrupt)
    ),
    "killed": train_killed,
    "launched": train_launched,
    "estimator": fit_estimator,
    "tuned": tune,
    "benchmarked": benchmark,
    "lr-find": find_lr,
}


def scrub(folder: Path, root: Path) -> None:
    """Replace the names of this machine: the folder that was written, the host and the processor."""
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".json", ".jsonl", ".log", ".html", ".toml"):
            text = file.read_text(encoding="utf-8")
            text = re.sub(rf"\b{re.escape(socket.gethostname())}\b", "host", text.replace(f"{root}/", ""))
            text = re.sub(r'"processor": "[^"]*\(family[^"]*"', '"processor": "a processor"', text)
            text = re.sub(r'"commit": "[^"]*"', '"commit": "golden"', text)
            file.write_text(text, encoding="utf-8")


def round_weights(folder: Path) -> None:
    """Drop the last bits of all weights, and update the checksums in the manifests of checkpoints."""
    for file in sorted(folder.rglob("*.safetensors")):
        tensors = load_file(file)
        for tensor in tensors.values():
            if tensor.dtype.is_floating_point:
                tensor.numpy().view(np.uint32)[...] &= np.uint32(KEPT_BITS & 0xFFFFFFFF)
        content = save(tensors)
        manifest = file.parent / "manifest.json"
        if manifest.exists():
            described = json.loads(manifest.read_text())
            described["sha256"] = hashlib.sha256(content).hexdigest()
            manifest.write_text(json.dumps(described, indent=2) + "\n")
        file.write_bytes(content)


def probabilities(folder: Path, channels: dict[int, NDArray[np.uint8]]) -> NDArray[np.float32]:
    run = timebox.load(folder, device="cpu")
    return run.predict_proba(at_size(channels[run.preprocessing.channels], run.preprocessing.size))


def pack(folder: Path, file: Path) -> None:
    def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(file, "w:xz", preset=9) as archive:
        archive.add(folder, folder.name, filter=anonymous)


def model_folders(root: Path) -> Iterator[Path]:
    """Every folder under ``root`` that holds a model."""
    yield from sorted(file.parent for file in root.rglob("model.json"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="a folder that is not there yet")
    out = parser.parse_args().out.resolve()
    out.mkdir(parents=True)
    # A relative path would lead the processes started below, in another directory, to another timebox.
    os.environ["PYTHONPATH"] = str(Path(timebox.__file__).resolve().parents[1])
    with tempfile.TemporaryDirectory(prefix="golden-") as temporary:
        root = Path(temporary).resolve()
        os.chdir(root)
        save_data(root / "colours.npz", 3, seed=0)
        save_data(root / "grey.npz", 1, seed=1)
        for name, make in MAKERS.items():
            print(name, flush=True)
            make(name)
            for left in (*root.glob(f"{name}/**/lock"), *root.glob(f"{name}/**/*.log.lock")):
                left.unlink()
            for report in root.glob(f"{name}/**/report.html"):
                if name != WITH_REPORT:
                    report.unlink()
            scrub(root / name, root)
            if name != UNROUNDED:
                round_weights(root / name)
        images: dict[int, NDArray[np.uint8]] = {}
        for file, channels in (("colours.npz", 3), ("grey.npz", 1)):
            shutil.copy(root / file, out / file)
            with np.load(file) as arrays:
                images[channels] = arrays["test_images"][:NUM_EXPECTED]
        expected = {str(folder.relative_to(root)): probabilities(folder, images) for folder in model_folders(root)}
        np.savez_compressed(out / "expected.npz", **expected)
        for name in MAKERS:
            pack(root / name, out / f"{name}.tar.xz")


if __name__ == "__main__":
    main()
