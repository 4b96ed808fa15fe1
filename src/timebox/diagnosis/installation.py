"""The packages that are installed, by the metadata that pip left: nothing is imported."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from timebox.file_versions import DISTRIBUTION

# Packages whose versions a bug report needs.
PACKAGES = ("torch", "numpy", "pillow", "scikit-learn", "safetensors")
# Extras that are for those who work on timebox.
DEVELOPER_EXTRAS = {"dev", "docs", "fuzz", "release"}
OTHER_PROJECT = "timebox"
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)[^;]*;.*\bextra == ['\"](?P<extra>[\w-]+)['\"]")


@dataclass(frozen=True)
class Extra:
    """An optional part of timebox.

    Attributes:
        installed: version of each of its packages that is installed, by name.
        missing: names of the others.
    """

    name: str
    installed: Mapping[str, str]
    missing: tuple[str, ...]


def installed_version(package: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def package_versions() -> dict[str, str | None]:
    """The versions of the packages in :data:`PACKAGES`."""
    return {package: installed_version(package) for package in PACKAGES}


def extras(requirements: list[str] | None = None) -> list[Extra]:
    """The extras of timebox, and what of them is installed.

    Args:
        requirements: as a package's metadata have them; None for those of timebox, none where it was not installed.
    """
    if requirements is None:
        try:
            requirements = requires(DISTRIBUTION) or []
        except PackageNotFoundError:
            requirements = []
    packages: dict[str, list[str]] = {}
    for requirement in requirements:
        if (found := _REQUIREMENT.match(requirement)) and found["name"] != DISTRIBUTION:
            packages.setdefault(found["extra"], []).append(found["name"])
    return [_extra(name, names) for name, names in packages.items() if name not in DEVELOPER_EXTRAS]


def _extra(name: str, packages: list[str]) -> Extra:
    versions = {package: installed_version(package) for package in packages}
    installed = {package: found for package, found in versions.items() if found}
    return Extra(name, installed, tuple(package for package, found in versions.items() if not found))


def installation_problems() -> Iterator[str]:
    """A sentence for each thing that is wrong with the installation, and what to do."""
    if found := installed_version(OTHER_PROJECT):
        yield (
            f"a package named {OTHER_PROJECT} {found} is installed, which is another project and may hide this one: "
            f"pip uninstall {OTHER_PROJECT}, then pip install --force-reinstall --no-deps {DISTRIBUTION}"
        )
