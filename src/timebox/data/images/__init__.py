"""Decodes and resizes images: image files with Pillow, and batches with tensor operations that can be exported.

One image or one batch at a time, without a data set. Which files belong to a data set is not decided here but in
``data.formats``.
"""
