"""The faults a training is put through: one module for each kind.

A function that makes one trial returns what was wrong afterwards, an empty text where nothing was. The tests beside
this folder assert that; ``rows`` in each module counts many trials for the table of ``faults.py``.
"""
