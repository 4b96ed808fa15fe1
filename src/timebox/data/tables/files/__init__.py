"""Reads the files of tables to a ``Table`` of cells by column. What the columns mean does not belong here."""
