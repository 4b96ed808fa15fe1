"""Tables that name images and their labels: CSV, TSV, JSON Lines and Parquet.

The file readers return a ``Table`` of cells; ``find_columns`` says which columns hold images, labels and splits, and
``ImagePaths`` finds the files that cells name. Folders without tables do not belong here.
"""
