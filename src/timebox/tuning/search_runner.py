"""The course of a search: trials by workers, the leaders with other seeds, a check at full size, the final run."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from statistics import fmean

import optuna
from optuna.exceptions import OptunaError

from timebox.clock import Deadline, format_duration
from timebox.errors import OutputError, RunError, TimeboxError
from timebox.evaluation.metrics import standard_error
from timebox.machine import available_threads
from timebox.pipelines.train import train
from timebox.recipe import parse_recipe
from timebox.reporting.search_page import tuning_page
from timebox.run.files import CHECKPOINT
from timebox.run.run import Run
from timebox.tuning import study as studies
from timebox.tuning.directory import BEST, FINAL, TEMPORARY, Asked, TuneDirectory
from timebox.tuning.outcome import Candidate, best_toml, candidates_of, importance_of, summary_of, trial_text
from timebox.tuning.space import Space
from timebox.tuning.storage import is_url
from timebox.tuning.study import Search
from timebox.tuning.trial import DivergedError, Trainer
from timebox.tuning.worker import SLACK_SECONDS, trainer_for
from timebox.tuning.worker_pool import Crew

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
        notify: Tell,
    ) -> None:
        self._directory, self._study, self._search, self._storage = directory, study, search, storage
        self._deadline, self._notify = deadline, notify
        self._known = {trial.number for trial in self._finished()}
        self._lines: list[dict[str, object]] = []
        self._whole: Trainer | None = None
        self._why = ""

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
            start, *leaders = candidates_of(self._study, NUM_LEADERS)
            winner = self._repeated(start, leaders)
            if winner is not start:
                winner = self._checked(start, winner)
            self._whole = None  # its memory is for the final run
            self._notify(f"the winner: {winner.text}")
            importance = self._importance()
            run = self._trained(winner)
            summary = summary_of(self._asked, self._search, self._lines, self._directory.repeats, winner, run)
            summary["why"] = self._why
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

    def _importance(self) -> dict[str, float]:
        """For the page, which must not cost the final run."""
        try:
            return importance_of(self._study, Space.from_json(self._search.space))
        except Exception as error:
            self._notify(f"what mattered is not known: {error}")
            return {}

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
        temporary = self._directory.path / TEMPORARY
        temporary.mkdir(exist_ok=True)
        crew = Crew(asked.workers, arguments, temporary, first=len(self._study.get_trials(deepcopy=False)))
        again = True
        try:
            while crew.is_at_work and self._seconds_to(SEARCH_ENDS) > 0:
                time.sleep(_POLL_SECONDS)
                with self._told():
                    self._note_trials()
                    self._give_up(crew.dead(sum(line["state"] != "failed" for line in self._lines)), again=True)
            again = False
        finally:
            workers = crew.stop()
            shutil.rmtree(temporary, ignore_errors=True)
            with self._told():
                self._give_up(workers, again)
                self._note_trials()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """A database that is away for a while ends no search."""
        try:
            yield
        except OptunaError as error:
            self._notify(f"the storage does not answer: {' '.join(str(error).split())}")

    def _give_up(self, workers: Sequence[str], again: bool) -> None:
        for trial in studies.abandoned(self._study, workers, nobodys=not is_url(self._storage)):
            studies.give_up(self._study, trial, again)
            self._notify(f"trial {trial.number}: its worker {'died, it is done again' if again else 'was stopped'}")

    def _finished(self) -> list[optuna.trial.FrozenTrial]:
        return [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()]

    def _note_trials(self) -> None:
        """Put on record what has finished since the last time."""
        finished = self._finished()
        if len(finished) == len(self._lines):
            return
        lines = [studies.as_line(self._search, trial) for trial in finished]
        for line in lines:
            if line["trial"] not in self._known:
                self._notify(trial_text(line))
        self._known = {trial.number for trial in finished}
        self._lines = lines
        self._directory.save_trials(lines)

    def _repeated(self, start: Candidate, leaders: Sequence[Candidate]) -> Candidate:
        """Train the leaders and the start with other seeds; the one with the best mean."""
        if not leaders:
            return self._staying(start, "no trial came to anything but the first")
        trainer = self._trainer().cut(self._search.num_images)
        seconds_each = self._asked.trial_seconds + SLACK_SECONDS
        num_fitting = max(1, int(self._seconds_to(REPEATS_END) / seconds_each))
        repeated = [one for one in leaders if self._has(one, "repeat", 1)]
        candidates = [start, *(repeated or leaders[: num_fitting - 1])]
        for repeat in range(1, MOST_REPEATS + 1):
            missing = [one for one in candidates if not self._has(one, "repeat", repeat)]
            if self._seconds_to(REPEATS_END) < len(missing) * seconds_each:
                break
            for one in missing:
                self._repeat(trainer, one, "repeat", repeat, self._asked.trial_seconds)
        accuracies = {one: self._accuracies(one) for one in candidates}
        if len(candidates) == 1 or not all(accuracies.values()):
            return self._staying(start, "there was no time to train the leaders again")
        for one in candidates:
            seeds = f"{len(accuracies[one])} seed{'s' if len(accuracies[one]) > 1 else ''}"
            self._notify(f"{fmean(accuracies[one]):.2%} on average over {seeds}: {one.text}")
        best = max(candidates, key=lambda one: (fmean(accuracies[one]), one is start))
        return self._staying(start, "nothing that was tried was better on average") if best is start else best

    def _staying(self, start: Candidate, why: str) -> Candidate:
        """What was started from is to be trained."""
        self._why = why
        self._notify(f"{why}: what was started from is trained")
        return start

    def _checked(self, start: Candidate, winner: Candidate) -> Candidate:
        """Train both on all there is; the winner if it is ahead there too, by more than the images leave open."""
        trainer, repeats = self._trainer(), self._directory.repeats
        both = [list(one.settings) for one in (start, winner)]
        done = [line for line in repeats if line["phase"] == "check" and line["settings"] in both]
        if len(done) < len(both):  # one of them alone was under another budget
            self._directory.repeats = [line for line in repeats if line["phase"] != "check"]
            seconds = self._seconds_to(CHECK_ENDS) / 2 - SLACK_SECONDS
            if seconds < self._search.rungs[0]:
                return self._staying(start, f"there was no time to check {winner.text} on all images")
            for one in (start, winner):
                self._repeat(trainer, one, "check", 1, seconds)
        ours, theirs = (self._accuracies(one, "check")[0] for one in (winner, start))
        self._notify(f"on all {trainer.num_images:,} images: {ours:.2%} against {theirs:.2%} of what was started from")
        if ours < theirs + standard_error(theirs, trainer.num_val_images):
            return self._staying(start, "the best on a cut was not clearly better on all images")
        return winner

    def _trainer(self) -> Trainer:
        asked = self._asked
        if self._whole is None:
            self._whole = trainer_for(
                self._search, asked.data, asked.data_dir, asked.max_bad_share, asked.cache, asked.device
            )
        return self._whole

    def _repeat(self, trainer: Trainer, one: Candidate, phase: str, repeat: int, seconds: float) -> None:
        search = self._search
        line: dict[str, object] = {
            "phase": phase, "trial": one.trial, "settings": list(one.settings), "repeat": repeat,
            "budget_seconds": round(seconds, 2),
        }  # fmt: skip
        try:
            measured = asdict(trainer.measure(search.recipe, (*search.settings, *one.settings), repeat, seconds))
        except (DivergedError, TimeboxError, RuntimeError, MemoryError) as error:
            measured = {"accuracy": 0.0, "reason": str(error)}
        self._directory.repeats.append({**line, **measured})
        self._directory.save_trials(self._lines)
        self._notify(f"{phase} {repeat} of {one.text}: {measured['accuracy']:.2%}")

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
        toml = best_toml(parse_recipe(search.recipe, (*search.settings, *winner.settings)))
        final, best = self._directory.path / FINAL, self._directory.path / BEST
        is_begun = (final / CHECKPOINT).exists() and best.exists() and best.read_text(encoding="utf-8") == toml
        self._directory.save_best(toml)
        seconds = self._deadline.remaining() - RESERVE_SECONDS
        self._notify(f"training on all images for {format_duration(seconds)}")
        if is_begun:
            with suppress(RunError):  # killed in the middle of its first checkpoint, or after its end
                return train(
                    asked.data,
                    resume=final,
                    budget=seconds,
                    data_dir=asked.data_dir,
                    max_bad_share=asked.max_bad_share,
                    cache=asked.cache,
                )
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
            deadline=Deadline(self._deadline.remaining() - RESERVE_SECONDS),
        )


def _threads_each(workers: int) -> int | None:
    """Threads of one of several workers; None for one alone, which has all."""
    return None if workers == 1 else max(1, available_threads() // workers)
