"""NumPy arrays on disk: .npy and .npz files read without trust, memory maps, and the cache of decoded images.

Everything here is about bytes and arrays. What the arrays mean, images or labels, is decided by the callers.
"""
