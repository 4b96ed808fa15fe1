"""The server of `timebox serve`: pictures of all clients are predicted together, explained, and kept when corrected.

``app`` has a function for each path, ``batching`` gathers images, ``onnx_engine`` exchanges torch for ONNX Runtime
where that is faster. Requests are not read here.
"""
