"""Runs under a deadline, disturbed and timed from outside."""
