"""Evaluation: inference, test-time augmentation, scoring of splits, metrics and calibration.

A function reads a clock only where the caller passes a time limit. Nothing here trains, and no file is read or written.
"""
