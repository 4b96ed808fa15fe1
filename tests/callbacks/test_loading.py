"""Callbacks as users give them, and the refusals of what would never be called."""

from pathlib import Path

import pytest

from callbacks.recording import Recorder
from timebox.callbacks.loading import callback_names, load_callbacks
from timebox.errors import UsageError

FIVE = "on_plan, on_step, on_validation, on_checkpoint, on_end"
CODE = """
class Progress:
    def on_step(self, step):
        pass

class Parametrised(Progress):
    def __init__(self, folder):
        pass

class Refusing(Progress):
    def __init__(self):
        from timebox import UsageError
        raise UsageError("Tracker is not installed: pip install tracker")

def make():
    return Progress()

def make_wrong():
    return 5

progress = Progress()
number = 5
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module `callback_code`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/usr/lib"])
    monkeypatch.delitem(__import__("sys").modules, "callback_code", raising=False)
    (tmp_path / "callback_code.py").write_text(CODE)
    return tmp_path


def refusal(*callbacks: object) -> str:
    with pytest.raises(UsageError) as caught:
        load_callbacks(callbacks)
    return str(caught.value)


def test_a_class_a_function_and_an_object_can_be_named(folder: Path) -> None:
    loaded = load_callbacks([f"callback_code:{name}" for name in ("Progress", "make", "progress")])
    assert [type(callback).__name__ for callback in loaded] == ["Progress"] * 3
    recorder = Recorder()
    assert load_callbacks([recorder]) == [recorder]
    assert load_callbacks([]) == []


def test_names_that_lead_to_no_callback(folder: Path) -> None:
    assert refusal("callback_code:Parametrised").startswith(
        "the callback 'callback_code:Parametrised' is called without arguments, and failed with TypeError: "
    )
    assert refusal("callback_code:Refusing") == "Tracker is not installed: pip install tracker"
    for name in ("number", "make_wrong"):
        assert refusal(f"callback_code:{name}") == f"the callback int has none of the methods of a callback: {FIVE}"
    assert "has no 'Progres'; did you mean 'Progress'?" in refusal("callback_code:Progres")


class Misspelt:
    def on_step(self, info: object) -> None: ...

    def on_validaton(self, info: object) -> None: ...


class OfOthers:
    def on_epoch_end(self, info: object) -> None: ...

    def on_train_end(self, info: object) -> None: ...


class CamelCase:
    def onStep(self, info: object) -> None: ...  # noqa: N802


class WithoutArgument:
    def on_end(self) -> None: ...


class Asynchronous:
    async def on_end(self, info: object) -> None: ...


class NotAMethod:
    on_step = 5


class WithAFlag(Recorder):
    on_gpu = True


def test_methods_that_would_never_be_called() -> None:
    never = "which would never be called: there are"
    assert refusal(Misspelt()) == (
        f"the callback Misspelt has 'on_validaton', {never} {FIVE}; did you mean 'on_validation'?"
    )
    assert refusal(OfOthers()).startswith(f"the callback OfOthers has 'on_epoch_end', {never} {FIVE}")
    assert refusal(CamelCase()).startswith(f"the callback CamelCase has 'onStep', {never} {FIVE}")
    assert refusal(object()) == f"the callback object has none of the methods of a callback: {FIVE}"
    assert load_callbacks([WithAFlag()])


def test_methods_that_cannot_be_called_with_an_event() -> None:
    assert refusal(WithoutArgument()) == (
        "on_end of the callback WithoutArgument must take one argument, the event; it takes () -> None"
    )
    assert refusal(Asynchronous()).startswith("on_end of the callback Asynchronous is a coroutine: write it without")
    assert refusal(NotAMethod()) == "on_step of the callback NotAMethod is a int, and cannot be called"


def test_a_class_in_place_of_an_object() -> None:
    assert refusal(Recorder) == "the callback Recorder is a class: give an object, Recorder()"


def test_only_a_list_is_taken() -> None:
    assert callback_names(["a:B", Recorder(), "c:D"]) == ("a:B", "c:D")
    for wrong in ("a:B", Recorder(), None, {"a:B": 1}):
        with pytest.raises(UsageError, match=rf"^callbacks must be a list, .*; it is a {type(wrong).__name__}$"):
            callback_names(wrong)
