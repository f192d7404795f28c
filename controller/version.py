"""Which version of this program runs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def program() -> str:
    """As it was installed."""
    try:
        return version("packwarden")
    except PackageNotFoundError:
        return "not installed"
