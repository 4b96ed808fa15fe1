"""Carrying out a training job: data, plan and config in, a finished run directory out.

Shared by ``train``, ``resume``, ``replay`` and the worker ranks. The verbs are in ``pipelines``, the training loop in
``training``.
"""
