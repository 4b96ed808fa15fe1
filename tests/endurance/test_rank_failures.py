"""One of two ranks fails at a random instant: the others end by themselves, and the run loads and names the rank."""

import pytest

from scale import scaled
from scenarios.rank_failures import can_make_hosts, cut_off, rank_fails

pytestmark = pytest.mark.timeout(420)

NUM_KILLS = 3


@pytest.mark.parametrize("number", scaled(NUM_KILLS))
def test_a_killed_rank(number: int) -> None:
    assert not rank_fails("kill", number, again=False)


@pytest.mark.parametrize("number", scaled(1))
def test_a_stopped_rank(number: int) -> None:
    assert not rank_fails("stop", number, again=False)


@pytest.mark.parametrize("number", scaled(1))
@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_group_that_is_started_again_finishes_in_time(how: str, number: int) -> None:
    assert not rank_fails(how, number, again=True)


@pytest.mark.parametrize("number", scaled(1))
def test_a_host_that_is_cut_off(number: int) -> None:
    if not can_make_hosts():
        pytest.skip("this process may not make network namespaces")
    assert not cut_off(number)
