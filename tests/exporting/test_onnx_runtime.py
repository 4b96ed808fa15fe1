"""ONNX Runtime is imported without its telemetry: no thread, no device id and no database in the user's cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from timebox.exporting.onnx_runtime import TELEMETRY_SWITCH, import_onnxruntime
from timebox.run import Run

EXAMPLE = Path(__file__).parents[2] / "examples" / "serve_onnx.py"

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def installed() -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra `onnx`, is not installed")


def files_left_by(code: list[str], home: Path) -> tuple[str, list[str]]:
    """(standard output, files in the home directory) of a Python process without the switch in its environment."""
    home.mkdir()
    env = {key: value for key, value in os.environ.items() if key not in (TELEMETRY_SWITCH, "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, *code], env={**env, "HOME": str(home)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, sorted(path.name for path in home.rglob("*") if path.is_file())


def test_the_command_line_sends_nothing(plain: Run, tmp_path: Path) -> None:
    words = ["-m", "timebox", "export", str(plain.path), "--output", str(tmp_path / "a.onnx")]
    assert files_left_by(words, tmp_path / "home")[1] == []
    assert (tmp_path / "a.onnx").is_file()


def test_python_sends_nothing_and_the_environment_is_as_before(plain: Run, tmp_path: Path) -> None:
    code = (
        "import os, sys, timebox\n"
        f"timebox.export({str(plain.path)!r}, output={str(tmp_path / 'a.onnx')!r})\n"
        f"print('onnxruntime' in sys.modules, {TELEMETRY_SWITCH!r} in os.environ)"
    )
    assert files_left_by(["-c", code], tmp_path / "home") == ("True False\n", [])


def test_the_example_sends_nothing(plain: Run, tmp_path: Path) -> None:
    files_left_by(["-m", "timebox", "export", str(plain.path), "--output", str(tmp_path / "a.onnx")], tmp_path / "one")
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")  # without a file to label, the example serves
    printed, left = files_left_by([str(EXAMPLE), str(tmp_path / "a.onnx"), str(tmp_path / "a.png")], tmp_path / "two")
    assert printed.startswith(f"{tmp_path / 'a.png'}: ")
    assert left == []


def test_a_users_own_setting_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TELEMETRY_SWITCH, "0")
    import_onnxruntime()
    assert os.environ[TELEMETRY_SWITCH] == "0"


def test_a_failed_import_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TELEMETRY_SWITCH, raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError):
        import_onnxruntime()
    assert TELEMETRY_SWITCH not in os.environ
