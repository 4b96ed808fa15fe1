"""The end of a job whose weights are on disk: scores, predictions, the report and its images, and the summary.

Each file but the summary is left out where time or disk do not allow it before the deadline. Training and its
checkpoints are in ``timebox.jobs``, the page itself is in ``timebox.reporting``, and the files are written by
``timebox.run.writer``.
"""
