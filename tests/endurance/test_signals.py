"""SIGTERM and SIGINT end a training within five seconds, with status 143 and 130, in every phase."""

import signal

import pytest

from scenarios.signals import PHASES, SIGNALS, Phase, stopped

phases = pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name.replace(" ", "-"))


@phases
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_one_signal_leaves_a_run_or_nothing(phase: Phase, number: signal.Signals) -> None:
    assert not stopped(phase, number)[1]


@phases
def test_a_second_signal_ends_it_at_once(phase: Phase) -> None:
    number = SIGNALS[PHASES.index(phase) % len(SIGNALS)]
    assert not stopped(phase, number, twice=True)[1]
