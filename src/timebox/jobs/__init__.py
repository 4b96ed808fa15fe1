"""A training job put together and carried out: data, plan and config in, a finished run directory out.

This is what ``train``, ``resume``, ``replay`` and the worker ranks share. Verbs and their arguments live in
``pipelines``, the parts of the loop in ``training``.
"""
