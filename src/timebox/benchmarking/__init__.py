"""Benchmarks: recipes compared in repeated, interleaved trials, and time to accuracy."""

from timebox.benchmarking.benchmark import Benchmark, benchmark

__all__ = ["Benchmark", "benchmark"]
