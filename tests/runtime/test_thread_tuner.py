"""The number of threads follows the load of the machine."""

import random
from collections.abc import Callable

import pytest

from timebox.runtime.thread_tuner import ThreadTuner

# Seconds of a step, and the share of its threads' time that the process gets, by the number of threads.
Load = Callable[[int], tuple[float, float]]


def free(threads: int) -> tuple[float, float]:
    return 1.0 / threads, 1.0


def crowded(threads: int) -> tuple[float, float]:
    """Every processor is shared with another program, and threads wait for each other."""
    return {1: (1.0, 0.95), 2: (1.5, 0.5), 4: (2.5, 0.4)}[threads]


class Simulation:
    """Steps under a load that may change; ``threads`` holds the number of each step."""

    def __init__(self, threads: int, most: int) -> None:
        self.processor_time = 0.0
        self.lines: list[str] = []
        self.tuner = ThreadTuner(threads, most, self.lines.append, lambda: self.processor_time)
        self.threads: list[int] = []

    def run(self, load: Load, num_steps: int, steps_left: int = 1000, work: float = 1.0) -> list[int]:
        for _ in range(num_steps):
            threads = self.tuner.next(steps_left)
            seconds, share = load(threads)
            self.processor_time += share * threads * seconds * work
            self.tuner.record(seconds * work, work)
            self.threads.append(threads)
        return self.threads[-num_steps:]


def test_a_free_machine_sees_no_trial() -> None:
    simulation = Simulation(4, most=4)
    assert set(simulation.run(free, 500)) == {4}
    assert simulation.lines == []


def test_threads_that_planning_left_out_come_back() -> None:
    simulation = Simulation(1, most=4)
    assert simulation.run(free, 100)[-1] == 4
    assert simulation.lines == [
        "2 threads in place of 1: 2.0x as fast",
        "4 threads in place of 2: 2.0x as fast",
    ]


def test_a_load_that_comes_and_goes_is_followed() -> None:
    simulation = Simulation(4, most=4)
    simulation.run(free, 50)
    simulation.run(crowded, 100)
    assert simulation.tuner.threads == 1
    simulation.run(free, 600)
    assert simulation.tuner.threads == 4


def test_a_load_that_comes_is_answered_at_once() -> None:
    simulation = Simulation(2, most=2)
    simulation.run(free, 300)
    assert simulation.run(crowded, 6) == [2, 2, 1, 1, 1, 1]
    assert simulation.tuner.threads == 1


def test_a_single_step_that_takes_far_longer_is_answered_at_once() -> None:
    simulation = Simulation(2, most=2)
    simulation.run(free, 300)
    assert simulation.run(lambda threads: {1: (1.0, 0.6), 2: (9.0, 0.3)}[threads], 5) == [2, 1, 1, 1, 1]
    assert simulation.tuner.threads == 1


def test_a_stall_of_the_machine_is_no_load() -> None:
    simulation = Simulation(2, most=2)
    simulation.run(free, 300)
    simulation.run(lambda threads: (9.0, 0.1), 1)
    assert simulation.run(free, 5) == [1, 1, 1, 2, 2]
    assert simulation.lines == []


def test_slow_steps_on_a_free_machine_are_no_load() -> None:
    simulation = Simulation(2, most=2)
    simulation.run(free, 50)
    assert set(simulation.run(lambda threads: (2.0 / threads, 1.0), 50)) == {2}


def test_trials_that_change_nothing_become_rare() -> None:
    def overhead(threads: int) -> tuple[float, float]:
        return {1: 1.0, 2: 1.05}[threads], 1.0

    tried = Simulation(1, most=2).run(overhead, 2000)
    assert tried[-1] == 1
    assert 3 <= tried.count(2) <= 30


def test_a_small_gain_is_no_reason_for_a_change() -> None:
    simulation = Simulation(1, most=2)
    simulation.run(lambda threads: ({1: 1.0, 2: 0.95}[threads], 1.0), 200)
    assert simulation.tuner.threads == 1


def test_one_fast_step_of_a_trial_is_no_reason_for_a_change() -> None:
    seconds = iter([1.0] * 8 + [0.1, 0.1, 1.0] + [1.0] * 8)
    simulation = Simulation(1, most=2)
    simulation.run(lambda threads: (next(seconds), 1.0), 19)
    assert simulation.tuner.threads == 1


@pytest.mark.parametrize("steps_left", [0, 16])
def test_the_last_steps_are_no_trials(steps_left: int) -> None:
    assert set(Simulation(1, most=2).run(free, 100, steps_left)) == {1}


def test_beside_other_programs_more_threads_are_not_tried() -> None:
    def crowded_alone(threads: int) -> tuple[float, float]:
        return {1: (1.0, 0.6), 2: (9.0, 0.3)}[threads]

    assert set(Simulation(1, most=2).run(crowded_alone, 500)) == {1}


def test_a_trial_that_is_slow_ends_with_its_first_steps() -> None:
    def slow_with_two(threads: int) -> tuple[float, float]:
        return {1: 1.0, 2: 5.0}[threads], 1.0

    def slightly_slow_with_two(threads: int) -> tuple[float, float]:
        return {1: 1.0, 2: 2.0}[threads], 1.0

    for load, longest in ((slow_with_two, 1), (slightly_slow_with_two, 2)):
        tried = Simulation(1, most=2).run(load, 100)
        lengths = [len(part) for part in "".join(map(str, tried)).split("1") if part]
        assert set(lengths) == {longest}


def test_after_a_load_has_come_fewer_threads_are_tried_with_few_steps_to_come() -> None:
    simulation = Simulation(2, most=4)
    simulation.run(lambda threads: ({2: 0.5, 4: 0.6}[threads], 1.0), 300)
    assert simulation.run(crowded, 5, steps_left=6) == [2, 2, 1, 1, 1]


def test_a_trial_ends_where_images_grow() -> None:
    simulation = Simulation(1, most=2)
    simulation.run(lambda threads: (1.0, 1.0), 9)
    assert simulation.run(lambda threads: (0.1, 1.0), 3, work=0.5) == [2, 1, 1]
    assert simulation.tuner.threads == 1


def test_beside_other_programs_the_mean_counts() -> None:
    """With two threads most steps take half a second, and every fourth takes nearly three times as long."""
    simulation = Simulation(2, most=2)
    seconds = [0.5, 0.5, 0.5, 1.4]

    def load(threads: int) -> tuple[float, float]:
        return (0.6, 0.6) if threads == 1 else (seconds[len(simulation.threads) % 4], 0.5)

    simulation.run(load, 40)
    assert simulation.tuner.threads == 1
    assert simulation.lines == ["1 thread in place of 2: 1.2x as fast"]


@pytest.mark.parametrize("seed", range(200))
def test_any_load_leaves_a_number_of_threads_that_there_may_be(seed: int) -> None:
    chance = random.Random(seed)
    simulation = Simulation(chance.choice([1, 2, 4]), most=4)
    for _ in range(60):
        seconds, share = chance.choice([0.1, 0.1, 0.1, 0.5, 5.0]), chance.choice([0.3, 0.95])
        load: tuple[float, float] = seconds, share
        simulation.run(lambda threads, load=load: load, 1, chance.choice([1000, 10, 3]), chance.choice([1.0, 1.0, 0.5]))  # type: ignore[misc]
    assert set(simulation.threads) <= {1, 2, 4}
