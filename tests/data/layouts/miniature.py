"""Miniature: writes a tiny data set, and records the split, the class and the shade that is owed for each picture."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 12  # pixels of a picture
# Mean grey levels: the k-th class has FIRST_SHADE + k * SHADE_STEP, what has no label UNLABELLED_SHADE.
FIRST_SHADE, SHADE_STEP, UNLABELLED_SHADE = 8, 24, 250
MAT_STUB = b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(128)


class Miniature:
    """A data set at `root`, a folder or a file.

    `labels` is split -> id -> class of the pictures that have a label; `shades` is class -> mean grey level.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.labels: dict[str, dict[str, str]] = {}
        self.shades: dict[str, int] = {}
        self._rng = np.random.default_rng(0)

    def picture(self, path: str, label: str | None = None, split: str = "train", mode: str = "RGB") -> str:
        """Write a picture, owed in `split` if it has a label. Returns the path."""
        if label is not None:
            self.owe(split, path, label)
        file = self._file(path)
        Image.fromarray(self.pixels(label)).convert(mode).save(file)
        return path

    def pictures(self, pattern: str, labels: Iterable[str], split: str = "train") -> list[tuple[str, str]]:
        """Write a picture for each label, at `pattern` with its {label} and number {k}. Returns (path, label) pairs."""
        return [(self.picture(pattern.format(label=label, k=k), label, split), label) for k, label in enumerate(labels)]

    def class_folders(self, pattern: str, classes: Sequence[str], num: int = 3, split: str = "train") -> None:
        """Write `num` pictures of each class, at `pattern` with its {label} and number {k}."""
        for label in classes:
            for k in range(num):
                self.picture(pattern.format(label=label, k=k), label, split)

    def unlabelled(self, *paths: str, mode: str = "RGB") -> None:
        """Write pictures without a label."""
        for path in paths:
            self.picture(path, mode=mode)

    def owe(self, split: str, id_: str, label: str) -> None:
        """Record that `split` must hold an image of this id and class."""
        assert id_ not in self.labels.setdefault(split, {}), f"{id_} is written twice"
        self.labels[split][id_] = label

    def pixels(self, label: str | None = None, channels: int = 3) -> NDArray[np.uint8]:
        """Noise around the shade of a class: uint8 (SIDE, SIDE, channels)."""
        shade = UNLABELLED_SHADE
        if label is not None:
            shade = self.shades.setdefault(label, FIRST_SHADE + SHADE_STEP * len(self.shades))
        assert shade <= UNLABELLED_SHADE, "a miniature has ten classes at most"
        noise = self._rng.normal(shade, 4, (SIDE, SIDE, channels))
        return np.clip(noise.round(), 0, 255).astype(np.uint8)

    def text(self, path: str, content: str = "see the paper\n") -> None:
        self._file(path).write_text(content, encoding="utf-8")

    def table(self, path: str, header: str, rows: Iterable[str]) -> None:
        """Write lines of text under a header."""
        self.text(path, "\n".join([header, *rows]) + "\n")

    def binary(self, path: str, content: bytes = MAT_STUB) -> None:
        self._file(path).write_bytes(content)

    def copy(self, source: str, target: str, replace: bool = False) -> None:
        """Copy a folder; with `replace` in the place of another."""
        if replace:
            self.remove(target)
        shutil.copytree(self.root / source, self.root / target)

    def remove(self, path: str) -> None:
        """Remove a folder."""
        shutil.rmtree(self.root / path)

    def _file(self, path: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        return file
