"""Triton kernels for NVIDIA GPUs, and the choice between them and torch's own operations.

Each kernel has an equal in plain torch that it is tested against. Networks call :mod:`dispatch`, never a kernel.
"""
