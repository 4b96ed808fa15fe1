"""Callbacks as users give them, objects or names of objects: importing, making and checking them."""

import difflib
import inspect
import re
from collections.abc import Iterable

from timebox.callbacks.events import METHODS
from timebox.custom.import_name import import_by_name
from timebox.errors import TimeboxError, UsageError

NAMES = tuple(METHODS.values())
_LIST = ", ".join(NAMES)
# Public names that look like those of events, such as on_epoch and onStep.
_LIKE_AN_EVENT = re.compile(r"on(_|[A-Z])")


def callback_names(callbacks: object) -> tuple[str, ...]:
    """The callbacks that are given by name. Raises UsageError where ``callbacks`` is no list."""
    if not isinstance(callbacks, list | tuple):
        raise UsageError(
            f"callbacks must be a list, as in callbacks=[timebox.TensorBoardCallback()]; it is a "
            f"{type(callbacks).__name__}"
        )
    return tuple(one for one in callbacks if isinstance(one, str))


def load_callbacks(callbacks: Iterable[object]) -> list[object]:
    """The callbacks, checked; those given as ``package.module:Name`` are imported and made.

    Raises UsageError for one that cannot be imported or made, that has none of the methods of a callback, or a method
    that looks like one and would never be called.
    """
    loaded = [_load(one) if isinstance(one, str) else one for one in callbacks]
    for callback in loaded:
        _check(callback)
    return loaded


def _load(name: str) -> object:
    """The callback of a name: an object, or what the class or the function of that name returns."""
    found = import_by_name(name, "callback")
    if not inspect.isclass(found) and (_methods(found) or not callable(found)):
        return found
    try:
        return found()
    except TimeboxError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"the callback {name!r} is called without arguments, and failed with {reason}") from error


def _methods(callback: object) -> list[str]:
    """The methods of an object whose names look like those of events, and whatever has such a name itself."""
    names = [name for name in dir(callback) if _LIKE_AN_EVENT.match(name)]
    return [name for name in names if name in NAMES or callable(getattr(callback, name, None))]


def _check(callback: object) -> None:
    name = f"the callback {type(callback).__name__}"
    if inspect.isclass(callback):
        raise UsageError(f"the callback {callback.__name__} is a class: give an object, {callback.__name__}()")
    methods = _methods(callback)
    for method in methods:
        if method not in NAMES:
            close = difflib.get_close_matches(method.lower(), NAMES, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UsageError(f"{name} has {method!r}, which would never be called: there are {_LIST}{hint}")
        _check_method(getattr(callback, method), f"{method} of {name}")
    if not methods:
        raise UsageError(f"{name} has none of the methods of a callback: {_LIST}")


def _check_method(method: object, where: str) -> None:
    if not callable(method):
        raise UsageError(f"{where} is a {type(method).__name__}, and cannot be called")
    if inspect.iscoroutinefunction(method):
        raise UsageError(f"{where} is a coroutine: write it without async, as it is called in a thread of its own")
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):  # of a function in C
        return
    try:
        signature.bind(object())
    except TypeError as error:
        raise UsageError(f"{where} must take one argument, the event; it takes {signature}") from error
