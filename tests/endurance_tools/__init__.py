"""Tests of what tests/endurance/ is made of, quick enough for `make test`."""
