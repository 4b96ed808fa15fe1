"""Pretrained classifiers: finding published weights, extracting features, fitting a linear head, and fine-tuning.

A network that was trained on a million photos gives features on which a linear head is accurate where a data set has
few images. Its first blocks stay as published; the last ones are fine-tuned. The network that is trained from
scratch is not here.
"""
