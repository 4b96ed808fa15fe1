"""Servers with a page in the browser: to try a run on pictures, and to watch a training.

``http`` has what both need: reading requests within limits, who may ask, listening and ending. ``predictions`` answers
`timebox serve`, ``watching`` answers `timebox watch`, and the pages are files in ``pages``. Nothing here trains, and
nothing that comes over the network is used as a path or an address.
"""
