"""Objects that the user names: found in the current folder or among packages, and each refusal."""

import os
import sys
from pathlib import Path

import pytest

from timebox.custom.import_name import import_by_name
from timebox.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which is not on sys.path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def refusal(name: str) -> str:
    with pytest.raises(UsageError) as caught:
        import_by_name(name, "network")
    return str(caught.value)


def test_a_module_of_the_current_folder(folder: Path) -> None:
    (folder / "naming_a.py").write_text("class Net:\n    @classmethod\n    def small(cls):\n        return cls()\n")
    before = list(sys.path)
    found = import_by_name("naming_a:Net", "network")
    assert getattr(found, "__name__", "") == "Net"
    assert callable(import_by_name("naming_a:Net.small", "network"))
    assert sys.path == [*before, str(folder)], "it stays, after all libraries"


def test_the_current_folder_comes_before_packages_while_the_module_is_imported(folder: Path) -> None:
    package = folder / "elsewhere"
    package.mkdir()
    (package / "naming_b.py").write_text("value = 'installed'\n")
    sys.path.insert(0, str(package))
    (folder / "naming_b.py").write_text("value = 'of the current folder'\n")
    assert import_by_name("naming_b:value", "network") == "of the current folder"


def test_what_a_module_imports_later_is_found(folder: Path) -> None:
    (folder / "naming_c.py").write_text("def make():\n    import naming_helper\n    return naming_helper.value\n")
    (folder / "naming_helper.py").write_text("value = 5\n")
    make = import_by_name("naming_c:make", "network")
    assert callable(make)
    assert make() == 5


def test_a_package(folder: Path) -> None:
    (folder / "naming_package" / "inner").mkdir(parents=True)
    (folder / "naming_package" / "inner" / "nets.py").write_text("Net = 5\n")
    assert import_by_name("naming_package.inner.nets:Net", "network") == 5
    assert import_by_name("os.path:join", "network") is os.path.join


@pytest.mark.parametrize(
    "name", ["nets", "nets.Net", ":Net", "nets:", "a b:Net", "nets:Net()", "/x/nets:Net", "nets:Net:x", ""]
)
def test_names_of_another_form(folder: Path, name: str) -> None:
    assert refusal(name) == f"the network {name!r} must be written package.module:Name, as in my_code:MyName"


def test_a_file_in_place_of_a_module(folder: Path) -> None:
    (folder / "naming_e.py").write_text("Net = 5\n")
    assert refusal("naming_e.py:Net").startswith(
        "the network 'naming_e.py:Net' cannot be imported: there is no module 'naming_e.py' in the current folder"
    )


def test_a_module_that_is_not_there(folder: Path) -> None:
    expected = "in the current folder or among the installed packages"
    assert refusal("naming_none:Net") == (
        f"the network 'naming_none:Net' cannot be imported: there is no module 'naming_none' {expected}"
    )
    assert f"there is no module 'os.naming_none' {expected}" in refusal("os.naming_none:Net")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import naming_missing\n", "ModuleNotFoundError: No module named 'naming_missing'"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("def broken(:\n", "SyntaxError: invalid syntax"),
    ],
)
def test_a_module_that_fails(folder: Path, source: str, reason: str) -> None:
    name = f"naming_failing_{abs(hash(source))}"
    (folder / f"{name}.py").write_text(source)
    assert refusal(f"{name}:Net").startswith(
        f"the network '{name}:Net' cannot be imported: importing {name} failed with {reason}"
    )
    assert sys.path[-1] == str(folder)


def test_a_name_that_the_module_lacks(folder: Path) -> None:
    (folder / "naming_d.py").write_text("class Network: pass\n")
    assert refusal("naming_d:Netwrk") == (
        "the network 'naming_d:Netwrk' is not there: naming_d has no 'Netwrk'; did you mean 'Network'?"
    )
    assert refusal("naming_d:Network.x").endswith("naming_d has no 'x'")


def test_without_a_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def removed() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(os, "getcwd", removed)
    assert import_by_name("os:sep", "network") == os.sep
