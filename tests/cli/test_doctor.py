"""`timebox doctor`: the lines printed."""

import pytest

from timebox.diagnosis import Diagnosis
from timebox.diagnosis.disks import CacheContent, Disk
from timebox.diagnosis.findings import TrainingSpeed
from timebox.diagnosis.installation import Extra

from .conftest import Command, Replace

FOUND = Diagnosis(
    problems=("OMP_NUM_THREADS=1 limits training to 1 of 2 cores: unset it",),
    timebox="1.2.3",
    python="3.11.7 (CPython)",
    packages={"torch": "2.13.0", "numpy": None},
    extras=(Extra("onnx", {"onnx": "1.20"}, ()), Extra("serve", {"uvicorn": "0.3"}, ("starlette",))),
    system="Linux 6.1, x86_64",
    processor="AMD EPYC (family 25, model 1)",
    cores=2,
    usable_cores=2,
    memory_bytes=8_000_000_000,
    variables={"OMP_NUM_THREADS": "1"},
    disks=(Disk("runs", "./runs", 0.0123, 5_000_000_000), Disk("cache", None, error="this user has no home")),
    cache=CacheContent(3, 200_000_000),
    speed=TrainingSpeed("cpu", "AVX2", None, 1, "fp32", "airbench, width 16, 32 px", 723.4, 8.2),
)


@pytest.fixture(autouse=True)
def found(replace: Replace) -> None:
    replace("timebox.diagnosis", doctor=lambda: FOUND)


def test_problems_come_first(timebox: Command) -> None:
    outcome = timebox("doctor")
    assert outcome.status == 0
    assert (
        outcome.out
        == """\
  problem        OMP_NUM_THREADS=1 limits training to 1 of 2 cores: unset it

  timebox        1.2.3
  python         3.11.7 (CPython)
  torch          2.13.0
  numpy          not installed
  [onnx]         onnx 1.20
  [serve]        not installed: pip install 'timebox-vision[serve]'

  system         Linux 6.1, x86_64
  processor      AMD EPYC (family 25, model 1)
  cores          2 of 2
  memory         8.0 GB free
  environment    OMP_NUM_THREADS=1

  disk of runs   ./runs: a small file takes 12 ms, 5.0 GB free
  disk of cache  this user has no home
  cache          200.0 MB, 3 data sets; it may be deleted at any time

  device         cpu, 1 thread, AVX2, fp32 is fastest
  a minute buys  8 epochs of 5,000 images, 723 images/s
                 with airbench, width 16, 32 px
"""
    )


def test_for_programs(timebox: Command) -> None:
    values = timebox("doctor", "--json").json()
    assert values["problems"] == list(FOUND.problems)
    assert values["packages"] == {"torch": "2.13.0", "numpy": None}
