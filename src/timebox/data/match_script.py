"""Matches a regular expression with names, in a process of its own: a match that never ends cannot be interrupted in a
thread, and Python holds its lock meanwhile.

Run as a script, it takes a JSON object on standard input, with the arguments of :func:`match_names`, and prints its
result as JSON. It imports nothing but the standard library, and no part of timebox.
"""

import json
import re
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn


def match_names(pattern: str, names: Sequence[str], seconds: float | None = None) -> dict[str, object]:
    """``keys``: for each name the first group that took part in the match, or the whole match; None without a match.

    ``error`` in place of it where the pattern is no regular expression, and ``slow``, the position of a name, where
    that one takes more than ``seconds`` of processor time. Without ``seconds`` time is not limited.
    """
    try:
        search = re.compile(pattern).search
    except (re.error, RecursionError, OverflowError, MemoryError) as error:
        return {"error": str(error) or type(error).__name__}
    can_interrupt = seconds is not None and hasattr(signal, "setitimer")
    if can_interrupt:
        signal.signal(signal.SIGVTALRM, _interrupt)
    keys: list[str | None] = []
    try:
        for name in names:
            if can_interrupt and seconds is not None:
                signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
            match = search(name)
            keys.append(match and next((group for group in match.groups() if group is not None), match[0]))
    except TimeoutError:
        return {"slow": len(keys)}
    return {"keys": keys}


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise TimeoutError


if __name__ == "__main__":
    print(json.dumps(match_names(**json.load(sys.stdin))))
