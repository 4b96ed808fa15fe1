"""Misspelt, missing and surplus arguments of the public functions are refused in a plain sentence."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import timebox
from timebox.configs.call import SYNONYMS, refuse_unknown_arguments

FUNCTIONS = (
    "benchmark", "compare", "evaluate", "export", "inspect", "load", "lr_find", "plan", "predict", "report", "train",
    "tune",
)  # fmt: skip


def refusal(call: Callable[[], object], kind: type[Exception] = timebox.ArgumentError) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_refuses_an_unknown_argument(name: str) -> None:
    message = refusal(lambda: getattr(timebox, name)("x", nonesuch=1))
    assert message.startswith(f"timebox.{name} has no argument 'nonesuch'; it takes ")
    assert issubclass(timebox.ArgumentError, TypeError)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"budgt": "10m"}, "has no argument 'budgt'; did you mean 'budget'?"),
        ({"x_valid": 1}, "has no argument 'x_valid'; did you mean 'val'?"),
        ({"validation": "v"}, "has no argument 'validation'; did you mean 'val'?"),
        ({"time_limit": 60}, "has no argument 'time_limit'; did you mean 'budget'?"),
        ({"random_state": 0}, "has no argument 'random_state'; did you mean 'seed'?"),
        ({"max_lr": 0.1}, "has no argument 'max_lr'; did you mean 'settings'?"),
        ({"Out": "r"}, "has no argument 'Out'; did you mean 'out'?"),
        ({"stepss": 3, "sed": 1}, "'stepss'; did you mean 'steps'?; timebox.train has no argument 'sed'; did you mean"),
    ],
)
def test_the_likely_name_is_given(arguments: dict[str, object], hint: str) -> None:
    assert hint in refusal(lambda: timebox.train("x", **arguments))  # type: ignore[arg-type]


def test_missing_and_surplus_arguments() -> None:
    assert refusal(lambda: timebox.evaluate("run")) == "timebox.evaluate lacks the argument 'data'"  # type: ignore[call-arg]
    assert refusal(lambda: timebox.predict()) == "timebox.predict lacks the argument 'run', 'images'"  # type: ignore[call-arg]
    assert refusal(lambda: timebox.train("x", "10m")) == (  # type: ignore[misc]
        "timebox.train takes data by place, and 2 values were given: give the others by name, such as budget=…"
    )
    assert refusal(lambda: timebox.load("a", "cpu", 1)) == (  # type: ignore[call-arg]
        "timebox.load takes path, device by place, and 3 values were given: give the others by name, such as network=…"
    )
    assert refusal(lambda: timebox.train("x", data="y")) == (  # type: ignore[misc]
        "timebox.train was given 'data' twice, by place and by name"
    )


def test_methods_of_public_classes(trained: timebox.Run) -> None:
    assert refusal(lambda: trained.predict("a.png", tt="none")) == (  # type: ignore[call-arg]
        "timebox.Run.predict has no argument 'tt'; did you mean 'tta'?"
    )
    assert refusal(lambda: trained.predict_proba()) == "timebox.Run.predict_proba lacks the argument 'images'"  # type: ignore[call-arg]
    assert refusal(lambda: timebox.TimeboxClassifier(budgt="10s")) == (  # type: ignore[call-arg]
        "timebox.TimeboxClassifier has no argument 'budgt'; did you mean 'budget'?"
    )
    assert timebox.TimeboxClassifier("10s").get_params()["budget"] == "10s"


def test_a_wrapped_function_keeps_its_values_and_errors() -> None:
    @refuse_unknown_arguments
    def double(value: int, *, by: int = 2) -> int:
        """Doc."""
        if by == 0:
            raise TypeError("its own")
        return value * by

    assert double(3, by=4) == 12
    assert double.__doc__ == "Doc."
    with pytest.raises(TypeError, match=r"^its own$"):
        double(3, by=0)


def test_synonyms_are_no_names_of_the_same_function() -> None:
    assert len(SYNONYMS) >= 10
    assert all(one not in words for one, words in SYNONYMS.items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": ""}, "data '' must be a text that is not empty"),
        ({"val": ""}, "val '' must be a fraction between 0 and 1, a path, 'rest' or 'none'"),
        ({"test": ""}, "test '' must be a fraction between 0 and 1, a path or 'none'"),
        ({"out": ""}, "out '' must be a text that is not empty"),
        ({"recipe": ""}, "recipe '' must be a text that is not empty"),
        ({"init": ""}, "init '' must be a text that is not empty"),
        ({"resume": ""}, "resume '' must be a text that is not empty"),
        ({"data_dir": ""}, "data_dir '' must be a text that is not empty"),
        ({"group_by": ""}, "group_by '' must be a text that is not empty"),
        ({"device": ""}, "device '' must be one of auto, cpu, cuda"),
        ({"budget": "", "steps": None}, "budget '' is not a duration"),
        ({"data": None}, "say what to train on: a path, or a name such as digits"),
        (
            {"data": np.zeros((4, 8, 8))},
            "data is a ndarray: give a path, a name, or timebox.ImageDataset(images, labels, class_names, ids); "
            "TimeboxClassifier().fit(X, y) takes arrays",
        ),
        ({"data": ["a.png"]}, "data is a list: give a path, a name, or timebox.ImageDataset("),
    ],
)
def test_empty_and_impossible_arguments_of_train(arguments: dict[str, object], message: str) -> None:
    call = {"data": "digits", "steps": 3, **arguments}
    assert message in refusal(lambda: timebox.train(**call), timebox.UsageError)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: timebox.load(""), "run '' must be the path of a run directory, such as 'runs/demo'"),
        (lambda: timebox.load(None), "run None must be the path of a run directory, such as 'runs/demo'"),  # type: ignore[arg-type]
        (lambda: timebox.predict("", ["a.png"]), "run '' must be the path of a run directory, such as 'runs/demo'"),
        (lambda: timebox.predict("runs/x", []), "images [] must be one image or more: arrays, paths or PIL images"),
        (lambda: timebox.evaluate("", "digits"), "run '' must be a text that is not empty"),
        (lambda: timebox.evaluate("runs/x", ""), "data '' must be a text that is not empty"),
        (lambda: timebox.report(""), "run '' must be the path of a run directory, such as 'runs/demo'"),
        (lambda: timebox.export(""), "run '' must be a text that is not empty"),
        (lambda: timebox.inspect(""), "data '' must be a text that is not empty"),
        (lambda: timebox.inspect("digits", image_size=0), "image_size 0 must be a whole number of at least 8"),
        (lambda: timebox.compare("runs/x"), "give two runs or more to compare, as a list"),
        (lambda: timebox.compare(["a", "b"], output=""), "output '' must be a text that is not empty"),
        (lambda: timebox.lr_find(""), "data '' must be a text that is not empty"),
        (lambda: timebox.tune("", budget="2m"), "data '' must be a text that is not empty"),
        (lambda: timebox.benchmark("", trial_budget="10s"), "data '' must be a text that is not empty"),
    ],
)
def test_empty_arguments_of_other_functions(call: Callable[[], object], message: str) -> None:
    assert refusal(call, timebox.UsageError) == message


def test_an_empty_output_is_no_default(trained: timebox.Run, tmp_path: Path) -> None:
    assert refusal(lambda: timebox.report(trained, output=""), timebox.UsageError) == (
        "output '' must be a text that is not empty"
    )
    assert refusal(lambda: timebox.export(trained, output=""), timebox.UsageError) == (
        "output '' must be a text that is not empty"
    )
