"""Pretrained features: finding their weights, extracting them, and fitting a linear head to them.

A network of other people's, trained on a million photos, gives features on which a linear head is accurate where a data
set has few images. Its weights are never changed.
"""
