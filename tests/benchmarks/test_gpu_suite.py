"""The GPU suite: that every chunk runs, with nothing installed but what a GPU machine has, and ends in time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import BENCHMARKS

from gpu_suite import CHUNKS, main  # isort: skip

NUM_CHUNKS = 10
# Run as a program from which the packages of a desk are kept away.
BARE = """
import runpy, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("scipy", "sklearn", "rich", "platformdirs", "tomli_w"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
ALWAYS = {"chunk", "commit", "device", "torch", "time", "smoke", "kind"}


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.integration
def test_every_chunk_runs_with_torch_numpy_pillow_and_safetensors_alone(tmp_path: Path) -> None:
    out = tmp_path / "new" / "results.jsonl"
    words = [*map(str, range(NUM_CHUNKS)), "--smoke", "--out", str(out), "--commit", "abc1234"]
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS.parent / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BARE, str(BENCHMARKS / "gpu_suite.py"), *words],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    log = lines(out)
    assert len(CHUNKS) == NUM_CHUNKS
    assert [line["chunk"] for line in log if line["kind"] == "done"] == list(CHUNKS)
    for line in log:
        assert set(line) >= ALWAYS
        assert (line["commit"], line["device"], line["smoke"]) == ("abc1234", "cpu", True)
    trials = [line for line in log if line["kind"] == "trial"]
    assert {str(line["chunk"]) for line in trials} == set(CHUNKS) - {"step"}
    for line in trials:
        assert set(line) >= {"recipe", "seed", "accuracy", "tta", "target", "n", "data", "steps", "epochs", "precision"}
        assert "train_seconds" in line or "phases" in line
        assert isinstance(line["recipe"], dict)
    ends = [line for line in log if line["kind"] == "end"]
    assert {line["n"] for line in ends} == {2}
    assert not any(line["enough"] for line in ends)
    ways = [line for line in log if line["kind"] == "step"]
    assert [line["name"] for line in ways] == [f"{n} {w}" for n in ("airbench94", "haet2021") for w in WAYS]


WAYS = ("eager", "replayed")


def test_a_chunk_stops_before_its_time_is_up(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    main(["cifar10-94", "precision", "--smoke", "--seconds", "0.01", "--out", str(out)])
    ends = [line for line in lines(out) if line["kind"] == "end"]
    assert [line["n"] for line in ends] == [1] * 6, "one round is always made"


def test_the_summary_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.jsonl"
    main(["cifar10-94", "superconvergence", "--smoke", "--out", str(out)])
    capsys.readouterr()
    main(["--summary", str(out)])
    shown = capsys.readouterr().out.splitlines()
    assert [line[:54].rstrip() for line in shown] == [
        "cifar10-94               cifar10   airbench94",
        "cifar10-94               cifar10   growing, 8.5 epochs",
        "cifar10-94               cifar10   growing, 9.0 epochs",
    ]
    for line in shown:
        assert " n   2 " in line
        assert " 94 % missed " in line


def test_recipes_and_epochs_can_be_changed(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    main(["1", "--smoke", "--set", "label_smoothing=0.3", "--out", str(out)])
    main(["superconvergence", "--smoke", "--set", "label_smoothing=0.3", "--set", "flip=random", "--out", str(out)])
    recipes = [line["recipe"] for line in lines(out) if line["kind"] == "trial"]
    assert [recipe["label_smoothing"] for recipe in recipes] == [0.3] * 7  # type: ignore[index]


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--list"])
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in listed] == [[str(i), name] for i, name in enumerate(CHUNKS)]
    assert all(line.endswith(".") for line in listed)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing", "--out", "x", "--smoke"], "no chunk nothing; --list shows them"),
        (["99", "--out", "x", "--smoke"], "no chunk 99; --list shows them"),
        (["1"], "give a chunk and --out, or --list"),
        (["1", "--out", "x"], "torch finds no CUDA GPU here; --smoke runs on the CPU"),
    ],
)
def test_what_cannot_be_run_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_missing_data_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(SystemExit) as caught:
        main(["cifar10-94", "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert str(caught.value.code).startswith(
        f"no cifar10 in {str(tmp_path)!r}: --data must hold one of cifar-10-batches-py"
    )
