"""The package as mkdocstrings reads it: Sphinx roles become links, examples blocks of code, and arguments that share a
text get it each."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:func|class|meth|mod|attr):`(~?)([\w.]+)`")
_SHARED = re.compile(r"^( +)(\w+(?:,\s+\w+)+): (.*(?:\n\1 +.*)*)", re.MULTILINE)
_SECTION = re.compile(r"^ *(?:Args|Attributes|Raises):\n(?:(?: +.*)?\n?)*", re.MULTILINE)
_SECTION_START = re.compile(r"(?<=[^\n])\n(?=(?:Args|Attributes|Returns|Raises):\n)")
_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


class PublicNames(griffe.Extension):
    """Rewrites the docstring of every object that griffe finds, and leads public names to functions.

    ``timebox.train`` stands for a function of a module of the same name, which griffe takes for the module.
    """

    def on_object(self, *, obj: griffe.Object, **rest: Any) -> None:
        if obj.docstring is not None:
            text = _SECTION.sub(lambda section: _SHARED.sub(_one_each, section[0]), obj.docstring.value)
            text = _SECTION_START.sub("\n\n", text)  # griffe takes what follows no empty line for a text
            text = _EXAMPLE.sub(r"```pycon\n\g<0>\n```", text)
            obj.docstring.value = _ROLE.sub(_link, text)

    def on_package(self, *, pkg: griffe.Module, **rest: Any) -> None:
        for name, member in list(pkg.members.items()):
            if (
                member.is_alias
                and member.target_path.startswith(pkg.path)
                and member.target.is_module
                and name in member.target.members
            ):
                pkg.members[name] = griffe.Alias(name, member.target.members[name], parent=pkg)


def _one_each(shared: "re.Match[str]") -> str:
    indent, names, text = shared.groups()
    return "\n".join(f"{indent}{name}: {text}" for name in re.split(r",\s+", names))


def _link(role: "re.Match[str]") -> str:
    name = role[2]
    shown = name.rpartition(".")[2] if role[1] else name
    return f"[`{shown}`][{name}]" if re.fullmatch(r"timebox\.\w+", name) else f"`{shown}`"
