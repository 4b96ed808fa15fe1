"""Readers of table files: CSV, TSV, JSON Lines and Parquet.

Each returns a ``Table``, the cells by column. Which columns hold images, labels and splits does not belong here.
"""
