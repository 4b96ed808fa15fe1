"""NumPy arrays on disk: safe readers for .npy and .npz, memory maps, and the cache of decoded images.

Bytes and arrays only, not data sets. Readers in ``data.formats`` decide which arrays are images or labels.
"""
