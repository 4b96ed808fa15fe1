"""Messages between ranks: each type comes back equal, and nothing that another program sends is decoded."""

import os
import pickle
import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import msgspec
import pytest
from torch.distributed import HashStore

import timebox
from small_runs import small_plan
from timebox.configs.data import DataConfig
from timebox.configs.train import TrainConfig
from timebox.distributed.heartbeat import Heartbeat, RankInfo
from timebox.distributed.messages import MAX_MESSAGE_BYTES, Message, MessageChannel, RecipeMessage
from timebox.errors import NO_ANSWER, UsageError
from timebox.evaluation.scoring import ScoreSplit
from timebox.jobs.messages import ReadData, ReadResult, RunFinished, StartTraining
from timebox.planning.throughput.distributed import MeasurementRequest
from timebox.recipes import RECIPES
from timebox.run.model_config import PlanRecord

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
RECIPE = RECIPES["airbench94"]()
SOURCE = DataConfig(data="photos", val=0.1, test="held out", group_by=r"(\d+)_")
PLAN = small_plan(RECIPE, threads=2, precision="bf16", scoring_seconds=float("inf"))
CONFIG = TrainConfig.of(SOURCE, budget=60.0, settings=("width=8", "max_lr=x0.3"))
MESSAGES = (
    ReadData(SOURCE, None, "crop", 128),
    ReadData(SOURCE, 32, "squash", 128),
    ReadResult("0" * 64),
    ReadResult(None, "photos/ has no images"),
    MeasurementRequest(RECIPE.as_dict(), True, "fp32", 0.5, float("inf")),
    StartTraining(RECIPE.as_dict(), CONFIG, PlanRecord.of(PLAN), "runs/a", 1.0),
    ScoreSplit("val", "mirror"),
    RunFinished("runs/a"),
)
ANY_MESSAGE = ReadData | ReadResult | MeasurementRequest | StartTraining | ScoreSplit | RunFinished


class RunsCode:
    """A pickle of it creates a folder when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("attacked",)


def test_every_message_comes_back_equal() -> None:
    channel = MessageChannel(HashStore(), "run", KEY)
    for number, message in enumerate(MESSAGES):
        assert not channel.is_sent(str(number))
        channel.send(str(number), message)
        assert channel.is_sent(str(number))
        assert channel.receive(str(number), ANY_MESSAGE) == message
    kinds = {*Message.__subclasses__(), *RecipeMessage.__subclasses__()} - {RecipeMessage}
    assert {type(message) for message in MESSAGES} == kinds, "all types are tried"
    received: StartTraining = channel.receive("5", StartTraining)
    assert received.full_plan == PLAN


@pytest.mark.parametrize("value", [2.5, float("inf"), "cpu", RankInfo(1, "host", 3, 4.5, "cpu", 2)])
def test_all_gather_sends_numbers_texts_and_ranks(value: object) -> None:
    channel = MessageChannel(HashStore(), "run", KEY)
    channel.send("one", value)
    assert channel.receive("one", type(value)) == value


def test_a_pickle_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store, blob = HashStore(), pickle.dumps(RunsCode())
    channel = MessageChannel(store, "run", KEY)
    signed = channel._signature("run/signed", blob) + blob
    for name, value in {"bare": blob, "base64": b64encode(blob), "signed": b64encode(signed)}.items():
        store.set(f"run/{name}", value.decode("latin-1"))
        with pytest.raises(UsageError, match=f"message '{name}' between the ranks is not (signed|valid)"):
            channel.receive(name, ANY_MESSAGE)
    assert not Path("attacked").exists()


def _sent(key: bytes, name: str, message: object = MESSAGES[-1]) -> bytes:
    store = HashStore()
    MessageChannel(store, "run", key).send(name, message)
    return bytes(store.get(f"run/{name}"))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(_sent(OTHER_KEY, "one"), id="another key"),
        pytest.param(_sent(KEY, "two"), id="another name"),
        pytest.param(_sent(KEY, "one")[:-8] + b"AAAAAAA=", id="changed"),
        pytest.param(_sent(KEY, "one")[:40], id="cut off"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\x00 not base64", id="not base64"),
        pytest.param(b"A" * (2 * MAX_MESSAGE_BYTES + 4), id="too long"),
    ],
)
def test_a_message_that_is_not_signed_for_its_name_is_refused(content: bytes) -> None:
    store = HashStore()
    store.set("run/one", content.decode("latin-1"))
    with pytest.raises(UsageError, match=r"'one' .* not signed with this run's key.*TIMEBOX_GROUP_KEY"):
        MessageChannel(store, "run", KEY).receive("one", RunFinished)


MALFORMED: dict[str, object] = {
    "another type": MESSAGES[0],
    "an unknown type": {"type": "Unknown", "path": "a"},
    "no field": {"type": "RunFinished"},
    "a wrong field": {"type": "RunFinished", "path": 3},
    "a field more": {"type": "RunFinished", "path": "a", "more": 1},
    "a list": [1, 2],
    "nothing": None,
    "deeply nested": msgspec.Raw(b"\x91" * 100_000 + b"\xc0"),
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_a_signed_message_of_another_form_is_refused(content: object) -> None:
    channel = MessageChannel(HashStore(), "run", KEY)
    channel.send("one", content)
    with pytest.raises(UsageError, match="message 'one' between the ranks is not valid"):
        channel.receive("one", RunFinished)


def test_values_out_of_range_are_refused() -> None:
    channel = MessageChannel(HashStore(), "run", KEY)
    message = msgspec.to_builtins(MESSAGES[4])
    channel.send("one", {**message, "recipe_fields": {**message["recipe_fields"], "width": 10**9}})
    with pytest.raises(UsageError, match="width"):
        channel.receive("one", MeasurementRequest)


def test_a_message_too_large_is_not_sent() -> None:
    with pytest.raises(UsageError, match="ranks send at most"):
        MessageChannel(HashStore(), "run", KEY).send("one", RunFinished("x" * (MAX_MESSAGE_BYTES + 1)))


def test_only_a_signed_reason_says_that_a_rank_has_left() -> None:
    store = HashStore()
    first, second = (Heartbeat(store, rank, 2, key=KEY) for rank in range(2))
    forged = Heartbeat(store, 1, 2, key=OTHER_KEY)
    forged.leave("forged")
    assert first.failed_ranks() == {}, "the rank still runs"
    second.leave("memory ran out\x1b[2J")
    assert first.failed_ranks() == {1: r"memory ran out\x1b[2J"}
    assert NO_ANSWER not in first.failed_ranks().values()


@pytest.mark.parametrize("content", ["[", "{}", "[1]", "[" * 100_000, "\x80", pickle.dumps(3).decode("latin-1")])
def test_recorded_failures_of_another_form_count_as_none(content: str) -> None:
    store = HashStore()
    heartbeat = Heartbeat(store, 0, 2, attempt=1)
    heartbeat._failures.set("0", content)
    assert heartbeat.failures_before_restart() == ()


UNPICKLES = re.compile(
    r"^\s*(?:import|from)\s+(pickle|marshal|shelve|dill|joblib|multiprocessing)\b"
    r"|\b(torch\.load|(?:all_gather|gather)_object|(?:broadcast|scatter|send|recv)_object_list)\b",
    re.MULTILINE,
)


def test_only_the_cifar_reader_unpickles() -> None:
    """Nor is there a collective of torch that sends Python objects."""
    package = Path(timebox.__file__).parent
    texts = {str(path.relative_to(package)): path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    found = [(name, *match.groups()) for name, text in texts.items() for match in UNPICKLES.finditer(text)]
    assert len(texts) > 200
    # The weights are those of one SHA-256, and torch.load reads tensors only.
    assert sorted(found) == [
        ("data/reading/safe_pickle.py", "pickle", None),
        ("pretrained/weights.py", None, "torch.load"),
    ]
    assert "weights_only=True" in texts["pretrained/weights.py"]
    assert UNPICKLES.search("    from multiprocessing import Queue")
    assert UNPICKLES.search("dist.broadcast_object_list(box, 0)")
