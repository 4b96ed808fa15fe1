"""Evaluation: inference, test-time augmentation, metrics and calibration.

No function reads a clock unless the caller passes a time limit. None trains, reads files or writes files.
"""
