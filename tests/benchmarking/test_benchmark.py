"""Benchmarks as a whole, their trials made up: what is run, kept, resumed and refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import timebox
from timebox.benchmarking import Benchmark
from timebox.benchmarking.trials import CutOffError
from timebox.clock import Deadline
from timebox.errors import BudgetError, DataError, OutputError, RunError, UsageError
from timebox.recipes import get_recipe

from .conftest import Measure, Trials, failed, record

A, B = "haet2021", "dawnbench"


def refusal(call: Callable[[], object], error: type[Exception] = UsageError) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def lines(done: Benchmark) -> list[dict[str, object]]:
    return [json.loads(line) for line in (done.path / "trials.jsonl").read_text().splitlines()]


def test_it_is_a_public_name() -> None:
    assert timebox.benchmark.__module__ == "timebox.benchmarking.benchmark"
    assert timebox.Benchmark is Benchmark


def test_trials_are_interleaved_and_the_order_turns(measure: Measure, trials: Trials) -> None:
    measure(recipes=[A, B, "auto"], seeds=4)
    assert trials.keys == [
        (A, 0), (B, 0), ("auto", 0),
        (B, 1), ("auto", 1), (A, 1),
        ("auto", 2), (A, 2), (B, 2),
        (A, 3), (B, 3), ("auto", 3),
    ]  # fmt: skip
    assert [trial.position for trial in trials.done] == [0, 1, 2] * 4
    assert all(trial.seed == trial.block for trial in trials.done)


def test_the_directory_is_whole(measure: Measure, tmp_path: Path) -> None:
    done = measure()
    assert done.path == tmp_path / "bench"
    assert {path.name for path in done.path.iterdir()} == {
        "benchmark.json", "trials.jsonl", "summary.json", "recipes",
    }  # fmt: skip
    about = json.loads((done.path / "benchmark.json").read_text())
    assert about["asked"]["recipes"] == [A, B]
    assert about["data_name"] == "digits"
    assert about["command"].startswith("timebox benchmark digits --recipe haet2021 --recipe dawnbench --seeds 2 ")
    assert set(about["environment"]) == {
        "processor", "cores", "threads", "memory_bytes", "system", "device", "versions", "commit",
    }  # fmt: skip
    assert json.loads((done.path / "summary.json").read_text()) == json.loads(json.dumps(done.summary))
    assert lines(done) == list(done.trials)
    assert len(done.trials) == 4
    for name in (A, B):
        assert get_recipe(str(done.path / "recipes" / f"{name}.toml")).name == A, "what the made up trials resolved"


def test_each_trial_is_told(measure: Measure) -> None:
    said: list[str] = []
    seen: list[object] = []
    measure(notify=said.append, on_trial=lambda one: seen.append((one["label"], one["block"])))
    assert said[1].startswith("4 trials of 5s: about ")
    assert said[2] == "1/4  haet2021   seed 0   50.00 %  4.5 s  21s left"
    assert said[5] == "4/4  haet2021   seed 1   51.00 %  4.5 s"
    assert seen == [(A, 0), (B, 0), (B, 1), (A, 1)]


def test_a_failed_trial_is_kept_and_the_rest_goes_on(measure: Measure, trials: Trials) -> None:
    trials.outcomes[B, 0] = failed(B, 0)
    said: list[str] = []
    done = measure(notify=said.append)
    assert (done.summary["num_done"], done.summary["num_failed"], done.summary["complete_blocks"]) == (3, 1, 2)
    assert "2/4  dawnbench  seed 0  failed: something broke" in said[3]
    assert done.summary["notes"] == ["failed: dawnbench, seed 0: something broke"]
    assert done.summary["comparisons"][0]["num_pairs"] == 1  # type: ignore[index]


def test_where_every_recipe_is_refused_so_is_the_benchmark(measure: Measure, trials: Trials, tmp_path: Path) -> None:
    for label in (A, B):
        trials.outcomes[label, 0] = failed(label, 0, "budget 5.0s is too short", status=2)
    assert refusal(measure) == "every recipe was refused: budget 5.0s is too short"
    assert len(trials.done) == 2
    assert not (tmp_path / "bench").exists()


def test_an_interruption_keeps_what_is_done_and_says_how_to_go_on(
    measure: Measure, trials: Trials, tmp_path: Path
) -> None:
    trials.outcomes[B, 1] = KeyboardInterrupt()
    said: list[str] = []
    done = measure(notify=said.append)
    assert (done.summary["stopped"], done.summary["num_done"], len(lines(done))) == ("signal", 2, 2)
    assert said[-1] == (
        f"stopped: 2 of 4 trials are done and kept; the others: timebox benchmark --resume {tmp_path}/bench"
    )
    del trials.outcomes[B, 1]
    whole = measure(resume=done.path)
    assert (whole.summary["stopped"], whole.summary["num_done"]) == (None, 4)
    assert trials.keys == [(A, 0), (B, 0), (B, 1), (A, 1)]


def test_interrupted_before_the_first_trial_nothing_is_left(measure: Measure, trials: Trials, tmp_path: Path) -> None:
    trials.outcomes[A, 0] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        measure()
    assert not (tmp_path / "bench").exists()


def test_failed_trials_are_done_again_and_the_last_counts(measure: Measure, trials: Trials) -> None:
    trials.outcomes[B, 1] = failed(B, 1)
    done = measure()
    del trials.outcomes[B, 1]
    again = measure(resume=done.path)
    assert trials.keys[-1] == (B, 1)
    assert len(lines(again)) == 5, "the failure stays in the log"
    assert (again.summary["num_done"], again.summary["num_failed"], again.summary["notes"]) == (4, 0, [])


def test_a_torn_last_line_is_measured_again(measure: Measure, trials: Trials) -> None:
    done = measure()
    file = done.path / "trials.jsonl"
    content = file.read_bytes()
    file.write_bytes(content[:-40])
    again = measure(resume=done.path)
    assert trials.keys[-1] == (A, 1)
    assert file.read_bytes() == content
    assert again.summary["num_done"] == 4


def test_what_a_killed_one_left_behind_is_removed(measure: Measure) -> None:
    done = measure()
    (done.path / "in-flight-1" / "checkpoint").mkdir(parents=True)
    measure(resume=done.path)
    assert not (done.path / "in-flight-1").exists()


def test_nothing_is_missing_of_a_whole_one(measure: Measure, trials: Trials) -> None:
    done = measure()
    assert measure(resume=done.path).summary["num_done"] == 4
    assert len(trials.done) == 4


def test_what_is_given_beside_resume_must_not_contradict(measure: Measure, trials: Trials) -> None:
    done = measure(val=0.3)
    again = {"data": "digits", "recipes": [A, B], "seeds": 2, "trial_budget": "5s", "val": 0.3, "budget": "10m"}
    assert measure(resume=done.path, **again).summary["num_done"] == 4
    message = refusal(lambda: measure(resume=done.path, seeds=9, val=0.2, out="there"))
    assert message == (
        "seeds 9 (the benchmark's is 2), val 0.2 (the benchmark's is 0.3), out there cannot be given with resume: "
        "a benchmark goes on as it was begun; a new budget may be given"
    )
    assert measure(resume=done.path).summary["num_done"] == 4, "a refusal lets go of the directory"


def test_it_goes_on_only_on_the_machine_it_began_on(measure: Measure) -> None:
    done = measure()
    about = json.loads((done.path / "benchmark.json").read_text())
    about["environment"]["processor"] = "Zuse Z3"
    (done.path / "benchmark.json").write_text(json.dumps(about))
    message = refusal(lambda: measure(resume=done.path), RunError)
    assert "cannot go on here: processor 'Zuse Z3' there, " in message


class Clock:
    """A clock that a trial moves on."""

    def __init__(self, seconds_each: float) -> None:
        self.moment, self.seconds_each = 0.0, seconds_each

    def __call__(self) -> float:
        return self.moment

    def pass_by(self, trial: object) -> None:
        self.moment += self.seconds_each


def test_no_trial_is_begun_that_could_not_end_in_time(measure: Measure, trials: Trials) -> None:
    clock, said = Clock(7.0), list[str]()
    deadline = Deadline(30.0, now=clock)
    done = measure(seeds=5, deadline=deadline, on_trial=clock.pass_by, notify=said.append)
    # After three trials 9 s are left: enough for one of 5 s, 2 s of scoring and the reserve; after four 2 s.
    assert trials.keys == [(A, 0), (B, 0), (B, 1), (A, 1)]
    assert (done.summary["stopped"], done.summary["late"], done.summary["complete_blocks"]) == ("budget", False, 2)
    assert said[-1].startswith("the budget leaves no time for another trial: 4 of 10 trials are done and kept")


def test_an_incomplete_block_is_kept_and_left_out_of_the_test(measure: Measure, trials: Trials) -> None:
    clock = Clock(7.0)
    done = measure(seeds=5, deadline=Deadline(24.0, now=clock), on_trial=clock.pass_by)
    assert trials.keys == [(A, 0), (B, 0), (B, 1)]
    assert (done.summary["complete_blocks"], done.summary["comparisons"][0]["num_pairs"]) == (1, 1)  # type: ignore[index]
    assert [one["n"] for one in done.summary["recipes"]] == [1, 2]  # type: ignore[attr-defined]
    assert done.summary["notes"] == ["1 incomplete block is kept in the log and left out of the paired test"]


def test_a_trial_cut_off_by_the_benchmarks_deadline_is_not_recorded(measure: Measure, trials: Trials) -> None:
    trials.outcomes[B, 1] = CutOffError()
    done = measure(budget="10m")
    assert (done.summary["stopped"], len(lines(done))) == ("budget", 2)


def test_a_budget_too_short_for_a_block_is_refused(measure: Measure, trials: Trials, tmp_path: Path) -> None:
    message = refusal(lambda: measure(budget="8s"), BudgetError)
    assert "budget 8.0s is too short for one block, that is 2 trials of 5s with their scoring; use at least" in message
    assert not (tmp_path / "bench").exists()
    assert not trials.done


def test_a_place_that_is_taken_is_refused(measure: Measure, trials: Trials, tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "precious").touch()
    message = refusal(measure)
    assert message.endswith(
        f'must be a directory that is new or empty; to go on with a benchmark, give resume="{tmp_path}/bench" alone'
    )
    assert not trials.done


def test_what_is_no_benchmark_cannot_be_resumed(measure: Measure, tmp_path: Path) -> None:
    assert refusal(lambda: measure(resume=tmp_path), RunError) == (
        f"{str(tmp_path)!r} is no benchmark directory: it has no benchmark.json"
    )


@pytest.mark.parametrize("line", ["[]", "{}", '{"label": "haet2021", "block": 7, "accuracy": 0.5}', "\x00\x00"])
def test_a_damaged_log_is_named(measure: Measure, line: str) -> None:
    done = measure()
    with (done.path / "trials.jsonl").open("a") as file:
        file.write(line + "\n")
    message = refusal(lambda: measure(resume=done.path), RunError)
    assert message.startswith(f"line 5 of {str(done.path / 'trials.jsonl')!r} is damaged: ")


def test_two_processes_cannot_write_one_benchmark(measure: Measure, trials: Trials) -> None:
    done = measure()
    inner: list[str] = []

    def meanwhile(record: object) -> None:
        inner.append(refusal(lambda: measure(resume=done.path)))

    trials.outcomes[A, 0] = failed(A, 0)
    (done.path / "trials.jsonl").unlink()
    measure(resume=done.path, on_trial=meanwhile)
    assert inner[0] == f"benchmark {str(done.path)!r} is being written by another process"


def test_a_disk_that_fails_is_told(measure: Measure, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = refusal(lambda: measure(out=tmp_path / "file" / "bench"), OutputError)
    assert "cannot be written to" in message


def test_the_published_test_split_is_needed_to_score_it(measure: Measure, trials: Trials) -> None:
    assert refusal(lambda: measure(score="test"), DataError) == (
        "'digits' has no test split of its own to score; use score=\"val\""
    )
    assert not trials.done


def test_what_must_be_said(measure: Measure) -> None:
    assert refusal(lambda: measure(data=None)) == "say what to measure on: a path, or a name such as digits"
    assert refusal(lambda: measure(trial_budget=None)) == (
        'say how long one trial may take, for instance trial_budget="60s"'
    )
    assert refusal(lambda: measure(recipes="auto")) == "recipes 'auto' must be a list of texts"
    assert "1.5 must be a fraction" in refusal(lambda: measure(val=1.5))


def test_a_directory_of_its_own_by_default(measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = measure(out=None, train_limit=500, seeds=1)
    assert done.path.parent == Path("runs")
    assert done.path.name.startswith("benchmark-digits-500-")


def test_late_trials_count_and_are_told(measure: Measure, trials: Trials) -> None:
    trials.outcomes[A, 1] = record(A, 1, 0.9, late=True, wall_seconds=5.25)
    done = measure()
    assert done.summary["num_late"] == 1
    assert done.summary["notes"] == ["late: haet2021, seed 1: 5.2 s of 5s"]
    assert done.summary["recipes"][0]["mean"] == pytest.approx(0.7)  # type: ignore[index]
