"""Decoding image files, and bringing images to one size.

One image at a time, on the CPU. Which files belong to a data set is decided by ``data.formats``.
"""
