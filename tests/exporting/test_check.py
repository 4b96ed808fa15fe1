"""Right exports are accepted and wrong ones refused: every recipe, fit, precision and format."""

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
from timebox.exporting import Check, export
from timebox.exporting import model_with_preprocessing as graph
from timebox.exporting.check import (
    EPSILON,
    MARGIN,
    Answer,
    Reference,
    pictures_without_ties,
    reference,
    relative_difference,
)
from timebox.exporting.model_with_preprocessing import Graph
from timebox.recipe.builtin import RECIPES

from .conftest import ExportedOnce, TrainingResult, apart, onnx_answers

FITS = get_args(get_type_hints(Recipe)["image_fit"])
# What is right stays so many times below what is allowed, what is wrong so many times above.
LEAST_MARGIN, LEAST_EXCESS = 5, 3


def test_these_are_all_recipes_and_fits() -> None:
    assert set(RECIPES) == {"haet2021", "dawnbench", "airbench94", "superconvergence"}
    assert set(FITS) == {"crop", "letterbox"}


def precision_and_fit(recipe: str, number: int) -> tuple[str, str]:
    """Of four numbers, each precision with each fit; another first one for each recipe."""
    number += list(RECIPES).index(recipe)
    return ("fp32", "bf16")[number % 2], FITS[number // 2 % 2]


def margin_of(checks: Sequence[Check]) -> float:
    assert len(checks) == 3
    return min(check.allowed / max(check.difference, EPSILON) for check in checks)


@pytest.mark.integration
@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_right_program_is_accepted(exported: ExportedOnce, recipe: str, number: int) -> None:
    _, program = exported("torch", recipe, *precision_and_fit(recipe, 3 * number))
    assert margin_of(program.checks) > LEAST_MARGIN


@pytest.mark.integration
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_right_onnx_file_is_accepted(exported: ExportedOnce, recipe: str) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra `onnx`, is not installed")
    run, file = exported("onnx", recipe, *precision_and_fit(recipe, 1))
    assert margin_of(file.checks) > LEAST_MARGIN
    for size in ((20, 20), (20, 61), (90, 33)):
        assert apart(onnx_answers(file.path), run, 3, *size) < file.checks[0].allowed


@pytest.mark.integration
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("image_fit", FITS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_exported_is_accepted(trained: TrainingResult, recipe: str, image_fit: str, precision: str) -> None:
    run = trained(recipe, precision, image_fit)
    views = run.views("recipe")
    assert margin_of(reference(run, views).compare(answers_of(Graph(run, views).eval()))) > LEAST_MARGIN


@pytest.mark.parametrize("views", NUM_VIEWS)
def test_all_views_are_exported(run: Run, views: str) -> None:
    assert margin_of(reference(run, views).compare(answers_of(Graph(run, views).eval()))) > LEAST_MARGIN


def answers_of(program: Graph, resize: Callable[..., Tensor] | None = None) -> Answer:
    def answer(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
            if resize:
                patch.setattr(graph, "batch_fit", resize)
            return program(torch.from_numpy(images)).numpy()

    return answer


def resized(mode: str, **options: bool) -> Callable[..., Tensor]:
    """A resizing by torch's own filter, for images that are cropped or have a letterbox."""

    def resize(images: Tensor, height: int, width: int, fit: str) -> Tensor:
        rows, columns = images.shape[2:]
        scale = (min if fit == "crop" else max)(rows / height, columns / width)
        if fit == "crop":
            kept = round(height * scale), round(width * scale)
            top, left = (rows - kept[0]) // 2, (columns - kept[1]) // 2
            part = images[:, :, top : top + kept[0], left : left + kept[1]]
            return F.interpolate(part, size=(height, width), mode=mode, **options).round()
        inside = F.interpolate(images, size=(round(rows / scale), round(columns / scale)), mode=mode, **options)
        top, left = (height - inside.shape[2]) // 2, (width - inside.shape[3]) // 2
        bottom, right = height - top - inside.shape[2], width - left - inside.shape[3]
        return F.pad(inside, (left, right, top, bottom)).round()

    return resize


def stretched(images: Tensor, height: int, width: int, fit: str) -> Tensor:
    return F.interpolate(images, size=(height, width), mode="bilinear", antialias=True).round()


def wrong_answers(run: Run, views: str) -> Iterator[tuple[str, Answer]]:
    """What exports answer that are wrong in one way each."""

    def program(**changes: object) -> Graph:
        made = Graph(run, views).eval()
        made.model = deepcopy(made.model)
        for name, value in changes.items():
            setattr(made, name, value)
        return made

    right = program()
    yield "channels swapped", lambda images: answers_of(right)(np.ascontiguousarray(images[..., ::-1]))
    yield "classes permuted", lambda images: answers_of(right)(images)[:, [0, 2, 1]]
    yield "no number", lambda images: answers_of(right)(images) * np.float32(np.nan)
    yield "mean", answers_of(program(mean=right.mean * 1.02))
    yield "std", answers_of(program(std=right.std * 1.02))
    yield "temperature", answers_of(program(temperature=run.temperature * 1.02))
    if run.temperature != 1.0:
        yield "no temperature", answers_of(program(temperature=1.0))
    yield "views", answers_of(program(tta="none" if views != "none" else "mirror"))
    yield "fit", answers_of(program(fit="letterbox" if right.fit == "crop" else "crop"))
    yield "stretched", answers_of(right, stretched)
    yield "nearest", answers_of(right, resized("nearest"))
    yield "no antialias", answers_of(right, resized("bilinear"))
    yield "alignment", answers_of(right, resized("bilinear", align_corners=True))
    for layer in range(3):
        for change in ("all * 1.1", "a channel * 1.1", "a channel 0"):
            changed = program()
            weight, channel = weight_of(changed, layer)
            (weight if change == "all * 1.1" else weight[channel]).mul_(0 if change == "a channel 0" else 1.1)
            yield f"{change} in layer {layer}", answers_of(changed)


def weight_of(program: Graph, layer: int) -> tuple[Tensor, int]:
    """The weight of the first convolution that learns, one in the middle or the last layer, and the output channel that
    counts the most: a channel may be dead, and then nobody can tell what its weights are."""
    weights = [weight for weight in program.model.parameters() if weight.dim() > 1]
    weight = (weights[0], weights[len(weights) // 2], weights[-1])[layer]
    images = torch.rand(8, 3, 20, 20, generator=torch.Generator().manual_seed(0)) * 4 - 2
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(program.model(images).log_softmax(1)[:, 0].sum(), weight)
    return weight.detach(), int((gradient * weight).detach().flatten(1).sum(1).abs().argmax())


def excess(expected: Reference, answer: Answer) -> float:
    """How many times a wrong answer differs by more than is allowed, on the size of pictures that shows it best."""
    pairs = zip(expected.pictures, expected.probabilities, strict=True)
    return max(relative_difference(answer(images), exact) for images, exact in pairs) / expected.allowed


@pytest.mark.integration
@pytest.mark.parametrize("image_fit", FITS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_wrong_answers_are_refused(trained: TrainingResult, recipe: str, image_fit: str) -> None:
    run = trained(recipe, "fp32", image_fit)
    views = run.views("recipe")
    expected = reference(run, views)
    right = expected.compare(answers_of(Graph(run, views).eval()))
    assert all(check.difference * LEAST_MARGIN < check.allowed == expected.allowed for check in right)
    kinds = []
    for kind, answer in wrong_answers(run, views):
        kinds.append(kind)
        with pytest.raises(RuntimeError, match="the exported model answers otherwise than the run"):
            expected.compare(answer)
        assert kind == "no number" or excess(expected, answer) > LEAST_EXCESS, kind
    assert len(kinds) == len(set(kinds)) >= 21


@pytest.mark.integration
def test_a_wrong_program_is_not_written(plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Graph.forward
    monkeypatch.setattr(Graph, "forward", lambda self, images: forward(self, images.flip(3)))
    with pytest.raises(RuntimeError, match="nothing is written"):
        export(plain, "torch", output=tmp_path / "a.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("image_fit", FITS)
@pytest.mark.parametrize("size", [(32, 32), (24, 21), (65, 96), (64, 64), (48, 48), (21, 100)])
def test_pictures_are_resized_alike_in_any_precision(size: tuple[int, int], image_fit: str) -> None:
    run = SimpleNamespace(
        preprocessing=SimpleNamespace(size=(32, 32), channels=3), recipe=SimpleNamespace(image_fit=image_fit)
    )
    images = pictures_without_ties(run, 4, *size)
    assert (images.shape, images.dtype) == ((4, *size, 3), np.uint8)
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).double()
    down, across = fit_weights(planes, 32, 32, image_fit)
    resized = down @ planes @ across.T
    to_tie = ((resized + BELOW_HALF) % 1 - 0.5).abs().min()
    assert to_tie > 255 * EPSILON
    down, across = fit_weights(planes.float(), 32, 32, image_fit)
    assert (down @ planes.float() @ across.T - resized).abs().max() < to_tie / 4


def test_threads_are_as_they_were(trained: TrainingResult) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        reference(trained("haet2021"), "none")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_network_that_magnifies_rounding_errors_is_not_compared(trained: TrainingResult) -> None:
    run = trained("haet2021")
    run.model = deepcopy(run.model)
    with torch.no_grad():
        run.model.head.weight += 1e4  # the same for all classes, so that large numbers cancel
    with pytest.raises(RuntimeError, match="the network magnifies rounding errors too much"):
        reference(run, "none")


def test_rounding_counts_as_one_per_layer_at_least(trained: TrainingResult) -> None:
    run = trained("haet2021")
    run.model = deepcopy(run.model)
    with torch.no_grad():
        run.model.head.weight.zero_()
    assert reference(run, "none").allowed == MARGIN * EPSILON * len(list(filter(is_leaf, run.model.modules())))


def is_leaf(module: torch.nn.Module) -> bool:
    return not list(module.children())
