"""The course of a search: trials by workers, the leaders with other seeds, a check at full size, the final run."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from statistics import fmean

import optuna

from timebox.clock import Deadline, format_duration
from timebox.errors import OutputError
from timebox.machine import available_threads
from timebox.recipe import draft_of
from timebox.reporting.tuning import tuning_page
from timebox.run.reading import CHECKPOINT
from timebox.run.run import Run
from timebox.run.train import train
from timebox.tuning import study as studies
from timebox.tuning.crew import Crew
from timebox.tuning.directory import FINAL, Asked, TuneDirectory
from timebox.tuning.outcome import Candidate, best_toml, candidates_of, importance_of, summary_of, trial_text
from timebox.tuning.space import Space
from timebox.tuning.study import Search
from timebox.tuning.trial import DivergedError, Trainer
from timebox.tuning.worker import SLACK_SECONDS, trainer_for

# When the parts end, as shares of the budget; the final run has the rest.
SEARCH_ENDS, REPEATS_END, CHECK_ENDS = 0.5, 0.65, 0.77
# How many leaders are trained again, besides what was started from, and with how many seeds at most.
NUM_LEADERS, MOST_REPEATS = 3, 10
# Kept free for the page and for leaving.
RESERVE_SECONDS = 2.5
_POLL_SECONDS, _CLOCK_SECONDS = 0.2, 2.0

Tell = Callable[[str], None]


class Conductor:
    """Brings a search to its end, from wherever it stands.

    Args:
        storage: path of the journal or URL of the database.
    """

    def __init__(
        self,
        directory: TuneDirectory,
        study: optuna.Study,
        search: Search,
        storage: str,
        deadline: Deadline,
        tell: Tell,
    ) -> None:
        self._directory, self._study, self._search, self._storage = directory, study, search, storage
        self._deadline, self._tell = deadline, tell
        self._known = {trial.number for trial in self._finished()}
        self._lines: list[dict[str, object]] = []

    @property
    def _asked(self) -> Asked:
        return self._directory.asked

    def run(self) -> tuple[Run, dict[str, object]]:
        """Search, repeat, check, train; the final run and what came of it all."""
        stopped = threading.Event()
        clock = threading.Thread(target=self._keep_the_clock, args=(stopped,), daemon=True)
        clock.start()
        try:
            self._searched()
            start, *leaders = candidates_of(self._study, self._num_candidates - 1)
            winner = self._repeated(start, leaders)
            if winner is not start:
                winner = self._checked(start, winner)
            self._tell(f"the winner: {winner.text}")
            importance = importance_of(self._study, Space.from_json(self._search.space))
            run = self._trained(winner)
            summary = summary_of(self._asked, self._search, self._lines, self._directory.repeats, winner, run)
            summary |= {"elapsed_seconds": round(self._deadline.elapsed(), 3), "late": self._deadline.late}
            self._directory.save_summary(summary)
            self._directory.save_page(tuning_page(summary, self._lines, self._directory.repeats, importance))
            return run, summary
        finally:
            stopped.set()
            clock.join()

    def _seconds_to(self, share: float) -> float:
        """Until a share of the budget is used up."""
        return share * self._asked.budget_seconds - self._deadline.elapsed()

    @property
    def _num_candidates(self) -> int:
        """As many as there is time to train again once."""
        seconds = (REPEATS_END - SEARCH_ENDS) * self._asked.budget_seconds
        return max(1, min(NUM_LEADERS + 1, int(seconds / (self._asked.trial_seconds + SLACK_SECONDS))))

    def _keep_the_clock(self, stopped: threading.Event) -> None:
        while not stopped.wait(_CLOCK_SECONDS):
            with suppress(OutputError):  # whatever else is written says so
                self._directory.save_clock(self._deadline.elapsed())

    def _searched(self) -> None:
        """Let workers do trials until it is time for what follows."""
        if self._seconds_to(SEARCH_ENDS) < self._search.rungs[0] + SLACK_SECONDS:
            self._note_trials()
            return
        self._search = studies.put_off(self._study, self._search, time.time() + self._seconds_to(SEARCH_ENDS))
        asked = self._asked
        arguments = {
            "storage": self._storage,
            "study": asked.study,
            "data": asked.data,
            "data_dir": asked.data_dir,
            "max_bad_share": asked.max_bad_share,
            "cache": asked.cache,
            "device": asked.device,
            "threads": _threads_each(asked.workers),
        }
        crew = Crew(asked.workers, arguments, first=len(self._study.get_trials(deepcopy=False)))
        again = True
        try:
            while crew.is_at_work and self._seconds_to(SEARCH_ENDS) > 0:
                time.sleep(_POLL_SECONDS)
                self._note_trials()
                if dead := crew.dead(len(self._lines)):
                    self._give_up(dead, again=True)
            again = False
        finally:
            self._give_up(crew.stop(), again)
            self._note_trials()

    def _give_up(self, workers: Sequence[str], again: bool) -> None:
        for trial in studies.abandoned(self._study, workers):
            studies.give_up(self._study, trial, again)
            self._tell(f"trial {trial.number}: its worker {'died, it is done again' if again else 'was stopped'}")

    def _finished(self) -> list[optuna.trial.FrozenTrial]:
        return [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()]

    def _note_trials(self) -> None:
        """Put on record what has finished since the last time."""
        finished = self._finished()
        lines = [studies.as_line(self._search, trial) for trial in finished]
        if len(lines) == len(self._lines):
            return
        for line in lines:
            if line["trial"] not in self._known:
                self._tell(trial_text(line))
        self._known = {trial.number for trial in finished}
        self._lines = lines
        self._directory.save_trials(lines)

    def _repeated(self, start: Candidate, leaders: Sequence[Candidate]) -> Candidate:
        """Train the leaders and the start with other seeds; the one with the best mean."""
        candidates = [start, *leaders]
        if not leaders:
            return start
        trainer = self._trainer().cut(self._search.num_images)
        seconds_each = self._asked.trial_seconds + SLACK_SECONDS
        for repeat in range(1, MOST_REPEATS + 1):
            missing = [one for one in candidates if not self._has(one, "repeat", repeat)]
            if self._seconds_to(REPEATS_END) < len(missing) * seconds_each:
                break
            for one in missing:
                self._repeat(trainer, one, "repeat", repeat, self._asked.trial_seconds)
        accuracies = {one: self._accuracies(one) for one in candidates}
        if not all(accuracies.values()):
            self._tell("no time to train the leaders again: what was started from is trained")
            return start
        for one in candidates:
            seeds = f"{len(accuracies[one])} seed{'s' if len(accuracies[one]) > 1 else ''}"
            self._tell(f"{fmean(accuracies[one]):.2%} on average over {seeds}: {one.text}")
        return max(candidates, key=lambda one: (fmean(accuracies[one]), one is start))

    def _checked(self, start: Candidate, winner: Candidate) -> Candidate:
        """Train both on all there is; the winner if it is ahead there too."""
        seconds = self._seconds_to(CHECK_ENDS) / 2 - SLACK_SECONDS
        missing = [one for one in (start, winner) if not self._has(one, "check", 1)]
        if missing and seconds < self._search.rungs[0]:
            self._tell(f"no time to check {winner.text} on all images: what was started from is trained")
            return start
        trainer = self._trainer()
        for one in missing:
            self._repeat(trainer, one, "check", 1, seconds)
        ours, theirs = (self._accuracies(one, "check")[0] for one in (winner, start))
        self._tell(f"on all {trainer.num_images:,} images: {ours:.2%} against {theirs:.2%} of what was started from")
        return winner if ours >= theirs else start

    def _trainer(self) -> Trainer:
        asked = self._asked
        return trainer_for(self._search, asked.data, asked.data_dir, asked.max_bad_share, asked.cache, asked.device)

    def _repeat(self, trainer: Trainer, one: Candidate, phase: str, repeat: int, seconds: float) -> None:
        search = self._search
        line: dict[str, object] = {
            "phase": phase, "trial": one.trial, "settings": list(one.settings), "repeat": repeat,
            "budget_seconds": round(seconds, 2),
        }  # fmt: skip
        try:
            measured = asdict(trainer.measure(search.recipe, (*search.settings, *one.settings), repeat, seconds))
        except DivergedError as error:
            measured = {"accuracy": 0.0, "reason": str(error)}
        self._directory.repeats.append({**line, **measured})
        self._directory.save_trials(self._lines)
        self._tell(f"{phase} {repeat} of {one.text}: {measured['accuracy']:.2%}")

    def _accuracies(self, one: Candidate, phase: str = "repeat") -> list[float]:
        return [
            float(str(line["accuracy"]))
            for line in self._directory.repeats
            if line["phase"] == phase and line["settings"] == list(one.settings)
        ]

    def _has(self, one: Candidate, phase: str, repeat: int) -> bool:
        return any(
            (line["phase"], line["settings"], line["repeat"]) == (phase, list(one.settings), repeat)
            for line in self._directory.repeats
        )

    def _trained(self, winner: Candidate) -> Run:
        """The final run, on all images, in the time that is left."""
        asked, search = self._asked, self._search
        best = self._directory.save_best(best_toml(draft_of(search.recipe, (*search.settings, *winner.settings))))
        seconds = self._deadline.remaining() - RESERVE_SECONDS
        self._tell(f"training on all images for {format_duration(seconds)}")
        final = self._directory.path / FINAL
        if (final / CHECKPOINT).exists():
            return train(resume=final, budget=seconds)
        return train(
            asked.data,
            recipe=str(best),
            val=asked.val if search.val_is_apart else "none",
            test=asked.test,
            train_limit=asked.train_limit,
            split_seed=asked.split_seed,
            seed=asked.seed,
            device=asked.device,
            precision=asked.precision,
            out=final,
            overwrite=True,
            data_dir=asked.data_dir,
            coarse=asked.coarse,
            group_by=asked.group_by,
            max_bad_share=asked.max_bad_share,
            cache=asked.cache,
            deadline=Deadline(seconds),
        )


def _threads_each(workers: int) -> int | None:
    """Threads of one of several workers; None for one alone, which has all."""
    return None if workers == 1 else max(1, available_threads() // workers)
