"""From a network to numbers: inference, test-time augmentation, metrics and calibration.

All of it is untimed unless the caller passes a time limit. Nothing here trains, reads files or writes them.
"""
