"""NumPy arrays on disk: safe readers for .npy and .npz, memory maps, and the cache of decoded images.

Everything here is about bytes and arrays. Readers in ``data.formats`` decide which arrays are images or labels.
"""
