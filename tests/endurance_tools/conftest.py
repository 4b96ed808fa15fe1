"""The modules in tests/endurance/ import each other by their bare names."""

import sys
from pathlib import Path

ENDURANCE = Path(__file__).parents[1] / "endurance"
sys.path.append(str(ENDURANCE))
