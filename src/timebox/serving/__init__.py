"""Serving a run over HTTP: a page to try its model on pictures, and an API.

Requests are read within limits in ``bodies``, pictures of all clients are predicted together in ``batching``, and
``app`` has a function for each path. The pages are files in ``pages``. Nothing here trains, and nothing that comes over
the network is used as a path or an address.
"""
