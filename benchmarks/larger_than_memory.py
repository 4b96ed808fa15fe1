"""A data set larger than the memory it may take: images of 4 GB, and the most anonymous memory a training has.

    python benchmarks/larger_than_memory.py --gigabytes 4 --steps 20

Makes a folder of photos (most are other names for the same files), trains on it twice, decoded to 256x256, and says how
much anonymous memory the process had at most, as the kernel counts it every tenth of a second, and how long it took.
The first run decodes, the second maps what the first kept. Where systemd-run or a writable cgroup allows it, run it
under a limit: `systemd-run --user --scope -p MemoryMax=1G python benchmarks/larger_than_memory.py`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, DIFFERENT = 256, 200
BYTES_PER_IMAGE = SIDE * SIDE * 3


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args(argv)
    num = int(given.gigabytes * 1e9 / BYTES_PER_IMAGE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos(folder / "photos", num)
        print(f"{num:,} images of {SIDE}x{SIDE}, {num * BYTES_PER_IMAGE / 1e9:.1f} GB")
        for run in ("first run", "second run"):
            peak, seconds = trained(folder, given.steps)
            print(f"{run}: at most {peak / 1e6:.0f} MB of anonymous memory, {seconds:.0f} s")


def photos(folder: Path, num: int) -> None:
    rng = np.random.default_rng(0)
    for k in range(num):
        path = folder / "ab"[k % 2] / f"{k}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if k < DIFFERENT:
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(path, quality=80)
        else:
            path.hardlink_to(folder / "ab"[k % 2] / f"{k % DIFFERENT}.jpg")


def trained(folder: Path, num_steps: int) -> tuple[int, float]:
    """The most anonymous memory a training had, in bytes, and the seconds it took."""
    command = [sys.executable, "-m", "timebox", "train", str(folder / "photos"), "--steps", str(num_steps)]
    command += ["--recipe", "airbench94", "--set", f"image_size={SIDE}", "--set", "width=8", "--set", "batch_size=64"]
    command += ["--set", "input_scale=0.125", "--precision", "fp32", "--no-scoring"]
    command += ["--out", str(folder / "run"), "--overwrite"]
    started, peak = time.monotonic(), 0
    environment = {**os.environ, "TIMEBOX_CACHE": str(folder / "cache")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, anonymous(process.pid))
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"the training ended with status {process.returncode}")
    return peak, time.monotonic() - started


def anonymous(pid: int) -> int:
    """Bytes of memory a process has that are no file's."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


if __name__ == "__main__":
    main()
