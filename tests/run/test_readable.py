"""All that is written can be read again, whatever the number of classes and files; else it is refused in time."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from timebox.data import ImageDataset
from timebox.data.dataset import MAX_NAMES_BYTES, BadFile
from timebox.errors import DataError, OutputError
from timebox.file_versions import MODEL_FORMAT, SUMMARY_FORMAT
from timebox.files.folders import Folder
from timebox.run import files, metrics_log, tensors
from timebox.run.files import MAX_JSON_BYTES, read_json, to_file, to_json
from timebox.run.json_values import from_values
from timebox.run.metrics_log import MetricsLog
from timebox.run.model_config import ModelConfig, Preprocessing
from timebox.run.summary import MAX_BAD_FILES
from timebox.run.tensors import to_safetensors

FORM = Preprocessing(image_shape=(8, 8, 1), mean=(0.5,), std=(0.5,))


@pytest.mark.parametrize("num_classes", [2, 1_000, 20_000])
@pytest.mark.parametrize("name", ["class {}", "\x01\x02 {} é" + "長" * 40, "x" * 250 + "{}"])
def test_class_names_are_read_as_they_were_written(num_classes: int, name: str, tmp_path: Path) -> None:
    names = tuple(name.format(number) for number in range(num_classes))
    config = ModelConfig(class_names=names, preprocessing=FORM, recipe={})
    (tmp_path / "model.json").write_bytes(to_file(config, MODEL_FORMAT))
    values = read_json(tmp_path / "model.json", MODEL_FORMAT)
    assert from_values(values, ModelConfig, "model.json") == config


def test_the_limit_of_class_names_leaves_room_in_model_json() -> None:
    worst = json.dumps("\x01")  # a control character takes six bytes
    assert (len(worst) - 2) * MAX_NAMES_BYTES < 0.8 * MAX_JSON_BYTES
    per_class = len(to_json(["a", "b"])) - len(to_json(["a"]))
    assert per_class * 10_000_000 < MAX_JSON_BYTES, "ten million classes of one letter fit too"


def test_class_names_that_model_json_could_not_hold_are_refused_when_data_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("timebox.data.dataset.MAX_NAMES_BYTES", 9)
    images, labels = np.zeros((2, 8, 8, 1), np.uint8), np.array([0, 1])
    assert ImageDataset(images, labels, ("cats", "dögs"), ("a", "b")).num_classes == 2
    with pytest.raises(DataError) as caught:
        ImageDataset(images, labels, ("cats", "döggs"), ("a", "b"))
    assert str(caught.value) == (
        "the names of 2 classes take 10 bytes, and 9 are allowed: give the classes shorter names"
    )


def test_the_limit_is_exact_for_json_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"name": "x" * 100}
    largest = len(to_json(values))
    monkeypatch.setattr(files, "MAX_JSON_BYTES", largest)
    (tmp_path / "a.json").write_bytes(to_json(values))
    assert files.read_object(tmp_path / "a.json") == values
    with pytest.raises(OutputError) as caught:
        to_json({"name": "x" * 101})
    assert str(caught.value) == (
        f"a JSON file of {largest + 1} bytes could not be read again: at most {largest} are read"
    )


def test_a_header_of_tensors_that_could_not_be_read_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = {f"layer{i}": torch.zeros(1) for i in range(20)}
    monkeypatch.setattr(tensors, "MAX_HEADER_BYTES", int.from_bytes(to_safetensors(some)[:8], "little"))
    (tmp_path / "model.safetensors").write_bytes(to_safetensors(some))
    assert tensors.read_tensors(tmp_path / "model.safetensors", some).keys() == some.keys()
    with pytest.raises(OutputError, match=r"^the header of its 40 tensors has [\d,]+ bytes, over [\d,]+$"):
        to_safetensors({**some, **{f"more{i}": torch.zeros(1) for i in range(20)}})


def test_a_line_of_metrics_that_could_not_be_read_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"step": 1, "loss": 0.5}
    monkeypatch.setattr(metrics_log, "MAX_LINE_BYTES", len(json.dumps(entry)) + 1)
    with Folder(tmp_path) as folder:
        log = MetricsLog(folder)
        log.add(entry)
        with pytest.raises(OutputError, match=r"^a line of metrics\.jsonl of \d+ bytes could not be read again"):
            log.add({"step": 11, "loss": 0.5})
        log.flush()
        log.close()
    assert [line for _, line in metrics_log.read_metrics(tmp_path / "metrics.jsonl")] == [entry]


def test_the_bad_files_listed_in_a_summary_fit_whatever_their_names(tmp_path: Path) -> None:
    longest = "\x01" * 4096  # a path of Linux
    listed = [as_values(BadFile(longest, "x" * 1000)) for _ in range(MAX_BAD_FILES)]
    (tmp_path / "summary.json").write_bytes(to_json(SUMMARY_FORMAT.numbered({"bad_files": listed})))
    assert len(read_json(tmp_path / "summary.json", SUMMARY_FORMAT)["bad_files"]) == MAX_BAD_FILES  # type: ignore[arg-type]


def as_values(bad: BadFile) -> dict[str, object]:
    return dict(vars(bad))
