"""Photos read, beside a plain Pillow loop: images a second for JPEGs as cameras make them.

    python benchmarks/decode_speed.py --images 200 --rounds 3

Both bring 2000x1500 photos to 64x64 from disk, in turn. The loop opens, converts, resizes and crops one file after the
other, as most training scripts do. `load_data` reads the whole folder: it looks at each header first, lets JPEGs be
decoded at a fraction of their size, and uses all cores. Nothing is kept between rounds.
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
DIFFERENT = 20


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        files = photos(Path(folder), given.images)
        ways: dict[str, Callable[[], object]] = {
            "plain Pillow loop": lambda: np.stack([plain(file) for file in files]),
            "load_data": lambda: load_data(folder, image_size=SIDE, cache=False),
        }
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(given.rounds):
            for name, read in ways.items():
                started = time.perf_counter()
                read()
                speeds[name].append(len(files) / (time.perf_counter() - started))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    for name, values in speeds.items():
        print(f"{name:18} {medians[name]:7.1f} images/s  ({', '.join(f'{value:.1f}' for value in values)})")
    ratio = medians["load_data"] / medians["plain Pillow loop"]
    print(f"{ratio:.1f} times as many, {available_threads()} threads, {WIDTH}x{HEIGHT} JPEGs to {SIDE}x{SIDE}")


def photos(folder: Path, num: int) -> list[Path]:
    """Two classes of photos, some the same file under another name."""
    rng = np.random.default_rng(0)
    files: list[Path] = []
    for k in range(num):
        path = folder / "ab"[k % 2] / f"{k}.jpg"
        path.parent.mkdir(exist_ok=True)
        if k < DIFFERENT:
            coarse = Image.fromarray(rng.integers(0, 256, (HEIGHT // 50, WIDTH // 50, 3), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.int16)
            grain = rng.integers(-12, 13, smooth.shape, dtype=np.int16)
            Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(path, quality=85)
        else:
            path.hardlink_to(files[k % DIFFERENT])
        files.append(path)
    return files


def plain(file: Path) -> np.ndarray:
    """As most scripts read a photo."""
    with Image.open(file) as image:
        rgb = image.convert("RGB")
    scale = SIDE / min(rgb.size)
    resized = rgb.resize((round(rgb.width * scale), round(rgb.height * scale)), Image.Resampling.BILINEAR)
    left, top = (resized.width - SIDE) // 2, (resized.height - SIDE) // 2
    return np.asarray(resized.crop((left, top, left + SIDE, top + SIDE)))


if __name__ == "__main__":
    main()
