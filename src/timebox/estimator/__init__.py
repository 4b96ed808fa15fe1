"""A classifier of images for scikit-learn's pipelines, searches and cross-validation.

It takes arrays, tables of pixels, files and images of Pillow, and trains by :func:`timebox.train`. No pickle is
written: a fitted one is saved as a run with its labels. How images become batches is in :mod:`timebox.data`, and the
training of folders, with validation and a report, in :mod:`timebox.pipelines`.
"""

from timebox.estimator.classifier import TimeboxClassifier

__all__ = ["TimeboxClassifier"]
