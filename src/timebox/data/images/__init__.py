"""Decodes and resizes images: image files with Pillow, and batches with tensor operations that can be exported.

Readers in ``data.formats`` decide which files belong to a data set.
"""
