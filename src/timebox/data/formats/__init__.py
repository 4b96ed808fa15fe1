"""The data formats that timebox reads, one file each.

To add one, write a file here and add it to ``_UNPACKED``; see docs/guides/adding-a-reader.md. Code that several formats
share does not belong here but in ``data.reading``.
"""

from timebox.data.formats.archive import Archive
from timebox.data.formats.cifar import Cifar
from timebox.data.formats.detect import Format, detect
from timebox.data.formats.folder import Folder
from timebox.data.formats.idx import Idx
from timebox.data.formats.npz import Npz
from timebox.data.formats.tables import Tables

# In the order they are tried: the most specific first, and last the folder, which matches nearly any directory.
_UNPACKED: tuple[Format, ...] = (Cifar(), Idx(), Npz(), Tables(), Folder())
FORMATS: tuple[Format, ...] = (*_UNPACKED[:-1], Archive(_UNPACKED), _UNPACKED[-1])

__all__ = ["FORMATS", "Format", "detect"]
