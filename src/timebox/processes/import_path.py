"""Takes the working directory off ``sys.path``: a ``numpy.py`` among somebody's images is no library.

Code that the user names is found there all the same.

Imports nothing but what Python itself has loaded by then: any other import could already be of a file lying there.
"""

import os
import sys
from collections.abc import Sequence

# The folder that holds the package.
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120  # no pathlib


def drop_working_directory() -> None:
    """Take the working directory off ``sys.path`` where the program is timebox, and Python's own rules put it there.

    ``python -m timebox`` puts it first, and an empty entry of PYTHONPATH, as in ``PYTHONPATH=$PYTHONPATH:/opt/lib``
    with an unset variable, anywhere. It stays where timebox itself lies in it, as in a checkout, and in programs that
    import timebox.
    """
    arguments: Sequence[str] = getattr(sys, "argv", ())  # an embedded Python may have none
    is_module = is_run_as_module(sys.orig_argv, arguments)
    if not is_module and not is_run_as_command(arguments):
        return
    try:
        folder = os.getcwd()  # noqa: PTH109
    except OSError:  # it has been removed
        return
    if folder == ROOT:
        return
    if is_module and not sys.flags.safe_path and sys.path[:1] == [folder]:
        del sys.path[0]
    if has_empty_entry(os.environ.get("PYTHONPATH", "")) and not sys.flags.ignore_environment:
        sys.path[:] = [entry for entry in sys.path if entry not in ("", folder)]


def search_working_directory_first() -> str | None:
    """Put the working directory first on ``sys.path``, for a module that the user names; the entry, None where it was
    on it before, or where it has been removed."""
    try:
        folder = os.getcwd()  # noqa: PTH109  # as Python itself writes it on sys.path
    except OSError:
        return None
    if folder in sys.path or "" in sys.path:
        return None
    sys.path.insert(0, folder)
    return folder


def search_last(folder: str) -> None:
    """Move a folder to the end of ``sys.path``: no file in it takes the place of a library."""
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.append(folder)


def is_run_as_module(words: Sequence[str], arguments: Sequence[str]) -> bool:
    """Whether the command is ``python -m timebox``, or a module of it.

    Args:
        words: the whole command, as ``sys.orig_argv``.
        arguments: the program and its arguments, as ``sys.argv``: ``-m`` stands first while Python looks for a module.
    """
    if arguments[:1] != ["-m"] or len(arguments) > len(words):
        return False
    word = words[len(words) - len(arguments)]
    module = word.partition("m")[2] if word[:1] == "-" else word  # -mtimebox, -Bmtimebox
    return module.partition(".")[0] == "timebox"


def is_run_as_command(arguments: Sequence[str]) -> bool:
    """Whether the program is the script ``timebox`` that an installation writes."""
    name = os.path.basename(arguments[0]) if arguments else ""  # noqa: PTH119
    return name in ("timebox", "timebox.exe", "timebox-script.py")


def has_empty_entry(python_path: str) -> bool:
    """Whether a PYTHONPATH has an empty entry, which stands for the working directory. All of it may be empty."""
    return bool(python_path) and "" in python_path.split(os.pathsep)
