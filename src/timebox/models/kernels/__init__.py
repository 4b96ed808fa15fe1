"""Triton kernels for NVIDIA GPUs, and the dispatch between them and torch's own operations.

Each kernel is tested against the same computation in plain torch. Networks call :mod:`dispatch`, never a kernel.
"""
