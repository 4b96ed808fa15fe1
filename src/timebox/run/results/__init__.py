"""Results of a run as data and as text: predictions, mistakes, curves, a line for ``repr``, a table for notebooks.

All of it comes from the files of the run; :class:`timebox.run.Run` has the methods. No network is loaded here, and no
image is read.
"""
