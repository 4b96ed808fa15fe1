"""Passwords in URLs of databases, however they are written."""

import pytest

from timebox.configs.storage_url import hide_passwords, is_same_storage, is_url, without_password
from timebox.errors import TimeboxError, without_passwords

SECRET = "hunter2"
# How a password gets into a URL, and what is shown.
URLS = [
    ("postgresql://me:hunter2@host/searches", "postgresql://me:***@host/searches"),
    ("postgresql+psycopg://me:hunter2@host:5432/searches", "postgresql+psycopg://me:***@host:5432/searches"),
    ("mysql://me:hunter2@[::1]:3306/searches", "mysql://me:***@[::1]:3306/searches"),
    ("redis://:hunter2@host/0", "redis://:***@host/0"),
    ("mysql://me:p@hunter2@host/searches", "mysql://me:***@host/searches"),
    ("mysql://me:a/hunter2@host/searches", "mysql://me:***@host/searches"),
    ("mysql://me:hunter2/a@host/searches", "mysql://me:***@host/searches"),
    ("mysql://me:a?hunter2@host/searches", "mysql://me:***@host/searches"),
    ("mysql://me:a#hunter2@host/searches", "mysql://me:***@host/searches"),
    ("mysql://me:hunter2:b@host/searches", "mysql://me:***@host/searches"),
    ("mysql://me:a b hunter2@host/searches", "mysql://me:***@host/searches"),
    ("mysql://me:it's hunter2@host/searches", "mysql://me:***@host/searches"),
    ('mysql://me:"hunter2"@host/searches', "mysql://me:***@host/searches"),
    ("mysql://me:a\nhunter2@host/searches", "mysql://me:***@host/searches"),
    ("mysql://me%40firm:hunter2@host/searches", "mysql://me%40firm:***@host/searches"),
    ("mysql://me@firm:hunter2@host/searches", "mysql://me@firm:***@host/searches"),
    ("postgresql://host/searches?user=me&password=hunter2", "postgresql://host/searches?user=me&password=***"),
    ("postgresql://host/searches?PASSWORD=hunter2&x=1", "postgresql://host/searches?PASSWORD=***&x=1"),
    ("postgresql://host/searches?p%61ssword=hunter2", "postgresql://host/searches?p%61ssword=***"),
    ("mysql://me@host/searches?passwd=hunter2", "mysql://me@host/searches?passwd=***"),
    ("mysql://me@host/searches?pwd=hunter2", "mysql://me@host/searches?pwd=***"),
    ("mysql://me@host/searches?pass=hunter2", "mysql://me@host/searches?pass=***"),
    ("postgresql://me@host/searches?sslpassword=hunter2", "postgresql://me@host/searches?sslpassword=***"),
    ("postgresql://me@host/searches?token=hunter2", "postgresql://me@host/searches?token=***"),
    ("postgresql://me@host/searches?access_token=hunter2", "postgresql://me@host/searches?access_token=***"),
    ("postgresql://me@host/searches?api_key=hunter2", "postgresql://me@host/searches?api_key=***"),
    ("postgresql://me@host/searches?apikey=hunter2", "postgresql://me@host/searches?apikey=***"),
    ("postgresql://me@host/searches?client_secret=hunter2", "postgresql://me@host/searches?client_secret=***"),
    ("postgresql://me@host/searches?passphrase=hunter2", "postgresql://me@host/searches?passphrase=***"),
    ("postgresql://me:hunter2@host/searches?password=hunter2", "postgresql://me:***@host/searches?password=***"),
    (
        "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BSERVER%3Dhost%3BPWD%3Dhunter2",
        "mssql+pyodbc:///?odbc_connect=***",
    ),
    ("postgresql://host/searches?x=1;password=hunter2", "postgresql://host/searches?x=1;password=***"),
    ("sqlite:////tmp/a.db?key_secret=hunter2", "sqlite:////tmp/a.db?key_secret=***"),
    ("postgresql:me:hunter2@host/searches", "postgresql:***@host/searches"),
    ("me:hunter2@host/searches", "me:***@host/searches"),
    ("host=h user=me password=hunter2", "host=h user=me password=***"),
    ("host=h user=me password='a hunter2'", "host=h user=me password=***"),
]
PLAIN = [
    "postgresql://host/searches",
    "postgresql://me@host:5432/searches",
    "postgresql://host:5432/searches?sslmode=require",
    "sqlite:////tmp/a.db",
    "postgresql://me@[::1]:5432/searches",
    "",
]


@pytest.mark.parametrize(("url", "shown"), URLS)
def test_passwords_are_hidden(url: str, shown: str) -> None:
    assert without_password(url) == shown
    assert without_password(shown) == shown
    for text in (f"cannot open {url!r}: no", f"{url}: {SECRET} is wrong", f"({SECRET})"):
        assert SECRET not in hide_passwords(text, url)


@pytest.mark.parametrize("url", [*PLAIN, "runs/tune/journal.log"])
def test_urls_without_a_password_stay_as_they_are(url: str) -> None:
    assert without_password(url) == url
    assert hide_passwords(f"a text of {url} and more", url) == f"a text of {url} and more"


def test_passwords_are_hidden_as_they_are_meant_and_as_they_are_written() -> None:
    url = "postgresql://me:hunter%202@host/x?token=a%2Bb%2Bc%2Bd"
    text = hide_passwords("hunter 2, hunter%202, a+b+c+d and a%2Bb%2Bc%2Bd", url)
    assert text == "***, ***, *** and ***"
    assert hide_passwords("a cat at me: a, 'a'", "x://me:a@host/x") == "*** cat at me: ***, '***'"


def test_a_password_that_is_the_name_of_a_user_and_a_database_hides_neither() -> None:
    url = "postgresql://postgres:postgres@localhost/postgres"
    shown = "postgresql://postgres:***@localhost/postgres"
    assert hide_passwords(f"{url!r}: wrong password postgres", url) == f"{shown!r}: wrong password ***"
    assert hide_passwords(f"{shown!r}: no", url) == f"{shown!r}: no"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a 'postgresql://me:p@h/x' and a 'postgresql://me:q@h/y'.", "a 'postgresql://me:***@h/x' and a 'postgresql://me:***@h/y'."),
        ("postgresql:/me:p@h/x is no file", "postgresql:/me:***@h/x is no file"),
        ("see https://example.com/a?b=c for more", "see https://example.com/a?b=c for more"),
        ("https://host/x?a=1&auth_token=p&b=2", "https://host/x?a=1&auth_token=***&b=2"),
        ("photos/a@b.png and C:/photos/x: no", "photos/a@b.png and C:/photos/x: no"),
    ],
)  # fmt: skip
def test_passwords_in_any_text(text: str, shown: str) -> None:
    assert without_passwords(text) == shown
    assert str(TimeboxError(text)) == shown


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("postgresql://me:hunter2@host/x", "postgresql://me:***@host/x"),
        ("postgresql://me:hunter2@host/x", "postgresql://me@host/x"),
        ("postgresql+psycopg://me@host/x", "postgresql://me@host/x"),
        ("postgresql://host/x?user=me&password=p", "postgresql://host/x?password=***&user=me"),
        ("mysql://me@firm:hunter2@host/x", "mysql://me@firm@host/x"),
        ("mysql://me%40firm:hunter2@host/x", "mysql://me@firm:***@host/x"),
    ],
)
def test_the_same_database_is_known_again(one: str, other: str) -> None:
    assert is_same_storage(one, other)
    assert is_same_storage(other, one)


@pytest.mark.parametrize(
    "other",
    [
        "postgresql://me:p@elsewhere/x", "postgresql://me:p@host/y", "postgresql://you:p@host/x", "mysql://me:p@host/x",
        "postgresql://me:p@host:6543/x", "postgresql://me:p@host/x?sslmode=disable", "postgresql://host/x",
    ],
)  # fmt: skip
def test_other_databases_are_others(other: str) -> None:
    assert not is_same_storage("postgresql://me:p@host/x", other)


def test_urls_are_distinguished_from_paths() -> None:
    assert is_url("postgresql://host/name")
    assert not is_url("runs/tune/journal.log")
