"""What several data formats share: listing folders, finding files, tables' columns, and reading files without trust.

No module here knows one format; each format is a file in ``data.formats``.
"""
