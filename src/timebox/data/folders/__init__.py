"""The meaning of folders of images: which are classes, which are splits, and which are neither.

``scan`` lists a source once; ``find_layout`` assigns its images to splits and classes, or raises DataError where two
readings are plausible. Decoding images and reading tables do not belong here.
"""
