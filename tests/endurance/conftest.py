"""Kills, faults and deadlines, in real trainings: minutes of them, on Linux, and only where this folder is asked for.

`pytest tests/endurance` runs these, `make endurance` a little more; ENDURANCE_SCALE sets how many random trials.
"""

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("signals, /proc and network namespaces as on Linux", allow_module_level=True)
