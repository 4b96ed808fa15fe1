"""Golden runs of earlier versions, unpacked."""

import tarfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
VERSIONS = sorted(file.parent.name for file in HERE.glob("*/expected.npz"))


def unpack(version: str, name: str, folder: Path) -> Path:
    """Unpack one run, search or benchmark of a version into a folder; its path."""
    with tarfile.open(HERE / version / f"{name}.tar.xz") as archive:
        # Python before 3.11.4 has no filters.
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return folder / name


@pytest.fixture(scope="module", params=VERSIONS)
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All golden directories of a version, beside their data. Tests must not write to them."""
    folder = tmp_path_factory.mktemp("golden") / request.param
    folder.mkdir()
    for archive in (HERE / request.param).glob("*.tar.xz"):
        unpack(request.param, archive.name.removesuffix(".tar.xz"), folder)
    for data in (HERE / request.param).glob("*.npz"):
        (folder / data.name).write_bytes(data.read_bytes())
    return folder


@pytest.fixture
def place(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory of a test: it holds the data under the names in the runs, and receives new files."""
    for data in golden.glob("*.npz"):
        (tmp_path / data.name).write_bytes(data.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path
