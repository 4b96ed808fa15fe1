"""Data-parallel processes: the process group, its messages, heartbeats and rank failures.

A training on one process uses the same interface and sends nothing. ``training`` computes between the messages;
``jobs`` defines their contents.
"""
