"""Predictions of a run for image files, and explanations: where an image has what speaks for a class.

:class:`timebox.run.Run` has the methods, and predicts arrays itself. Nothing is written here.
"""
