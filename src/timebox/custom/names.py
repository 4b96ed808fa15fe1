"""Names of the user's code: given, trusted, found, and recorded."""

import hashlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from timebox.custom.import_name import import_by_name
from timebox.errors import TimeboxError, UsageError, option_text

# Recipe fields that may name code, and what the code is.
CODE_FIELDS = {"model": "network", "augment": "augmentation", "loss": "loss", "optimizer": "optimizer"}
# Options of the verbs, by recipe field.
OPTION_OF = {"model": "network", "augment": "augment", "loss": "loss", "optimizer": "optimizer"}
# In place of a module, for objects that no name leads to.
GIVEN = "given"
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d][\w.]*(-\w+)*")

# Files that do not belong to the user's code, in tracebacks.
_LIBRARIES = re.compile(r"[/\\](torch|timebox)[/\\]")
# Code, or its name.
Code = str | Callable[..., Any]

_objects: dict[str, object] = {}
_trusted: set[str] = set()


def is_code(value: object) -> bool:
    """Whether a value of a recipe field is the name of code."""
    return isinstance(value, str) and ":" in value


def code_names(values: Mapping[str, object]) -> dict[str, str]:
    """The names of code among the values of a recipe, by field."""
    return {field: str(values[field]) for field in CODE_FIELDS if is_code(values.get(field))}


def is_code_name(value: str) -> bool:
    """Whether a text has the form ``package.module:function``."""
    return _NAME.fullmatch(value) is not None


def name_of(code: object, field: str) -> str:
    """The name by which a recipe refers to code that the user gives; from now on it may be used in this process.

    Args:
        code: ``"package.module:function"``, which is imported at once, or the object itself.
        field: of the recipe.
    Raises:
        UsageError: for a name that cannot be imported, or an object that cannot be called.
    """
    option = OPTION_OF[field]
    if isinstance(code, str):
        trust([code])
        find(code, field)
        return code
    if not callable(code):
        raise UsageError(f"{option} is a {type(code).__name__}: give a function, or 'package.module:function'")
    name = _importable_name(code) or _new_name(code)
    _objects[name] = code
    return name


def give(name: str, code: object) -> None:
    """Let a name, such as one that a run has recorded, stand for an object in this process."""
    if not callable(code):
        raise UsageError(f"{name!r} is given as a {type(code).__name__}, which cannot be called")
    _objects[name] = code


def trust(names: Iterable[object]) -> None:
    """Let this process import these names, where they are names of code: the user says that they may be trusted."""
    _trusted.update(name for name in names if isinstance(name, str) and is_code(name))


def is_known(name: str) -> bool:
    """Whether this process may use a name: it was given, or may be imported."""
    return name in _objects or name in _trusted


def check_importable(names: Iterable[str]) -> None:
    """Raise UsageError for a name that the process of a trial could not import, or may not."""
    for name in names:
        if name.partition(":")[0] in (GIVEN, "__main__"):
            raise UsageError(
                f"{name!r} is known in this program alone, and trials run in processes of their own: put it into a "
                "module, and give it as 'package.module:function'"
            )
        if name not in _trusted:
            raise UsageError(f"{name!r} is code, and imported only with {option_text('trust_code', True)}")


def find(name: str, field: str) -> Callable[..., Any]:
    """The code of a name. Raises UsageError where nobody has given or trusted it, or where it cannot be imported."""
    if name not in _objects:
        option, module = OPTION_OF[field], name.partition(":")[0]
        if module in (GIVEN, "__main__"):
            raise UsageError(
                f"the {CODE_FIELDS[field]} {name!r} was an object in a Python program: give it again, as {option}=…"
            )
        if name not in _trusted:
            raise UsageError(
                f"the {CODE_FIELDS[field]} {name!r} is code, and only imported where you say so, with "
                f"{option_text('trust_code', True)}"
            )
        _objects[name] = import_by_name(name, CODE_FIELDS[field])
    code = _objects[name]
    if not callable(code):
        raise UsageError(f"the {CODE_FIELDS[field]} {name!r} is a {type(code).__name__}, and cannot be called")
    return code


def needs_two(code: Callable[..., object], second: str) -> bool:
    """Whether a function takes two arguments by place: two of its parameters have no default, or the second one has the
    name ``second``."""
    try:
        parameters = inspect.signature(getattr(code, "forward", code)).parameters.values()  # of a module
    except (TypeError, ValueError):  # a function of C
        return False
    by_place = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return len(by_place) > 1 and (by_place[1].default is inspect.Parameter.empty or by_place[1].name == second)


def source_sha256(name: str) -> str | None:
    """SHA-256 of the source file of code that was found, in hexadecimal digits; None without a file."""
    code = _objects.get(name)
    while isinstance(code, partial):
        code = code.func
    is_plain = inspect.isfunction(code) or inspect.isclass(code) or inspect.ismethod(code)
    try:
        file = inspect.getsourcefile(code if is_plain else type(code))  # type: ignore[arg-type]
        return hashlib.sha256(Path(file or "").read_bytes()).hexdigest()
    except (TypeError, OSError):
        return None


def _importable_name(code: object) -> str | None:
    """``module:qualname``, where that leads to the object in this process; None otherwise."""
    module, qualname = getattr(code, "__module__", None), getattr(code, "__qualname__", None)
    found: object = sys.modules.get(str(module))
    for part in str(qualname).split("."):
        found = getattr(found, part, None)
    name = f"{module}:{qualname}"
    return name if found is code and code is not None and is_code_name(name) else None


def _new_name(code: object) -> str:
    """A name for an object that no name leads to."""
    plain = re.sub(r"\W", "", getattr(code, "__name__", type(code).__name__)) or "code"
    try:
        text = inspect.getsource(code)  # type: ignore[arg-type]
    except (TypeError, OSError):
        text = type(code).__qualname__
    first = name = f"{GIVEN}:{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    number = 1
    while _objects.get(name, code) is not code:
        number += 1
        name = f"{first}-{number}"
    return name


@contextmanager
def named_in_errors(name: str, field: str) -> Iterator[None]:
    """Raise what code of the user's raises inside as a UsageError that names the code and the line.

    Running out of memory is left as it is: a training recovers from that.
    """
    try:
        yield
    except (MemoryError, TimeboxError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
            raise
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if not _LIBRARIES.search(frame.filename)] or frames
        where = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
        raise UsageError(f"the {CODE_FIELDS[field]} {name!r} failed: {type(error).__name__}: {error}{where}") from error
