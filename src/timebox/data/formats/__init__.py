"""The formats timebox reads, one file each. A new one is a file beside these and a line in _UNPACKED."""

from timebox.data.formats.archive import Archive
from timebox.data.formats.base import Format, ReadOptions
from timebox.data.formats.cifar import Cifar
from timebox.data.formats.detect import detect
from timebox.data.formats.digits import read_digits
from timebox.data.formats.folder import Folder
from timebox.data.formats.idx import Idx
from timebox.data.formats.npz import Npz
from timebox.data.formats.tables import Tables

# In the order they are tried: the most particular first, the folder, which nearly any directory resembles, last.
_UNPACKED: tuple[Format, ...] = (Cifar(), Idx(), Npz(), Tables(), Folder())
FORMATS: tuple[Format, ...] = (*_UNPACKED, Archive(_UNPACKED))

__all__ = ["FORMATS", "Format", "ReadOptions", "detect", "read_digits"]
