"""Correct exports pass the parity check and wrong ones fail, for every recipe, image fit, precision and format."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from timebox import Recipe, Run
from timebox.data.images.fit import BELOW_HALF, fit_weights
from timebox.evaluation.tta import NUM_VIEWS
from timebox.exporting import ParityCheck, export, model_with_preprocessing
from timebox.exporting.model_with_preprocessing import ModelWithPreprocessing
from timebox.exporting.parity import (
    EPSILON,
    MARGIN,
    PredictFn,
    ReferenceOutputs,
    compute_reference,
    images_without_ties,
    max_relative_error,
)
from timebox.recipes.builtin import RECIPES

from .conftest import ExportedOnce, TrainingResult, max_difference, onnx_predict

FITS = get_args(get_type_hints(Recipe)["image_fit"])
# Correct models differ by less than the tolerance divided by the first, wrong ones by more than it times the second.
MIN_MARGIN, MIN_EXCESS = 5, 3


def test_all_recipes_and_fits_are_covered() -> None:
    assert set(RECIPES) == {"haet2021", "dawnbench", "airbench94", "superconvergence", "adamw"}
    assert set(FITS) == {"crop", "letterbox"}


def precision_and_fit(recipe: str, number: int) -> tuple[str, str]:
    """One of the four combinations of precision and fit, for number 0...3; each recipe starts with another one."""
    number += list(RECIPES).index(recipe)
    return ("fp32", "bf16")[number % 2], FITS[number // 2 % 2]


def margin_of(checks: Sequence[ParityCheck]) -> float:
    assert len(checks) == 3
    return min(check.allowed / max(check.difference, EPSILON) for check in checks)


def check(run: Run, views: str) -> tuple[ParityCheck, ...]:
    """The parity check of the model before it is traced."""
    return compute_reference(run, views).compare(predict_fn(ModelWithPreprocessing(run, views).eval()))


@pytest.mark.integration
@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("recipe", RECIPES)
def test_correct_torch_program_is_accepted(exported: ExportedOnce, recipe: str, number: int) -> None:
    _, program = exported("torch", recipe, *precision_and_fit(recipe, 3 * number))
    assert margin_of(program.checks) > MIN_MARGIN


@pytest.mark.integration
@pytest.mark.parametrize("recipe", RECIPES)
def test_correct_onnx_file_is_accepted(exported: ExportedOnce, recipe: str) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra `onnx`, is not installed")
    run, file = exported("onnx", recipe, *precision_and_fit(recipe, 1))
    assert margin_of(file.checks) > MIN_MARGIN
    for shape in ((3, 20, 20), (3, 20, 61), (3, 90, 33)):
        assert max_difference(onnx_predict(file.path), run, shape) < file.checks[0].allowed


@pytest.mark.integration
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("image_fit", FITS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_traced_model_is_accepted(trained: TrainingResult, recipe: str, image_fit: str, precision: str) -> None:
    run = trained(recipe, precision, image_fit)
    views = run.views("recipe")
    assert (
        margin_of(compute_reference(run, views).compare(predict_fn(ModelWithPreprocessing(run, views).eval())))
        > MIN_MARGIN
    )


@pytest.mark.parametrize("views", NUM_VIEWS)
def test_every_view_setting_is_accepted(run: Run, views: str) -> None:
    assert (
        margin_of(compute_reference(run, views).compare(predict_fn(ModelWithPreprocessing(run, views).eval())))
        > MIN_MARGIN
    )


def predict_fn(program: ModelWithPreprocessing, resize: Callable[..., Tensor] | None = None) -> PredictFn:
    """The model as a function of arrays, with another resize function where one is given."""

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
            if resize:
                patch.setattr(model_with_preprocessing, "batch_fit", resize)
            return program(torch.from_numpy(images)).numpy()

    return predict


def resized(mode: str, **options: bool) -> Callable[..., Tensor]:
    """A replacement for ``batch_fit`` that resizes by ``torch.nn.functional.interpolate`` with the given mode."""

    def resize(images: Tensor, height: int, width: int, fit: str) -> Tensor:
        rows, columns = images.shape[2:]
        scale = (min if fit == "crop" else max)(rows / height, columns / width)
        if fit == "crop":
            crop = round(height * scale), round(width * scale)
            top, left = (rows - crop[0]) // 2, (columns - crop[1]) // 2
            part = images[:, :, top : top + crop[0], left : left + crop[1]]
            return F.interpolate(part, size=(height, width), mode=mode, **options).round()
        inside = F.interpolate(images, size=(round(rows / scale), round(columns / scale)), mode=mode, **options)
        top, left = (height - inside.shape[2]) // 2, (width - inside.shape[3]) // 2
        bottom, right = height - top - inside.shape[2], width - left - inside.shape[3]
        return F.pad(inside, (left, right, top, bottom)).round()

    return resize


def stretched(images: Tensor, height: int, width: int, fit: str) -> Tensor:
    return F.interpolate(images, size=(height, width), mode="bilinear", antialias=True).round()


def wrong_models(run: Run, views: str) -> Iterator[tuple[str, PredictFn]]:
    """Exported models with one fault each: the fault and the model's predictions."""

    def program(**changes: object) -> ModelWithPreprocessing:
        model = ModelWithPreprocessing(run, views).eval()
        model.model = deepcopy(model.model)
        for name, value in changes.items():
            setattr(model, name, value)
        return model

    correct = program()
    yield "channels swapped", lambda images: predict_fn(correct)(np.ascontiguousarray(images[..., ::-1]))
    yield "classes permuted", lambda images: predict_fn(correct)(images)[:, [0, 2, 1]]
    yield "no number", lambda images: predict_fn(correct)(images) * np.float32(np.nan)
    yield "mean", predict_fn(program(mean=correct.mean * 1.02))
    yield "std", predict_fn(program(std=correct.std * 1.02))
    yield "temperature", predict_fn(program(temperature=run.temperature * 1.02))
    if run.temperature != 1.0:
        yield "no temperature", predict_fn(program(temperature=1.0))
    yield "views", predict_fn(program(tta="none" if views != "none" else "mirror"))
    yield "fit", predict_fn(program(fit="letterbox" if correct.fit == "crop" else "crop"))
    yield "stretched", predict_fn(correct, stretched)
    yield "nearest", predict_fn(correct, resized("nearest"))
    yield "no antialias", predict_fn(correct, resized("bilinear"))
    yield "alignment", predict_fn(correct, resized("bilinear", align_corners=True))
    for layer in range(3):
        for change in ("all * 1.1", "a channel * 1.1", "a channel 0"):
            changed = program()
            weight, channel = weight_of(changed, layer)
            (weight if change == "all * 1.1" else weight[channel]).mul_(0 if change == "a channel 0" else 1.1)
            yield f"{change} in layer {layer}", predict_fn(changed)


def weight_of(program: ModelWithPreprocessing, layer: int) -> tuple[Tensor, int]:
    """The weight of the first, a middle or the last layer, and its output channel with the largest effect on the loss.

    A change to a dead channel would change no prediction.
    """
    weights = [weight for weight in program.model.parameters() if weight.dim() > 1]
    weight = (weights[0], weights[len(weights) // 2], weights[-1])[layer]
    images = torch.rand(8, 3, 20, 20, generator=torch.Generator().manual_seed(0)) * 4 - 2
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(program.model(images).log_softmax(1)[:, 0].sum(), weight)
    return weight.detach(), int((gradient * weight).detach().flatten(1).sum(1).abs().argmax())


def excess(expected: ReferenceOutputs, predict: PredictFn) -> float:
    """The difference of a wrong model as a multiple of the tolerance, on the image size where it is largest."""
    pairs = zip(expected.images, expected.probabilities, strict=True)
    return max(max_relative_error(predict(images), exact) for images, exact in pairs) / expected.allowed


@pytest.mark.integration
@pytest.mark.parametrize("image_fit", FITS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_wrong_models_are_refused(trained: TrainingResult, recipe: str, image_fit: str) -> None:
    run = trained(recipe, "fp32", image_fit)
    views = run.views("recipe")
    expected = compute_reference(run, views)
    correct = expected.compare(predict_fn(ModelWithPreprocessing(run, views).eval()))
    assert all(check.difference * MIN_MARGIN < check.allowed == expected.allowed for check in correct)
    kinds = []
    for kind, predict in wrong_models(run, views):
        kinds.append(kind)
        with pytest.raises(RuntimeError, match="the exported model differs from the run by more than rounding"):
            expected.compare(predict)
        assert kind == "no number" or excess(expected, predict) > MIN_EXCESS, kind
    assert len(kinds) == len(set(kinds)) >= 21


@pytest.mark.integration
def test_wrong_program_is_not_written(plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = ModelWithPreprocessing.forward
    monkeypatch.setattr(ModelWithPreprocessing, "forward", lambda self, images: forward(self, images.flip(3)))
    with pytest.raises(RuntimeError, match="nothing is written"):
        export(plain, "torch", output=tmp_path / "a.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("image_fit", FITS)
@pytest.mark.parametrize("size", [(32, 32), (24, 21), (65, 96), (64, 64), (48, 48), (21, 100)])
def test_images_without_ties_resize_alike_in_any_precision(size: tuple[int, int], image_fit: str) -> None:
    run = SimpleNamespace(
        preprocessing=SimpleNamespace(size=(32, 32), channels=3), recipe=SimpleNamespace(image_fit=image_fit)
    )
    images = images_without_ties(run, 4, *size)
    assert (images.shape, images.dtype) == ((4, *size, 3), np.uint8)
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).double()
    down, across = fit_weights(planes, 32, 32, image_fit)
    resized = down @ planes @ across.T
    to_tie = ((resized + BELOW_HALF) % 1 - 0.5).abs().min()
    assert to_tie > 255 * EPSILON
    down, across = fit_weights(planes.float(), 32, 32, image_fit)
    assert (down @ planes.float() @ across.T - resized).abs().max() < to_tie / 4


def test_number_of_threads_is_restored(trained: TrainingResult) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        compute_reference(trained("haet2021"), "none")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_network_that_magnifies_rounding_errors_is_refused(trained: TrainingResult) -> None:
    run = trained("haet2021")
    run.model = deepcopy(run.model)
    with torch.no_grad():
        run.model.head.weight += 1e4  # equal for all classes, so that large numbers cancel
    with pytest.raises(RuntimeError, match="the network magnifies rounding errors too much"):
        compute_reference(run, "none")


def test_tolerance_is_at_least_one_rounding_per_layer(trained: TrainingResult) -> None:
    run = trained("haet2021")
    run.model = deepcopy(run.model)
    with torch.no_grad():
        run.model.head.weight.zero_()
    assert compute_reference(run, "none").allowed == MARGIN * EPSILON * len(list(filter(is_leaf, run.model.modules())))


def is_leaf(module: torch.nn.Module) -> bool:
    return not list(module.children())
