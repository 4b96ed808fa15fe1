"""The seeds of the fuzz targets are valid input; `make fuzz` runs the fuzzing itself."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from timebox.data.reading import encoded_images

FUZZ = Path(__file__).parents[1] / "fuzz"
NUM_TARGETS = 20


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """fuzz/seeds.py and fuzz/targets.py, without the harness, which needs atheris."""
    harness = ModuleType("harness")
    vars(harness).update(fuzz=None, Target=object)
    monkeypatch.setitem(sys.modules, "harness", harness)
    monkeypatch.syspath_prepend(FUZZ)
    # The target of the cache changes these.
    monkeypatch.setattr(encoded_images, "MIN_CACHED_PIXELS", encoded_images.MIN_CACHED_PIXELS)
    monkeypatch.setenv("TIMEBOX_CACHE", "")
    loaded = {}
    for name in ("seeds", "targets"):
        spec = importlib.util.spec_from_file_location(name, FUZZ / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        loaded[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded[name])
    return loaded


def test_every_seed_is_valid(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    modules["seeds"].main(tmp_path / "corpus")
    targets = modules["targets"].TARGETS
    assert len(targets) == NUM_TARGETS
    assert set(targets) == {path.name for path in (tmp_path / "corpus").iterdir()}
    for name, target in targets.items():
        if name == "recipe":  # one input is read as a file and as settings, and is valid as one of the two
            continue
        seeds = sorted((tmp_path / "corpus" / name).iterdir())
        assert seeds
        for seed in seeds:
            scratch = tmp_path / f"{name}-{seed.name}"
            scratch.mkdir()
            target(scratch, seed.read_bytes())
    makefile = (FUZZ.parent / "Makefile").read_text(encoding="utf-8")
    line = next(line for line in makefile.replace("\\\n", " ").splitlines() if line.startswith("FUZZ_TARGETS"))
    assert set(line.split()[2:]) == set(targets)
