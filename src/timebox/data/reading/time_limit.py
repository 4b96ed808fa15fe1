"""ReadingTime: the share of a budget in which data must be read, and the refusal of a budget that is too short."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import TypeVar

from timebox.clock import Deadline, format_duration, now
from timebox.errors import BudgetError, option_text

T = TypeVar("T")

# Reading may take this share of the time that is left of a budget when it begins, or so many seconds where that is
# less: a budget of a second or two is refused by planning, which knows what would do.
READING_SHARE, MIN_SECONDS = 0.6, 2.0
# A speed counts once it was measured for so many seconds. Reading is refused early where it would take so many times
# its share; on a busy machine a speed is too low at times.
MEASURING_SECONDS, EARLY_FACTOR = 1.0, 1.3
# Of the time of a pass: where nothing was done for longer, it stands still.
STANDSTILL_SHARE = 0.25
# Margins of the budget that a refusal names: of the start of the process, and of reading; and the least time in seconds
# that planning, training and saving need beside.
START_MARGIN, READING_MARGIN, REST_SECONDS = 1.25, 1.4, 8.0
# Of the time between the share of reading and the deadline, for what follows the reading of a part.
PART_EXTENSION = 0.3
# Left before the deadline for leaving the process after a refusal.
EXIT_SECONDS = 1.0


class ReadingTime:
    """The time in which the data of a run must be read, and the part of it that has passed.

    Args:
        deadline: of the command; None, or one without a budget, for no limit.
        share: of the time left.
        allow_partial: whether a part of the images may be read where there is no time for all.
    Attributes:
        seconds: that reading may take; infinite for no limit.
        source: the path that is read now, for messages.
        progress: how far reading has come, in words.
        whole_reason: why the data are not read in part.
    """

    def __init__(
        self,
        deadline: Deadline | None = None,
        share: float = READING_SHARE,
        allow_partial: bool = False,
        now: Callable[[], float] = now,
    ) -> None:
        left = deadline.remaining() if deadline else inf
        self.seconds = max(MIN_SECONDS, share * left)
        self.allow_partial = allow_partial and left < inf
        self.source, self.progress = "the data", "no image was found yet"
        self.whole_reason = "only image files in folders and zip archives are read in part"
        self._share, self._now, self._begin = share, now, now()
        self._budget_seconds = (deadline.budget_seconds if deadline else None) or 0.0
        self._start_seconds = deadline.elapsed() - deadline.earlier_seconds if deadline else 0.0
        self._last_seconds = max(self.seconds, left - EXIT_SECONDS)
        self._refusal: BudgetError | None = None
        self._is_paused = self._is_abandoned = False

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit at all."""
        return self.seconds < inf

    @property
    def used(self) -> float:
        """Seconds since reading began, downloads left out."""
        return self._now() - self._begin

    @property
    def left(self) -> float:
        """Seconds left for reading; negative once they are over."""
        return self.seconds - self.used

    def check(self) -> None:
        """Raise BudgetError once the time is over. Called often enough that no step between takes long."""
        if self._is_abandoned or (self.left < 0 and not self._is_paused):
            raise self.refuse(None)

    def refuse(self, seconds_left: float | None) -> BudgetError:
        """The refusal of the budget, where the rest of reading takes ``seconds_left``; None if that is not known."""
        used, budget = format_duration(self.used), format_duration(self._budget_seconds)
        share = f"reading may take {format_duration(self.seconds)} of it"
        if self.allow_partial:
            share += f" ({option_text('allow_partial', True)} does not help: {self.whole_reason})"
        if seconds_left is None:
            self._refusal = BudgetError(
                f"budget {budget} is too short: reading {self.source!r} is not done after {used}: {self.progress}; "
                f"{share}, and how long all of it takes is not known: use a longer budget"
            )
        else:
            total = self.used + seconds_left
            self._refusal = BudgetError.too_short(
                f"budget {budget} is too short: reading {self.source!r} takes about {format_duration(total)} here "
                f"({self.progress} in {used}), and {share}",
                smallest_budget(self._start_seconds, READING_MARGIN * total, self._share),
            )
        return self._refusal

    def extend(self) -> None:
        """Let the splits and hashes of a part that was read take some time of the rest."""
        self.seconds += PART_EXTENSION * (self._last_seconds - self.seconds)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside out, as of a download."""
        self._is_paused, before = True, self._now()
        try:
            yield
        finally:
            self._begin += self._now() - before
            self._is_paused = False

    @property
    def has_stalled(self) -> bool:
        """Whether reading, in another thread, goes on after its time: a read that does not return, for instance.

        A thread that has raised a refusal gets longer: it removes its temporary files.
        """
        spare = self._last_seconds - self.seconds
        return not self._is_paused and self.used > self.seconds + (spare if self._refusal else 0.5 * spare)

    def abandon(self) -> BudgetError:
        """The refusal for a thread that has stalled. The next :meth:`check` in that thread ends it."""
        self._is_abandoned = True
        return self._refusal or self.refuse(None)


def budget_for_share(start_seconds: float, reading_seconds: float, share: float = READING_SHARE) -> float:
    """The budget in seconds under which reading may take so many seconds, after a start with its margin."""
    return START_MARGIN * start_seconds + (reading_seconds / share if reading_seconds > MIN_SECONDS else 0.0)


def smallest_budget(start_seconds: float, reading_seconds: float, share: float = READING_SHARE) -> float:
    """The smallest budget in seconds under which reading has so many seconds, margins of reading included."""
    least = START_MARGIN * start_seconds + reading_seconds + REST_SECONDS
    return max(least, budget_for_share(start_seconds, reading_seconds, share))


class Stage:
    """One pass over things of a known number, such as the decoding of images.

    Args:
        describe: how far it has come, from the number of things done: "read 20 of 100 images".
        total: number of things.
        later: measures the seconds of the passes to come; called once, where the time may not be enough.
        share: of the time left for reading, where the pass may end before the last thing; None if it may not.
    """

    def __init__(
        self,
        time: ReadingTime,
        describe: Callable[[int], str],
        total: float,
        later: Callable[[], float] = lambda: 0.0,
        share: float | None = None,
    ) -> None:
        self._time, self._describe, self._total, self._later = time, describe, total, later
        self._begin = self._estimated_at = time.used
        self._ends_at = None if share is None else self._begin + share * max(time.left, 0.0)
        self._later_seconds: float | None = None
        self._done, self._progressed_at = 0.0, self._begin

    def advance(self, done: float) -> bool:
        """Note how many things are done; whether there is time for more. Raises BudgetError where the time is over, or
        cannot be enough, unless the pass may end early."""
        time = self._time
        if not time.is_limited:
            return True
        time.progress, used = self._describe(int(done)), time.used
        if done > self._done:
            self._done, self._progressed_at = done, used
        if self._ends_at is not None:
            return used < self._ends_at
        if time.left < 0:
            raise time.refuse(self._seconds_left(done) if done and not self._stands_still else None)
        if done and not self._stands_still and used - self._estimated_at >= MEASURING_SECONDS:
            self._estimated_at = used
            seconds = self._seconds_left(done)
            if time.used + seconds > EARLY_FACTOR * time.seconds:
                raise time.refuse(seconds)
        return True

    @property
    def _stands_still(self) -> bool:
        """Whether nothing was done for so long that the speed so far says nothing: a read may not return."""
        used = self._time.used
        return used - self._progressed_at > max(MEASURING_SECONDS, STANDSTILL_SHARE * (used - self._begin))

    def _seconds_left(self, done: float) -> float:
        """Of this pass at its speed so far, and of those that follow."""
        seconds = (self._time.used - self._begin) * (self._total / done - 1)
        if self._later_seconds is None:
            self._later_seconds = self._later()
        return seconds + self._later_seconds


def timed(time: ReadingTime, items: Sequence[T], verb: str) -> Iterator[T]:
    """Images, one after the other, in a :class:`Stage`. Raises BudgetError where there is not time for all.

    Args:
        verb: what is done with each, for messages: "read".
    """
    stage = Stage(time, lambda done: f"{verb} {done:,} of {len(items):,} images", len(items))
    for number, item in enumerate(items):
        stage.advance(number)
        yield item
