"""Writes tiny data sets in the published formats."""

import gzip
import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from timebox.data import ImageDataset

CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def dataset(counts: list[int], side: int = 4, channels: int = 3, seed: int = 0) -> ImageDataset:
    """Noise, counts[c] images of each class c in random order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)
    images = rng.integers(0, 256, (len(labels), side, side, channels), dtype=np.uint8)
    names = tuple(f"class {c}" for c in range(len(counts)))
    return ImageDataset(images, labels, names, tuple(map(str, range(len(labels)))))


def picture(size: tuple[int, int] = (16, 16), mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Noise of `size` (width, height)."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def save(path: Path, image: Image.Image | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or picture()).save(path, **options)
    return path


def photo_folder(root: Path, classes: tuple[str, ...] = ("cat", "dog"), per_class: int = 3) -> Path:
    """root/CLASS/0.png ..., 16x16 RGB, all different."""
    for c, name in enumerate(classes):
        for k in range(per_class):
            save(root / name / f"{k}.png", picture(seed=100 * c + k))
    return root


def cifar_arrays(num: int, num_classes: int = 10, seed: int = 0) -> tuple[NDArray[np.uint8], list[int]]:
    """Planes uint8 (num, 3072) and labels that cycle through the classes."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num, 3072), dtype=np.uint8), [k % num_classes for k in range(num)]


def cifar10_batches(per_batch: int = 10) -> dict[str, tuple[NDArray[np.uint8], list[int]]]:
    names = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    return {name: cifar_arrays(per_batch, seed=seed) for seed, name in enumerate(names)}


def cifar10_python(parent: Path, per_batch: int = 10) -> Path:
    folder = parent / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, (planes, labels) in cifar10_batches(per_batch).items():
        (folder / name).write_bytes(pickle.dumps({b"data": planes, b"labels": labels}, protocol=2))
    meta = {b"label_names": [name.encode() for name in CIFAR10_CLASSES], b"num_cases_per_batch": per_batch}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return folder


def cifar10_binary(parent: Path, per_batch: int = 10) -> Path:
    folder = parent / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, (planes, labels) in cifar10_batches(per_batch).items():
        records = np.concatenate([np.array(labels, dtype=np.uint8)[:, None], planes], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(CIFAR10_CLASSES) + "\n\n")
    return folder


def cifar100_python(parent: Path) -> Path:
    """4 fine classes in 2 superclasses: fine label = k % 4, coarse = fine // 2."""
    folder = parent / "cifar-100-python"
    folder.mkdir(parents=True)
    for seed, name in enumerate(("train", "test")):
        planes, labels = cifar_arrays(12, 4, seed)
        content = {b"data": planes, b"fine_labels": labels, b"coarse_labels": [label // 2 for label in labels]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    meta = {
        b"fine_label_names": [b"beaver", b"otter", b"trout", b"shark"],
        b"coarse_label_names": [b"mammals", b"fish"],
    }
    (folder / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    return folder


def cifar100_binary(parent: Path) -> Path:
    folder = parent / "cifar-100-binary"
    folder.mkdir(parents=True)
    for seed, name in enumerate(("train.bin", "test.bin")):
        planes, labels = cifar_arrays(12, 4, seed)
        fine = np.array(labels, dtype=np.uint8)[:, None]
        (folder / name).write_bytes(np.concatenate([fine // 2, fine, planes], axis=1).tobytes())
    (folder / "fine_label_names.txt").write_text("beaver\notter\ntrout\nshark\n")
    (folder / "coarse_label_names.txt").write_text("mammals\nfish\n")
    return folder


def tarball(folder: Path, path: Path) -> Path:
    """A .tar.gz of `folder`, its files in reverse order: the published archives are not sorted either."""
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, folder.name, recursive=False)
        for file in sorted(folder.iterdir(), reverse=True):
            archive.add(file, f"{folder.name}/{file.name}")
    return path


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def mnist_arrays(num: int = 20, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num, 9, 7), dtype=np.uint8), np.arange(num, dtype=np.uint8) % 10


def mnist_files(zipped: bool = True) -> dict[str, bytes]:
    """The four published files by name, of 20 and 10 images of 7x9."""
    files = {}
    for seed, (split, num) in enumerate((("train", 20), ("t10k", 10))):
        images, labels = mnist_arrays(num, seed)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            blob = idx_bytes(array)
            name = f"{split}-{kind}-ubyte"
            files[f"{name}.gz" if zipped else name] = gzip.compress(blob, mtime=0) if zipped else blob
    return files


def mnist_folder(folder: Path, zipped: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, blob in mnist_files(zipped).items():
        (folder / name).write_bytes(blob)
    return folder


def png_bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
