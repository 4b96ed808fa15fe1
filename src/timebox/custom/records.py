"""The user's code that a run was trained with: what is recorded of it, and when it may be imported."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Annotated

from msgspec import Meta, Struct

from timebox.custom.names import CODE_FIELDS, OPTION_OF, code_names, find, give, name_of, source_sha256, trust
from timebox.errors import UsageError

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class CodeRecord(Struct, frozen=True, kw_only=True):
    """Code of the user's that a run was trained with.

    Attributes:
        name: ``package.module:function``; ``given:…`` for an object that no name leads to.
        source_sha256: SHA-256 of its source file; null where it has none.
    """

    name: str
    source_sha256: Sha256 | None = None


def code_records(recipe: Mapping[str, object]) -> dict[str, CodeRecord]:
    """Records of the code that a recipe's fields name, by field."""
    return {
        field: CodeRecord(name=name, source_sha256=source_sha256(name)) for field, name in code_names(recipe).items()
    }


def use_code(
    recipe: Mapping[str, object],
    records: Mapping[str, CodeRecord],
    given: Mapping[str, object],
    trust_code: bool,
    fields: Iterable[str],
) -> None:
    """Allow this process to use the code that a run's recipe names. A warning says where a source file has changed.

    Args:
        recipe: its fields.
        records: of the run.
        given: what the names stand for, by recipe field: functions, modules or names. None for none.
        trust_code: whether the names may be imported.
        fields: the recipe fields whose code is needed.
    Raises:
        UsageError: for code in place of something that is built in.
    """
    names = code_names(recipe)
    for field, code in given.items():
        if code is None:
            continue
        if field not in names:
            raise UsageError(f"{OPTION_OF[field]} cannot be given: the run's is {recipe[field]!r}, which is built in")
        give(names[field], find(name_of(code, field), field))
    for field, name in names.items():
        if field not in fields:
            continue
        if trust_code:
            trust([name])
            find(name, field)
        recorded = records[field].source_sha256 if field in records else None
        if (trust_code or given.get(field) is not None) and recorded not in (None, source_sha256(name)):
            warnings.warn(
                f"the source file of the {CODE_FIELDS[field]} {name!r} has changed since the run was trained",
                stacklevel=3,
            )
