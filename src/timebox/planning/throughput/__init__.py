"""Throughput of training steps: measured on this machine, alone or on all ranks at once, and remembered between runs.

Steps are timed here, of training and of scoring. Which network is trained is not decided here, but in
:mod:`timebox.planning.selection`.
"""
