"""Parameter groups of the optimizers that recipes build."""

import torch

from timebox.builders import build_model, build_optimizer
from timebox.optim import MuonGroup, SGDGroup
from timebox.recipes import get_recipe
from tiny import tiny_recipe


def test_biases_have_a_group_of_their_own() -> None:
    recipe = tiny_recipe(max_lr=0.5, weight_decay=0.01, bias_lr_multiplier=64.0)
    model = build_model(recipe, 3, 10)
    optimizer = build_optimizer(model, recipe, torch.float32)
    weights, biases = optimizer.groups
    assert isinstance(weights, SGDGroup)
    assert isinstance(biases, SGDGroup)
    assert (weights.lr_multiplier, weights.weight_decay) == (1.0, 0.01)
    assert (biases.lr_multiplier, biases.weight_decay) == (64.0, 0.01 / 64)
    assert {id(p) for p in biases.parameters} == {id(p) for n, p in model.named_parameters() if n.endswith("bias")}
    grouped = [id(p) for group in optimizer.groups for p in group.parameters]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_filters_are_under_muon_and_the_whitening_bias_freezes_early() -> None:
    recipe = get_recipe("airbench94").replace(width=4)
    model = build_model(recipe, 3, 10)
    head, biases, whitening, filters = build_optimizer(model, recipe, torch.bfloat16).groups
    named = {id(p): name for name, p in model.named_parameters()}
    assert [named[id(p)] for p in head.parameters] == ["head.weight"]
    assert [named[id(p)] for p in whitening.parameters] == ["whitening.bias"]
    assert (whitening.freeze_at, whitening.lr_multiplier) == (0.375, biases.lr_multiplier)
    assert isinstance(filters, MuonGroup)
    assert len(filters.parameters) == 6
    assert {p.dim() for p in filters.parameters} == {4}
    assert filters.dtype is torch.bfloat16
    assert recipe.max_lr * filters.lr_multiplier == 0.24
    grouped = [id(p) for group in (head, biases, whitening, filters) for p in group.parameters]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_a_frozen_parameter_has_no_gradient() -> None:
    recipe = get_recipe("airbench94").replace(width=4)
    model = build_model(recipe, 3, 10)
    optimizer = build_optimizer(model, recipe, torch.float32)
    for progress, is_trainable in ((0.1, True), (0.5, False)):
        optimizer.prepare(1.0, 0.85, progress)
        model(torch.randn(4, 3, 9, 9)).square().sum().backward()
        gradient = model.whitening.bias.grad  # type: ignore[union-attr]
        assert (gradient is not None) == is_trainable
        optimizer.step()
        optimizer.zero_grad()


def test_identity_init_follows_the_recipe() -> None:
    for identity_init in (False, True):
        model = build_model(tiny_recipe(identity_init=identity_init), 3, 10)
        convolution = next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3))
        first = convolution.weight[0]
        assert (first.count_nonzero() == 1) == identity_init
