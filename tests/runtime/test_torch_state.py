"""Allocator settings: freed memory stays with the process inside the context, and is released afterwards."""

import os
import resource
import subprocess
import sys

import pytest

from timebox.runtime import torch_state
from timebox.runtime.torch_state import retain_freed_memory

needs_glibc = pytest.mark.skipif(torch_state._glibc() is None, reason="the C library is not glibc")

# Page faults of allocating and touching 64 MB ten times over, and the memory held after that, in pages.
FAULTS = """
import resource, torch
from timebox.runtime.torch_state import retain_freed_memory

def allocate(times):
    for _ in range(times):
        torch.ones(16_000_000)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    allocate(10)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    return int(open("/proc/self/statm").read().split()[1])

torch.set_num_threads(1)
outside, before = faults(), held()
with retain_freed_memory():
    # torch's aligned blocks fit into freed memory once a few freed blocks are adjacent.
    allocate(20)
    inside, retained = faults(), held()
print(outside, inside, retained - before, held() - before)
"""


def page_faults_and_memory(**environment: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env={**_clean(), **environment}
    )
    return [int(word) for word in done.stdout.split()]


def _clean() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "THP_"))}


@needs_glibc
@pytest.mark.integration
def test_freed_memory_is_reused_inside_and_released_afterwards() -> None:
    outside, inside, retained, afterwards = page_faults_and_memory()
    pages = 64_000_000 // resource.getpagesize()
    assert outside > 0.5 * 10 * pages
    assert inside < 0.05 * outside
    assert retained > 0.5 * pages
    assert afterwards < 0.1 * pages


@needs_glibc
@pytest.mark.integration
def test_a_malloc_setting_of_the_user_stays() -> None:
    outside, inside, _, _ = page_faults_and_memory(MALLOC_TRIM_THRESHOLD_="100000")
    assert inside > 0.5 * outside


def test_with_another_c_library_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_state, "_glibc", lambda: None)
    with retain_freed_memory():
        pass


def test_settings_are_restored_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def __init__(self) -> None:
            self.set: dict[int, int] = {}
            self.trimmed = 0

        def mallopt(self, option: int, value: int) -> int:
            self.set[option] = value
            return 1

        def malloc_trim(self, pad: int) -> int:
            self.trimmed += 1
            return 1

    library = Library()
    monkeypatch.setattr(torch_state, "_glibc", lambda: library)
    for name in torch_state._USER_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(KeyError), retain_freed_memory():
        assert library.set == torch_state._RETAIN
        raise KeyError
    assert (library.set, library.trimmed) == (torch_state._DEFAULTS, 1)
