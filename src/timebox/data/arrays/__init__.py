"""NumPy arrays on disk: safe readers for .npy and .npz, memory maps, and the cache of decoded images.

Everything here is about bytes and arrays; ``data.formats`` decides which arrays are images or labels.
"""
