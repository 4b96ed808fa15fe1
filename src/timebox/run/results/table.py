"""Columns as a pandas DataFrame where pandas is installed, as a dict of arrays where it is not."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Column: TypeAlias = NDArray[Any]
# A pandas.DataFrame, or a dict[str, Column]. pandas is no dependency, so its type has no name here.
Table: TypeAlias = Any


def to_table(columns: Mapping[str, Column]) -> Table:
    """A table with these columns of equal length, whose order and dtypes are kept.

    Texts are columns of dtype object, which holds any Python text. The text types of pandas refuse a file name that is
    not UTF-8, and NumPy's drops null characters at the end of a text and takes the room of the longest for each.

    Returns:
        A ``pandas.DataFrame`` with the index 0, 1, 2, … where pandas can be imported, else a dict of arrays.
    """
    try:
        pandas = import_module("pandas")
    except (ImportError, AttributeError, ValueError):  # the last two where it was built for another NumPy
        return dict(columns)
    # A Series of a given dtype: pandas would infer a text type from an array of objects.
    return pandas.DataFrame({name: pandas.Series(column, dtype=column.dtype) for name, column in columns.items()})


def as_objects(names: Sequence[str]) -> Column:
    """Texts as an array of dtype object (N,)."""
    array = np.empty(len(names), object)
    array[:] = names
    return array
