"""Decoding speed of camera JPEGs: images per second of load_data and of a plain Pillow loop.

    python benchmarks/decode_speed.py --images 200 --rounds 3

Both read 2000x1500 photos from disk and resize them to 64x64, in alternating rounds. The loop opens, converts, resizes
and crops one file after another, as most training scripts do. `load_data` reads all headers first, decodes JPEGs at a
fraction of their size, and uses all cores. The cache is off.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from timebox.data import load_data
from timebox.machine import available_threads

WIDTH, HEIGHT, SIDE = 2000, 1500, 64
NUM_DISTINCT = 20


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        files = make_photos(Path(folder), args.images)
        readers: dict[str, Callable[[], object]] = {
            "plain Pillow loop": lambda: np.stack([decode(file) for file in files]),
            "load_data": lambda: load_data(folder, image_size=SIDE, cache=False),
        }
        speeds: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(args.rounds):
            for name, read in readers.items():
                started = time.perf_counter()
                read()
                speeds[name].append(len(files) / (time.perf_counter() - started))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    for name, values in speeds.items():
        print(f"{name:18} {medians[name]:7.1f} images/s  ({', '.join(f'{value:.1f}' for value in values)})")
    ratio = medians["load_data"] / medians["plain Pillow loop"]
    print(f"{ratio:.1f} times as many, {available_threads()} threads, {WIDTH}x{HEIGHT} JPEGs to {SIDE}x{SIDE}")


def make_photos(folder: Path, num_images: int) -> list[Path]:
    """Two classes of photos, of which NUM_DISTINCT differ; the others are hard links to them."""
    rng = np.random.default_rng(0)
    files: list[Path] = []
    for k in range(num_images):
        path = folder / "ab"[k % 2] / f"{k}.jpg"
        path.parent.mkdir(exist_ok=True)
        if k < NUM_DISTINCT:
            coarse = Image.fromarray(rng.integers(0, 256, (HEIGHT // 50, WIDTH // 50, 3), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.int16)
            grain = rng.integers(-12, 13, smooth.shape, dtype=np.int16)
            Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(path, quality=85)
        else:
            path.hardlink_to(files[k % NUM_DISTINCT])
        files.append(path)
    return files


def decode(file: Path) -> np.ndarray:
    """Open, convert, resize and crop one photo with Pillow: uint8 (64, 64, 3)."""
    with Image.open(file) as image:
        rgb = image.convert("RGB")
    scale = SIDE / min(rgb.size)
    resized = rgb.resize((round(rgb.width * scale), round(rgb.height * scale)), Image.Resampling.BILINEAR)
    left, top = (resized.width - SIDE) // 2, (resized.height - SIDE) // 2
    return np.asarray(resized.crop((left, top, left + SIDE, top + SIDE)))


if __name__ == "__main__":
    main()
