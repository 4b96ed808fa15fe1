"""The formats timebox reads, one file each. A new one is a file beside these and a line in FORMATS."""

from timebox.data.formats.base import Format, ReadOptions
from timebox.data.formats.cifar import Cifar
from timebox.data.formats.digits import read_digits
from timebox.data.formats.folder import Folder
from timebox.data.formats.idx import Idx
from timebox.data.formats.npz import Npz

# In the order they are tried: the most particular first, the folder, which nearly any directory resembles, last.
FORMATS: tuple[Format, ...] = (Cifar(), Idx(), Npz(), Folder())

__all__ = ["FORMATS", "Format", "ReadOptions", "read_digits"]
