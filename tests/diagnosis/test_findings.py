"""`timebox doctor`: its findings, each on a machine made for it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from timebox.cli.formatting import json_line
from timebox.clock import now
from timebox.diagnosis import disks, findings, installation
from timebox.diagnosis.disks import CacheContent, Disk, disk_problems, measured_disk
from timebox.diagnosis.findings import Diagnosis, TrainingSpeed
from timebox.diagnosis.installation import Extra
from timebox.version import VERSION

SOURCE = Path(__file__).parents[2] / "src"
SPEED = TrainingSpeed("cpu", "AVX2", None, 2, "fp32", "airbench, width 16, 32 px", 723.0, 8.2)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two usable cores of two, a home and a working directory of the test's own, and nothing to measure."""
    monkeypatch.setattr("timebox.diagnosis.speed.measure_speed", lambda: SPEED)
    monkeypatch.setattr(findings, "available_threads", lambda: 2)
    monkeypatch.setattr(findings.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(findings, "available_memory", lambda: 8 << 30)
    monkeypatch.setattr(findings, "NVIDIA_DRIVER", tmp_path / "no driver")
    monkeypatch.setattr(findings.locale, "getencoding", lambda: "UTF-8")
    monkeypatch.setenv("TIMEBOX_CACHE", str(tmp_path / "cache"))
    for name in findings.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def problem(found: Diagnosis) -> str:
    (text,) = found.problems
    return text


@pytest.mark.usefixtures("quick")
def test_nothing_is_wrong(tmp_path: Path) -> None:
    found = findings.doctor()
    assert found.problems == ()
    assert (found.timebox, found.usable_cores, found.cores, found.speed) == (VERSION, 2, 2, SPEED)
    assert found.packages["torch"]
    assert [disk.use for disk in found.disks] == ["runs", "cache"]
    assert all(disk.write_seconds is not None and disk.free_bytes for disk in found.disks)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
    values = json.loads(json_line(found.as_dict()))
    assert values.pop("format") == 1
    assert msgspec.convert(values, Diagnosis) == found


@pytest.mark.usefixtures("quick")
def test_limits_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert problem(findings.doctor()) == "OMP_NUM_THREADS=1 limits training to 1 of 2 cores: unset it"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert findings.doctor().problems == ()
    monkeypatch.setattr(findings.os, "cpu_count", lambda: 16)
    assert problem(findings.doctor()).startswith(
        "2 of 16 cores may be used, by the quota of a container or by affinity"
    )
    monkeypatch.setattr(findings.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(findings, "available_memory", lambda: 900_000_000)
    assert problem(findings.doctor()).startswith("900.0 MB of memory are free: ")
    monkeypatch.setattr(findings, "available_memory", lambda: None)
    monkeypatch.setattr(findings.locale, "getencoding", lambda: "ANSI_X3.4-1968")
    assert problem(findings.doctor()).endswith("in which some file names cannot be shown: set LC_ALL=C.UTF-8")


@pytest.mark.usefixtures("quick")
def test_a_gpu_that_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    driver = tmp_path / "version"
    driver.touch()
    monkeypatch.setattr(findings, "NVIDIA_DRIVER", driver)
    assert "this torch is built without CUDA" in problem(findings.doctor())
    for_cuda = TrainingSpeed("cpu", "AVX2", "13.0", 2, "fp32", "airbench", 1.0, 1.0)
    monkeypatch.setattr("timebox.diagnosis.speed.measure_speed", lambda: for_cuda)
    assert "built for CUDA 13.0, cannot use it: update its driver" in problem(findings.doctor())
    for hiding in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hiding)
        assert problem(findings.doctor()) == (
            f"there is an NVIDIA GPU, and CUDA_VISIBLE_DEVICES={hiding} hides it: unset it"
        )
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    on_gpu = TrainingSpeed("NVIDIA H200", "AVX2", "13.0", 0, "bf16", "airbench", 1.0, 1.0)
    monkeypatch.setattr("timebox.diagnosis.speed.measure_speed", lambda: on_gpu)
    assert findings.doctor().problems == ()


@pytest.mark.usefixtures("quick")
def test_a_torch_that_cannot_be_imported_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = findings.doctor()
    assert found.speed is None
    assert problem(found).startswith("torch cannot be imported (ModuleNotFoundError: ")
    assert problem(found).endswith("pip install --force-reinstall torch")


def diagnose(place: Path, package: str, **env: str) -> dict[str, Any]:
    """`timebox doctor --json` in a process of its own in `place`, its home, beside a package that is damaged."""
    broken = place / "broken" / package
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('cannot open ' + __file__)\n")
    changes = {"HOME": str(place), "PYTHONPATH": f"{broken.parent}{os.pathsep}{SOURCE}", **env}
    command = [sys.executable, "-m", "timebox", "doctor", "--json"]
    done = subprocess.run(command, cwd=place, env={**os.environ, **changes}, capture_output=True, text=True, check=True)
    values: dict[str, Any] = json.loads(done.stdout)
    assert str(place) not in done.stdout
    return values


@pytest.mark.parametrize("package", ["torch", "numpy"])
def test_a_damaged_package_is_named_with_advice_and_without_the_home_directory(package: str, tmp_path: Path) -> None:
    assert diagnose(tmp_path, package)["problems"][0] == (
        f"{package} cannot be imported (ImportError: cannot open ~/broken/{package}/__init__.py): reinstall it, pip "
        f"install --force-reinstall {package}"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the locale C may be UTF-8")
def test_the_locale_c_is_a_problem(tmp_path: Path) -> None:
    problems = diagnose(tmp_path, "torch", LC_ALL="C")["problems"]
    assert any(text.startswith("the locale's encoding is ANSI_X3.4-1968, in which") for text in problems)


@pytest.mark.usefixtures("quick")
def test_a_measurement_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> TrainingSpeed:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr("timebox.diagnosis.speed.measure_speed", fail)
    assert problem(findings.doctor()) == (
        "a training cannot be measured (RuntimeError: no kernel image): where a package is damaged, pip install "
        "--force-reinstall timebox-vision"
    )


def test_a_training_is_measured() -> None:
    from timebox.diagnosis.speed import measure_speed

    started = now()
    speed = measure_speed()
    assert now() - started < 60
    assert speed.device
    assert speed.images_per_second > 0
    assert speed.epochs == pytest.approx(speed.images_per_second * 60 / 5000, rel=0.5)


def test_disks_and_what_is_wrong_with_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gone = measured_disk("runs", tmp_path / "gone", "./runs")
    assert gone.error == "No such file or directory"
    slow, full = Disk("runs", "./runs", 1.5, 9 << 30), Disk("cache", "~/cache", 0.01, 1 << 30)
    assert list(disk_problems([gone, slow, full])) == [
        "runs (./runs) cannot be written to: No such file or directory; give --out on another disk",
        "the disk of runs (./runs) is slow: a file of 256 KB takes 1.5 s; give --out on another disk",
        "the disk of cache (~/cache) has 1.1 GB left: free some, or set TIMEBOX_CACHE to a folder on another",
    ]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").touch()
    assert disks.disks()[0].error == "Not a directory"
    monkeypatch.setattr(disks, "cache_folder", lambda: None)
    assert disks.disks()[1].error == "this user has no home directory, and TIMEBOX_CACHE is not set"
    assert disks.cache_content() == CacheContent(0, 0)


def test_the_cache_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TIMEBOX_CACHE", str(tmp_path))
    for entry in ("a", "b"):
        (tmp_path / "prepared" / entry).mkdir(parents=True)
        (tmp_path / "prepared" / entry / "images").write_bytes(bytes(100))
    assert disks.cache_content() == CacheContent(num_datasets=2, num_bytes=200)


def test_extras_and_what_is_missing() -> None:
    requirements = [
        "torch>=2.10", 'numpy>=1; extra == "onnx"', "no-such-package>=1 ; python_version > '3' and extra == 'onnx'",
        'pytest; extra == "dev"', 'timebox-vision[onnx]; extra == "all"',
    ]  # fmt: skip
    (onnx,) = installation.extras(requirements)
    assert (onnx.name, list(onnx.installed), onnx.missing) == ("onnx", ["numpy"], ("no-such-package",))
    assert isinstance(onnx, Extra)
    assert {"onnx", "serve", "pretrained"} <= {
        extra.name for extra in installation.extras()
    } or not installation.extras()


def test_another_project_of_the_name_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(installation.installation_problems()) == []
    monkeypatch.setattr(installation, "installed_version", lambda package: "1.3")
    (text,) = installation.installation_problems()
    assert text.startswith("a package named timebox 1.3 is installed, which is another project")
