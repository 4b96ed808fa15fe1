"""Progress messages of long reads and downloads, limited to one per second."""

import time
from collections.abc import Callable


class ProgressNotifier:
    """Passes messages to `notify` at most once a second, the first after one second: quick reads print nothing."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify
        self._last = time.monotonic()

    def __call__(self, text: str) -> None:
        if time.monotonic() - self._last >= 1:
            self._last = time.monotonic()
            self._notify(text)
