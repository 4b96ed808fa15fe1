"""Export in 8-bit integers: smaller, as accurate, and refused where it is not."""

from pathlib import Path

import numpy as np
import pytest

import timebox
from small_runs import CLASSES, coloured, quick, refusal
from timebox.errors import DataError, UsageError
from timebox.exporting import int8
from timebox.exporting.onnx_runtime import import_onnxruntime
from timebox.run import Run

pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with 330 validation images."""
    folder = tmp_path_factory.mktemp("int8")
    images, labels = coloured(450, seed=3)
    others, other_labels = coloured(330, seed=4)
    np.savez(
        folder / "data.npz", train_images=images, train_labels=labels, val_images=others, val_labels=other_labels,
        class_names=np.array(CLASSES),
    )  # fmt: skip
    return quick(folder / "data.npz", folder / "run", steps=60)


def test_it_is_smaller_and_as_accurate_and_says_so(run: Run) -> None:
    exported = timebox.export(run, int8=True)
    found = exported.quantization
    assert found is not None
    assert exported.path == run.path / "model.int8.onnx"
    assert (found.num_calibration, found.num_images) == (99, 231)
    assert found.num_bytes == exported.num_bytes < found.float_num_bytes
    assert found.accuracy > found.float_accuracy - 0.01
    assert found.float_accuracy > 0.9
    assert min(found.images_per_second, found.float_images_per_second) > 0
    session = import_onnxruntime().InferenceSession(exported.path.read_bytes(), providers=["CPUExecutionProvider"])
    images = coloured(60, seed=9)[0]
    (probabilities,) = session.run(["probabilities"], {"images": images})
    assert (probabilities.argmax(1) == run.predict_indices(images)).mean() > 0.95
    assert "QuantizeLinear" in {node.op_type for node in _nodes(exported.path)}


def _nodes(path: Path) -> list[object]:
    import onnx

    return list(onnx.load(path).graph.node)


def test_where_it_costs_too_much_nothing_is_written(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter((0.9, 0.87))
    monkeypatch.setattr(int8, "_accuracy", lambda predict, dataset: next(accuracies))
    message = refusal(lambda: timebox.export(run, int8=True, output=tmp_path / "a.onnx"), UsageError)
    assert message == (
        'int8 costs 3.0 points of accuracy: 87.0 % in place of 90.0 % of 231 images; max_loss="POINTS" allows more '
        "than 1"
    )
    assert list(tmp_path.iterdir()) == []
    accuracies = iter((0.9, 0.87))
    assert timebox.export(run, int8=True, output=tmp_path / "a.onnx", max_loss=5).path.is_file()


def test_the_place_of_a_layer_is_that_in_its_branch(tmp_path: Path) -> None:
    """Two branches of four and of two layers, from one input to one sum."""
    import onnx

    def layer(name: str, before: str, after: str) -> onnx.NodeProto:
        return onnx.helper.make_node("Conv", [before, "w"], [after], name=name)

    names = ["a0", "a1", "a2", "a3"]
    nodes = [layer(name, f"x{k}" if k else "images", f"x{k + 1}") for k, name in enumerate(names)]
    nodes += [layer("b0", "images", "y1"), layer("b1", "y1", "y2")]
    nodes.append(onnx.helper.make_node("Add", ["x4", "y2"], ["probabilities"]))
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in ("images", "probabilities")]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "two", values[:1], values[1:])), tmp_path / "m.onnx")
    found = int8._layers(tmp_path / "m.onnx")
    assert found == pytest.approx({"a0": 0, "a1": 1 / 3, "a2": 2 / 3, "a3": 1, "b0": 0, "b1": 1})


def test_activations_are_part_of_their_layer_and_depthwise_weights_have_eight_bits(tmp_path: Path) -> None:
    """ReLU6 of sums that reach far beyond 6, and weights that seven bits round to zero."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {
        "grey": rng.normal(size=(8, 1, 3, 3)).astype(np.float32),  # one channel, but no depthwise convolution
        "depthwise": rng.normal(size=(8, 1, 3, 3)).astype(np.float32),
        "last": rng.normal(size=(3, 8, 1, 1)).astype(np.float32),
    }
    limits = {"low": np.float32(0), "high": np.float32(6)}
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "grey"], ["a"], name="grey", group=1),
        helper.make_node("Clip", ["a", "low", "high"], ["b"], name="clip"),
        helper.make_node("Conv", ["b", "depthwise"], ["c"], name="depthwise", group=8),
        helper.make_node("Conv", ["c", "last"], ["d"], name="last"),
        helper.make_node("ReduceMean", ["d"], ["probabilities"], axes=[2, 3], keepdims=0),
    ]
    given = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 8, 8, 1])
    found = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in {**weights, **limits}.items()]
    graph = helper.make_graph(nodes, "small", [given], [found], constants)
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), source)
    assert int8._depthwise_weights(source, []) == ["depthwise"]
    assert int8._depthwise_weights(source, ["depthwise"]) == []
    int8._write(source, target, rng.integers(0, 256, (64, 8, 8, 1), dtype=np.uint8), [])
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(target).graph.initializer}
    assert {name: int(np.abs(tensors[f"{name}_quantized"].astype(int)).max()) for name in weights} == {
        "grey": 64, "depthwise": 127, "last": 64
    }  # fmt: skip
    scales = [float(value) for name, value in tensors.items() if name in ("a_scale", "b_scale")]
    assert scales == pytest.approx([6 / 255], rel=1e-3), "one range, that of the clipped values"


def test_layers_stay_in_float_until_the_predictions_are_alike(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    divergences = iter((0.5, 0.02, 0.001))
    monkeypatch.setattr(int8, "_divergence", lambda expected, found: next(divergences))
    exported = timebox.export(run, int8=True, output=run.path / "third.onnx", max_loss=50)
    found = exported.quantization
    assert found is not None
    assert 0 < found.num_float_layers <= found.num_layers / 2
    assert next(divergences, None) is None, "the third share is taken"
    monkeypatch.setattr(int8, "_divergence", lambda expected, found: 1.0)
    last = timebox.export(run, int8=True, output=run.path / "last.onnx", max_loss=50).quantization
    assert last is not None
    assert found.num_float_layers < last.num_float_layers < last.num_layers


def test_the_divergence_is_zero_for_equal_predictions_and_grows() -> None:
    probabilities = np.array([[0.9, 0.1], [0.5, 0.5]], np.float32)
    assert int8._divergence(probabilities, probabilities) == 0
    other = np.array([[0.8, 0.2], [0.5, 0.5]], np.float32)
    expected = (0.9 * np.log(0.9 / 0.8) + 0.1 * np.log(0.1 / 0.2)) / 2
    assert int8._divergence(probabilities, other) == pytest.approx(expected, rel=1e-4)
    sure = np.array([[1.0, 0.0]], np.float32)
    assert np.isfinite(int8._divergence(sure, sure[:, ::-1]))


def test_other_data_and_too_few_images(tmp_path: Path) -> None:
    images, labels = coloured(150)
    np.savez(tmp_path / "few.npz", train_images=images, train_labels=labels, class_names=np.array(CLASSES))
    trained = quick(tmp_path / "few.npz", tmp_path / "run", steps=40)
    assert "200 are needed" in refusal(
        lambda: timebox.export(trained, int8=True, output=tmp_path / "a.onnx"), DataError
    )
    images, labels = coloured(400, seed=8)
    np.savez(tmp_path / "more.npz", train_images=images, train_labels=labels, class_names=np.array(CLASSES))
    exported = timebox.export(trained, int8=True, data=tmp_path / "more.npz", output=tmp_path / "a.onnx", max_loss=50)
    assert exported.quantization is not None
    assert exported.quantization.num_images == 280


def test_only_onnx_has_it(run: Run, tmp_path: Path) -> None:
    assert "onnx" in refusal(lambda: timebox.export(run, "torch", int8=True, output=tmp_path / "a.pt2"), UsageError)
