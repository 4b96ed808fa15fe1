"""Import an object of the user's by its name, ``package.module:Name``: a callback, a network."""

import difflib
import importlib
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from timebox.errors import UsageError
from timebox.processes.import_path import search_last, search_working_directory_first

_WORDS = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_NAME = re.compile(rf"({_WORDS}):({_WORDS})")


def import_by_name(name: str, purpose: str) -> object:
    """The object that a name leads to; its module is imported, and so its code runs.

    The current folder is searched first for the module, before the installed packages. Afterwards it stays on
    ``sys.path``, in the last place: what the module imports later is found there, and no file in the folder takes the
    place of a library.

    Args:
        name: ``package.module:Name``; the part after the colon may have dots too, as in ``module:Class.method``.
        purpose: of the object, in a word or two, for messages: ``callback``.
    Raises:
        UsageError: for a name of another form, a module that is not there or that fails while it is imported, and a
            module without that name.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(f"the {purpose} {name!r} must be written package.module:Name, as in my_code:MyName")
    module_name, path = match.groups()
    found: object = _import_module(module_name, f"the {purpose} {name!r}")
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            close = difflib.get_close_matches(part, dir(found), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UsageError(f"the {purpose} {name!r} is not there: {module_name} has no {part!r}{hint}") from error
    return found


def _import_module(name: str, what: str) -> ModuleType:
    parents = name.split(".")
    own_names = {".".join(parents[:end]) for end in range(1, len(parents) + 1)}
    try:
        with _current_folder_first():
            return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a script without `if __name__ == "__main__"` may leave
        if isinstance(error, ModuleNotFoundError) and error.name in own_names:
            raise UsageError(
                f"{what} cannot be imported: there is no module {error.name!r} in the current folder or among the "
                "installed packages"
            ) from error
        reason = traceback.format_exception_only(error)[-1].strip()
        raise UsageError(f"{what} cannot be imported: importing {name} failed with {reason}") from error


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """Within the block modules in the current folder are found first, and afterwards last."""
    importlib.invalidate_caches()  # a module may just have been written
    folder = search_working_directory_first()
    try:
        yield
    finally:
        if folder is not None:
            search_last(folder)
