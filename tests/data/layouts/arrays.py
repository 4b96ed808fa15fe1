"""Arrays: IDX, pickles, .npz, Parquet, and the binaries and .mat files that are refused."""

import gzip
import io
import json

import numpy as np
import pytest
from PIL import Image

from ..making import CIFAR10_CLASSES, cifar10_python, cifar100_python, idx_bytes
from .miniature import Miniature
from .table import layout, reads, refused

DIGITS = tuple(map(str, range(10)))


def idx_files(mini: Miniature, folder: str, prefix: str = "") -> dict[str, bytes]:
    """The four IDX files of 20 training and 10 test images, by path below `folder`."""
    files = {}
    for name, split, num in (("train", "train", 20), ("t10k", "test", 10)):
        labels = [str(k % 10) for k in range(num)]
        for k, label in enumerate(labels):
            mini.owe(split, str(k), label)
        images = np.stack([mini.pixels(label, channels=1)[..., 0] for label in labels])
        files[f"{folder}{prefix}{name}-images-idx3-ubyte"] = idx_bytes(images)
        files[f"{folder}{prefix}{name}-labels-idx1-ubyte"] = idx_bytes(np.array(labels).astype(np.uint8))
    return files


@layout(
    "Fashion-MNIST",
    "fashion-mnist",
    reads(DIGITS, train=20, test=10),
    "https://github.com/zalandoresearch/fashion-mnist",
)
def fashion_mnist(mini: Miniature) -> None:
    for path, content in idx_files(mini, "").items():
        mini.binary(f"{path}.gz", gzip.compress(content))


@layout(
    "MNIST of torchvision",
    "MNIST",
    reads(DIGITS, says="raw/", train=20, test=10),
    "https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.MNIST.html",
)
def mnist_torchvision(mini: Miniature) -> None:
    for path, content in idx_files(mini, "raw/").items():
        mini.binary(path, content)
        mini.binary(f"{path}.gz", gzip.compress(content))


@layout(
    "EMNIST",
    "gzip",
    refused(match="emnist"),
    "https://www.nist.gov/itl/products-and-services/emnist-dataset",
)
def emnist(mini: Miniature) -> None:
    for name in ("digits", "letters"):
        mini.labels.clear()
        for path, content in idx_files(mini, "", f"emnist-{name}-").items():
            mini.binary(f"{path}.gz", gzip.compress(content))
        mini.text(f"emnist-{name}-mapping.txt", "0 48\n1 49\n")


@layout(
    "CIFAR-10",
    "cifar-10-batches-py",
    reads(tuple(CIFAR10_CLASSES), train=50, test=10),
    "https://www.cs.toronto.edu/~kriz/cifar.html",
)
def cifar10(mini: Miniature) -> None:
    cifar10_python(mini.root.parent)
    for split, num in (("train", 50), ("test", 10)):
        for k in range(num):
            mini.owe(split, str(k), CIFAR10_CLASSES[k % 10])
    mini.text(
        "readme.html", '<meta HTTP-EQUIV="REFRESH" content="0; url=http://www.cs.toronto.edu/~kriz/cifar.html">\n'
    )


@layout(
    "CIFAR-100",
    "cifar-100-python",
    reads(("beaver", "otter", "trout", "shark"), train=12, test=12),
    "https://www.cs.toronto.edu/~kriz/cifar.html",
)
def cifar100(mini: Miniature) -> None:
    cifar100_python(mini.root.parent)
    for split in ("train", "test"):
        for k in range(12):
            mini.owe(split, str(k), ("beaver", "otter", "trout", "shark")[k % 4])
    mini.text("file.txt~", "\n")


@layout(
    "MedMNIST",
    "pneumoniamnist.npz",
    reads(("0", "1"), train=8, val=4, test=4),
    "https://zenodo.org/records/10519652",
)
def medmnist(mini: Miniature) -> None:
    arrays = {}
    for split, num in (("train", 8), ("val", 4), ("test", 4)):
        labels = [str(k % 2) for k in range(num)]
        for k, label in enumerate(labels):
            mini.owe(split, str(k), label)
        arrays[f"{split}_images"] = np.stack([mini.pixels(label, channels=1)[..., 0] for label in labels])
        arrays[f"{split}_labels"] = np.array(labels).astype(np.uint8)[:, None]
    np.savez_compressed(mini.root, **arrays)


@layout(
    "Hugging Face Parquet",
    "beans",
    reads(("angular_leaf_spot", "bean_rust", "healthy"), train=9, val=3, test=3),
    "https://huggingface.co/datasets/AI-Lab-Makerere/beans",
)
def hugging_face_parquet(mini: Miniature) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow, of the extra `tables`, is not installed")
    from pyarrow import parquet

    classes = ("angular_leaf_spot", "bean_rust", "healthy")
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    fields = [("image_file_path", pyarrow.string()), ("image", image), ("labels", pyarrow.int64())]
    features = {"image": {"_type": "Image"}, "labels": {"names": list(classes), "_type": "ClassLabel"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    schema = pyarrow.schema(fields, metadata=metadata)
    mini.text("README.md", "---\ndataset_info: {}\n---\n")
    (mini.root / "data").mkdir()
    for name, split, num in (("train", "train", 9), ("validation", "val", 3), ("test", "test", 3)):
        rows = []
        for k in range(num):
            label = classes[k % 3]
            mini.owe(split, str(k), label)
            cell = {"bytes": jpeg_bytes(mini, label), "path": f"{label}_{name}.{k}.jpg"}
            # The path on the machine of the person who uploaded it.
            path = f"/home/albert/.cache/huggingface/datasets/downloads/{name}/{label}/{label}_{name}.{k}.jpg"
            rows.append({"image_file_path": path, "image": cell, "labels": classes.index(label)})
        table = pyarrow.Table.from_pylist(rows, schema=schema)
        parquet.write_table(table, mini.root / "data" / f"{name}-00000-of-00001.parquet")


def jpeg_bytes(mini: Miniature, label: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mini.pixels(label)).save(buffer, "JPEG")
    return buffer.getvalue()


@layout(
    "STL-10",
    "stl10_binary",
    refused(match=r"\.bin"),
    "https://cs.stanford.edu/~acoates/stl10/",
)
def stl10(mini: Miniature) -> None:
    for split in ("train", "test"):
        mini.binary(f"{split}_X.bin", bytes(2 * 3 * 96 * 96))
        mini.binary(f"{split}_y.bin", b"\1\2")
    mini.binary("unlabeled_X.bin", bytes(3 * 96 * 96))
    mini.text("class_names.txt", "airplane\nbird\n")
    mini.text("fold_indices.txt", "0 1\n")


@layout(
    "SVHN",
    "svhn",
    refused(match=r"_32x32\.mat"),
    "http://ufldl.stanford.edu/housenumbers/",
)
def svhn(mini: Miniature) -> None:
    for split in ("train", "test", "extra"):
        mini.binary(f"{split}_32x32.mat")
