"""Decodes and resizes images: image files with Pillow, and batches with tensor operations that can be exported.

One image or one batch at a time, not data sets. Readers in ``data.formats`` decide which files belong to a data set.
"""
