"""Miniatures of public image data sets in their published layouts, and what load_data owes for each."""
