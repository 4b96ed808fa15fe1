"""``refuse_unknown_arguments``: misspelt, missing and surplus arguments of public functions, in a plain sentence."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from timebox.configs.config import did_you_mean
from timebox.errors import ArgumentError

P = ParamSpec("P")
R = TypeVar("R")

# Names that other libraries have for an argument.
SYNONYMS = {
    "val": ("valid", "validation", "validation_data", "validation_split", "x_valid", "x_val", "dev", "eval_set"),
    "test": ("testing", "x_test", "test_data"),
    "budget": ("time", "timeout", "time_limit", "time_budget", "max_time", "minutes", "seconds"),
    "steps": ("num_steps", "max_steps", "n_steps", "iterations"),
    "out": ("output", "output_dir", "out_dir", "path", "save_dir"),
    "output": ("out", "path", "file"),
    "settings": ("set", "setting", "hparams", "params", "max_lr", "batch_size", "width", "image_size"),
    "seed": ("random_state", "random_seed"),
    "images": ("x", "image", "data", "files", "paths"),
    "data": ("dataset", "x", "train_data", "folder"),
    "run": ("model", "path"),
    "runs": ("run", "models", "paths"),
    "recipes": ("recipe",),
    "callbacks": ("callback", "hooks", "logger", "loggers", "trackers"),
    "split": ("subset",),
}


def refuse_unknown_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a public function so that arguments it does not have, or lacks, raise ArgumentError.

    Without it they raise a TypeError of Python, which is no TimeboxError and knows no synonyms.
    """
    signature = inspect.signature(function)
    name = f"timebox.{function.__qualname__.removesuffix('.__init__')}"

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentError(_refusal(name, signature, args, kwargs)) from error
        return function(*args, **kwargs)

    return checked


def _refusal(name: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """The message for arguments that do not fit a signature, ``self`` left out."""
    parameters = {key: one for key, one in signature.parameters.items() if key not in ("self", "cls")}
    num_bound = len(signature.parameters) - len(parameters)
    if unknown := [key for key in kwargs if key not in parameters]:
        allowed = f"it takes {', '.join(parameters)}"
        hints = ((key, _synonym(key, parameters) or did_you_mean(key, parameters)) for key in unknown)
        return "; ".join(f"{name} has no argument {key!r}{hint or f'; {allowed}'}" for key, hint in hints)
    by_place = [key for key, one in parameters.items() if one.kind is not inspect.Parameter.KEYWORD_ONLY]
    named = [key for key in parameters if key not in by_place]
    if (num := len(args) - num_bound) > len(by_place):
        example = f": give the others by name, such as {named[0]}=…" if named else ""
        return f"{name} takes {', '.join(by_place)} by place, and {num} values were given{example}"
    if twice := [key for key in by_place[:num] if key in kwargs]:
        return f"{name} was given {twice[0]!r} twice, by place and by name"
    missing = [key for key in by_place[num:] if key not in kwargs]
    missing = [key for key in missing if parameters[key].default is inspect.Parameter.empty]
    return f"{name} lacks the argument {', '.join(map(repr, missing))}"


def _synonym(key: str, parameters: Mapping[str, Any]) -> str:
    """``; did you mean 'val'?`` for a name that other libraries have for a parameter, else nothing."""
    known = (one for one, words in SYNONYMS.items() if one in parameters and key.lower() in words)
    return next((f"; did you mean {one!r}?" for one in known), "")
