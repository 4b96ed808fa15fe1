"""Whatever a config holds, the command line and the JSON made of it give it back."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timebox.cli import parse
from timebox.configs.arguments import to_arguments
from timebox.configs.benchmark import BenchmarkConfig
from timebox.configs.config import Config
from timebox.configs.lr_find import LrFindConfig
from timebox.configs.options import read_split_size
from timebox.configs.train import TrainConfig
from timebox.configs.tune import TuneConfig
from timebox.configs.verbs import EvaluateConfig, ExportConfig, PlanConfig, PredictConfig

# Many drawn examples.
pytestmark = pytest.mark.integration

WORDS = st.sampled_from(["-x", "--seed", "-5", "-0.5", "none", "0.3", "=", " ", "\udcff", "a b", "@f", "--json"])
# argparse of Python 3.11 removes "--" also where it is a value.
TEXTS = (st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=8) | WORDS).filter(lambda t: t != "--")
NATURALS = st.integers(0, 2**63 - 1)
COUNTS = st.integers(1, 2**63 - 1)
SHARES = st.floats(0, 1, exclude_min=True, exclude_max=True)
PATHS = TEXTS.filter(lambda text: not isinstance(read_split_size(text), float) and text not in ("rest", "none"))
SECONDS = st.floats(4, 1e12)
BUDGETS = st.sampled_from(["5s", "10m", "1h30m", "7.5s"])
SETTINGS = st.lists(TEXTS, max_size=3).map(tuple)
DEVICES, PRECISIONS = st.sampled_from(["auto", "cpu", "cuda"]), st.sampled_from(["auto", "fp32", "bf16"])


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


READING = {"max_bad_share": st.floats(0, 1), "data_dir": maybe(TEXTS), "device": DEVICES}
CUT = {"train_limit": maybe(COUNTS), "split_seed": NATURALS, "coarse": st.booleans()}
TRAINING = {"recipe": TEXTS, "settings": SETTINGS, "seed": NATURALS, "precision": PRECISIONS, "cache": st.booleans()}
TTA = st.sampled_from(["recipe", "none", "mirror", "mirror_shift"])
LENGTHS = st.fixed_dictionaries({"budget": SECONDS}) | st.fixed_dictionaries({"steps": COUNTS})

CONFIGS: dict[str, st.SearchStrategy[Config]] = {
    "train": st.builds(
        lambda length, **values: TrainConfig(**values, **length),
        LENGTHS, data=TEXTS, init=TEXTS, val=maybe(SHARES | PATHS), test=maybe(SHARES | PATHS),
        test_limit=maybe(COUNTS), scoring=st.booleans(), group_by=maybe(TEXTS), thumbnails=st.booleans(),
        out=maybe(TEXTS), overwrite=st.booleans(), callbacks=SETTINGS, **READING, **CUT, **TRAINING,
    ),
    "benchmark": st.builds(
        BenchmarkConfig, data=TEXTS, recipes=st.lists(TEXTS, min_size=1, max_size=3).map(tuple), settings=SETTINGS,
        seeds=COUNTS, trial_budget=BUDGETS, budget=maybe(SECONDS), score=st.just("val"), tta=TTA,
        val=maybe(SHARES | PATHS), precision=PRECISIONS, out=maybe(TEXTS), keep_runs=st.booleans(), **READING, **CUT,
    ),
    "lr-find": st.builds(
        LrFindConfig, data=TEXTS, budget=SECONDS, train_budget=BUDGETS, low=maybe(st.floats(1e-300, 1e300)),
        high=maybe(st.floats(1e-300, 1e300)), out=maybe(TEXTS), **READING, **CUT, **TRAINING,
    ),
    "plan": st.builds(
        PlanConfig, data=TEXTS, budget=SECONDS, val=maybe(SHARES | PATHS), test=maybe(SHARES | PATHS),
        test_limit=maybe(COUNTS), scoring=st.booleans(), group_by=maybe(TEXTS), allow_partial=st.booleans(),
        recipe=TEXTS, settings=SETTINGS, precision=PRECISIONS, cache=st.booleans(),
        init=st.sampled_from(["auto", "scratch", "pretrained"]), **READING, **CUT,
    ),
    "tune": st.builds(
        TuneConfig, data=TEXTS, budget=st.floats(80, 1e15), trial_budget=maybe(st.sampled_from(["4s", "5.3s"])),
        space=maybe(TEXTS), sampler=st.sampled_from(["tpe", "random"]), storage=maybe(TEXTS.map("sqlite://".__add__)),
        study=maybe(TEXTS),
        val=maybe(SHARES | PATHS), test=maybe(SHARES | PATHS), group_by=maybe(TEXTS), workers=COUNTS, out=maybe(TEXTS),
        **READING, **CUT, **TRAINING,
    ),
    "evaluate": st.builds(
        EvaluateConfig, run=TEXTS, data=TEXTS, split=maybe(st.sampled_from(["test", "all"])), test_limit=maybe(COUNTS),
        tta=TTA, cache=st.booleans(), **READING,
    ),
    "predict": st.builds(
        PredictConfig, run=TEXTS, images=st.lists(TEXTS, min_size=1, max_size=3).map(tuple), top=COUNTS,
        format=st.sampled_from(["csv", "jsonl"]), tta=TTA, device=DEVICES,
    ),
    "export": st.builds(
        ExportConfig, run=TEXTS, format=st.sampled_from(["onnx", "torch"]), output=maybe(TEXTS),
        overwrite=st.booleans(), tta=TTA,
    ),
}  # fmt: skip


@pytest.mark.parametrize("verb", CONFIGS)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_round_trips(verb: str, data: st.DataObject) -> None:
    config = data.draw(CONFIGS[verb])
    assert parse([verb, *to_arguments(config)]).config == config
    assert type(config)(**json.loads(json.dumps(config.as_dict()))) == config
