"""ReadOptions, the options that every reader takes, with the memory check; and ProgressNotifier."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from timebox.data.arrays.decoded_cache import DecodedCache, FileFingerprint
from timebox.data.folders.names import SPLITS
from timebox.data.images.decode import CROP
from timebox.data.part import PartRead
from timebox.data.reading.time_limit import ReadingTime
from timebox.errors import DataError, option_text
from timebox.machine import memory_shortage
from timebox.progress import ProgressNote

# Pixels: the largest side that encoded images are resized to, unless the caller has a use for larger ones.
DEFAULT_MAX_SIDE = 64


class ProgressNotifier:
    """Passes messages to `notify` at most once a second, the first after one second: quick reads print nothing."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify, self._last = notify, time.monotonic()

    def __call__(self, text: str) -> None:
        if time.monotonic() - self._last >= 1:
            self._last = time.monotonic()
            self._notify(ProgressNote(text))


@dataclass(frozen=True)
class ReadOptions:
    """Options of a reader: those of load_data and some more. Each format ignores those that do not concern it.

    Args:
        cache: where decoded images are kept between runs; None for nowhere.
        archive: the archive that the files were unpacked from; None for files of the user.
        archive_links: paths where links of the archive would lie, which are not unpacked.
        wanted_splits: the splits that are used; formats of encoded images leave the others unread.
        class_depth: 1 where class folders lie in the source, 2 where they lie in the folders there; None to find it.
        class_names: the classes of a model that is to be scored on the data; None for data to train on.
        white_16bit: the value of 16-bit grey images that becomes 255; None to find it from the data.
        time: in which the data must be read.
        part: the part of the images to read, as an earlier run had time for; None for all, or what there is time for.
    """

    image_size: int | None = None
    coarse: bool = False
    max_bad_share: float = 0.1
    notify: Callable[[str], None] = field(default=lambda text: None)
    num_copies: int = 1
    cache: DecodedCache | None = None
    fit: str = CROP
    archive: FileFingerprint | None = None
    archive_links: frozenset[Path] = frozenset()
    wanted_splits: frozenset[str] = frozenset(SPLITS)
    class_depth: int | None = None
    class_names: tuple[str, ...] | None = None
    white_16bit: int | None = None
    max_side: Callable[[int], int] = field(default=lambda num_images: DEFAULT_MAX_SIDE)
    time: ReadingTime = field(default_factory=ReadingTime)
    part: PartRead | None = None

    def check_memory(
        self, num_bytes: int, description: str, source: Path, *, peak_copies: float = 1.0, is_resized: bool = False
    ) -> None:
        """Raise DataError unless images of `num_bytes` fit into memory without swapping; call it before allocation.

        Args:
            description: of the images, for errors: "200,000 images of 256x256".
            peak_copies: number of copies that the reader itself holds at its peak.
            is_resized: whether the reader resizes images to image_size as it reads, so that a smaller size needs less.
        """
        # Where images are resized only after reading, the caller's copies are of those: num_bytes counts once.
        caller_copies = self.num_copies if is_resized or self.image_size is None else 1
        if reason := memory_shortage(round(num_bytes * max(peak_copies, caller_copies)), description):
            smaller = option_text("settings", "image_size=N")
            remedy = f"use a smaller {smaller}, or fewer images" if is_resized else "use fewer images"
            raise DataError(f"{source}{'/' if source.is_dir() else ''} {reason}; {remedy}")
