"""Any folder is read or refused, and reading never blocks."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timebox.data import load_data
from timebox.errors import DataError

from ..making import picture, png_bytes

# Many drawn examples.
pytestmark = pytest.mark.integration

PICTURES = [png_bytes(picture((9, 8), mode, seed)) for seed, mode in enumerate(("RGB", "L", "P", "1", "LA"))]
NAMES = (
    st.sampled_from(["train", "Test", "val", "cat", "dog", "0.png", "1.jpg", ".hidden", "2.PNG", "a.npz", "test_batch"])
    | st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=8)
    | st.binary(min_size=1, max_size=5).map(lambda raw: os.fsdecode(raw.replace(b"/", b"_").replace(b"\0", b"_")))
).filter(lambda name: name not in (".", ".."))
CONTENTS = st.sampled_from([*PICTURES, *(blob[:60] for blob in PICTURES), b"", "pipe", "loop", "up", "gone"])
TREES = st.recursive(CONTENTS, lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=14)


def plant(path: Path, tree: object) -> None:
    """A tree of folders (dictionaries), files (bytes) and whatever else a file system can hold."""
    match tree:
        case dict():
            path.mkdir(exist_ok=True)
            for name, inner in tree.items():
                plant(path / name, inner)
        case bytes():
            path.write_bytes(tree)
        case "pipe":
            os.mkfifo(path)
        case _:
            path.symlink_to({"loop": path.name, "up": "..", "gone": "none"}[str(tree)])


@settings(max_examples=40)
@given(tree=st.dictionaries(NAMES, TREES, max_size=5))
def test_any_tree(tree: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plant(Path(folder), tree)
        try:
            loaded = load_data(folder, max_bad_share=0.9)
        except DataError:
            return
        "".join([*loaded.splits.train.class_names, *loaded.splits.train.ids, *loaded.notes]).encode()
