"""Code shared by the data formats: read options, folder listings, table columns, image decoding and safe parsers.

Files are read without trusting them. No module here is about one format; each format is a file in ``data.formats``.
"""
