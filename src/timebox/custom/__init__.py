"""Code of the user's that stands in for a part of a recipe: a network, an augmentation, a loss or an optimizer.

A recipe names such code ``package.module:function``. Code is used where the user has given it to this process: as an
object, by name, or by trusting a run. A name that was only read from a file is never imported. What the code is called
with is in ``builders`` and ``models.own``; nothing here imports torch or knows what a network is.
"""

from timebox.custom.import_name import import_by_name
from timebox.custom.names import (
    CODE_FIELDS,
    OPTION_OF,
    Code,
    check_importable,
    code_names,
    find,
    give,
    is_code,
    is_code_name,
    is_known,
    name_of,
    named_in_errors,
    needs_two,
    source_sha256,
    trust,
)
from timebox.custom.records import CodeRecord, code_records, use_code

__all__ = [
    "CODE_FIELDS",
    "OPTION_OF",
    "Code",
    "CodeRecord",
    "check_importable",
    "code_names",
    "code_records",
    "find",
    "give",
    "import_by_name",
    "is_code",
    "is_code_name",
    "is_known",
    "name_of",
    "named_in_errors",
    "needs_two",
    "source_sha256",
    "trust",
    "use_code",
]
