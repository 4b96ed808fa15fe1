"""Trainings with code of the user's: every verb works with it, and a run of a stranger runs none."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import own_networks
import timebox
from own_networks import NETWORKS, ConvNet, Mlp, Tied, adam, brighten, focal, noise, sgd_with_groups
from small_runs import coloured, save_npz, weights
from timebox import TimeboxClassifier
from timebox.custom import names
from timebox.errors import RunError, UsageError
from timebox.jobs import initial_weights
from timebox.pipelines import evaluate, train
from timebox.progress import SilentReporter, StepStatus
from timebox.recipes import check_trial_code
from timebox.run import Run, load

OPTIONS: dict[str, Any] = {"device": "cpu", "precision": "fp32", "init": "scratch"}
ALL = {"network": ConvNet, "augment": brighten, "loss": focal, "optimizer": adam}


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_objects", {})
    monkeypatch.setattr(names, "_trusted", set())


def forget() -> None:
    """As another process, in which nothing was given yet."""
    names._objects.clear()
    names._trusted.clear()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_npz(tmp_path_factory.mktemp("data") / "data.npz", 96, num_val=12, num_test=30)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_trained_loaded_and_scored(name: str, data: Path, tmp_path: Path) -> None:
    network = NETWORKS[name]
    run = train(data, steps=4, network=network, out=tmp_path / "run", **OPTIONS)
    record = json.loads((run.path / "model.json").read_text())["code"]["model"]
    assert record["name"] == f"own_networks:{network.__name__}"  # type: ignore[attr-defined]
    assert len(record["source_sha256"]) == 64
    assert run.recipe.name == "adamw"
    forget()
    with pytest.raises(UsageError, match="is code, and only imported where you say so"):
        load(run.path)
    images, _ = coloured(8, seed=9)
    for given in ({"network": network}, {"trust_code": True}):
        forget()
        loaded = load(run.path, **given)  # type: ignore[arg-type]
        assert np.allclose(loaded.predict_proba(images), run.predict_proba(images), atol=1e-6)
        assert evaluate(loaded, data, split="test").accuracy == pytest.approx(run.test_accuracy)


def test_a_module_is_trained_from_its_weights(data: Path, tmp_path: Path) -> None:
    network = ConvNet(3)
    run = train(data, steps=1, network=network, settings=["max_lr=1e-6"], out=tmp_path / "run", **OPTIONS)
    trained = run.model.head.weight
    assert isinstance(trained, Tensor)
    assert torch.allclose(trained, network.head.weight, atol=1e-4)
    forget()
    with pytest.raises(UsageError, match="was an object in a Python program: give it again, as network=…"):
        load(run.path, trust_code=True)
    assert load(run.path, network=ConvNet(3)).class_names == run.class_names


@pytest.mark.parametrize("recipe", ["auto", "haet2021", "adamw"])
def test_steps_are_repeated_byte_for_byte(recipe: str, data: Path, tmp_path: Path) -> None:
    code = {**ALL, "augment": noise}
    first, second = (train(data, steps=3, recipe=recipe, out=tmp_path / str(i), **code, **OPTIONS) for i in range(2))
    assert weights(first) == weights(second)
    other = train(data, steps=3, recipe=recipe, out=tmp_path / "other", **{**code, "augment": None}, **OPTIONS)
    assert weights(other) != weights(first)


@pytest.mark.parametrize("settings", [[], ["mixup=0.5"], ["class_balance=1"], ["ensemble_size=2"]])
def test_each_part_works_with_the_recipes_own_network(settings: list[str], data: Path, tmp_path: Path) -> None:
    for option in ("augment", "loss", "optimizer"):
        settings = ["width=4", "batch_size=32", *settings]
        run = train(data, steps=2, settings=settings, out=tmp_path / option, **{option: ALL[option]}, **OPTIONS)
        assert list(run.config["code"]) == [option]  # type: ignore[call-overload]
        assert run.test_accuracy is not None


class Stop(SilentReporter):
    """Presses Ctrl-C after some steps."""

    def step(self, status: StepStatus) -> None:
        if status.step >= 4:
            raise KeyboardInterrupt


@pytest.mark.parametrize("optimizer", [adam, sgd_with_groups, None])
def test_a_stopped_run_goes_on_as_if_nothing_had_been(optimizer: Any, data: Path, tmp_path: Path) -> None:
    code = {**ALL, "network": Mlp, "optimizer": optimizer}  # which has dropout
    whole = train(data, steps=8, out=tmp_path / "whole", **code, **OPTIONS)
    stopped = train(data, steps=8, out=tmp_path / "stopped", reporter=Stop(), **code, **OPTIONS)
    assert stopped.summary["stopped"]
    forget()
    with pytest.raises(UsageError, match="is code, and only imported where you say so"):
        train(resume=stopped.path)
    forget()
    again = code if optimizer else {"trust_code": True}
    assert weights(train(resume=stopped.path, **again)) == weights(whole)
    forget()
    replayed = train(replay=whole.path, out=tmp_path / "replayed", **again)
    assert replayed.summary["identical"] is True


def test_a_training_begins_with_the_weights_of_an_own_network(data: Path, tmp_path: Path) -> None:
    first = train(data, steps=2, network=ConvNet, out=tmp_path / "first", **OPTIONS)
    options = {**OPTIONS, "init": first.path, "settings": ["max_lr=1e-6"], "recipe": "adamw"}
    forget()
    with pytest.raises(UsageError, match="is code, and only imported where you say so"):
        train(data, steps=1, out=tmp_path / "second", **options)
    second = train(data, steps=1, out=tmp_path / "second", trust_code=True, **options)
    weight, before = second.model.conv.weight, first.model.conv.weight
    assert isinstance(weight, Tensor)
    assert isinstance(before, Tensor)
    assert torch.allclose(weight, before, atol=1e-4)


def test_the_rows_of_an_own_head_follow_the_classes(data: Path, tmp_path: Path) -> None:
    first = train(data, steps=2, network=own_networks.without_head, out=tmp_path / "first", **OPTIONS)
    reordered = save_npz(tmp_path / "reordered.npz", 96, num_val=12, num_test=30, names=first.class_names[::-1])
    options = {**OPTIONS, "init": first.path, "settings": ["max_lr=1e-6"], "recipe": "adamw", "trust_code": True}
    second = train(reordered, steps=1, out=tmp_path / "second", **options)
    assert second.class_names == first.class_names[::-1]
    before, after = (list(run.model.parameters())[-2] for run in (first, second))
    assert torch.allclose(before.flip(0), after, atol=1e-4)
    network = nn.Sequential(nn.Flatten(), nn.Bilinear(2, 2, 3))
    with pytest.raises(UsageError, match="has an output for each of its 3 classes"):
        initial_weights._head_of(network, 3)


def test_modules_as_loss_and_augmentation(data: Path, tmp_path: Path) -> None:
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]), reduction="none")
    run = train(data, steps=2, loss=weighted, augment=nn.Hardtanh(0, 1), out=tmp_path / "run", **OPTIONS)
    assert run.recipe.loss.startswith("given:CrossEntropyLoss")
    center = nn.CrossEntropyLoss(reduction="none")
    center.register_parameter("centers", nn.Parameter(torch.zeros(3)))
    with pytest.raises(UsageError, match="has parameters, which are not trained"):
        train(data, steps=2, loss=center, out=tmp_path / "other", **OPTIONS)


def test_code_in_place_of_what_is_built_in_is_refused(data: Path, tmp_path: Path) -> None:
    run = train(data, steps=1, settings=["width=4", "batch_size=32"], out=tmp_path / "run", **OPTIONS)
    with pytest.raises(UsageError, match="network cannot be given: the run's is 'airbench', which is built in"):
        load(run.path, network=Mlp)


def test_changed_code_is_warned_about(data: Path, tmp_path: Path) -> None:
    run = train(data, steps=1, network=Mlp, out=tmp_path / "run", **OPTIONS)
    config = json.loads((run.path / "model.json").read_text())
    config["code"]["model"]["source_sha256"] = "0" * 64
    (run.path / "model.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="source file of the network 'own_networks:Mlp' has changed"):
        load(run.path, trust_code=True)


def wrong_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.mean()


def failing(images: Tensor) -> Tensor:
    raise ValueError("no such colour")


def smaller(images: Tensor) -> Tensor:
    return images[:, :, 1:]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ({"loss": wrong_loss}, r"a loss for each of 32 images, shape \(32,\), and returned \(\)"),
        ({"augment": failing}, r"augmentation '.*test_own_code:failing' failed: ValueError: no such colour \(.*:\d+\)"),
        ({"augment": smaller}, r"must return images of shape \(32, 3, 16, 16\), and returned \(32, 3, 15, 16\)"),
        ({"network": failing}, r"network '.*failing' failed: ValueError"),
        ({"network": 3}, "network is a int: give a function"),
        ({"network": "own_networks:Netz"}, "has no 'Netz'"),
        ({"optimizer": own_networks.lbfgs}, "LBFGS needs a closure"),
    ],
    ids=["loss", "augmentation fails", "augmentation's shape", "network fails", "no code", "no such name", "closure"],
)
def test_code_that_cannot_be_used_is_named(code: dict[str, Any], says: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        train(data, steps=2, settings=["batch_size=32"], out=tmp_path / "run", **code, **OPTIONS)


def test_the_estimator_takes_them(tmp_path: Path) -> None:
    images, labels = coloured(90)
    classifier = TimeboxClassifier(steps=3, random_state=0, network=Mlp, loss=focal, device="cpu").fit(images, labels)
    classifier.save(tmp_path / "saved")
    forget()
    with pytest.raises(UsageError, match="is code, and only imported"):
        TimeboxClassifier.load(tmp_path / "saved")
    forget()
    with pytest.raises(RunError, match="its parameters name the code 'own_networks:focal', which is only used with"):
        TimeboxClassifier.load(tmp_path / "saved", network=Mlp)
    forget()
    loaded = TimeboxClassifier.load(tmp_path / "saved", trust_code=True)
    assert np.array_equal(loaded.predict_proba(images[:5]), classifier.predict_proba(images[:5]))


MODULE = """
from pathlib import Path
from torch import nn

Path(__file__).with_name("imported").touch()


def net(num_classes, image_shape):
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""


def timebox_in(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "timebox", *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.integration
def test_a_run_of_a_stranger_runs_no_code(data: Path, tmp_path: Path) -> None:
    (tmp_path / "mynet.py").write_text(MODULE)
    shutil.copy(data, tmp_path / "data.npz")
    trained = timebox_in(
        tmp_path, "train", "data.npz", "--steps", 3, "--network", "mynet:net", "--device", "cpu", "--out", "run"
    )
    assert trained.returncode == 0, trained.stderr
    mark = tmp_path / "imported"
    assert mark.exists()
    mark.unlink()
    for words in (["predict", "run", "x.png"], ["evaluate", "run", "data.npz"], ["report", "run", "--overwrite"]):
        done = timebox_in(tmp_path, *words)
        assert not mark.exists(), words
        if words[0] == "evaluate":
            assert done.returncode == 2
            assert "only imported where you say so, with --trust-code" in done.stderr
    evaluated = timebox_in(tmp_path, "evaluate", "run", "data.npz", "--trust-code")
    assert evaluated.returncode == 0, evaluated.stderr


@pytest.mark.parametrize("verb", ["export", "replay", "load", "model"])
def test_no_verb_imports_what_a_run_names(verb: str, data: Path, tmp_path: Path) -> None:
    run = train(data, steps=1, network=Mlp, out=tmp_path / "run", **OPTIONS)
    forget()
    with pytest.raises(UsageError, match="is code, and only imported where you say so"):
        match verb:
            case "export":
                timebox.export(run.path, "torch")
            case "replay":
                train(replay=run.path, out=tmp_path / "again")
            case "load":
                load(run.path)
            case _:
                _ = Run(run.path).model


def test_a_recipe_file_is_not_trusted(data: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs.toml").write_text('extends = "auto"\nmodel = "own_networks:Mlp"\n')
    options = {**OPTIONS, "recipe": str(tmp_path / "theirs.toml"), "steps": 1, "out": tmp_path / "run"}
    with pytest.raises(UsageError, match="is code, and only imported where you say so"):
        train(data, **options)
    run = train(data, trust_code=True, **options)
    forget()
    with pytest.raises(UsageError, match="is code, and only imported where you say so"):
        train(data, **{**options, "recipe": Run(run.path).recipe, "out": tmp_path / "other"})


def test_a_study_names_no_code_that_its_search_does_not() -> None:
    with pytest.raises(UsageError, match="'evil:f' is code, and imported only with trust_code=True"):
        check_trial_code("auto", ["model=evil:f"])


@pytest.mark.parametrize("recipe", ["haet2021", "airbench94"])
def test_a_parameter_that_is_never_used_is_left_alone(recipe: str, data: Path, tmp_path: Path) -> None:
    run = train(data, steps=2, recipe=recipe, network=Tied, settings=["batch_size=32"], out=tmp_path / "run", **OPTIONS)
    assert torch.equal(run.model.unused.cpu(), torch.ones(3))  # type: ignore[operator,union-attr]


@pytest.mark.integration
@pytest.mark.parametrize("network", [ConvNet, Tied])
def test_a_network_and_its_rate_are_planned_within_a_budget(network: Any, data: Path, tmp_path: Path) -> None:
    run = train(data, budget="14s", network=network, out=tmp_path / "run", **OPTIONS)
    assert run.summary["late"] is False
    if network is Tied:  # one of its layers is frozen
        return
    assert run.recipe.max_lr == 2e-3 or any("range test" in line for line in run.summary["plan"])  # type: ignore[union-attr]
    planned = timebox.plan(data, budget="30s", network=ConvNet, device="cpu", precision="fp32")
    assert planned.recipe.model == "own_networks:ConvNet"


@pytest.mark.integration
def test_an_onnx_file_computes_the_same(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    run = train(data, steps=3, network=own_networks.TinyVit, out=tmp_path / "run", **OPTIONS)
    exported = timebox.export(run, output=tmp_path / "model.onnx")
    assert exported.path.exists()


@pytest.mark.integration
def test_a_benchmark_compares_them(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(own_networks.__file__).parent))
    done = timebox.benchmark(
        data, recipes=["auto model=own_networks:ConvNet"], seeds=1, trial_budget="16s", out=tmp_path / "bench"
    )
    assert done.summary["num_done"] == 1
    with pytest.raises(UsageError, match="known in this program alone"):
        timebox.benchmark(data, recipes=["auto model=given:Net-1"], trial_budget="10s", out=tmp_path / "other")
    forget()
    with pytest.raises(UsageError, match="imported only with trust_code=True"):
        timebox.benchmark(resume=tmp_path / "bench")


def test_runs_are_found_by_their_recorded_name_alone(data: Path, tmp_path: Path) -> None:
    run = train(data, steps=1, network=lambda n: ConvNet(n, 4), out=tmp_path / "run", **OPTIONS)
    assert run.recipe.model.startswith("given:lambda-")
    assert isinstance(Run(run.path).model, torch.nn.Module)
