"""Configs as a whole: their values, their errors, the signatures that they stand for, and the choices they share."""

import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

import timebox
from timebox.cli import VERBS, parse
from timebox.configs import options
from timebox.configs.arguments import to_arguments
from timebox.configs.benchmark import BenchmarkConfig
from timebox.configs.config import Config, options_of
from timebox.configs.data import DataConfig
from timebox.configs.lr_find import LrFindConfig
from timebox.configs.train import TrainConfig
from timebox.configs.tune import TuneConfig
from timebox.configs.verbs import EvaluateConfig, PlanConfig
from timebox.errors import BudgetError, RunError, UsageError
from timebox.evaluation.tta import NUM_VIEWS
from timebox.runtime.precision import PRECISIONS

# Parameters of the public functions that are no options.
NO_OPTIONS = {"progress", "reporter", "deadline", "notify", "on_trial"}
FUNCTIONS: list[tuple[Callable[..., object], type[Config]]] = [
    (timebox.train, TrainConfig),
    (timebox.evaluate, EvaluateConfig),
    (timebox.lr_find, LrFindConfig),
    (timebox.plan, PlanConfig),
    (timebox.benchmark, BenchmarkConfig),
    (timebox.tune, TuneConfig),
]


def refusal(call: Callable[[], object], kind: type[Exception] = UsageError) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return str(caught.value)


@pytest.mark.parametrize(("function", "config"), FUNCTIONS, ids=[config.__name__ for _, config in FUNCTIONS])
def test_a_public_function_takes_the_options_of_its_config(
    function: Callable[..., object], config: type[Config]
) -> None:
    parameters = {name: one for name, one in inspect.signature(function).parameters.items() if name not in NO_OPTIONS}
    assert set(parameters) == set(options_of(config)) - {"join"}, "join is a function of its own"
    defaults = {name: one.default for name, one in parameters.items() if one.default is not inspect.Parameter.empty}
    needed = {name: "x" for name in parameters if name not in defaults}
    assert config(**needed, **defaults) == config(**needed)


def test_values_are_converted() -> None:
    config = TrainConfig(data=Path("a"), budget="1h30m", settings=["a=1"], val="0.25")  # type: ignore[arg-type]
    assert (config.data, config.budget, config.settings, config.val) == ("a", 5400.0, ("a=1",), 0.25)
    assert config.changed_fields() == ["data", "budget", "settings", "val"]
    assert pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(AttributeError):
        config.seed = 3  # type: ignore[misc]


def test_all_errors_are_told_at_once() -> None:
    message = refusal(
        lambda: TrainConfig.from_call(
            {"data": 5, "steps": 0, "budget": "1m", "device": "gpu", "coarse": 1, "settings": "x", "seed": True}
        )
    )
    for words in (
        "data 5 must be a text that is not empty",
        "steps 0 must be a whole number of at least 1",
        "device 'gpu' must be one of auto, cpu, cuda",
        "coarse 1 must be True or False",
        "settings 'x' must be a list of texts",
        "seed True must be a whole number of at least 0",
    ):
        assert words in message
    assert "exclude" not in message, "a rule over fields waits until each is right"
    assert "seed -1" in refusal(lambda: TrainConfig(data="a").replace(seed=-1))
    both = refusal(lambda: TrainConfig(data="a", budget=60.0, steps=2, seed=-1))
    assert "seed -1" in both
    assert "exclude each other" in both


def test_a_budget_alone_is_a_budget_error() -> None:
    assert refusal(lambda: TrainConfig(budget="soon"), BudgetError).startswith("budget 'soon' is not a duration")  # type: ignore[arg-type]
    call = {"data": "digits", "budget": "0s"}
    assert "budget '0s' must be longer than zero" in refusal(lambda: TrainConfig.from_call(call), BudgetError)
    assert "seed -1" in refusal(lambda: TrainConfig.from_call({**call, "seed": -1}))


def test_requirements_hold_for_requests_only() -> None:
    assert TrainConfig().data is None
    assert "say how long to train" in refusal(lambda: TrainConfig.from_call({"data": "digits"}))
    assert "say what to train on" in refusal(lambda: TrainConfig.from_call({"steps": 3}))


def test_what_a_run_records_reads_back() -> None:
    source = TrainConfig(data="a", steps=3, val=0.5).source
    assert DataConfig.of_run({"source": source.as_dict()}, Path("run")) == source
    assert "incomplete" in refusal(lambda: DataConfig.of_run({"source": {"data": "a"}}, Path("run")), RunError)


def test_a_command_leaves_out_the_place_and_keeps_every_digit_of_a_budget() -> None:
    config = TrainConfig(data="my photos", out="/x", device="cpu", seed=3)
    assert config.command(1234567.25) == "timebox train 'my photos' --budget 1234567.25s --seed 3"
    assert config.command(600.0) == "timebox train 'my photos' --budget 600s --seed 3"


def test_choices_are_those_of_the_code_that_takes_them() -> None:
    assert get_args(options.Precision) == ("auto", *PRECISIONS)
    assert get_args(options.Tta) == ("recipe", *NUM_VIEWS)


def test_every_verb_has_a_help_text_for_each_option() -> None:
    assert len(VERBS) >= 11
    for _, config in FUNCTIONS:
        assert all(one.help for one in options_of(config).values())


def test_a_config_reaches_a_child_process() -> None:
    config = TrainConfig(data="-d \udcff", budget=1234567.25, settings=("-x=1", "b=2"), val="-v", scoring=False, seed=3)
    code = "import sys; from timebox.cli import parse; print(repr(parse(sys.argv[1:]).config).encode())"
    command = [sys.executable, "-c", code, "train", *to_arguments(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == repr(repr(config).encode())


@pytest.mark.parametrize(
    ("budget", "text"), [("10m", "10m"), (60, "1m"), (7.5, "7.5s"), ("90", "90s"), (3600, "1h00m")]
)
def test_a_budget_as_people_write_it(budget: str | float, text: str) -> None:
    assert options.read_budget_text(budget) == text


def test_a_long_option_may_take_what_looks_like_an_option() -> None:
    config = parse(["export", "runs/a", "--check", "a.png", "b.png"]).config
    assert config.check == ("a.png", "b.png")
    assert parse(["export", *to_arguments(config)]).config == config


def test_a_signal_while_a_config_is_made_is_not_lost() -> None:
    """KeyboardInterrupt is raised in turn at each call of a function; extension modules may ignore what these raise."""

    def make(place: int) -> int:
        num_calls = 0

        def interrupt(*call: object) -> None:
            nonlocal num_calls
            num_calls += 1
            if num_calls == place:
                raise KeyboardInterrupt

        measuring_coverage = sys.gettrace()
        sys.settrace(interrupt)
        try:
            TrainConfig(data="digits", budget="10s", recipe="haet2021 width=4", out="run")
        finally:
            sys.settrace(measuring_coverage)
        return num_calls

    make(0)
    total = make(0)
    assert total > 50
    for place in range(1, total):
        with pytest.raises(KeyboardInterrupt):
            make(place)
