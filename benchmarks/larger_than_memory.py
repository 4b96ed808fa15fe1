"""Peak anonymous memory of a training on a data set of 4 GB, which is memory-mapped from the cache.

    python benchmarks/larger_than_memory.py --gigabytes 4 --steps 20

Makes a folder of photos (most are hard links), trains on it twice at 256x256, and prints the peak of the process's
anonymous memory, sampled every tenth of a second, and the duration. The first run decodes the photos, the second maps
the cache. To run it under a memory limit: `systemd-run --user --scope -p MemoryMax=1G python
benchmarks/larger_than_memory.py`.
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

SIDE, NUM_DISTINCT = 256, 200
BYTES_PER_IMAGE = SIDE * SIDE * 3


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args(argv)
    num_images = int(args.gigabytes * 1e9 / BYTES_PER_IMAGE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_photos(folder / "photos", num_images)
        print(f"{num_images:,} images of {SIDE}x{SIDE}, {num_images * BYTES_PER_IMAGE / 1e9:.1f} GB")
        for run in ("first run", "second run"):
            peak_bytes, seconds = train(folder, args.steps)
            print(f"{run}: at most {peak_bytes / 1e6:.0f} MB of anonymous memory, {seconds:.0f} s")


def make_photos(folder: Path, num_images: int) -> None:
    """Two classes of photos, of which NUM_DISTINCT differ; the others are hard links to them."""
    rng = np.random.default_rng(0)
    for k in range(num_images):
        path = folder / "ab"[k % 2] / f"{k}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if k < NUM_DISTINCT:
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(path, quality=80)
        else:
            path.hardlink_to(folder / "ab"[k % 2] / f"{k % NUM_DISTINCT}.jpg")


def train(folder: Path, num_steps: int) -> tuple[int, float]:
    """Train in a subprocess: (peak anonymous memory in bytes, duration in seconds)."""
    command = [sys.executable, "-m", "timebox", "train", str(folder / "photos"), "--steps", str(num_steps)]
    command += ["--recipe", "airbench94", "--set", f"image_size={SIDE}", "--set", "width=8", "--set", "batch_size=64"]
    command += ["--set", "input_scale=0.125", "--precision", "fp32", "--no-scoring"]
    command += ["--out", str(folder / "run"), "--overwrite"]
    started, peak_bytes = time.monotonic(), 0
    environment = {**os.environ, "TIMEBOX_CACHE": str(folder / "cache")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak_bytes = max(peak_bytes, anonymous_bytes(process.pid))
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"the training ended with status {process.returncode}")
    return peak_bytes, time.monotonic() - started


def anonymous_bytes(pid: int) -> int:
    """Resident anonymous memory of a process in bytes (RssAnon), which excludes mapped files; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


if __name__ == "__main__":
    main()
