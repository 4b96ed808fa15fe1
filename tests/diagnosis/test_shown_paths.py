"""The home directory is a tilde wherever it stands."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from timebox.diagnosis.shown_paths import shown_path, without_home


def test_the_home_directory_is_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, link = tmp_path / "ada", tmp_path / "link"
    home.mkdir()
    link.symlink_to(home)
    for path in (home, link):
        monkeypatch.setenv("HOME", str(path))
        assert shown_path(path / "runs") == "~/runs"
        assert without_home(f"dlopen({home}/x.so), {path}: no") == "dlopen(~/x.so), ~: no"
        assert without_home(f"{home}lovelace/x") == f"{home}lovelace/x"


def test_the_home_of_the_list_of_users_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pwd = pytest.importorskip("pwd", reason="this system has no list of users")
    monkeypatch.setattr(pwd, "getpwuid", lambda number: SimpleNamespace(pw_dir="/homes/ada"))
    monkeypatch.setenv("HOME", "")
    assert without_home("/homes/ada/.cache") == "~/.cache"


@pytest.mark.parametrize("home", ["/", ""])
def test_a_home_that_is_everywhere_is_not_replaced(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", home)
    assert without_home("/usr/lib") == "/usr/lib"


def test_names_that_a_terminal_would_obey_are_escaped() -> None:
    assert shown_path(Path("a\x1b[31m")) == r"a\x1b[31m"
