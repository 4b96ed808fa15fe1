"""Carrying out a training job: data, plan and config in, a finished run directory out.

``train``, ``resume``, ``replay`` and the worker ranks share it. The verbs and their arguments do not belong here but in
``pipelines``, the training loop in ``training``.
"""
