"""Decodes and resizes images: image files with Pillow, and batches with tensor operations that can be exported.

One image or one batch at a time, without a data set. ``data.formats`` decides which files belong to a data set.
"""
