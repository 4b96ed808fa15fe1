"""Tests of the programs in benchmarks/, which are no part of the package."""
